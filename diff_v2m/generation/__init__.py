"""Video files in, music out.

pipeline.py       DiffV2M: features → waveform
windows.py        a long video in overlapping windows
inputs.py         files, folders and dataset JSON → clips with output names
runner.py         clips → mp4, wav, png, json
manifest.py       the json beside a result; what is already done
feature_cache.py  features kept between runs
"""
