"""Levels of a mix: which gain the video's own sound gets, and which the music at each time.

The anchor is the loudness of the speech, or of the sound that the music goes under. It is brought to the target, and
the music lies a number of LU below it. Where there is neither, the mix as a whole is brought to the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diff_v2m.media.loudness import MAX_BOOST_DB
from diff_v2m.media.metering import gated_loudness
from diff_v2m.mix.ducking import GainCurve, duck, regions_of
from diff_v2m.mix.settings import MixSettings
from diff_v2m.mix.spans import Span, hops_inside

SILENT = -60.0  # LUFS; what is quieter is the noise of a microphone, and no anchor
QUIET_SPEECH = 10.0  # LU below the anchor; music follows speech down to there


@dataclass(frozen=True)
class Measured:
    """A clip before the mix. Powers (hops,) are those of `LoudnessMeter`."""

    original: np.ndarray
    music: np.ndarray
    dipped: np.ndarray  # of the music with its dip at 2 to 4 kHz
    spans: tuple[Span, ...]  # what the music goes under
    duration: float  # s

    @property
    def inside(self) -> np.ndarray:
        """(hops,) bool: hops in the spans."""
        return hops_inside(self.spans, len(self.original))


@dataclass(frozen=True)
class Anchors:
    """Loudness in LUFS of one clip, or of the clips of an album together; -inf where there is none."""

    original: float
    spans: float  # of the original in the spans
    music: float

    @classmethod
    def of(cls, clips: Sequence[Measured]) -> Anchors:
        original, music = (np.concatenate([getattr(c, name) for c in clips]) for name in ("original", "music"))
        inside = np.concatenate([clip.inside for clip in clips])
        return cls(gated_loudness(original), gated_loudness(original, inside), gated_loudness(music))


@dataclass(frozen=True)
class Balance:
    """Gains of both parts before the mix as a whole is brought to the target."""

    anchor: str  # speech, sound or programme: whose loudness is at the target in the mix
    original_db: float
    music: GainCurve
    dip: GainCurve  # of the band from 2 to 4 kHz, relative to the rest of the music


def balance(clip: Measured, settings: MixSettings, anchors: Anchors) -> Balance:
    """Gains for one clip. anchors: its own, or those of its album."""
    no_dip = GainCurve((0.0,), (0.0,))
    if anchors.spans > SILENT:
        anchor, loudness = settings.duck_under, anchors.spans
    elif settings.video_sound == "mix" and anchors.original > SILENT:
        anchor, loudness = "sound", anchors.original
    else:  # background is turned down where it is loud, never up
        original_db = min(0.0, settings.target - anchors.original) if anchors.original > -math.inf else 0.0
        music_db = settings.target - anchors.music if anchors.music > -math.inf else 0.0
        return Balance("programme", original_db, GainCurve((0.0,), (music_db,)), no_dip)
    original_db = min(settings.target - loudness, MAX_BOOST_DB)
    at = loudness + original_db  # where the anchor lies in the mix
    if anchors.music == -math.inf:
        return Balance(anchor, original_db, GainCurve((0.0,), (0.0,)), no_dip)
    if settings.video_sound == "mix":
        return Balance(anchor, original_db, GainCurve((0.0,), (at - settings.under - anchors.music,)), no_dip)

    top = at - settings.gap - anchors.music

    def level_of(speech: Sequence[Span]) -> float:
        inside = hops_inside(speech, len(clip.original))
        spoken = max(gated_loudness(clip.original, inside), loudness - QUIET_SPEECH) + original_db
        return min(top, spoken - settings.under - gated_loudness(clip.dipped, inside))

    regions = regions_of(clip.spans, level_of)
    dips = regions_of(clip.spans, lambda speech: -settings.dip)
    curves = duck(regions, top, clip.duration), duck(dips, 0.0, clip.duration) if settings.dip else no_dip
    return Balance(anchor, original_db, *curves)
