"""Music under the video's own sound.

    clip = prepare(media.open_sound(video), music, sample_rate, duration, settings, folder)
    (mix,) = finish([clip], settings)
    media.write_wav("mix.wav", mix.mix, mix.sample_rate)

detection.py finds speech, levels.py sets the levels, ducking.py makes the gain of the music, mixing.py does all of it.
settings.py holds the options and flags.py their flags, spans.py tells which hops of a meter lie in which spans,
stored.py keeps sound on disk, publishing.py writes the files. No model is needed.
"""
