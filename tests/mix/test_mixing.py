"""The mix, measured from outside: levels, peaks, exact sums, layouts and clocks."""

import numpy as np
import pyloudnorm
import pytest
from helpers import sounds, videos
from scipy.signal import resample_poly

from diff_v2m import media
from diff_v2m.mix.mixing import finish, prepare
from diff_v2m.mix.settings import MixSettings

STARTS = (3.0, 12.0)  # s, of the speech
SECONDS = 24.0
RATE = sounds.RATE


def talking(channels=2):
    audio = np.tile(sounds.talk(SECONDS, STARTS), (channels, 1))
    return audio + 1e-4 * np.random.default_rng(0).standard_normal(audio.shape).astype(np.float32)


def mixed(tmp_path, audio, *, rate=RATE, music=None, music_rate=44100, options=(), picture=None, **settings):
    video = sounds.write_video(tmp_path / "clip.mov", audio, rate, *options, picture=picture)
    duration = media.probe(video).duration
    music = sounds.chord(duration, music_rate, 2) if music is None else music
    settings = MixSettings(**settings)
    folder = tmp_path / "parts"
    folder.mkdir()
    (mix,) = finish([prepare(media.open_sound(video), music, music_rate, duration, settings, folder)], settings)
    return mix


def samples(part):
    return np.asarray(part[:, : part.shape[1]])


def spoken(audio, rate=RATE):
    words = len(sounds.speech(rate))
    return np.concatenate([audio[:, round(start * rate) :][:, :words] for start in STARTS], axis=1)


def lufs(audio, rate=RATE):
    return pyloudnorm.Meter(rate).integrated_loudness(audio.T.astype(np.float64))


def dbtp(audio):
    return 20 * np.log10(np.abs(resample_poly(audio.astype(np.float64), 4, 1, axis=1)).max())


def test_a_silent_track_beside_another_is_said(tmp_path, caplog):
    silent = sounds.write_video(tmp_path / "silent.mov", np.zeros((2, RATE)), RATE)
    tone = ["-f", "lavfi", "-i", "sine=440:d=1"]
    videos.ffmpeg("-i", silent, *tone, "-map", 0, "-map", 1, "-c:v", "copy", "-c:a", "pcm_s16le", tmp_path / "two.mov")
    for name, count in (("silent", 0), ("two", 1)):
        with caplog.at_level("WARNING"):
            prepare(media.open_sound(tmp_path / f"{name}.mov"), np.ones((1, RATE)), RATE, 1.0, MixSettings(), tmp_path)
        assert len(caplog.records) == count, name
    assert "two.mov: the sound track that players choose is silent, further tracks (1) are not used" in caplog.text


@pytest.mark.parametrize(("target", "under"), [(-23.0, 12.0), (-16.0, 18.0)])
def test_speech_is_at_the_target_and_music_below_it(tmp_path, target, under):
    mix = mixed(tmp_path, talking(), target=target, under=under)
    whole, music, original = map(samples, (mix.mix, mix.music, mix.original))
    assert lufs(spoken(whole)) == pytest.approx(target, abs=0.3)
    assert lufs(spoken(original)) - lufs(spoken(music)) == pytest.approx(under, abs=0.5)
    assert dbtp(whole) <= -1.0
    assert lufs(music[:, 22 * RATE : 23 * RATE]) == pytest.approx(target, abs=0.5)  # after the speech
    assert mix.figures["anchor"] == "speech" and mix.figures["span_share"] == pytest.approx(7.1 / SECONDS, abs=0.02)
    assert mix.figures["music_under"] == pytest.approx(under, abs=0.5)


def test_the_stems_add_up_to_the_mix_and_are_as_long_as_the_picture(tmp_path):
    mix = mixed(tmp_path, 8 * talking(), target=-8.0)  # the limiter works
    whole, music, original = (np.rint(samples(part) * 2**23).astype(int) for part in (mix.mix, mix.music, mix.original))
    np.testing.assert_array_equal(whole, music + original)
    assert whole.shape == (2, round(SECONDS * RATE))
    assert dbtp(samples(mix.mix)) <= -1.0


def test_mix_keeps_the_music_at_one_level(tmp_path):
    mix = mixed(tmp_path, talking(), video_sound="mix", under=6.0)
    music = samples(mix.music)
    assert lufs(spoken(samples(mix.original))) - lufs(music) == pytest.approx(6, abs=0.3)
    assert lufs(music[:, : 2 * RATE]) == pytest.approx(lufs(music[:, -2 * RATE :]), abs=0.1)


def test_music_of_the_video_is_no_speech(tmp_path):
    original = np.concatenate([sounds.chord(4, RATE, 2), 0.2 * sounds.chord(6, RATE, 2)], axis=1)
    mix = mixed(tmp_path, original, target=-20.0)
    assert mix.measured.spans == () and mix.figures["anchor"] == "programme"
    assert lufs(samples(mix.mix)) == pytest.approx(-20, abs=0.1)
    assert mix.balance.music.decibels == mix.balance.music.decibels[:1]


def test_music_goes_under_any_sound_if_asked(tmp_path):
    original = np.concatenate([sounds.chord(4, RATE, 2), 0.01 * sounds.chord(6, RATE, 2)], axis=1)
    mix = mixed(tmp_path, original, duck_under="sound")
    np.testing.assert_allclose(mix.measured.spans, [(0, 4)], atol=0.11)
    assert mix.figures["anchor"] == "sound" and mix.figures["music_under"] == pytest.approx(12, abs=0.5)


