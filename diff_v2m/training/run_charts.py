"""The curves of a run as charts: the same panels inline in the page of a run and together in one picture."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diff_v2m.training.run_logs import Curve, Logs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#2f74d0", "#e07b00", "#1d9a6c", "#c23b75", "#7a5bd0", "#5f7f1f", "#b5492a", "#2790a8")
TEXT, GRID = "#7c8496", "#8a92a444"  # readable on white and on black: the page follows the reader's theme
POINTS = 600  # of a curve; more are averaged
SMOOTHED_FROM = 60  # points: a curve of one batch a point is shown as its running mean too
COLUMNS = 3  # of the picture
WIDTH, HEIGHT = 520.0, 240.0  # of a panel in the page, in its own units
LEFT, RIGHT, TOP, BOTTOM = 58.0, 510.0, 10.0, 212.0  # where its curves are

GROUPS = {  # heading → columns of the log; the first that fits takes a column, and what none takes gets its own panel
    "Loss": ("train/loss", "train/mse_loss", "val/loss"),
    "Rhythm loss": ("train/rhythm_loss", "val/rhythm_loss"),
    "Predicted rhythm, r with the true one": ("train/rhythm_correlation", "val/rhythm_correlation"),
    "Validation loss by timestep": ("val/mse_t*",),
    "Training loss by timestep": ("train/mse_t*",),
    "Gradient norm": ("train/grad_norm",),
    "Clips a second": ("train/clips_per_second",),
    "Learning rate": ("lr-*",),
    "Share of clips given the true rhythm": ("train/p_true_rhythm",),
    "Music: rhythm, r": ("music/rhythm_r_*",),
    "Music: cuts with a beat": ("music/cuts_*",),
}
LOGARITHMIC = ("Gradient norm",)
HIDDEN = ("epoch",)


@dataclass(frozen=True)
class Line:
    """A curve as it is drawn: steps counted from 1, as checkpoints are named."""

    color: str
    steps: Sequence[float]
    values: Sequence[float]
    mean: Sequence[float] | None  # running, of a noisy curve


@dataclass(frozen=True)
class Panel:
    heading: str
    curves: Mapping[str, Curve]

    @property
    def lines(self) -> Mapping[str, Line]:
        colors = itertools.cycle(COLORS)
        return {name: _line(name, curve, next(colors)) for name, curve in self.curves.items()}

    @property
    def logarithmic(self) -> bool:
        return self.heading in LOGARITHMIC and min(min(curve.values()) for curve in self.curves.values()) > 0


def panels(logs: Logs) -> list[Panel]:
    """Every logged column, each in one panel."""
    left = {name: curve for name, curve in logs.curves.items() if name not in HIDDEN}
    found = []
    for heading, patterns in GROUPS.items():
        names = [name for pattern in patterns for name in fnmatch.filter(left, pattern)]
        if names:
            found.append(Panel(heading, {name: left.pop(name) for name in names}))
    return found + [Panel(name, {name: curve}) for name, curve in left.items()]


def svg(panel: Panel, restarts: Sequence[int]) -> str:
    """One panel as an svg element; dotted: where the run was started again."""
    from matplotlib.ticker import MaxNLocator

    def level(value: float) -> float:
        return math.log10(value) if panel.logarithmic else value

    lines = panel.lines.values()
    first, final = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
    low, high = min(min(line.values) for line in lines), max(max(line.values) for line in lines)
    upright = decades(low, high) if panel.logarithmic else MaxNLocator(5).tick_values(low, high).tolist()
    bottom, top = level(upright[0]), level(upright[-1])
    along = [tick for tick in MaxNLocator(6, integer=True).tick_values(first, final) if first <= tick <= final]

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * ((step - first) / (final - first) if final > first else 0.5)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (level(value) - bottom) / (top - bottom)

    def path(steps: Sequence[float], values: Sequence[float], color: str, opacity: float) -> str:
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
        return f'<polyline points="{points}" stroke="{color}" opacity="{opacity:g}" fill="none" stroke-width="1.6"/>'

    shapes = []
    for tick in upright:
        shapes.append(f'<line x1="{LEFT:g}" x2="{RIGHT:g}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>')
        shapes.append(f'<text x="{LEFT - 6:g}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    shapes += [f'<text x="{x(tick):.1f}" y="{BOTTOM + 18:g}" text-anchor="middle">{tick:g}</text>' for tick in along]
    shapes += [
        f'<line x1="{x(step + 1):.1f}" x2="{x(step + 1):.1f}" y1="{TOP:g}" y2="{BOTTOM:g}" stroke="{TEXT}" '
        'stroke-dasharray="2 4"/>'
        for step in restarts
        if first <= step + 1 <= final
    ]
    for line in lines:
        shapes.append(path(line.steps, line.values, line.color, 1 if line.mean is None else 0.3))
        if line.mean is not None:
            shapes.append(path(line.steps, line.mean, line.color, 1))
        if len(line.steps) < SMOOTHED_FROM:
            shapes += [
                f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.4" fill="{line.color}"/>'
                for step, value in zip(line.steps, line.values, strict=True)
            ]
    # only numbers and our own words get in here, so nothing needs escaping
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" font-size="12" fill="{TEXT}" aria-hidden="true">'
        f"{''.join(shapes)}</svg>"
    )


def decades(low: float, high: float) -> list[float]:
    """Ticks 1, 2, 5, 10 … (10, 100 … over three decades and more) from below the one to above the other."""
    first, final = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    scales = (1, 2, 5) if final - first < 5 else (1,)
    ticks = [scale * 10.0**power for power in range(first, final + 1) for scale in scales]
    below, above = max(t for t in ticks if t <= low), min(t for t in ticks if t > high)
    return [tick for tick in ticks if below <= tick <= above]


def picture(path: Path, title: str, found: Sequence[Panel], restarts: Sequence[int]) -> None:
    """All panels in one png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, math.ceil(len(found) / COLUMNS))
    figure = Figure(figsize=(5.2 * COLUMNS, 3 * rows + 0.6), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title)
    grid = iter(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel in found:
        axes = next(grid)
        draw(axes, panel, restarts)
        axes.set_title(panel.heading, fontsize=10)
        axes.legend(fontsize=7, frameon=False)
    for axes in grid:  # what is left of the last row
        axes.set_axis_off()
    FigureCanvasAgg(figure).print_png(path)


def draw(axes: Axes, panel: Panel, restarts: Sequence[int]) -> None:
    """As `svg`, for the picture."""
    for name, line in panel.lines.items():
        marker = "." if len(line.steps) < SMOOTHED_FROM else ""
        noisy = line.mean is not None
        axes.plot(
            line.steps,
            line.values,
            marker + "-",
            color=line.color,
            alpha=0.3 if noisy else 1,
            linewidth=1.2,
            markersize=4,
            label=None if noisy else name,
        )
        if noisy:
            axes.plot(line.steps, line.mean, color=line.color, linewidth=1.6, label=name)
    for step in restarts:
        axes.axvline(step + 1, color=TEXT, linewidth=0.8, linestyle=":")
    if panel.logarithmic:
        axes.set_yscale("log")
    axes.grid(color=GRID)
    axes.tick_params(labelsize=8)


def _line(name: str, curve: Curve, color: str) -> Line:
    steps, values = thinned([step + 1 for step in curve], [*curve.values()])
    noisy = len(curve) >= SMOOTHED_FROM and name.startswith("train/")
    return Line(color, steps, values, running_mean(values) if noisy else None)


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most POINTS of them, each the mean of its neighbours."""
    size = math.ceil(len(steps) / POINTS) or 1
    pieces = range(0, len(steps), size)
    mean = [[sum(row[i : i + size]) / len(row[i : i + size]) for i in pieces] for row in (steps, values)]
    return mean[0], mean[1]


def running_mean(values: Sequence[float]) -> list[float]:
    """Of each value and its neighbours within a fortieth of the curve, or less where the curve ends."""
    reach = len(values) // 40
    around = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in around]
