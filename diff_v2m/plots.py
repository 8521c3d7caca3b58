"""The picture beside every result: frames, dominant colours, predicted and achieved rhythm, and mel-spectrogram.

The panels share one time axis in seconds. Seconds with a cut are marked in all of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from diff_v2m.common.errors import ignore_warnings
from diff_v2m.features import rhythm
from diff_v2m.media import Thumbnails
from diff_v2m.media.metering import Waveform
from diff_v2m.metrics.rhythm import correlation
from diff_v2m.score.score import BeatGrid

if TYPE_CHECKING:  # matplotlib is imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diff_v2m.mix.mixing import Mix

WIDTH, HEIGHT, DPI = 1600, 900, 100  # pixels
FAST = 1  # zlib's level: a third of the usual time
COLUMNS = 1500  # of the spectrogram, about its width in pixels
PALETTE_COLORS = 5
_MATPLOTLIB = threading.Lock()  # it is not thread-safe
_CHUNK_SECONDS = 30  # audio analysed at once; rhythm is standardised over this span, as in training

_BACKGROUND, _PANEL, _TEXT, _MUTED = "#11141b", "#191d27", "#e8eaf0", "#8b93a7"
_PREDICTED, _ACHIEVED, _CUT, _SPAN, _HIT = "#3f6fb5", "#ffb454", "#ff5d7a", "#7ee0b5", "#5fe08a"
_LABELS = {"frames": "picture", "palette": "colour", "rhythm": "rhythm", "mix": "mix", "mel": "music"}
# left and width of all panels, bottom and height of each, as fractions of the figure
_LEFT, _WIDTH = 0.085, 0.895
_ROWS = {"frames": (0.745, 0.145), "palette": (0.675, 0.055), "rhythm": (0.455, 0.185), "mel": (0.075, 0.345)}
_ROWS_WITH_MIX = {**_ROWS, "mix": (0.315, 0.105), "mel": (0.075, 0.21)}


def draw(
    path: Path,
    *,
    title: str,
    subtitle: str,
    audio: Waveform,
    sample_rate: int,
    scene_cut: np.ndarray,
    predicted_rhythm: np.ndarray,
    thumbnails: Thumbnails | None,
    grid: BeatGrid | None = None,
    spans: Sequence[tuple[float, float]] = (),
    joins: Sequence[float] = (),
    mix: Mix | None = None,
    hits: Sequence[tuple[float, bool]] = (),
    cues: Sequence[tuple[str, float, float]] = (),
) -> None:
    """Write the png.

    audio (channels, n) float; scene_cut (S,) 0/1 and predicted_rhythm (S,) of any scale, one value per second;
    thumbnails: None without a video (a data set without videos). grid: bars and tempo of music that has notes.
    spans, joins: seconds composed again in an earlier result, and where their sound joins it.
    mix: None where the sound of the video is replaced.
    hits: seconds and whether the music accents them; cues: name, start and stop of moods and silences.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    duration = audio.shape[1] / sample_rate
    achieved, spectrogram = analyse(audio, sample_rate)
    with _MATPLOTLIB:
        figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=_BACKGROUND)
        rows = _ROWS if mix is None else _ROWS_WITH_MIX
        axes = {name: _panel(figure, row) for name, row in rows.items()}
        if thumbnails is not None:
            _draw_frames(axes["frames"], thumbnails, duration)
            _draw_palette(axes["palette"], thumbnails, duration)
        else:
            _note(axes["frames"], 0.5, 0.5, "no video file: features only", _MUTED, ha="center", va="center")
        _draw_rhythm(axes["rhythm"], predicted_rhythm, achieved, duration)
        _draw_spectrogram(axes["mel"], spectrogram, duration, sample_rate)
        if mix is not None:
            _draw_mix(axes["mix"], mix)
        for panel in axes.values():
            panel.set_xlim(0, duration)
        _mark_cuts(axes, scene_cut, duration)
        _mark_cues(axes["palette"], cues)
        _mark_hits(axes, hits)
        if grid is not None:
            _draw_bars(axes["mel"], grid, duration)
        _mark_spans([axes["rhythm"], axes["mel"]], spans, joins)

        for name, (bottom, height) in rows.items():
            figure.text(0.014, bottom + height / 2, _LABELS[name], color=_TEXT, fontsize=11, va="center")
        figure.text(_LEFT, 0.945, title, color=_TEXT, fontsize=17, weight="bold", parse_math=False)
        figure.text(_LEFT, 0.912, subtitle, color=_MUTED, fontsize=11, parse_math=False)
        with ignore_warnings("Glyph"):  # of scripts that the bundled font lacks
            FigureCanvasAgg(figure).print_png(str(path), pil_kwargs={"compress_level": FAST})


