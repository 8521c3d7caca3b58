"""Clips of one call at one gain: they wait on disk until all are generated.

A long composition, whose sound lies in a file already, waits as it is.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m import media
from diff_v2m.generation.manifest import Request
from diff_v2m.generation.pipeline import Composition
from diff_v2m.media.loudness import album_gain
from diff_v2m.media.metering import measured, true_peak
from diff_v2m.mix.mixing import Mix, Prepared, finish, prepare


@dataclass(frozen=True)
class Levels:
    """What an output gets from its album."""

    gain_db: float | None = None  # of the music; None: each output has its own
    mix: Mix | None = None


@dataclass
class Album:
    """Compositions in a folder, and what is measured of them. The folder is removed by whoever made it."""

    folder: Path
    request: Request
    sample_rate: int
    _waiting: list[tuple[Any, Any]] = field(default_factory=list)  # (composition and source, or their file; job)
    _powers: list[np.ndarray] = field(default_factory=list)
    _mixes: dict[int, Prepared] = field(default_factory=dict)
    _peak: float = -np.inf

    def add(self, composition: Composition, video: Path | None, duration: float, source: Any, job: Any) -> None:
        """Store a composition and what it was made of, its source; the job stays in memory.

        On an error nothing of the clip stays. Raises InputError.
        """
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=".album-"))
        try:
            prepared = self._prepared(composition, video, duration, folder)
            powers, peak = measured(composition.audio, self.sample_rate).powers, true_peak(composition.audio)
            made: Any = (composition, source)
            if not composition.music.scratch.keeps_in_file(composition.audio.size):
                file = folder / "composition.pickle"
                with file.open("wb") as stream:
                    pickle.dump(made, stream)
                made = file
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # the next clip may need the space
            raise
        if prepared is not None:
            self._mixes[len(self._waiting)] = prepared
        self._waiting.append((made, job))
        self._powers.append(powers)
        self._peak = max(self._peak, peak)

    def _prepared(self, composition: Composition, video: Path | None, duration: float, folder: Path) -> Prepared | None:
        """What the mix with the video's own sound is made of; None if there is no mix. folder: for its files."""
        if self.request.mix is None or video is None:
            return None
        sound = media.open_sound(video)
        return prepare(sound, composition.audio, self.sample_rate, duration, self.request.mix, folder)

    def __iter__(self) -> Iterator[tuple[Composition, Any, Any, Levels]]:
        """(composition, source, job, levels) of each, in order."""
        if not self._waiting:
            return
        gain = album_gain(np.concatenate(self._powers), self._peak, self.request.normalize)
        mixes = finish(list(self._mixes.values()), self.request.mix) if self._mixes else []
        by_number = dict(zip(self._mixes, mixes, strict=True))
        for number, (made, job) in enumerate(self._waiting):
            self._waiting[number] = (None, None)
            if isinstance(made, Path):
                with made.open("rb") as stream:  # written by this process
                    composition, source = pickle.load(stream)
                made.unlink()
            else:
                composition, source = made
            yield composition, source, job, Levels(gain, by_number.get(number))
