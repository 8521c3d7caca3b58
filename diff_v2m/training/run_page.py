"""`python -m diff_v2m.training.run_page RUN...`: write a page about each training run, RUN/summary.html.

Made from the run's folder (run.json, logs, checkpoints, demos) at any time; train.py makes it when a run ends. Curves
and styles are inside the page; demos are played from the run's folder.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import io
import itertools
import json
import logging
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.training.run_logs import Curve, Logs, last, read_logs
from diff_v2m.training.settings import DEFAULTS, read_defaults

log = logging.getLogger("diff_v2m.training.run_page")  # __name__ is "__main__" when this is run

DEMO_STEPS = 4  # of each demo on the page, from the first to the last
SUFFIXES = {".wav": "sound", ".png": "picture", ".mp4": "video"}

COLORS = ("#2f74d0", "#e07b00", "#1d9a6c", "#c23b75", "#7a5bd0", "#5f7f1f", "#b5492a", "#2790a8")
TEXT, GRID = "#7c8496", "#8a92a444"  # readable on white and on black, since the page follows the reader's theme
SMOOTHED_FROM = 60  # values: longer training curves are noisy and get a running mean
PANELS = {  # heading → patterns of columns; the first match takes a column, and any other column gets its own panel
    "Loss": ("train/loss", "train/mse_loss", "val/loss"),
    "Rhythm loss": ("train/rhythm_loss", "val/rhythm_loss"),
    "Predicted rhythm, r with the true one": ("train/rhythm_correlation", "val/rhythm_correlation"),
    "Validation loss by timestep": ("val/mse_t*",),
    "Training loss by timestep": ("train/mse_t*",),
    "Gradient norm": ("train/grad_norm",),
    "Clips per second": ("train/clips_per_second",),
    "Learning rate": ("lr-*",),
    "Share of clips given the true rhythm": ("train/p_true_rhythm",),
    "Music: rhythm, r": ("music/rhythm_r_*",),
    "Music: cuts with a beat": ("music/cuts_*",),
}
LOGARITHMIC = ("Gradient norm",)


@dataclass(frozen=True)
class Panel:
    heading: str
    curves: Mapping[str, Curve]

    @property
    def colors(self) -> dict[str, str]:
        return dict(zip(self.curves, itertools.cycle(COLORS), strict=False))


def write_page(folder: Path) -> Path:
    """→ summary.html. Raises InputError if `folder` holds no run, or one of its files cannot be read."""
    page = html(folder, read_run(folder), read_logs(folder))  # before `atomic`, which makes the folder
    with atomic(folder / "summary.html") as part:
        part.write_text(page, encoding="utf-8")
    return folder / "summary.html"


def write_after_training(folder: Path) -> None:
    """As `write_page`, but errors are logged: they must not fail a finished run."""
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
    """The page. The template escapes every text of the run."""
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
        charts=[(panel, Markup(svg(panel, logs.restarts))) for panel in panels(logs)],
        starts=starts(record),
        settings=shown_settings(record["starts"][-1]["settings"]),
        checkpoints=checkpoints(folder, logs),
        demos=demos(folder, raw),
        model=json.dumps(raw, indent=2),
    )


# ------------------------------------------------------------------------------------------------------- curves


def panels(logs: Logs) -> list[Panel]:
    """Every logged column, each in one panel."""
    left = {name: curve for name, curve in logs.curves.items() if name != "epoch"}
    found = []
    for heading, patterns in PANELS.items():
        names = [name for pattern in patterns for name in fnmatch.filter(left, pattern)]
        if names:
            found.append(Panel(heading, {name: left.pop(name) for name in names}))
    return found + [Panel(name, {name: curve}) for name, curve in left.items()]


def svg(panel: Panel, restarts: Sequence[int]) -> str:
    """One panel as an svg element. Steps count from 1, as in checkpoint names; dotted lines mark restarts."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.4), layout="constrained")
    axes = figure.subplots()
    for name, color in panel.colors.items():
        steps, values = np.array([*panel.curves[name]]) + 1, np.array([*panel.curves[name].values()])
        noisy = len(values) >= SMOOTHED_FROM and name.startswith("train/")
        marker = "." if len(values) < SMOOTHED_FROM else ""
        axes.plot(steps, values, marker=marker, color=color, alpha=0.3 if noisy else 1, linewidth=1.2)
        if noisy:
            axes.plot(steps, running_mean(values), color=color, linewidth=1.6)
    for step in restarts:
        axes.axvline(step + 1, color=TEXT, linewidth=0.8, linestyle=":")
    if panel.heading in LOGARITHMIC and min(min(curve.values()) for curve in panel.curves.values()) > 0:
        axes.set_yscale("log")
    axes.grid(color=GRID)
    axes.tick_params(which="both", labelsize=8, color=TEXT, labelcolor=TEXT)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    # The salt makes ids differ between the panels of a page. Text stays text; only numbers get into it.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": panel.heading}):
        drawing = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawing, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return drawing.getvalue()[drawing.getvalue().index("<svg") :]


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value and its neighbours within a fortieth of the curve; fewer neighbours at the ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


