"""Files of clips → training batches.

batch.py            Batch: what the model receives
collate.py          items → Batch, padded to the window
dataset.py          AudioVideoDataset: an item is one crop of a clip
crops.py            Clip, Crop and Item; cuts audio and features to the same seconds
feature_store.py    feature files of a folder
audio_folder.py     soundtracks or latents that belong to them
sources.py          what a pretransform encodes of a clip: waveform or notes
latent_store.py     precomputed latents
tar_shards.py       a data set as tar files
custom_metadata.py  the published project's metadata hook
loader.py           order, workers, distribution over processes, resuming
"""
