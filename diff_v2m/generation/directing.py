"""A cue sheet on decoded music: notes follow a drawn rhythm, hits land, silences are silent."""

from __future__ import annotations

import numpy as np

from diff_v2m.common.scratch import TEMPORARY, Scratch
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.generation.canvas import Part
from diff_v2m.generation.landing import Hit, land
from diff_v2m.model.music import Music


def direct_music(music: Music, part: Part, sample_rate: int) -> tuple[Music, tuple[Hit, ...]]:
    """The music with the rhythm, hits and silences of its sheet, and what became of each hit."""
    sheet, features = part.sheet, part.features
    hits: tuple[Hit, ...] = ()
    if part.dynamics is not None:
        music = music.with_dynamics(part.dynamics)
    if sheet["hit"]:
        cuts = np.flatnonzero(features.scene_cut).astype(float) if features.cut_times is None else features.cut_times
        rows = [(cue.time, 1.0 if cue.value is None else float(cue.value)) for cue in sheet["hit"]]
        music, hits = land(music, sample_rate, np.array(rows), cuts, [cue.name for cue in sheet["hit"]], part.fixed)
    if sheet["silence"]:
        spans = [(cue.time, cue.stop) for cue in sheet["silence"]]
        music = music.silenced(silence_gain(sheet, music.audio.shape[1], sample_rate, music.scratch), spans)
    return music, hits


def silence_gain(sheet: CueSheet, samples: int, sample_rate: int, scratch: Scratch = TEMPORARY) -> np.ndarray:
    """(samples,) float32: 0 in the silences, 1 elsewhere, with raised cosines for their fades."""
    gain = scratch.zeros(samples)
    gain[:] = 1
    for cue in sheet["silence"]:
        out, into = (round(fade * sample_rate) for fade in cue.fades)
        start, stop = min(round(cue.time * sample_rate), samples), min(round(cue.stop * sample_rate), samples)
        gain[start:stop] = 0
        falling = np.cos(np.linspace(0, np.pi / 2, out, endpoint=False)) ** 2
        gain[max(0, start - out) : start] *= falling[max(0, out - start) :].astype(np.float32)
        rising = np.sin(np.linspace(0, np.pi / 2, into, endpoint=False)) ** 2
        gain[stop : stop + into] *= rising[: samples - stop].astype(np.float32)
    return gain
