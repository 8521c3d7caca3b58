"""Music for videos. Data flow: inputs → runner → pipeline → runner.

inputs.py         files, folders and dataset JSON → clips and outputs with distinct names
runner.py         outputs → mp4, wav, png, json
pipeline.py       DiffV2M: features → waveform
settings.py       how music is sampled
windows.py        long videos in overlapping windows
extras.py         MIDI and stems beside a result
manifest.py       the json beside a result; which outputs are done
background.py     reads the next clips and writes finished ones on threads
feature_cache.py  features kept between runs
"""