def test_the_dip_takes_2_to_4_khz_from_the_music_under_speech_only(tmp_path):
    def band(audio, hertz):
        spectrum = np.abs(np.fft.rfft(audio[0] * np.hanning(audio.shape[1])))
        return 20 * np.log10(spectrum[round(hertz * audio.shape[1] / RATE)])

    times = np.arange(round(SECONDS * 44100)) / 44100
    music = 0.1 * sum(np.sin(2 * np.pi * hertz * times) for hertz in (300, 2828))[None].astype(np.float32)
    audio = samples(mixed(tmp_path, talking(), music=music, dip=6.0).music)
    under, between = audio[:, 4 * RATE : 5 * RATE], audio[:, 9 * RATE : 10 * RATE]
    assert band(under, 2828) - band(under, 300) == pytest.approx(-6, abs=0.2)
    assert band(between, 2828) - band(between, 300) == pytest.approx(0, abs=0.2)


def test_surround_keeps_its_layout_and_its_centre(tmp_path):
    audio = np.zeros((6, round(SECONDS * RATE)), np.float32)
    audio[2] = talking(1)[0]
    audio[4] = 0.01 * sounds.chord(SECONDS, RATE)[0]
    mix = mixed(tmp_path, audio)
    music, original, whole = map(samples, (mix.music, mix.original, mix.mix))
    assert mix.channels == ("FL", "FR", "FC", "LFE", "BL", "BR")
    assert np.abs(music[:2]).max() > 0.01 and not music[2:].any()
    np.testing.assert_array_equal(whole[2:], original[2:])
    gain = 10 ** (mix.balance.original_db / 20)
    assert np.corrcoef(original[2], audio[2])[0, 1] > 0.9999 and original[2].std() == pytest.approx(
        gain * audio[2].std(), rel=0.05
    )
    assert mix.figures["span_share"] == pytest.approx(7.1 / SECONDS, abs=0.02)


def test_a_mono_sound_of_8_khz(tmp_path):
    audio = sounds.talk(SECONDS, STARTS, 8000)[None]
    mix = mixed(tmp_path, audio, rate=8000, music_rate=32000)
    assert mix.channels == ("FC",) and mix.sample_rate == 32000
    assert lufs(spoken(samples(mix.mix), 32000), 32000) == pytest.approx(-23, abs=0.3)
    assert mix.figures["span_share"] == pytest.approx(7.1 / SECONDS, abs=0.02)


def test_silence_and_no_sound_leave_the_music_at_the_target(tmp_path):
    silent = mixed(tmp_path, np.zeros((2, 6 * RATE), np.float32))
    assert lufs(samples(silent.mix)) == pytest.approx(-23, abs=0.1) and not samples(silent.original).any()
    folder = tmp_path / "none"
    folder.mkdir()
    settings = MixSettings()
    (alone,) = finish([prepare(None, sounds.chord(6, RATE), RATE, 6.0, settings, folder)], settings)
    assert alone.original is None and lufs(samples(alone.mix)) == pytest.approx(-23, abs=0.1)
    assert list(alone.parts) == ["music", "mix"]


def test_a_clipping_sound(tmp_path):
    mix = mixed(tmp_path, np.clip(20 * talking(), -1, 1))
    assert lufs(spoken(samples(mix.mix))) == pytest.approx(-23, abs=0.3) and dbtp(samples(mix.mix)) <= -1


@pytest.mark.parametrize("picture", [15.0, 25.0])
def test_a_sound_longer_or_shorter_than_the_picture(tmp_path, picture):
    mix = mixed(tmp_path, talking(), picture=picture)
    assert mix.mix.shape[1] == round(picture * RATE)
    assert not samples(mix.original)[:, round((SECONDS + 0.1) * RATE) :].any()


@pytest.mark.parametrize("delay", [1.5, -1.5])
def test_a_sound_that_does_not_begin_with_the_picture(tmp_path, delay):
    path = sounds.write_video(tmp_path / "clip.mkv", talking(), RATE)
    shifted = sounds.shift_sound(path, tmp_path / "shifted.mkv", delay)
    settings, folder = MixSettings(), tmp_path / "parts"
    folder.mkdir()
    duration = media.probe(shifted).duration
    clip = prepare(media.open_sound(shifted), sounds.chord(duration, RATE), RATE, duration, settings, folder)
    starts = np.array([span.start for span in clip.measured.spans])
    for start in STARTS:
        assert np.abs(starts - (start + delay)).min() < 0.15


def test_clips_of_an_album_get_the_same_gains(tmp_path):
    settings = MixSettings()
    clips = []
    for number, gain in enumerate((1.0, 0.25)):
        folder = tmp_path / str(number)
        folder.mkdir()
        video = sounds.write_video(folder / "clip.mov", gain * talking(), RATE)
        music = sounds.chord(SECONDS, RATE)
        clips.append(prepare(media.open_sound(video), music, RATE, SECONDS, settings, folder))
    loud, quiet = finish(clips, settings)
    assert loud.balance.original_db == quiet.balance.original_db
    difference = lufs(spoken(samples(loud.original))) - lufs(spoken(samples(quiet.original)))
    assert difference == pytest.approx(12, abs=0.1)
    both = np.concatenate([spoken(samples(mix.mix)) for mix in (loud, quiet)], axis=1)
    assert lufs(both) == pytest.approx(-23, abs=0.3)
