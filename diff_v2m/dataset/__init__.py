"""Folders of clips → batches.

    files.py      the feature folders of one data set → VideoFeatures, checked
    clips.py      AudioVideoDataset: one crop of audio, features and rhythm alike
    batches.py    collate and feature_batch: clips → Batch
    loading.py    build_dataloader, seeded_loader: order, crops, workers, resuming
"""

from diff_v2m.dataset.batches import Item, collate, feature_batch
from diff_v2m.dataset.clips import AudioVideoDataset
from diff_v2m.dataset.files import FeatureFolder, load_features
from diff_v2m.dataset.loading import build_dataloader, seeded_loader

__all__ = [
    "AudioVideoDataset", "FeatureFolder", "Item", "build_dataloader", "collate", "feature_batch", "load_features",
    "seeded_loader",
]  # fmt: skip
