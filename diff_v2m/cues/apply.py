"""A sheet and the features of a video → the features that the model receives; and back: a sheet of a composition."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.cues.sheet import NONE, Cue, CueSheet, colors_of, is_image
from diff_v2m.cues.table import DIGITS
from diff_v2m.features.color import rgb_uv_histogram
from diff_v2m.features.motion import second_of
from diff_v2m.features.video_features import VideoFeatures

AS_PREDICTED = 0.6 * 10**-DIGITS  # rhythm that differs less was rounded in the sheet
PREDICTED = "predicted"  # in the name of a row of rhythm, before the value that it replaces
_SAME_TIME = 2e-6  # seconds; likewise of cuts and beats
_PATCH = 16  # pixels of a colour in the palette


def direct(features: VideoFeatures, sheet: CueSheet, *, uses_color: bool) -> VideoFeatures:
    """The features with the sheet's cuts, beats, palettes and accents instead of what the picture has.

    A sheet that repeats everything changes nothing. Raises InputError if the sheet does not fit the video, or has moods
    although the model does not use colour.
    """
    sheet.check_video(features.duration, len(features))
    if sheet["mood"] and not (uses_color and features.color is not None):
        where = f"{sheet.source}: " if sheet.source else ""
        raise InputError(f"{where}{sheet['mood'][0]}: the model is not conditioned on colour; remove the rows mood")
    if sheet.decides("cut"):
        features = _with_cuts(features, np.array([cue.time for cue in sheet["cut"]], float))
    if sheet.decides("beat"):
        beats = [(cue.time, 1.0 if cue.value is None else float(cue.value)) for cue in sheet["beat"]]
        features = _with_beats(features, np.array(beats, float).reshape(-1, 2))
    if sheet["mood"]:
        features = replace(features, color=_with_palettes(features.color, sheet["mood"]))
    if sheet["hit"]:
        hits = [(cue.time, 1.0 if cue.value is None else float(cue.value)) for cue in sheet["hit"]]
        features = replace(features, accents=np.array(hits, float))
    return features


def with_rhythm(features: VideoFeatures, sheet: CueSheet, predicted: Sequence[np.ndarray]) -> VideoFeatures:
    """The features with the sheet's rhythm, except where it repeats one of the curves (S,) that the model predicts."""
    wanted = np.full(len(features), np.nan, np.float32)
    for cue in sheet["rhythm"]:
        if min(abs(float(cue.value) - curve[int(cue.time)]) for curve in predicted) > AS_PREDICTED:
            wanted[int(cue.time)] = cue.value
    return features if np.isnan(wanted).all() else replace(features, wanted_rhythm=wanted)


def dynamics(sheet: CueSheet, predicted: np.ndarray) -> np.ndarray:
    """(S,) by how much the sheet's rhythm differs from the prediction that its row names; 0 in seconds without a row.

    predicted: (S,), for rows that name none.
    """
    change = np.zeros(len(predicted))
    for cue in sheet["rhythm"]:
        second, before = int(cue.time), _predicted(cue)
        change[second] = float(cue.value) - (float(predicted[second]) if before is None else before)
    return np.where(np.abs(change) > AS_PREDICTED, change, 0.0)


def _predicted(cue: Cue) -> float | None:
    word, _, value = cue.name.partition(" ")
    try:
        return float(value) if word == PREDICTED else None
    except ValueError:
        return None


