"""Drawings of the page as inline SVG, coloured by its style sheet. They stretch to any width, so words stay outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

BINS = 30
WIDTH, HEIGHT = 1000.0, 100.0  # of every drawing, in its own units


def span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest value, never empty."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def histogram(values: Sequence[float], marks: Mapping[str, float | None], within: tuple[float, float]) -> Markup:
    """Bars of how many clips have which value, and a line for each mark; `within`: the values at left and right."""
    low, high = within
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    step, tallest = WIDTH / BINS, max(counts)
    shapes = [
        _rectangle("bar", i * step + 2, HEIGHT * (1 - n / tallest), step - 4, HEIGHT * n / tallest)
        for i, n in enumerate(counts)
        if n
    ]
    shapes += [_upright(kind, (value - low) / (high - low)) for kind, value in marks.items() if value is not None]
    return _drawing(shapes)


def rhythm(clip: Mapping[str, Sequence[float]], seconds: float) -> Markup:
    """Planned and achieved rhythm as steps, each from its own least to its own largest value, and, as uprights, beats
    of the music at the bottom, pseudo beats of the picture at the top, cuts all through. `seconds`: the whole width."""
    shapes = [_steps("predicted", clip.get("predicted_rhythm", ()), seconds, filled=True)]
    shapes += [_upright("cut", time / seconds) for time in clip.get("cuts", ())]
    shapes += [_steps("achieved", clip.get("achieved_rhythm", ()), seconds, filled=False)]
    shapes += [_upright("beat", time / seconds, top=88.0) for time in clip.get("beats", ())]
    shapes += [_upright("pseudo", time / seconds, bottom=12.0) for time in clip.get("pseudo_beats", ())]
    return _drawing(shapes)


def _steps(kind: str, rows: Sequence[float], seconds: float, *, filled: bool) -> str:
    """One value a second."""
    if not rows:
        return ""
    low, high = min(rows), max(rows)
    heights = [84 - 68 * ((row - low) / (high - low) if high > low else 0.0) for row in rows]
    unit = WIDTH / seconds
    points = [f"{(i + k) * unit:.1f},{y:.1f}" for i, y in enumerate(heights) for k in (0, 1)]
    if filled:
        points = [f"0,{HEIGHT:g}", *points, f"{len(rows) * unit:.1f},{HEIGHT:g}"]
    return f'<{"polygon" if filled else "polyline"} class="{kind}" points="{" ".join(points)}"/>'


def _upright(kind: str, place: float, top: float = 0.0, bottom: float = HEIGHT) -> str:
    """A line at `place`, 0 left … 1 right; nothing beyond."""
    if not 0 <= place <= 1:
        return ""
    x = place * WIDTH
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>'


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _drawing(shapes: Iterable[str]) -> Markup:
    """Only numbers and our own words get in here, so nothing needs escaping."""
    view = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" aria-hidden="true"'
    return Markup(f"<svg {view}>{''.join(shapes)}</svg>")
