"""index.html: the report as a page, rendered from report.json alone.

The page opens from disk: styles and script are inline, thumbnails lie beside it, media stay where they are or are
copied into the folder. It fetches nothing from a network, and its content security policy forbids that. The template
escapes every text, so names of files cannot become markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diff_v2m.common.files import atomic
from inference.report import paper, svg
from inference.report.building import ARROWS, between, missing, number

EXTREMES = 3  # clips shown as the best and the worst of a metric
MAX_TICKS = 12  # of a time axis
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10**9)  # s between ticks
TEMPLATES = Path(__file__).parent / "templates"

Report = Mapping[str, Any]


def write(text: str, folder: Path) -> None:
    """Raises InputError if the folder cannot be written."""
    with atomic(folder / "index.html") as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def render(template: str, script: str, **known: Any) -> str:
    """Render a template with the style sheet and one script. The page allows no other script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", script))
    loader = FileSystemLoader(TEMPLATES)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    url = partial(quote, errors="surrogateescape")  # the bytes of a path that is not UTF-8
    jinja.filters |= {"number": number, "between": between, "url": url, "arrow": ARROWS.__getitem__}
    return jinja.get_template(template).render(style=style, script=script, allowed=_csp_hash(script), **known)


def html(report: Report) -> str:
    """A report from building.py → the page."""
    anchors = {clip: f"clip-{i}" for i, clip in enumerate(report["clips"], 1)}
    results = report["figures"]
    return render(
        "page.html",
        "page.js",
        report=report,
        anchors=anchors,
        paper=paper,
        summary=[r for r in results if not r["not_computed"] or paper.published(r["id"]) is not None],
        distributions=[d for result in results if (d := _distribution(result)) is not None],
        clips=[_clip(name, report) for name in report["clips"]],
        missing=missing(results),
        values={
            result["id"]: {anchors[clip]: value for clip, value in _defined(result).items() if clip in anchors}
            for result in results
        },
    )


def _distribution(result: Report) -> dict[str, Any] | None:
    """Histogram, best and worst clips; None for fewer than two different values."""
    values = _defined(result)
    if len(set(values.values())) < 2:
        return None
    lines = {"mean": result["value"], "real": result["real"], "chance": result["chance"]}
    limits = svg.value_range([*values.values(), *(value for value in lines.values() if value is not None)])
    ranked = sorted(values, key=lambda clip: (values[clip], clip), reverse=result["better"] == "higher")
    count = min(EXTREMES, len(ranked) // 2)
    return {
        "metric": result,
        "scores": values,
        "limits": limits,
        "svg": svg.histogram([*values.values()], lines, limits),
        "best": ranked[:count],
        "worst": ranked[::-1][:count],
    }


def _defined(result: Report) -> dict[str, float]:
    return {clip: value for clip, value in result["per_clip"].items() if value is not None}


def soundtrack(name: str, known: Report) -> dict[str, Any]:
    """One soundtrack of a clip, on one time axis as long as the longer of audio and video."""
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
    """The section of one clip."""
    return {
        **soundtrack(name, report["clips"][name]),
        "scores": [(result, values[name]) for result in report["figures"] if name in (values := _defined(result))],
        "skipped": report["left_out"].get(name, ()),
    }


def _ticks(seconds: float) -> Sequence[tuple[float, str]]:
    """(per cent of the width, label) of a time axis."""
    step = next(s for s in STEPS if seconds / s <= MAX_TICKS)
    times = [i * step for i in range(int(seconds / step) + 1)]
    return [(100 * t / seconds, f"{t} s" if seconds < 90 else f"{t // 60}:{t % 60:02d}") for t in times]


def _csp_hash(script: str) -> str:
    """The source expression by which a content security policy allows one inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
