"""Features of videos, kept between runs: keyed by the content of the file, the encoder and the feature version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.cache import Cache
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.semantic import encoder_identity
from diff_v2m.features.video_features import VideoFeatures

log = logging.getLogger(__name__)


class FeatureCache:
    """A folder that several processes may share. If it cannot be used, it warns once and extracts every time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cache: Cache | None = Cache(folder)
        self._identities: dict[str, str] = {}

    def identity(self, encoder: str) -> str:
        """The identity of this encoder on this machine. Without its files, of the one that made features last."""
        if encoder not in self._identities:
            try:
                self._identities[encoder] = encoder_identity(encoder, download=False)
            except InputError:
                self._identities[encoder] = self._last_identity(encoder)
        return self._identities[encoder]

    def _last_identity(self, encoder: str) -> str:
        try:
            return (self.folder / f"{encoder}.identity").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return encoder

    def get(self, video: Path, encoder: str, extract: Callable[[Path], VideoFeatures]) -> VideoFeatures:
        """The features of a video by the encoder of this name, extracted if necessary. Raises what `extract` raises."""
        made: VideoFeatures | None = None

        def compute() -> Mapping[str, np.ndarray]:
            nonlocal made
            made = extract(video)
            if identity != encoder:
                with atomic(self.folder / f"{encoder}.identity") as part:
                    part.write_text(identity, encoding="utf-8")
            return {name: np.asarray(value) for name, value in vars(made).items() if value is not None}

        if self.cache is None:
            return extract(video)
        identity = self.identity(encoder)
        try:
            found = self.cache.get(video, _maker(identity), compute)
        except InputError as error:
            if made is None:  # the video is bad, not the folder
                raise
            log.warning("features are not cached: %s", error)
            self.cache = None
            return made
        values: dict[str, Any] = {**found, "duration": float(found["duration"])}
        return made or VideoFeatures(**values)

    def holds(self, video: Path, encoder: str) -> bool:
        """Whether the video's features are there, by the encoder that made features last, which may be gone.

        Raises InputError if the video cannot be read.
        """
        return self.cache is not None and self.cache.holds(video, _maker(self._last_identity(encoder)))


def _maker(identity: str) -> str:
    return f"features {FEATURE_VERSION} with exact times, motion by the second, {identity}"
