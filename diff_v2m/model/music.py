"""What generation makes of a clip's latents: audio, and where the model writes notes, a score and voices."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from diff_v2m.common.scratch import TEMPORARY, Scratch, parts
from diff_v2m.model.accents import accented
from diff_v2m.model.warp import TimeWarp, stretched
from diff_v2m.score.score import Score

Stems = dict[str, np.ndarray]  # voice → audio (channels, samples)


class Music:
    """`audio` (channels, samples) float32, and the score that it plays, if there is one.

    scratch: where audio lies that is too long for memory.
    """

    def __init__(
        self,
        audio: np.ndarray,
        score: Score | None = None,
        stems: Callable[[], Stems] = dict,
        scratch: Scratch = TEMPORARY,
    ):
        self.audio, self.score, self._stems, self.scratch = audio, score, stems, scratch

    def stems(self) -> Stems:
        """Audio of each voice, which add up to `audio`; empty where the music has no voices. Made when asked for."""
        return self._stems()

    def scaled(self, gain: np.ndarray) -> Self:
        """The same music times gain (samples,)."""
        changed = copy.copy(self)
        changed.audio = self.scratch.multiplied(self.audio, gain)
        changed._stems = partial(_scaled, self._stems, gain, self.scratch)
        return changed

    def spliced(self, other: Music, share: np.ndarray) -> Self:
        """The music itself where share (samples,) is 1, the audio of `other` where it is 0, to the bit; a fade between.

        `other` may be shorter: it counts as silent after its end.
        """
        changed = copy.copy(self)
        changed.audio = _mixed(self.audio, other.audio, share, self.scratch)
        changed._stems = partial(_spliced, self._stems, other._stems, share, self.scratch)
        return changed

    def attacks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Seconds and strengths of the moments at which notes begin; None if the music does not know them."""
        return None

    def with_dynamics(self, change: np.ndarray) -> Music:
        """The music louder in seconds of change (S,) above 0, softer below. Audio without notes stays as it is."""
        return self

    def warped(self, warp: TimeWarp, sample_rate: int, attacks: np.ndarray) -> Music:
        """The music with its moments moved; the pitch and the length stay. attacks: seconds at which notes begin."""
        return Music(stretched(self.audio, sample_rate, warp, attacks, self.scratch), scratch=self.scratch)

    def accented(
        self, times: np.ndarray, gains: np.ndarray, sample_rate: int, attacks: np.ndarray, strengths: np.ndarray
    ) -> Music:
        """The music with an accent at each time (k,) in seconds. attacks, strengths: those that the music has."""
        audio = accented(self.audio, sample_rate, times, gains, attacks, strengths, self.scratch)
        return Music(audio, scratch=self.scratch)

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


def fade_out(audio: np.ndarray, length: int) -> None:
    """Multiply the last samples (…, length), in place, with a raised cosine that is 0 at the end."""
    length = min(length, audio.shape[-1])
    gain = np.cos(np.linspace(0, np.pi / 2, length)) ** 2
    audio[..., audio.shape[-1] - length :] *= gain.astype(np.float32)


def _scaled(stems: Callable[[], Stems], gain: np.ndarray, scratch: Scratch) -> Stems:
    return {voice: scratch.multiplied(stem, gain) for voice, stem in stems().items()}


def _spliced(stems: Callable[[], Stems], others: Callable[[], Stems], share: np.ndarray, scratch: Scratch) -> Stems:
    new, old = stems(), others()
    if not (new or old):
        return {}
    channels = len(next(iter((new or old).values())))
    silence = np.broadcast_to(np.float32(0), (channels, len(share)))
    voices = [*new, *(voice for voice in old if voice not in new)]
    return {voice: _mixed(new.get(voice, silence), old.get(voice, silence), share, scratch) for voice in voices}


def _mixed(new: np.ndarray, old: np.ndarray, share: np.ndarray, scratch: Scratch) -> np.ndarray:
    mixed = scratch.zeros(*new.shape)
    for part in parts(new.shape[1]):
        here, weight = old[:, part], share[part].astype(np.float32)
        here = np.pad(here, ((0, 0), (0, part.stop - part.start - here.shape[1])))
        mixed[:, part] = np.where(weight == 0, here, new[:, part] * weight + here * (1 - weight))
    return mixed
