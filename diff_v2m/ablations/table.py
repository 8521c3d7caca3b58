"""All twins, all seeds → one table in markdown: mean and spread over seeds, and differences within a seed."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diff_v2m.ablations.twins import TABLE, Twin, changed, read_twins
from diff_v2m.config.parsing import read_json
from diff_v2m.errors import InputError
from diff_v2m.runs.logs import last, read_logs

SAME = ("max_steps", "max_epochs", "batch_size", "accum_batches", "gradient_clip_val", "precision")  # of all runs
BEGIN, END = "<!-- written by python -m diff_v2m.ablations table -->", "<!-- end -->"
COLUMNS = {  # value → heading, decimals
    "val/loss": ("validation loss", 4),
    "difference": ("against the whole model", 4),
    "val/rhythm_correlation": ("rhythm predicted, r", 2),
    "onset_r": ("onsets, r", 2),
    "onset_r_wrong": ("with the wrong video", 2),
    "mode": ("mode", 2),
    "instrument": ("instrument", 2),
}

Values = Mapping[str, float]  # one run


@dataclass(frozen=True)
class Conditions:
    """What all runs that are compared have in common."""

    settings: Mapping[str, Any]
    scoring: Mapping[str, Any] | None  # None: no run has been scored


def table(runs: Path, path: Path = TABLE) -> str:
    """Markdown of every twin with a finished run in `runs`/<twin>/seed_<n>.

    Raises InputError if there is none, if runs differ in steps, batch, data or scoring, so that they cannot be
    compared, and if the log of one lacks the validation loss.
    """
    groups, found = read_twins(path), read_runs(runs)
    first = next(iter(next(iter(groups.values()))))
    if not found:
        raise InputError(f"{runs}: no finished run; train them with scripts/ablations.sh")
    conditions = common_conditions(runs, found)
    columns = [id for id in COLUMNS if any(id in run for seeds in found.values() for run in seeds.values())]
    whole = found.get(first, {})
    if whole:
        columns.insert(1, "difference")
    lines = ["| | seeds | " + " | ".join(COLUMNS[id][0] for id in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for group, twins in groups.items():
        rows = []
        for name, twin in twins.items():
            if name in found:
                rows.append(_row(twin.title, found[name], whole, columns))
            elif _is_base(runs / first, twin):
                rows.append(f"| {twin.title} | is the whole model |" + " |" * len(columns))
        if rows:
            lines += [f"| **{group}** |" + " |" * (len(columns) + 1), *rows]
    return "\n".join([_described(conditions), "", *lines, ""])


def read_runs(runs: Path) -> dict[str, dict[int, Values]]:
    """Twin → seed → its values, of the runs that have ended."""
    found: dict[str, dict[int, Values]] = {}
    for model in sorted(runs.glob("*/seed_*/model.safetensors")):
        folder = model.parent
        curves = read_logs(folder).curves
        if "val/loss" not in curves:
            raise InputError(f"{folder}: its log has no val/loss; train it with --val-dataset-config and --logger csv")
        values = {id: last(curves[id]) for id in COLUMNS if id in curves}
        scores = folder / "scores.json"
        if scores.is_file():
            values |= read_json(scores)["scores"]
        seed = int(folder.name.removeprefix("seed_"))
        found.setdefault(folder.parent.name, {})[seed] = values
    return found


def common_conditions(runs: Path, found: Mapping[str, Mapping[int, Values]]) -> Conditions:
    """Raises InputError naming the run that differs."""
    settings, scoring, origin = None, None, None
    for twin, seeds in found.items():
        for seed in seeds:
            folder = runs / twin / f"seed_{seed}"
            start = read_json(folder / "run.json")["starts"][-1]
            own = {name: start["settings"][name] for name in SAME} | {"fingerprints": start["fingerprints"]}
            for name, value in own.items():
                if settings is not None and settings[name] != value:
                    raise InputError(f"{folder}: {name} is {value}, but {settings[name]} in {origin}; compare like "
                                     "with like: train one of them again")  # fmt: skip
            settings, origin = own, origin or folder
            scores = folder / "scores.json"
            if scores.is_file():
                own_scoring = read_json(scores)["settings"]
                if scoring not in (None, own_scoring):
                    raise InputError(f"{scores}: made with other settings than the rest; score them all again")
                scoring = own_scoring
    return Conditions(settings, scoring)


def write_into(document: Path, text: str) -> None:
    """Replace what stands between the two marks of a markdown file. Raises InputError if it has none."""
    from diff_v2m.media import atomic

    content = document.read_text(encoding="utf-8") if document.is_file() else ""
    pieces = re.split(f"{re.escape(BEGIN)}.*?{re.escape(END)}", content, flags=re.DOTALL)
    if len(pieces) != 2:
        raise InputError(f"{document}: expected one place between {BEGIN} and {END}")
    with atomic(document) as part:
        part.write_text(f"{pieces[0]}{BEGIN}\n{text}{END}{pieces[1]}", encoding="utf-8")


def _row(title: str, seeds: Mapping[int, Values], whole: Mapping[int, Values], columns: Sequence[str]) -> str:
    values = [dict(run) for run in seeds.values()]
    for seed, run in zip(seeds, values, strict=True):
        if seed in whole and seeds is not whole:
            run["difference"] = run["val/loss"] - whole[seed]["val/loss"]
    cells = [_cell(id, [run[id] for run in values if id in run]) for id in columns]
    return f"| {title} | {', '.join(map(str, sorted(seeds)))} | " + " | ".join(cells) + " |"


def _cell(id: str, values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "–"
    decimals, sign = COLUMNS[id][1], "+" if id == "difference" else ""
    mean = f"{statistics.fmean(values):{sign}.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def _is_base(folder: Path, twin: Twin) -> bool:
    if not (folder / "model.json").is_file():
        return False
    model, dataset = (json.loads((folder / f"{name}.json").read_text()) for name in ("model", "dataset"))
    return changed(model, twin.model, "") == model and changed(dataset, twin.dataset, "") == dataset


def _described(conditions: Conditions) -> str:
    settings, scoring = conditions.settings, conditions.scoring
    steps, epochs = settings["max_steps"], settings["max_epochs"]
    length = f"{steps} steps" if steps > 0 else f"{epochs} epochs"
    text = f"{length} of {settings['batch_size'] * settings['accum_batches']} clips a process"
    if scoring is not None:
        text += (f"; composed for {scoring['clips']} held-out clips in {scoring['steps']} sampling steps, "
                 f"guidance {scoring['guidance_scale']:g}")  # fmt: skip
    return f"{text}. Mean ± standard deviation over seeds."
