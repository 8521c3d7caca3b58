"""Features of videos, kept between runs: keyed by the content of the file, the encoder and the feature version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.cache import Cache
from diff_v2m.common.errors import InputError
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.video_features import VideoFeatures

log = logging.getLogger(__name__)


class FeatureCache:
    """A folder that several processes may share. If it cannot be used, it warns once and extracts every time."""

    def __init__(self, folder: Path):
        self.cache: Cache | None = Cache(folder)

    def get(self, video: Path, encoder: str, extract: Callable[[Path], VideoFeatures]) -> VideoFeatures:
        """The features of a video by this encoder, extracted if necessary. Raises what `extract` raises."""
        made: VideoFeatures | None = None

        def compute() -> Mapping[str, np.ndarray]:
            nonlocal made
            made = extract(video)
            return {name: np.asarray(value) for name, value in vars(made).items() if value is not None}

        if self.cache is None:
            return extract(video)
        try:
            found = self.cache.get(video, _maker(encoder), compute)
        except InputError as error:
            if made is None:  # the video is bad, not the folder
                raise
            log.warning("features are not cached: %s", error)
            self.cache = None
            return made
        values: dict[str, Any] = {**found, "duration": float(found["duration"])}
        return made or VideoFeatures(**values)

    def holds(self, video: Path, encoder: str) -> bool:
        """Whether the video's features are there. Raises InputError if the video cannot be read."""
        return self.cache is not None and self.cache.holds(video, _maker(encoder))


def _maker(encoder: str) -> str:
    return f"features {FEATURE_VERSION} with exact times, motion by the second, {encoder}"
