"""Before training: videos → clips and their features → latents → tar files. Each step is a command and resumes.

python -m diff_v2m.preprocess clips VIDEO ... --output DIR             clips.py     a feature folder
python -m diff_v2m.preprocess latents --dataset-config JSON ...        latents.py   soundtracks encoded once
python -m diff_v2m.preprocess shards --output DIR --dataset-config …   shards.py    for sets too large for files
"""
