"""Loudness of a mix before it is made: from the powers of both parts, at once, whenever a slider moves.

The mix that is written is measured itself. It differs by its limiter and by the dip, which are not estimated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.files import atomic
from diff_v2m.media.metering import POWER_HOP, gated_loudness
from diff_v2m.mix.levels import Anchors, Measured, balance
from diff_v2m.mix.settings import MixSettings
from diff_v2m.mix.spans import Span

MOST_KNOTS = 400  # of the gain that the page draws


def estimate(sound: dict[str, np.ndarray], music: np.ndarray, duration: float, settings: MixSettings) -> dict[str, Any]:
    """LUFS of mix, music and original, LU of the music below the speech, and the gains that give them.

    sound: by `timeline.measure_sound`. music: (hops,) powers of the take.
    """
    count = len(music)
    own = np.resize(sound["powers"], count) if len(sound["powers"]) >= count else np.zeros(count)
    own[: len(sound["powers"])] = sound["powers"][:count]
    rows = sound[settings.duck_under]
    spans = tuple(Span(start, min(stop, duration)) for start, stop in rows if start < duration)
    clip = Measured(own, music, music, spans, duration)
    chosen = balance(clip, settings, Anchors.of([clip]))

    times = (np.arange(count) + 0.5) * POWER_HOP
    gain_db = np.interp(times, chosen.music.times, chosen.music.decibels)
    parts = {"original": own * 10 ** (chosen.original_db / 10), "music": music * 10 ** (gain_db / 10)}
    parts["mix"] = parts["original"] + parts["music"]
    inside = clip.inside if spans else None
    reached = gated_loudness(parts["mix"], inside if chosen.anchor == settings.duck_under else None)
    trim = settings.target - reached if math.isfinite(reached) else 0.0
    under = gated_loudness(parts["original"], inside) - gated_loudness(parts["music"], inside)
    step = -(-len(chosen.music.times) // MOST_KNOTS)
    return {
        "anchor": chosen.anchor,
        **{f"{name}_lufs": _number(gated_loudness(powers) + trim) for name, powers in parts.items()},
        "music_under": _number(under),
        "original_db": round(chosen.original_db + trim, 2),
        "music_db": {
            "times": [round(time, 2) for time in chosen.music.times[::step]],
            "decibels": [round(gain + trim, 2) for gain in chosen.music.decibels[::step]],
        },
        "spans": [[round(span.start, 2), round(span.stop, 2)] for span in spans],
    }


def write_sound(path: Path, sound: dict[str, np.ndarray]) -> None:
    """Keep what `measure_sound` found."""
    with atomic(path) as part:
        np.savez(part, allow_pickle=False, **sound)


def read_sound(path: Path) -> dict[str, np.ndarray]:
    """What `write_sound` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _number(value: float) -> float | None:
    return round(value, 1) if math.isfinite(value) else None
