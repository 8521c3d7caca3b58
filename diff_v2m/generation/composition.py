"""`Composition`: the music of one clip, with what it follows and what is needed to change a part of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from diff_v2m.cues.sheet import CueSheet
from diff_v2m.generation.landing import Hit
from diff_v2m.generation.spans import Span
from diff_v2m.generation.takes import Takes, TakeScore, score_take
from diff_v2m.generation.windows import Window
from diff_v2m.model.music import Music
from diff_v2m.score.planner import Plan
from diff_v2m.score.score import Score


@dataclass(frozen=True)
class Composition:
    """Music for one clip."""

    music: Music
    rhythm: np.ndarray  # (S,) float32: rhythm that the music follows, one value per second; predicted from the video
    windows: tuple[Window, ...]
    latents: np.ndarray  # (64, N) float16: what `music` is decoded from, kept to change a part of it later
    spans: tuple[Span, ...] = ()  # composed again by the last `redo` or `extend`
    joins: tuple[float, ...] = ()  # seconds at which their sound joins the rest
    takes: Takes | None = None  # where it is the best of several
    plan: Plan | None = None  # beat grid and key that the model received; None: it receives none
    sheet: CueSheet = field(default_factory=CueSheet)  # everything that the music follows: rhythm, cuts, beats, cues
    hits: tuple[Hit, ...] = ()  # what became of the sheet's hits

    @property
    def audio(self) -> np.ndarray:
        """(channels, round(duration · sample_rate)) float32, as it was decoded."""
        return self.music.audio

    @property
    def score(self) -> Score | None:
        """The notes of the whole clip, if the model writes notes."""
        return self.music.score

    def stems(self) -> dict[str, np.ndarray]:
        """Audio of each voice, as `audio`, which is their sum; empty if the model writes no notes."""
        return self.music.stems()


def best_of(
    compositions: Iterable[Composition], keep: int, sample_rate: int, cut_times: np.ndarray | None
) -> list[Composition]:
    """The `keep` best takes of a clip, best first, each with the scores of all. No others stay in memory."""
    scores: list[TakeScore] = []
    best: list[tuple[float, int, Composition]] = []  # total, −number
    for number, made in enumerate(compositions, start=1):
        scores.append(score_take(made.audio, sample_rate, made.rhythm, cut_times, made.sheet.hits))
        best = sorted([*best, (scores[-1].total, -number, made)], key=lambda one: one[:2], reverse=True)[:keep]
    return [replace(made, takes=Takes(-number, tuple(scores))) for _, number, made in best]
