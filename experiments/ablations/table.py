"""Results → one markdown table: mean and spread over seeds, and differences within a seed."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from diff_v2m.common.errors import InputError
from experiments.ablations.results import Results, Values
from experiments.ablations.variants import Variant

BEGIN, END = "<!-- written by python -m experiments.ablations table -->", "<!-- end -->"
COLUMNS = {  # value → heading, decimals
    "val/loss": ("validation loss", 4),
    "difference": ("against the whole model", 4),
    "val/rhythm_correlation": ("rhythm predicted, r", 2),
    "onset_r": ("onsets, r", 2),
    "onset_r_wrong": ("with the wrong video", 2),
    "mode": ("mode", 2),
    "instrument": ("instrument", 2),
}


def table(results: Sequence[Results], groups: Mapping[str, Mapping[str, Variant]]) -> str:
    """Markdown table of every variant with a result, by group. The first variant is the whole model.

    results: one for each set of data. A variant is compared with the whole model of the same set and seed.
    """
    first = next(iter(next(iter(groups.values()))))
    found = [value for one in results for seeds in one.runs.values() for run in seeds.values() for value in run]
    columns = [id for id in COLUMNS if id in found]
    if any(first in one.runs for one in results):
        columns.insert(1, "difference")
    lines = ["| | seeds | " + " | ".join(COLUMNS[id][0] for id in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for group, variants in groups.items():
        rows = []
        for name, variant in variants.items():
            runs = [_compared(one.runs[name], one.runs.get(first, {})) for one in results if name in one.runs]
            if runs:
                rows.append(_row(variant.title, runs, columns))
            elif any(name in one.whole for one in results):
                rows.append(f"| {variant.title} | is the whole model |" + " |" * len(columns))
        if rows:
            lines += [f"| **{group}** |" + " |" * (len(columns) + 1), *rows]
    return "\n".join([_described(results), "", *lines, ""])


def write_into(document: Path, text: str) -> None:
    """Replace the text between `BEGIN` and `END` in a markdown file. Raises InputError if they are missing."""
    from diff_v2m.common.files import atomic

    content = document.read_text(encoding="utf-8") if document.is_file() else ""
    pieces = re.split(f"{re.escape(BEGIN)}.*?{re.escape(END)}", content, flags=re.DOTALL)
    if len(pieces) != 2:
        raise InputError(f"{document}: expected one place between {BEGIN} and {END}")
    with atomic(document) as part:
        part.write_text(f"{pieces[0]}{BEGIN}\n{text}{END}{pieces[1]}", encoding="utf-8")


def _compared(seeds: Mapping[int, Values], whole: Mapping[int, Values]) -> dict[int, Values]:
    """The runs of one set of data by seed, each with its difference from the whole model."""
    return {
        seed: {**run, "difference": run["val/loss"] - whole[seed]["val/loss"]}
        if seed in whole and seeds is not whole
        else run
        for seed, run in sorted(seeds.items())
    }


def _row(title: str, sets: Sequence[Mapping[int, Values]], columns: Sequence[str]) -> str:
    values = [run for seeds in sets for run in seeds.values()]
    cells = [_cell(id, [run[id] for run in values if id in run]) for id in columns]
    return f"| {title} | {'; '.join(', '.join(map(str, seeds)) for seeds in sets)} | " + " | ".join(cells) + " |"


def _cell(id: str, values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "–"
    decimals, sign = COLUMNS[id][1], "+" if id == "difference" else ""
    mean = f"{statistics.fmean(values):{sign}.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def _described(results: Sequence[Results]) -> str:
    settings = results[0].settings
    scoring = next((one.scoring for one in results if one.scoring is not None), None)
    steps, epochs = settings["max_steps"], settings["max_epochs"]
    length = f"{steps} steps" if steps > 0 else f"{epochs} epochs"
    text = f"{length} of {settings['batch_size'] * settings['accum_batches']} clips a process"
    if scoring is not None:
        text += (
            f"; music generated for {scoring['clips']} held-out clips in {scoring['steps']} sampling steps, "
            f"guidance {scoring['guidance_scale']:g}"
        )
    text += ". Mean ± standard deviation over seeds."
    if len(results) > 1:
        text += (
            f" The seeds before and after a semicolon are of {len(results)} sets of data; differences are taken "
            "within a set."
        )
    return text
