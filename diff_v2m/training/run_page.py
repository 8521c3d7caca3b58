"""A run on one page, <run>/summary.html, and its curves in summary.png.

Made from what the run keeps (run.json, logs, checkpoints, demos), at any time; train.py makes the page when a run ends.
The page opens from disk: curves and styles are in it, demos are played from where they lie in the run's folder.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.training import run_charts as charts
from diff_v2m.training.run_logs import Curve, Logs, last, read_logs
from diff_v2m.training.settings import read_defaults

log = logging.getLogger(__name__)

DEMO_STEPS = 4  # of each demo that can be heard: the first, the last and what is between
SUFFIXES = {".wav": "sound", ".png": "picture", ".mp4": "film"}


def write_page(folder: Path) -> Path:
    """→ summary.html. Raises InputError if `folder` is no run's, or one of its files cannot be read."""
    from diff_v2m.common.files import atomic

    with atomic(folder / "summary.html") as part:
        part.write_text(html(folder, read_run(folder), read_logs(folder)), encoding="utf-8")
    return folder / "summary.html"


def write_picture(folder: Path) -> Path | None:
    """→ summary.png, where there are curves. Raises InputError as `write_page`."""
    from diff_v2m.common.files import atomic

    logs = read_logs(folder)
    if not logs.curves:
        return None
    with atomic(folder / "summary.png") as part:
        charts.picture(part, folder.resolve().name, charts.panels(logs), logs.restarts)
    return folder / "summary.png"


def write_after_training(folder: Path) -> None:
    """As `write_page`; what goes wrong is logged: a page is not worth an error after a finished run."""
    try:
        log.info("wrote %s", write_page(folder))
    except Exception:
        log.exception("%s: no summary; the run itself is complete", folder)


def read_run(folder: Path) -> dict[str, Any]:
    """The run's run.json, with at least one start."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no run.json; expected the folder of a run, as runs/first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not record.get("starts"):
        raise InputError(f"{path}: names no start of the run")
    return record


def html(folder: Path, record: Mapping[str, Any], logs: Logs) -> str:
    """The page; every text of the run goes through the template's escaping."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"number": number, "url": quote, "newest": last}
    model = folder / "model_config.json"
    raw = json.loads(model.read_text(encoding="utf-8")) if model.is_file() else {}
    return jinja.get_template("run_page.html").render(
        name=folder.resolve().name,
        record=record,
        facts=facts(record, logs),
        finished=(folder / "model.safetensors").is_file(),
        charts=[(panel, Markup(charts.svg(panel, logs.restarts))) for panel in charts.panels(logs)],
        starts=starts(record),
        settings=shown_settings(record["starts"][-1]["settings"]),
        checkpoints=checkpoints(folder, logs),
        demos=demos(folder, raw),
        model=json.dumps(raw, indent=2),
    )


def facts(record: Mapping[str, Any], logs: Logs) -> list[tuple[str, str]]:
    """(What, value) of the line on top; only what was logged."""
    curves, found = logs.curves, []
    if curves:
        found.append(("steps logged", str(1 + max(max(curve) for curve in curves.values()))))
    if "train/loss" in curves:
        found.append(("training loss, last", number(last(curves["train/loss"]))))
    if "val/loss" in curves:
        step, value = least(curves["val/loss"])
        found.append(("validation loss, last", number(last(curves["val/loss"]))))
        found.append((f"validation loss, least (step {step + 1})", number(value)))
    if "val/rhythm_correlation" in curves:
        found.append(("predicted rhythm, r, last", number(last(curves["val/rhythm_correlation"]))))
    if "train/clips_per_second" in curves:
        median = statistics.median(curves["train/clips_per_second"].values())
        found.append(("clips a second, median", number(median)))
    return [*found, ("starts", str(len(record["starts"])))]


def least(curve: Curve) -> tuple[int, float]:
    """(step, value)"""
    return min(curve.items(), key=lambda item: item[1])


def starts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every start of the run: when, by which code, and what was different from the start before."""
    found, before = [], None
    for start in record["starts"]:
        settings, data = start["settings"], start["fingerprints"]
        changes = [
            f"{name} {value}"
            for name, value in settings.items()
            if before is not None and before["settings"].get(name) != value
        ]
        if before is not None and before["fingerprints"] != data:
            changes.append("the data set")
        found.append(
            {
                "time": start["time"],
                "code": start["code"],
                "versions": start["versions"],
                "fingerprints": data,
                "changes": changes,
            }
        )
        before = start
    return found


def shown_settings(settings: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Flag → (value, whether it is other than defaults.ini says)."""
    defaults = {name: value for name, (value, _) in read_defaults(ROOT / "defaults.ini").items()}
    shown = {
        name: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
    return {name: (value, value != defaults.get(name)) for name, value in shown.items()}


def checkpoints(folder: Path, logs: Logs) -> list[dict[str, Any]]:
    """Name, size in MB, time of writing and, where the name says the step, the validation loss there; and the model."""
    found, losses = [], logs.curves.get("val/loss", {})
    for path in [*sorted(folder.glob("checkpoints/*.ckpt")), *folder.glob("model.safetensors")]:
        step = re.search(r"step=(\d+)", path.stem)
        stat = path.stat()
        when = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC).isoformat(timespec="seconds")
        loss = losses.get(int(step[1]) - 1) if step else None
        found.append(
            {"path": path.relative_to(folder).as_posix(), "megabytes": stat.st_size / 1e6, "time": when, "loss": loss}
        )
    return found


def demos(folder: Path, model: Mapping[str, Any]) -> dict[str, dict[int, dict[str, str]]]:
    """Piece → step → sound, picture and film, as paths from the run's folder; of at most DEMO_STEPS steps."""
    place = ((model.get("training") or {}).get("demo") or {}).get("demo_save_dir", "generated_demo/")
    found: dict[str, dict[int, dict[str, str]]] = {}
    for path in sorted((folder / place).glob("step_*/*")):
        step = re.fullmatch(r"step_(\d+)", path.parent.name)
        if step and path.suffix in SUFFIXES and not path.name.startswith("."):
            files = found.setdefault(path.stem, {}).setdefault(int(step[1]), {})
            files[SUFFIXES[path.suffix]] = path.relative_to(folder).as_posix()
    return {
        piece: {step: by_step[step] for step in spread(sorted(by_step), DEMO_STEPS)} for piece, by_step in found.items()
    }


def spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, evenly spread, with both ends."""
    if len(items) <= count:
        return [*items]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
