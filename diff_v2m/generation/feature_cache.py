"""Features of videos, kept from run to run: by the film's content, not its name, and by what read them off it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diff_v2m.common.cache import Cache
from diff_v2m.common.errors import InputError
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.video_features import VideoFeatures

log = logging.getLogger(__name__)


class FeatureCache:
    """A folder that several processes may share. If it cannot be used, that is said once and features are computed."""

    def __init__(self, folder: Path):
        self.cache: Cache | None = Cache(folder)

    def get(self, video: Path, encoder: str, extract: Callable[[Path], VideoFeatures]) -> VideoFeatures:
        """The features of a film by this encoder. What `extract` raises is handed on."""
        made: VideoFeatures | None = None

        def compute() -> Mapping[str, np.ndarray]:
            nonlocal made
            made = extract(video)
            return {name: np.asarray(value) for name, value in vars(made).items()}

        if self.cache is None:
            return extract(video)
        try:
            found = self.cache.get(video, f"features {FEATURE_VERSION}, {encoder}", compute)
        except InputError as error:
            if made is None:  # the film is at fault, not the folder
                raise
            log.warning("features are not kept for the next time: %s", error)
            self.cache = None
            return made
        return made or VideoFeatures(**{**found, "duration": float(found["duration"])})
