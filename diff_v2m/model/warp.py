"""Time warps of music: moments are moved, the time between them is stretched smoothly, and the pitch stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diff_v2m.common.scratch import TEMPORARY, Scratch

LIMIT = 0.04  # largest change of tempo
EASE = 0.25  # seconds in which the tempo changes from one moved moment on and towards the next
_STEP = 0.05  # seconds between the points of a warp
_LEAD, _FADE = 0.012, 0.008  # seconds: a slice begins so long before its attack, and fades in
_CONTEXT = 0.2  # seconds of music around a slice that the stretch reads
_SHORTEST = 0.25  # seconds of a slice
_UNCHANGED = 3e-4  # change of tempo of a slice that is copied


@dataclass(frozen=True)
class TimeWarp:
    """What is at `source` seconds sounds at `target` seconds; linear between the points, both rising."""

    source: np.ndarray
    target: np.ndarray

    @classmethod
    def through(cls, source: Sequence[float], target: Sequence[float], duration: float) -> TimeWarp:
        """Moments at `source` are moved to `target`, of which the first is 0; the end stays.

        The tempo changes gradually and is unchanged at the moments themselves, so an attack is never stretched. A first
        source before 0 makes the music begin later.
        """
        known = [*zip(target, source, strict=True), (duration, duration)]
        points = [known[0]]
        for (start, first), (stop, last) in pairwise(known):
            if stop > start:
                inside = np.linspace(0, stop - start, max(2, int((stop - start) / _STEP) + 2))[1:]
                moved = _eased(inside, stop - start, (last - stop) - (first - start))
                points += zip((start + inside).tolist(), (first + inside + moved).tolist(), strict=True)
        at, of = np.array(points).T
        return cls(of, at)

    def forward(self, seconds: np.ndarray | float) -> np.ndarray:
        """When the music of `seconds` sounds. Before and after all points it is moved like the nearest one."""
        nearest = np.clip(seconds, self.source[0], self.source[-1])
        return np.interp(nearest, self.source, self.target) + (seconds - nearest)

    def backward(self, seconds: np.ndarray | float) -> np.ndarray:
        """The inverse of `forward`."""
        nearest = np.clip(seconds, self.target[0], self.target[-1])
        return np.interp(nearest, self.target, self.source) + (seconds - nearest)

    @property
    def is_identity(self) -> bool:
        return bool(np.abs(self.source - self.target).max() < 1e-6)

    def stretch(self, start: float, stop: float) -> float:
        """Largest change of tempo between two target times: 0.02 is 2 % faster, −0.02 slower."""
        inside = (self.target[1:] > start) & (self.target[:-1] < stop)
        change = np.diff(self.source) / np.diff(self.target) - 1
        return float(max(change[inside], key=abs, default=0.0))


def reach(seconds: np.ndarray | float) -> np.ndarray:
    """By how many seconds a warp can lengthen or shorten a stretch of music of so many seconds."""
    return LIMIT * (np.asarray(seconds) - _ease(np.asarray(seconds)))


def stretched(
    audio: np.ndarray, sample_rate: int, warp: TimeWarp, attacks: np.ndarray, scratch: Scratch = TEMPORARY
) -> np.ndarray:
    """Warp audio (channels, n) float32, by Signalsmith Stretch; the length stays.

    attacks: seconds in the audio at which notes begin. The audio is cut before attacks, which hide the joins, and each
    slice has one tempo. A slice whose tempo does not change is copied. scratch: where long audio lies.
    """
    from python_stretch import Signalsmith

    samples = audio.shape[1]
    starts = _slices(attacks, samples / sample_rate)
    late = max(0, -round(float(warp.backward(0.0)) * sample_rate))  # samples of silence before the music
    sources = [-late, *(round(start * sample_rate) for start in starts), samples]
    edges = [0, *(round(float(warp.forward(start)) * sample_rate) for start in starts), samples]
    context, fade = round(_CONTEXT * sample_rate), max(1, round(_FADE * sample_rate))
    rising = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
    out = scratch.zeros(*audio.shape)
    for number in range(len(edges) - 1):
        first, last, start, stop = edges[number], edges[number + 1], sources[number], sources[number + 1]
        if last <= first:
            continue
        tempo = (stop - start) / (last - first)
        piece, origin = _with_silence(audio, start - context, stop + context), context
        if abs(tempo - 1) > _UNCHANGED:
            stretch = Signalsmith.Stretch(0)  # a seed, so that the same music is stretched to the same
            stretch.preset(len(audio), sample_rate)
            stretch.setTimeFactor(tempo)
            piece, origin = np.asarray(stretch.process(np.ascontiguousarray(piece))), round(context / tempo)
        lead = min(fade, first)
        length = min(last - first, piece.shape[1] - origin)
        sound = piece[:, origin - lead : origin + length]
        if lead:
            out[:, first - lead : first] *= 1 - rising[-lead:]
            out[:, first - lead : first] += sound[:, :lead] * rising[-lead:]
        out[:, first : first + length] = sound[:, lead:]
    return out


def _with_silence(audio: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The samples [start, stop), silent before and after the audio."""
    samples = audio.shape[1]
    part = audio[:, max(0, start) : max(0, stop)]
    return np.pad(part, ((0, 0), (min(max(0, -start), stop - start), max(0, stop - max(samples, start)))))


def _slices(attacks: np.ndarray, duration: float) -> list[float]:
    """Seconds at which slices begin: before attacks, at least _SHORTEST apart."""
    starts: list[float] = []
    for start in np.sort(attacks) - _LEAD:
        if start - (starts[-1] if starts else 0.0) >= _SHORTEST and duration - start >= _SHORTEST:
            starts.append(float(start))
    return starts


def _ease(seconds: np.ndarray) -> np.ndarray:
    return np.minimum(EASE, seconds / 4)


def _eased(inside: np.ndarray, length: float, change: float) -> np.ndarray:
    """Displacement (n,) at `inside` seconds of a span of `length` that is `change` at its end.

    Its speed rises for the time of the ease, stays, and falls to 0 again.
    """
    ease = float(_ease(np.asarray(length)))
    speed = change / (length - ease)
    rising = speed * inside**2 / (2 * ease)
    falling = change - speed * (length - inside) ** 2 / (2 * ease)
    steady = speed * (inside - ease / 2)
    return np.where(inside < ease, rising, np.where(inside > length - ease, falling, steady))
