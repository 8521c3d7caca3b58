"""What generation makes of a clip's latents: audio, and where the model writes notes, a score and voices."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from diff_v2m.model.accents import accented
from diff_v2m.model.warp import TimeWarp, stretched
from diff_v2m.score.score import Score


class Music:
    """`audio` (channels, samples) float32, and the score that it plays, if there is one."""

    def __init__(self, audio: np.ndarray, score: Score | None = None, stems: dict[str, np.ndarray] | None = None):
        self.audio, self.score, self._stems = audio, score, stems or {}

    def stems(self) -> dict[str, np.ndarray]:
        """Audio of each voice, which add up to `audio`; empty where the music has no voices."""
        return self._stems

    def scaled(self, gain: np.ndarray) -> Self:
        """The same music times gain (samples,)."""
        changed = copy.copy(self)
        gain = gain.astype(np.float32)
        changed.audio = self.audio * gain
        changed._stems = {voice: stem * gain for voice, stem in self._stems.items()}
        return changed

    def spliced(self, other: Music, share: np.ndarray) -> Self:
        """The music itself where share (samples,) is 1, the audio of `other` where it is 0, to the bit; a fade between.

        `other` may be shorter: it counts as silent after its end.
        """
        changed = copy.copy(self)
        changed.audio = _mixed(self.audio, other.audio, share)
        silence = np.zeros_like(self.audio)
        voices = [*self._stems, *(voice for voice in other._stems if voice not in self._stems)]
        changed._stems = {
            voice: _mixed(self._stems.get(voice, silence), other._stems.get(voice, silence), share) for voice in voices
        }
        return changed

    def attacks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Seconds and strengths of the moments at which notes begin; None if the music does not know them."""
        return None

    def warped(self, warp: TimeWarp, sample_rate: int, attacks: np.ndarray) -> Music:
        """The music with its moments moved; the pitch and the length stay. attacks: seconds at which notes begin."""
        return Music(stretched(self.audio, sample_rate, warp, attacks))

    def accented(
        self, times: np.ndarray, gains: np.ndarray, sample_rate: int, attacks: np.ndarray, strengths: np.ndarray
    ) -> Music:
        """The music with an accent at each time (k,) in seconds. attacks, strengths: those that the music has."""
        return Music(accented(self.audio, sample_rate, times, gains, attacks, strengths))

    def silenced(self, gain: np.ndarray, spans: Sequence[tuple[float, float]]) -> Music:
        """The music times gain (samples,), which is 0 in the spans (seconds)."""
        return self.scaled(gain)

    def write_notes(self, folder: Path, name: str) -> list[str]:
        """Write the notes, if there are any, and return the names of the files."""
        return []

    def about(self) -> dict[str, Any]:
        """What the manifest says of the notes."""
        return {}

    def caption(self) -> list[str]:
        """What the picture says of the notes."""
        return []


def ending_gain(samples: int, length: int) -> np.ndarray:
    """(samples,) float32: 1, then a raised cosine over the last `length` samples that is 0 at the end."""
    length = min(length, samples)
    gain = np.ones(samples, np.float32)
    gain[samples - length :] = np.cos(np.linspace(0, np.pi / 2, length)) ** 2
    return gain


def _mixed(new: np.ndarray, old: np.ndarray, share: np.ndarray) -> np.ndarray:
    old = np.pad(old[:, : new.shape[1]], ((0, 0), (0, max(0, new.shape[1] - old.shape[1]))))
    share = share.astype(np.float32)
    mixed = new * share + old * (1 - share)
    return np.where(share == 0, old, mixed)