# ------------------------------------------------------------------------------------------------ facts and files


def facts(record: Mapping[str, Any], logs: Logs) -> list[tuple[str, str]]:
    """(name, value) pairs at the top of the page, of what was logged."""
    curves, found = logs.curves, []
    if curves:
        found.append(("steps logged", str(1 + max(max(curve) for curve in curves.values()))))
    if "train/loss" in curves:
        found.append(("training loss, last", number(last(curves["train/loss"]))))
    if "val/loss" in curves:
        step, value = min(curves["val/loss"].items(), key=lambda item: item[1])
        found.append(("validation loss, last", number(last(curves["val/loss"]))))
        found.append((f"validation loss, least (step {step + 1})", number(value)))
    if "val/rhythm_correlation" in curves:
        found.append(("predicted rhythm, r, last", number(last(curves["val/rhythm_correlation"]))))
    if "train/clips_per_second" in curves:
        found.append(("clips per second, median", number(statistics.median(curves["train/clips_per_second"].values()))))
    return [*found, ("starts", str(len(record["starts"])))]


def starts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every start of the run, with the settings that differ from the start before."""
    found = []
    for before, start in zip([None, *record["starts"]], record["starts"], strict=False):
        changes = []
        if before is not None:
            old = before["settings"]
            changes = [f"{name} {value}" for name, value in start["settings"].items() if old.get(name) != value]
            changes += ["the data set"] if before["fingerprints"] != start["fingerprints"] else []
        found.append({**start, "changes": changes})
    return found


def shown_settings(settings: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Flag → (value, whether it differs from defaults.ini)."""
    defaults = {name: value for name, (value, _) in read_defaults(DEFAULTS).items()}
    shown = {
        name: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
    return {name: (value, value != defaults.get(name)) for name, value in shown.items()}


def checkpoints(folder: Path, logs: Logs) -> list[dict[str, Any]]:
    """Path, size in MB, time of writing and validation loss of every checkpoint, and of the model."""
    found, losses = [], logs.curves.get("val/loss", {})
    for path in [*sorted(folder.glob("checkpoints/*.ckpt")), *folder.glob("model.safetensors")]:
        step, stat = re.search(r"step=(\d+)", path.stem), path.stat()
        time = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC).isoformat(timespec="seconds")
        loss = losses.get(int(step[1]) - 1) if step else None
        name = path.relative_to(folder).as_posix()
        found.append({"path": name, "megabytes": stat.st_size / 1e6, "time": time, "loss": loss})
    return found


def demos(folder: Path, model: Mapping[str, Any]) -> dict[str, dict[int, dict[str, str]]]:
    """Piece → step → sound, picture and video, as paths from the run's folder; of at most DEMO_STEPS steps."""
    place = ((model.get("training") or {}).get("demo") or {}).get("demo_save_dir", "generated_demo/")
    found: dict[str, dict[int, dict[str, str]]] = {}
    for path in sorted((folder / place).glob("step_*/*")):
        step = re.fullmatch(r"step_(\d+)", path.parent.name)
        if step and path.suffix in SUFFIXES and not path.name.startswith("."):
            files = found.setdefault(path.stem, {}).setdefault(int(step[1]), {})
            files[SUFFIXES[path.suffix]] = path.relative_to(folder).as_posix()
    return {piece: {step: steps[step] for step in spread(sorted(steps), DEMO_STEPS)} for piece, steps in found.items()}


def spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced, with both ends."""
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, min(count, len(items)))]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m.training.run_page", description="Write RUN/summary.html for each run.")
    parser.add_argument("run", type=Path, nargs="+", help="folder of a run, as runs/first")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    for folder in options.run:
        log.info("wrote %s", write_page(folder))


if __name__ == "__main__":
    sys.exit(main())
