"""Hits land: for each hit a strong attack near it is found, and the music is warped so that they coincide.

Which attack serves which hit follows from dynamic programming over all hits: warps of at most LIMIT between them limit
by how much one attack can be moved more than another. An attack at a cut counts about as much as a hit, which gets an
accent if no attack is moved onto it. Cuts less than FARTHEST from a hit do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diff_v2m.features import rhythm
from diff_v2m.model.music import Music
from diff_v2m.model.warp import TimeWarp, reach

TOLERANCE = 0.04  # seconds, a frame at 25 a second: a hit this near an attack has landed
_NEAR = 0.02  # seconds: a hit near which no attack is heard gets an accent
_WEAK = 0.5  # of the median strength; a weaker attack makes no hit
_ACCENTS = 0.5, 0.5  # gains of accents: of the first, and of one more where the music covers it
FARTHEST = 0.6  # seconds from which an attack is moved to a hit
_NEAR_CUT = 0.06  # seconds: an attack this near a cut accents it
_LATE = 0.015  # seconds after the attack at which the onset strength peaks
_CHUNK, _OVERLAP = 30, 1  # seconds analysed at once
_PROMINENCE = 1.0  # of an attack, in standard deviations of the onset strength
_LOOK_BACK = 8  # a hit follows one of the 8 before it; those between are not reached
_HIT, _STRONGEST, _CUT = 1.0, 0.3, 1.0  # worth of a hit, of the strongest attack near it, of a cut's attack
_FIXED = 1e3  # worth of a fixed moment: more than all hits
_STRETCH_COST = 1400.0  # of a tempo that is another by a factor of e for a second; it grows with the square
_LATEST_START, _LATE_COST = 0.25, 0.2  # seconds by which the music may begin later, and the cost of a second
_BESIDE, _BESIDE_COST = np.array([-0.01, 0.0, 0.01]), 3.0  # seconds between attack and hit, and the cost of a second


@dataclass(frozen=True)
class Hit:
    """What became of a hit: seconds `wanted` and `achieved`, the attack nearest to it; None without one.

    stretch: largest change of tempo around it. added: whether no attack, or a weak one, was heard there after the
    warp, so that an accent was made.
    """

    wanted: float
    achieved: float | None
    stretch: float
    added: bool = False
    name: str = ""

    @property
    def landed(self) -> bool:
        return self.achieved is not None and abs(self.achieved - self.wanted) <= TOLERANCE


def land(
    music: Music,
    sample_rate: int,
    hits: np.ndarray,
    cuts: np.ndarray,
    names: Sequence[str] | None = None,
    fixed: Sequence[float] = (),
) -> tuple[Music, tuple[Hit, ...]]:
    """Music whose attacks meet the hits (n, 2), rising seconds and strengths, and what became of each.

    A hit at which no attack, or a weak one, is heard after the warp gets an accent of its own. cuts (k,), seconds:
    their accents should stay. fixed: seconds of the music that are not moved.
    """
    duration = music.audio.shape[1] / sample_rate
    attacks, strengths = music.attacks() or find_attacks(music.audio, sample_rate)
    source, target = choose(hits[:, 0], cuts, attacks, strengths, duration, fixed)
    warp = TimeWarp.through(source, target, duration)
    if not warp.is_identity:
        music = music.warped(warp, sample_rate, attacks)
    added = np.zeros(len(hits), bool)
    heard, strengths = find_attacks(music.audio, sample_rate)
    for gain in _ACCENTS:
        strong = heard[strengths >= _WEAK * np.median(strengths)] if len(heard) else heard
        missed = np.array([_distance(strong, hit) > _NEAR for hit in hits[:, 0]])
        if missed.any():
            music = music.accented(hits[missed, 0], gain * hits[missed, 1], sample_rate, heard, strengths)
            heard, strengths = find_attacks(music.audio, sample_rate)
            added |= missed
    found = []
    edges = [*target, duration]
    for time, accent, name in zip(hits[:, 0].tolist(), added.tolist(), names or [""] * len(hits), strict=True):
        before = max((edge for edge in edges if edge < time), default=0.0)
        after = min((edge for edge in edges if edge > time), default=duration)
        found.append(Hit(time, _nearest(heard, time), warp.stretch(before, after), accent, name))
    return music, tuple(found)


def measured(hits: Sequence[Hit], music: Music, sample_rate: int) -> tuple[Hit, ...]:
    """The hits with what other music achieves of them, as it sounds."""
    if not hits:
        return ()
    attacks, _ = find_attacks(music.audio, sample_rate)
    return tuple(replace(hit, achieved=_nearest(attacks, hit.wanted)) for hit in hits)


def choose(
    hits: np.ndarray,
    cuts: np.ndarray,
    attacks: np.ndarray,
    strengths: np.ndarray,
    duration: float,
    fixed: Sequence[float] = (),
) -> tuple[list[float], list[float]]:
    """Attacks (seconds) and where they are moved to, both rising: hits met and cuts kept against changes of tempo.

    Strong attacks are preferred, and small changes of tempo. In front is 0, and what of the music sounds then.
    """
    targets = sorted(
        [*((hit, True) for hit in hits.tolist()), *((cut, False) for cut in _cut_attacks(cuts, hits, attacks))]
    )
    late = np.linspace(0, _LATEST_START, 11)
    nodes = [(0.0, -late, -_LATE_COST * late)]  # target, displacements of the attacks, worth
    for target, is_hit in targets:
        near = np.flatnonzero(np.abs(attacks - target) <= (FARTHEST if is_hit else 1e-9))
        if not len(near) or target <= 0 or target >= duration:
            continue
        moved, worth = attacks[near] - target, np.full(len(near), _CUT)
        if is_hit:
            worth = _HIT + _STRONGEST * strengths[near] / strengths[near].max()
            moved = (moved[:, None] + _BESIDE).ravel()
            worth = (worth[:, None] - _BESIDE_COST * np.abs(_BESIDE)).ravel()
        nodes.append((target, moved, worth))
    nodes += [(time, np.zeros(1), np.full(1, _FIXED)) for time in fixed]
    nodes = sorted([*nodes, (duration, np.zeros(1), np.zeros(1))], key=lambda node: node[0])

    best, origin = [nodes[0][2]], [np.zeros((len(late), 2), int)]
    for i in range(1, len(nodes)):
        target, moved, worth = nodes[i]
        total, came = np.full(len(moved), -np.inf), np.zeros((len(moved), 2), int)
        for j in {0, *range(max(0, i - _LOOK_BACK), i)}:
            if target <= nodes[j][0]:
                continue
            length, change = target - nodes[j][0], np.abs(moved[:, None] - nodes[j][1])
            value = best[j] - _STRETCH_COST * change**2 / length
            value[change > reach(length) + 1e-9] = -np.inf
            which = value.argmax(axis=1)
            value = value[np.arange(len(moved)), which] + worth
            better = value > total
            total[better] = value[better]
            came[better] = np.stack([np.full(len(moved), j), which], axis=1)[better]
        best.append(total)
        origin.append(came)
    chosen, node = [], (len(nodes) - 1, 0)
    while node[0]:
        before, which = origin[node[0]][node[1]].tolist()
        node = before, which
        target, moved, _ = nodes[node[0]]
        chosen.append((target + float(moved[node[1]]), target))
    return [source for source, _ in chosen[::-1]], [target for _, target in chosen[::-1]]


def find_attacks(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and strengths of the attacks in audio (channels, n), exact to about 10 ms."""
    times, strengths = [np.zeros(0)], [np.zeros(0)]
    hop = rhythm.scaled_hop(rhythm.HOP, sample_rate)
    for start in range(0, max(1, audio.shape[1]), _CHUNK * sample_rate):
        first = max(0, start - _OVERLAP * sample_rate)
        piece = np.ascontiguousarray(audio[:, first : start + (_CHUNK + _OVERLAP) * sample_rate], dtype=np.float32)
        z = rhythm.odf_z(rhythm.onset_strength(rhythm.to_mono(torch.from_numpy(piece)), sample_rate))
        peaks = rhythm.odf_peaks(z, _PROMINENCE)
        at = first / sample_rate + peaks * hop / sample_rate
        own = (at >= start / sample_rate) & (at < start / sample_rate + _CHUNK)
        times.append(at[own] - _LATE)
        strengths.append(z.numpy()[peaks[own]])
    return np.maximum(np.concatenate(times), 0.0), np.concatenate(strengths)


def _nearest(attacks: np.ndarray, time: float) -> float | None:
    """The nearest attack; None without one within FARTHEST."""
    return float(attacks[np.abs(attacks - time).argmin()]) if _distance(attacks, time) <= FARTHEST else None


def _distance(attacks: np.ndarray, time: float) -> float:
    """Seconds from a time to the nearest attack."""
    return float(np.abs(attacks - time).min(initial=np.inf))


def _cut_attacks(cuts: np.ndarray, hits: np.ndarray, attacks: np.ndarray) -> list[float]:
    """Attacks at cuts that no hit is near."""
    kept = []
    for cut in cuts.tolist():
        if len(attacks) and not (len(hits) and np.abs(hits - cut).min() < FARTHEST):
            nearest = float(attacks[np.abs(attacks - cut).argmin()])
            if abs(nearest - cut) <= _NEAR_CUT:
                kept.append(nearest)
    return sorted(set(kept))