def describe(
    features: VideoFeatures,
    rhythm: np.ndarray,
    name: str,
    sheet: CueSheet | None = None,
    drawn: np.ndarray | None = None,
) -> CueSheet:
    """The sheet of a video with all that music follows: rhythm (S,), cuts and beats, and what a sheet adds to them.

    features: as the model received them. Features of files without exact times have cuts and beats at whole seconds.
    drawn: the `dynamics` of the sheet, whose rows keep their values there. Each row of rhythm names the prediction.
    """
    sheet = sheet or CueSheet()
    cuts = np.flatnonzero(features.scene_cut).astype(float) if features.cut_times is None else features.cut_times
    beats = features.motion_peaks
    if beats is None:
        seconds = np.flatnonzero(features.pseudo_beats)
        beats = np.stack([seconds, features.pseudo_beats[seconds]], axis=1)
    values, change = rhythm.astype(float), np.zeros(len(rhythm)) if drawn is None else drawn
    for cue in sheet["rhythm"]:
        if change[int(cue.time)]:
            values[int(cue.time)] = cue.value
    cues = [_rhythm(float(second), *row) for second, row in enumerate(zip(values, values - change, strict=True))]
    cues += [Cue(time, "cut") for time in _rising(cuts)] or [Cue(0.0, "cut", NONE)]
    heights = dict(zip(np.round(beats[:, 0], 6).tolist(), np.round(beats[:, 1], DIGITS).tolist(), strict=True))
    cues += [Cue(time, "beat", heights[time]) for time in _rising(beats[:, 0])] or [Cue(0.0, "beat", NONE)]
    cues += [Cue(round(features.duration, 6), "end", None, name)]
    return sheet.replacing(("rhythm", "cut", "beat", "end"), cues)


def _rhythm(second: float, value: float, predicted: float) -> Cue:
    return Cue(second, "rhythm", round(value, DIGITS), f"{PREDICTED} {round(predicted, DIGITS):g}")


def palette(cue: Cue) -> np.ndarray:
    """(3072,) float32: histogram of a mood's colours, in equal shares, or of its image. Raises InputError."""
    value = str(cue.value)
    if not is_image(value):
        patches = [np.full((_PATCH, _PATCH, 3), color, np.uint8) for color in colors_of(value)]
        return rgb_uv_histogram(np.concatenate(patches, axis=1)[None])[0]
    try:
        image = cv2.imdecode(np.fromfile(Path(value), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise InputError(f"{cue}: {value} is no image, or it cannot be read")
    return rgb_uv_histogram(image[None, :, :, ::-1])[0]


def _with_cuts(features: VideoFeatures, cuts: np.ndarray) -> VideoFeatures:
    scene_cut = np.zeros(len(features), np.int64)
    scene_cut[second_of(cuts, len(features))] = 1
    known = features.cut_times
    if np.array_equal(scene_cut, features.scene_cut != 0) and (known is None or _same(known, cuts, _SAME_TIME)):
        return features
    return replace(features, scene_cut=scene_cut, cut_times=cuts, shots=None)


def _with_beats(features: VideoFeatures, beats: np.ndarray) -> VideoFeatures:
    pseudo_beats = np.zeros(len(features), np.float32)
    np.maximum.at(pseudo_beats, second_of(beats[:, 0], len(features)), beats[:, 1])
    known = features.motion_peaks
    if _same(pseudo_beats, features.pseudo_beats, AS_PREDICTED) and (
        known is None or _same(known, beats, (_SAME_TIME, AS_PREDICTED))
    ):
        return features
    return replace(features, pseudo_beats=pseudo_beats, motion_peaks=beats, wanted_beats=beats)


def _same(before: np.ndarray, now: np.ndarray, tolerance: float | tuple[float, float]) -> bool:
    return before.shape == now.shape and bool((np.abs(before - now) <= tolerance).all())


def _with_palettes(color: np.ndarray, moods: tuple[Cue, ...]) -> np.ndarray:
    """Each second takes its share of a palette: a span may begin within it."""
    color, seconds = color.copy(), np.arange(len(color))
    for cue in moods:
        share = np.clip(np.minimum(cue.stop, seconds + 1) - np.maximum(cue.time, seconds), 0, 1)[:, None]
        color = ((1 - share) * color + share * palette(cue)).astype(np.float32)
    return color


def _rising(times: np.ndarray) -> list[float]:
    """Times to the microsecond, each once."""
    return np.unique(np.round(times, 6)).tolist()