def analyse(audio: Waveform, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """(channels, n) → achieved rhythm (S,), the predictor's own kind of target, and mel-spectrogram (128, columns) dB.

    Computed window by window, as in training, so that memory does not grow with the length.
    """
    chunk, samples = _CHUNK_SECONDS * sample_rate, audio.shape[1]
    onsets, columns = [], []
    for start in range(0, max(1, samples), chunk):
        block = np.ascontiguousarray(audio[:, start : start + chunk], dtype=np.float32)
        piece = rhythm.to_mono(torch.from_numpy(block))
        onsets.append(rhythm.odf(piece, sample_rate)[:, 0].numpy())
        frames = rhythm.mel(piece, sample_rate).numpy().T  # (128, frames)
        width = max(1, min(frames.shape[1], round(COLUMNS * len(piece) / samples)))
        edges = np.linspace(0, frames.shape[1], width + 1).astype(int)[:-1]
        columns.append(np.maximum.reduceat(frames, edges, axis=1))  # the maximum keeps drum hits visible
    return np.concatenate(onsets), np.concatenate(columns, axis=1)


def palette(frame: np.ndarray, colors: int = PALETTE_COLORS) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 → the dominant colours, dark to light: (k, 3) uint8 and their shares of the frame (k,)."""
    pixels = cv2.resize(frame, (24, 24), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0)
    _, labels, centres = cv2.kmeans(pixels, colors, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(labels[:, 0], minlength=colors) / len(labels)
    order = np.argsort(centres @ [0.299, 0.587, 0.114])
    return centres[order].round().astype(np.uint8), shares[order]


def palette_strip(frames: np.ndarray, rows: int = 60) -> np.ndarray:
    """(n, H, W, 3) uint8 → (rows, n, 3): a column per frame, dominant colours as high as their shares, dark first."""
    image = np.zeros((rows, len(frames), 3), np.uint8)
    for column, frame in enumerate(frames):
        colors, shares = palette(frame)
        index = np.searchsorted(np.cumsum(shares), (np.arange(rows) + 0.5) / rows).clip(max=len(colors) - 1)
        image[:, column] = colors[index]
    return image


# ---------------------------------------------------------------------------------------------------- panels


def _panel(figure: Figure, row: tuple[float, float]) -> Axes:
    axes = figure.add_axes((_LEFT, row[0], _WIDTH, row[1]), facecolor=_PANEL)
    axes.set_yticks([])
    axes.tick_params(colors=_MUTED, labelsize=10, length=3, labelbottom=False, bottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _note(axes: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Text at a place given in fractions of the panel."""
    axes.text(x, y, text, transform=axes.transAxes, color=color, **options)


def _draw_frames(axes: Axes, thumbnails: Thumbnails, duration: float) -> None:
    """As many frames side by side as fit, each over its own time and cropped to its slot."""
    strip = _WIDTH * WIDTH / (_ROWS["frames"][1] * HEIGHT)  # width of the strip in units of its height
    height, width = thumbnails.frames.shape[1:3]
    slots = max(1, round(strip * height / width))
    for slot in range(slots):
        start, stop = duration * slot / slots, duration * (slot + 1) / slots
        frame = thumbnails.frames[_frame_at(thumbnails, (start + stop) / 2)]
        axes.imshow(_crop(frame, strip / slots), extent=(start, stop, 0, 1), aspect="auto", interpolation="bilinear")
        axes.axvline(start, color=_BACKGROUND, linewidth=2)
    axes.set_ylim(0, 1)


def _draw_palette(axes: Axes, thumbnails: Thumbnails, duration: float) -> None:
    image = palette_strip(thumbnails.frames)
    edges = np.append(thumbnails.times, max(duration, thumbnails.times[-1] + 1e-3))
    axes.pcolorfast(edges, np.linspace(0, 1, len(image) + 1), image)
    axes.set_ylim(0, 1)


def _draw_rhythm(axes: Axes, predicted: np.ndarray, achieved: np.ndarray, duration: float) -> None:
    """Both as steps over their seconds, each scaled from its minimum to its maximum."""
    seconds = min(len(predicted), len(achieved))
    edges = np.append(np.arange(seconds), duration)  # the last fraction of a second has no value of its own
    axes.stairs(
        _unit(predicted[:seconds]), edges, fill=True, color=_PREDICTED, label="predicted, or drawn in the sheet"
    )
    axes.stairs(
        _unit(achieved[:seconds]),
        edges,
        baseline=None,
        color=_ACHIEVED,
        linewidth=2.2 if seconds <= 120 else 1.0,
        label="achieved: strongest onset of each second",
    )
    axes.set_ylim(0, 1.08)
    agreement = correlation(achieved, predicted, constant=None, shortest=3)
    note = "" if agreement is None else f"correlation r = {agreement:.2f}".replace("-", "−")
    legend = axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.003, 0.985),
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=_TEXT,
        borderaxespad=0.2,
        title=None,
    )
    legend.set_zorder(5)
    _note(axes, 0, 1.06, note, _TEXT, fontsize=10, va="bottom")


