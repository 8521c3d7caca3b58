"""index.html of a comparison: the systems side by side, figure by figure and clip by clip, from report.json alone."""

from __future__ import annotations

from typing import Any

from inference.comparison import differences
from inference.report import page
from inference.report.building import missing
from inference.report.page import Report


def html(report: Report) -> str:
    """A comparison, as differences.py builds it, → the page."""
    anchors = {clip: f"clip-{i}" for i, clip in enumerate(report["clips"], 1)}
    rows = differences.rows(report)
    first, *others = report["systems"]
    return page.render(
        "comparison.html",
        "page.js",
        report=report,
        anchors=anchors,
        rows=rows,
        first=first,
        others=others,
        note=differences.NOTE,
        labels=differences.LABELS,
        clips=[_clip(clip, report, rows) for clip in report["clips"]],
        missing=missing(f for known in report["systems"].values() for f in known["figures"]),
        values={
            row["figure"]["id"]: {
                anchors[clip]: apart for clip in report["clips"] if (apart := _apart(row, clip)) is not None
            }
            for row in rows
        },
    )


def _clip(name: str, report: Report, rows: list[dict[str, Any]]) -> dict[str, Any]:
    takes = {system: page.take(f"{name}, {system}", known) for system, known in report["clips"][name].items()}
    scores = [
        (row["figure"], {system: figure["per_clip"].get(name) for system, figure in row["systems"].items()})
        for row in rows
    ]
    known = [(figure, values) for figure, values in scores if any(value is not None for value in values.values())]
    return {"name": name, "takes": takes, "scores": known}


def _apart(row: dict[str, Any], clip: str) -> float | None:
    """How far the systems lie apart on a clip; None where fewer than two have a value."""
    values = [v for figure in row["systems"].values() if (v := figure["per_clip"].get(clip)) is not None]
    return max(values) - min(values) if len(values) > 1 else None
