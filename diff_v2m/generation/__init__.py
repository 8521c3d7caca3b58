"""Music for videos. Data flow: inputs → runner → pipeline → runner.

inputs.py         files, folders and dataset JSON → clips and outputs with distinct names
runner.py         outputs → mp4, wav, png, json
pipeline.py       DiffV2M: features → waveform
needs.py          what a run needs, checked before anything slow
settings.py       how music is sampled
planning.py       beat grid and key of a video
composition.py    Composition: the music of a clip, with what it was made of
canvas.py         sampling of latents of any length, in windows
windows.py        where windows lie, and how they are blended
memory.py         what to do when the device's memory is short
step_log.py       sampling steps of a long clip, kept so that a killed run resumes
staging.py        the folder for unfinished files, and the move into place
spans.py          spans that are composed again
extending.py      a video that got longer: where new music begins
splicing.py       which latents they free, where their sound joins the rest
revision.py       earlier results, read to change a part of them
sheets.py         cue sheets of a run
directing.py      hits and silences of a sheet, on decoded music
landing.py        which attacks are moved onto hits
decoding.py       latents → music, in chunks
jobs.py           an output with what is read of its clip
takes.py          a score for each of several takes
album.py          clips of one call at one gain
extras.py         MIDI and stems beside a result
picture.py        the png beside a result
manifest.py       the json beside a result; which outputs are done
background.py     reads the next clips and writes finished ones on threads
feature_cache.py  features kept between runs
render.py         `python -m diff_v2m render`: a score, edited or not, played under the picture
doctor.py         whether a machine has what generation needs
"""
