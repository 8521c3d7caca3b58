"""A video that got longer: whether it is the same video, where new music begins, and what that follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.cues.sheet import NONE, Cue, CueSheet
from diff_v2m.features.video_features import MOTION_ROWS, VideoFeatures
from diff_v2m.generation.composition import Composition
from diff_v2m.generation.jobs import Source
from diff_v2m.generation.planning import LONGEST_ENDING, targets
from diff_v2m.generation.revision import Earlier
from diff_v2m.generation.spans import SHORTEST, clock
from diff_v2m.generation.splicing import REACH
from diff_v2m.score.planner import Plan, continued

_LAST = 1.0  # seconds before the earlier end in which a detector may see less than in the longer video
_SAME_TIME = 0.05  # seconds between a cut of one video and of the other
_SAME_PICTURES = 0.85  # cosine of the embeddings; 0.92 if the same video is encoded at a low rate, 0.5 of others
_SAME_MOTION = 0.3  # difference of the motion, relative to the sum of both; likewise 0.18, and 0.17 to 0.93
_STILL = 2.0  # grey levels a second, of which no difference counts


def continuation(old: Composition, features: VideoFeatures, fresh: Plan | None) -> tuple[float, Plan | None]:
    """Seconds at which new music begins, and the plan of the longer piece: that of `old` up to there.

    It begins at a bar line, so that the kept music lies on the grid that it was composed to; at a beat in music without
    a bar line. fresh: the plan of the longer video by itself, for music that is all new.
    """
    before = old.windows[-1].stop
    latest = max(0.0, before - (LONGEST_ENDING if len(old.windows) > 1 else SHORTEST))
    if old.plan is None:
        return latest, fresh
    for times in (old.plan.grid.bars, old.plan.grid.beats):
        fitting = times[(times > REACH) & (times <= latest)]
        if len(fitting):
            times, weights = targets(features)
            start = float(fitting[-1])
            grid = continued(old.plan.grid, start, features.duration, times, weights)
            return start - REACH / 2, replace(old.plan, grid=grid)  # the join is sought on both sides of the bar line
    return 0.0, fresh


def of_longer_video(source: Source, label: str, *, gains_rows: bool) -> Source:
    """What is read of a video that got longer than its earlier result. gains_rows: its sheet is that of the result.

    Raises InputError if it is another video.
    """
    check_beginning(source.earlier, source.features, label)
    if source.sheet is None or not gains_rows:
        return source
    return replace(source, sheet=lengthened(source.sheet, source.earlier.windows[-1].stop, source.features))


def lengthened(sheet: CueSheet, before: float, features: VideoFeatures) -> CueSheet:
    """The sheet of a video of `before` seconds, with the cuts and beats that a longer one shows after them.

    Cuts and beats that nobody edited are left to the longer video.
    """
    changed = sheet.replacing(["end"], [])
    for kind, shown in (("cut", features.cut_times), ("beat", features.motion_peaks)):
        if not sheet.decides(kind) or shown is None:
            continue
        rows = shown[:, None] if kind == "cut" else shown  # (n, 1): seconds; (n, 2): and heights
        kept = [cue for cue in sheet[kind] if cue.time < before]
        own, now = (times[times < before - _LAST] for times in (np.array([c.time for c in kept]), rows[:, 0]))
        if own.shape == now.shape and np.allclose(own, now, rtol=0, atol=_SAME_TIME):
            changed = changed.replacing([kind], [])
            continue
        after = rows[rows[:, 0] >= before].tolist()
        gained = [Cue(time, kind, *height) for time, *height in after]
        changed = changed.replacing([kind], [*kept, *gained] or [Cue(0.0, kind, NONE)])
    return changed


def check_beginning(earlier: Earlier, features: VideoFeatures, label: str) -> None:
    """Raise InputError unless a video begins with that of an earlier result: the same pictures with the same motion."""
    duration = earlier.record["duration"]
    seconds = max(0, int(min(duration, features.duration) - _LAST))
    pictures = _alikeness(earlier.semantic[:seconds], features.semantic[:seconds])
    motion = _difference(earlier.motion, features.motion, seconds * MOTION_ROWS)
    if pictures < _SAME_PICTURES or motion > _SAME_MOTION:
        raise InputError(
            f"{label}: begins otherwise than the video of its earlier result, which lasts {clock(duration)}; --extend "
            "needs the same video with more at its end; to compose another one, use --overwrite"
        )


def _alikeness(one: np.ndarray, other: np.ndarray) -> float:
    """Median cosine of the embeddings (S, 512) of the same seconds; 1 without any."""
    one, other = (rows.astype(np.float32) for rows in (one, other))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.median((one * other).sum(axis=1) / np.maximum(lengths, 1e-9))) if len(one) else 1.0


def _difference(one: np.ndarray | None, other: np.ndarray | None, rows: int) -> float:
    """Difference of two curves of motion, relative to their sum; 0 if the features of one have none."""
    if one is None or other is None:
        return 0.0
    one, other = one[:rows], other[:rows]
    return float(np.maximum(np.abs(one - other) - _STILL, 0).sum() / max(float((one + other).sum()), 1e-9))
