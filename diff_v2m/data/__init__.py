"""Files of clips → training batches.

batch.py            Batch: what the model receives
collate.py          clips → Batch, padded to the window
dataset.py          AudioVideoDataset: one crop of audio, features and rhythm per item
crops.py            which part of a clip an item is
feature_store.py    feature files of a folder, read and checked
audio_folder.py     soundtracks and latents that go with them
latent_store.py     soundtracks encoded beforehand
tar_shards.py       a data set as tar files
custom_metadata.py  the published project's metadata hook
loader.py           order, workers, resuming
"""
