"""Folders and tar files of clips → batches.

    files.py        the feature folders of one data set → VideoFeatures, checked
    soundtracks.py  which soundtracks or latents go with them
    shards.py       a data set as tar files
    encodings.py    what was encoded of a soundtrack beforehand, on disk
    crops.py        a clip, and which part of it an item is
    clips.py        AudioVideoDataset: clips of all sets, one crop of audio, features and rhythm alike
    metadata.py     custom_metadata_module
    batches.py      collate and feature_batch: clips → Batch
    loading.py      build_dataloader, seeded_loader: order, crops, workers, resuming
"""

from diff_v2m.dataset.batches import Item, collate, feature_batch
from diff_v2m.dataset.clips import AudioVideoDataset
from diff_v2m.dataset.files import FeatureFolder, load_features
from diff_v2m.dataset.loading import build_dataloader, seeded_loader

__all__ = [
    "AudioVideoDataset", "FeatureFolder", "Item", "build_dataloader", "collate", "feature_batch", "load_features",
    "seeded_loader",
]  # fmt: skip
