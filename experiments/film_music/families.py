"""Which family of scenes the ImageNet encoder finds in videos, second by second.

The table gives the mean scores of the three best families of each video, and the best family of each second: a family
and for how many seconds it stays the best.
"""

from pathlib import Path

import numpy as np

from diff_v2m.features.extract import extract_features
from diff_v2m.features.imagenet import FAMILIES, ImageNetEncoder, family_scores


def family_table(videos: list[Path]) -> str:
    """A markdown table, one row a video. Raises InputError for what is not a video."""
    encoder = ImageNetEncoder()
    lines = ["| video | seconds | family | second | third | family by second |", "|---" * 6 + "|"]
    for video in videos:
        features = extract_features(video, encoder)
        scores = family_scores(features.semantic)
        mean = scores.mean(axis=0)
        best = [f"{FAMILIES[index]} {mean[index]:.2f}" for index in mean.argsort()[::-1][:3]]
        spans = " ".join(_runs([FAMILIES[index] for index in scores.argmax(axis=1)]))
        lines.append(f"| {video.name} | {features.duration:.1f} | {' | '.join(best)} | {spans} |")
    return "\n".join(lines) + "\n"


def _runs(names: list[str]) -> list[str]:
    """["a", "a", "b"] → ["a×2", "b×1"]."""
    starts = [0, *(np.flatnonzero(np.array(names[1:]) != np.array(names[:-1])) + 1), len(names)]
    return [f"{names[first]}×{last - first}" for first, last in zip(starts, starts[1:], strict=False)]
