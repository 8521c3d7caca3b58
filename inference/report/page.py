"""index.html: a report to look at and to listen to, made of report.json alone.

One folder that opens from disk: styles and script are in the page, pictures lie beside it, sound and films stay where
they are (or are copied into the folder). Nothing is fetched from a network, and the page forbids it to itself. Names of
files are data, never markup: every text goes through the template's escaping.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diff_v2m.common.files import atomic
from inference.report import paper, svg
from inference.report.building import ARROWS, between, missing, number

EXTREMES = 3  # clips named as the worst and as the best of a figure
LONGEST_AXIS = 12  # labels under a time axis
HERE = Path(__file__).parent / "templates"

Report = Mapping[str, Any]


def write(text: str, folder: Path) -> None:
    """Raises InputError where the folder cannot be written."""
    with atomic(folder / "index.html") as part:
        part.write_text(text, encoding="utf-8")


def render(template: str, script: str, **known: Any) -> str:
    """A template of this folder with the style sheet and one script, of which the page allows no other."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", script))
    loader = FileSystemLoader(HERE)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"number": number, "between": between, "url": quote, "arrow": ARROWS.__getitem__}
    return jinja.get_template(template).render(style=style, script=script, allowed=_hash(script), **known)


def html(report: Report) -> str:
    """A report, as report.py builds it, → the page."""
    anchors = {clip: f"clip-{i}" for i, clip in enumerate(report["clips"], 1)}
    return render(
        "page.html",
        "page.js",
        report=report,
        anchors=anchors,
        paper=paper,
        summary=[f for f in report["figures"] if not f["not_computed"] or paper.published(f["id"]) is not None],
        spreads=[spread for figure in report["figures"] if (spread := _spread(figure)) is not None],
        clips=[_clip(name, report) for name in report["clips"]],
        missing=missing(report["figures"]),
        values={
            figure["id"]: {anchors[clip]: value for clip, value in _known(figure).items() if clip in anchors}
            for figure in report["figures"]
        },
    )


def _spread(figure: Report) -> dict[str, Any] | None:
    """How the clips spread, and the ends; None where there are not several clips whose values differ."""
    row = _known(figure)
    if len(set(row.values())) < 2:
        return None
    lines = {"mean": figure["value"], "real": figure["real"], "chance": figure["chance"]}
    within = svg.span([*row.values(), *(value for value in lines.values() if value is not None)])
    ranked = sorted(row, key=lambda clip: (row[clip], clip), reverse=figure["better"] == "higher")
    count = min(EXTREMES, len(ranked) // 2)
    return {
        "figure": figure,
        "row": row,
        "within": within,
        "svg": svg.histogram([*row.values()], lines, within),
        "best": ranked[:count],
        "worst": ranked[::-1][:count],
    }


def _known(figure: Report) -> dict[str, float]:
    return {clip: value for clip, value in figure["per_clip"].items() if value is not None}


def take(name: str, known: Report) -> dict[str, Any]:
    """One soundtrack of a clip, on one time axis as long as the longer of sound and film."""
    page = known["page"]
    seconds = max(page["seconds"] or 0.0, page["video_seconds"] or 0.0) or 1.0
    return {
        "name": name,
        "known": known,
        "page": page,
        "seconds": seconds,
        "ticks": _ticks(seconds),
        "rhythm": svg.rhythm(known, seconds) if "achieved_rhythm" in known else None,
    }


def _clip(name: str, report: Report) -> dict[str, Any]:
    """Everything about one clip."""
    return {
        **take(name, report["clips"][name]),
        "scores": [(figure, values[name]) for figure in report["figures"] if name in (values := _known(figure))],
        "left_out": report["left_out"].get(name, ()),
    }


def _ticks(seconds: float) -> Sequence[tuple[float, str]]:
    """(per cent of the width, label) of a time axis."""
    step = next(s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 1e9) if seconds / s <= LONGEST_AXIS)
    times = [i * step for i in range(int(seconds / step) + 1)]
    return [(100 * t / seconds, f"{t} s" if seconds < 90 else f"{t // 60}:{t % 60:02d}") for t in times]


def _hash(script: str) -> str:
    """As a content security policy names the one script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
