"""Plots of the page as inline SVG. The style sheet colours them and they stretch to any width, so they hold no text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

BINS = 30
WIDTH, HEIGHT = 1000.0, 100.0  # of every plot, in SVG units


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """(minimum, maximum), widened where they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def histogram(values: Sequence[float], lines: Mapping[str, float | None], limits: tuple[float, float]) -> Markup:
    """Number of clips over value, and a vertical line for each of `lines` (CSS class → value). `limits`: x axis."""
    low, high = limits
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    step, tallest = WIDTH / BINS, max(counts)
    shapes = [
        _rectangle("bar", i * step + 2, HEIGHT * (1 - n / tallest), step - 4, HEIGHT * n / tallest)
        for i, n in enumerate(counts)
        if n
    ]
    shapes += [_vertical(kind, (value - low) / (high - low)) for kind, value in lines.items() if value is not None]
    return _svg(shapes)


def rhythm(clip: Mapping[str, Sequence[float]], seconds: float) -> Markup:
    """Predicted and achieved rhythm as steps, each scaled to its own range. Vertical lines: beats of the music at the
    bottom, pseudo beats of the video at the top, cuts over the full height. `seconds`: length of the x axis.
    """
    shapes = [_steps("predicted", clip.get("predicted_rhythm", ()), seconds, filled=True)]
    shapes += [_vertical("cut", time / seconds) for time in clip.get("cuts", ())]
    shapes += [_steps("achieved", clip.get("achieved_rhythm", ()), seconds, filled=False)]
    shapes += [_vertical("beat", time / seconds, top=88.0) for time in clip.get("beats", ())]
    shapes += [_vertical("pseudo", time / seconds, bottom=12.0) for time in clip.get("pseudo_beats", ())]
    return _svg(shapes)


def _steps(kind: str, values: Sequence[float], seconds: float, *, filled: bool) -> str:
    """One value a second."""
    if not values:
        return ""
    low, high = min(values), max(values)
    heights = [84 - 68 * ((value - low) / (high - low) if high > low else 0.0) for value in values]
    unit = WIDTH / seconds
    points = [f"{(i + k) * unit:.1f},{y:.1f}" for i, y in enumerate(heights) for k in (0, 1)]
    if filled:
        points = [f"0,{HEIGHT:g}", *points, f"{len(values) * unit:.1f},{HEIGHT:g}"]
    return f'<{"polygon" if filled else "polyline"} class="{kind}" points="{" ".join(points)}"/>'


def _vertical(kind: str, position: float, top: float = 0.0, bottom: float = HEIGHT) -> str:
    """A line at `position`, from 0 (left) to 1 (right); none outside."""
    if not 0 <= position <= 1:
        return ""
    x = position * WIDTH
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>'


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(shapes: Iterable[str]) -> Markup:
    """Not escaped: shapes hold numbers and class names of this module only."""
    view = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" aria-hidden="true"'
    return Markup(f"<svg {view}>{''.join(shapes)}</svg>")