def _draw_mix(axes: Axes, mix: Mix) -> None:
    """Seconds with speech (or what else the music goes under), and the gain of the music in dB."""
    curve, what = mix.balance.music, mix.settings.duck_under
    for number, (start, stop) in enumerate(mix.measured.spans):
        axes.axvspan(start, stop, color=_PREDICTED, alpha=0.6, linewidth=0, label="" if number else what)
    edge = mix.measured.duration  # a level curve has one knot only
    times, gains = [*curve.times, max(edge, curve.times[-1])], [*curve.decibels, curve.decibels[-1]]
    axes.plot(times, gains, color=_ACHIEVED, linewidth=1.8, label="gain of the music")
    low, high = min(gains), max(gains)
    axes.set_ylim(low - max(2.0, 0.15 * (high - low)), high + max(2.0, 0.15 * (high - low)))
    axes.set_yticks(sorted({low, high}))
    axes.set_yticklabels([f"{gain:.0f} dB".replace("-", "−") for gain in sorted({low, high})])
    axes.tick_params(left=True)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.003, 0.975),
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=_TEXT,
        borderaxespad=0.2,
    )


def _draw_spectrogram(axes: Axes, spectrogram: np.ndarray, duration: float, sample_rate: int) -> None:
    """(128, columns) in dB: 70 dB below the loudest is black; ticks at round frequencies of the HTK mel scale."""
    from matplotlib.ticker import MaxNLocator

    top = float(spectrogram.max(initial=-100.0))
    axes.imshow(
        spectrogram,
        origin="lower",
        aspect="auto",
        extent=(0, duration, 0, 1),
        cmap="magma",
        vmin=top - 70,
        vmax=max(top, top - 69),
        interpolation="bilinear",
    )
    ticks = [hertz for hertz in (200, 500, 1000, 2000, 4000, 8000, 16000) if hertz < 0.51 * sample_rate]
    axes.set_yticks([min(1.0, _mel(hertz) / _mel(sample_rate / 2)) for hertz in ticks])
    axes.set_yticklabels([f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz" for hertz in ticks])
    axes.tick_params(left=True, labelbottom=True, bottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, steps=[1, 2, 5, 10] if duration < 90 else [1, 1.5, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: _clock(value, duration))
    axes.set_ylim(0, 1)


def _mark_cuts(axes: dict[str, Axes], scene_cut: np.ndarray, duration: float) -> None:
    """A band over each second with a cut, with a bright edge: features give the second, not the frame."""
    pixels = 3 if np.count_nonzero(scene_cut) <= 40 else 1
    edge = pixels * duration / (_WIDTH * WIDTH)
    bands = [(second, min(1.0, duration - second)) for second in np.flatnonzero(scene_cut)]
    edges = [(second, min(edge, width)) for second, width in bands]
    for name, panel in axes.items():  # one drawing for all bands: one for each takes a quarter of a second
        whole = {"transform": panel.get_xaxis_transform(), "color": _CUT, "linewidth": 0}
        if name not in ("frames", "palette"):
            panel.broken_barh(bands, (0, 1), alpha=0.16, **whole)
        panel.broken_barh(edges, (0, 1), alpha=0.9, **whole)
    if np.any(scene_cut):
        _note(axes["frames"], 1.0, 1.05, "▎second with a cut", _CUT, fontsize=10, ha="right", va="bottom")


def _mark_spans(panels: Sequence[Axes], spans: Sequence[tuple[float, float]], joins: Sequence[float]) -> None:
    """A frame around each span that was composed again, and a dashed line at each join."""
    for panel in panels:
        for start, stop in spans:
            panel.axvspan(start, stop, facecolor="none", edgecolor=_SPAN, linewidth=1.5)
        for join in joins:
            panel.axvline(join, color=_SPAN, linewidth=1, linestyle="--")


def _draw_bars(axes: Axes, grid: BeatGrid, duration: float) -> None:
    """A tick for each bar at the upper edge, and the tempo where it changes."""
    bars = grid.bars[(grid.bars >= 0) & (grid.bars < duration)]
    axes.vlines(bars, 0.955, 1.0, color=_TEXT, linewidth=1.2 if len(bars) <= 120 else 0.5)
    room, last = 0.05 * duration, -math.inf  # a label takes about as much
    for at, tempo in grid.tempo_map:
        at = max(at, 0.0)
        if at - last >= room and at < duration - room:
            axes.text(at + 0.002 * duration, 0.9, f"{tempo:.0f} BPM", color=_TEXT, fontsize=8, va="center")
            last = at


def _mark_hits(axes: dict[str, Axes], hits: Sequence[tuple[float, bool]]) -> None:
    """A line through all panels at each hit, with a triangle above the rhythm: filled where the music accents it."""
    panel = axes["rhythm"]
    for time, landed in hits:
        for row in axes.values():
            row.axvline(time, color=_HIT, linewidth=1.2, linestyle="-" if landed else ":", alpha=0.9)
        panel.plot(time, 1.04, marker="v", color=_HIT, markersize=8, fillstyle="full" if landed else "none", zorder=6)
    if hits:
        missed = sum(not landed for _, landed in hits)
        text = f"▼ hit ({len(hits)}" + (f", {missed} missed)" if missed else ")")
        _note(axes["frames"], 0.86, 1.05, text, _HIT, fontsize=10, ha="right", va="bottom")


def _mark_cues(panel: Axes, cues: Sequence[tuple[str, float, float]]) -> None:
    """The name of each cue above the colours, with a bar from its start to its stop."""
    for name, start, stop in cues:
        panel.plot((start, stop), (1.0, 1.0), color=_TEXT, linewidth=4, solid_capstyle="butt", clip_on=False)
        panel.text(start, 1.08, name, color=_TEXT, fontsize=9, va="bottom", ha="left")


# --------------------------------------------------------------------------------------------------- helpers


def _frame_at(thumbnails: Thumbnails, time: float) -> int:
    return max(0, int(np.searchsorted(thumbnails.times, time, side="right")) - 1)


def _crop(frame: np.ndarray, aspect: float) -> np.ndarray:
    """The middle of the frame at width / height = aspect."""
    height, width = frame.shape[:2]
    wanted = max(1, min(width, round(height * aspect)))
    tall = max(1, min(height, round(width / aspect)))
    left, top = (width - wanted) // 2, (height - tall) // 2
    return frame[top : top + tall, left : left + wanted]


def _unit(values: np.ndarray) -> np.ndarray:
    """Scaled to 0…1; constant values become zeros."""
    low, high = float(np.min(values, initial=np.inf)), float(np.max(values, initial=-np.inf))
    return (values - low) / (high - low) if high - low > 1e-9 else np.zeros(len(values))


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _clock(seconds: float, duration: float) -> str:
    """Format a time: 12 s in a short clip, 3:05 in a long one."""
    if duration < 90:
        return f"{seconds:g} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
