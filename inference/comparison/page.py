"""index.html of a comparison: systems side by side, for each metric and each clip, from report.json alone."""

from __future__ import annotations

from typing import Any

from inference.comparison import differences
from inference.report import page
from inference.report.building import missing
from inference.report.page import Report


def html(report: Report) -> str:
    """A comparison from differences.py → the page."""
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
        missing=missing(result for known in report["systems"].values() for result in known["figures"]),
        values={
            row["metric"]["id"]: {
                anchors[clip]: spread for clip in report["clips"] if (spread := _spread(row, clip)) is not None
            }
            for row in rows
        },
    )


def _clip(name: str, report: Report, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The section of one clip."""
    entries = report["clips"][name].items()
    soundtracks = {system: page.soundtrack(f"{name}, {system}", known) for system, known in entries}
    scores = [
        (row["metric"], {system: result["per_clip"].get(name) for system, result in row["systems"].items()})
        for row in rows
    ]
    defined = [(metric, values) for metric, values in scores if any(value is not None for value in values.values())]
    return {"name": name, "soundtracks": soundtracks, "scores": defined}


def _spread(row: dict[str, Any], clip: str) -> float | None:
    """Largest difference between systems on a clip; None where fewer than two have a value."""
    values = [v for result in row["systems"].values() if (v := result["per_clip"].get(clip)) is not None]
    return max(values) - min(values) if len(values) > 1 else None
