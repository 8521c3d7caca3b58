"""What came of the twins that were trained: their values, and what all of them have in common.

Runs live in a folder that goes with the machine; a JSON of results lets several days or machines fill one table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.config.parsing import read_json
from diff_v2m.training.run_logs import last, read_logs
from experiments.ablations.twins import Twin, changed

SAME = ("max_steps", "max_epochs", "batch_size", "accum_batches", "gradient_clip_val", "precision")  # of all runs
LOGGED = ("val/loss", "val/rhythm_correlation")

Values = Mapping[str, float]  # one run


@dataclass(frozen=True)
class Results:
    """`runs`: twin → seed → its values. The rest is the same for all: what `SAME` names, the data's fingerprints and
    the autoencoder's; how they were scored (None: not at all); which twins are the whole model by another name."""

    settings: Mapping[str, Any]
    scoring: Mapping[str, Any] | None
    whole: Sequence[str]
    runs: Mapping[str, Mapping[int, Values]]

    def joined(self, new: Results) -> Results:
        """These and new ones of the same data, which replace their like."""
        twins = [*self.runs, *(twin for twin in new.runs if twin not in self.runs)]
        runs = {twin: {**self.runs.get(twin, {}), **new.runs.get(twin, {})} for twin in twins}
        return Results(self.settings, self.scoring or new.scoring, new.whole or self.whole, runs)


def join(kept: Sequence[Results], new: Results, path: Path, *, other_data: bool = False) -> list[Results]:
    """Results of one set of data each, read from `path`, and new ones.

    other_data: the new ones may be of other data, such as another machine's rendering of the same clips, and then stand
    beside the rest: what depends on the data is compared within a set. Raises InputError if they cannot be compared.
    """
    for old in kept:
        for name, value in new.settings.items():
            if old.settings.get(name) != value and name != "fingerprints":
                raise InputError(
                    f"{path}: {name} is {old.settings.get(name)}, but {value} in the new runs; compare "
                    "like with like: name another file, or delete it"
                )
        if None not in (old.scoring, new.scoring) and old.scoring != new.scoring:
            raise InputError(f"{path}: scored with other settings than the new runs; score those as it says")
    if new.settings in [old.settings for old in kept]:
        return [old.joined(new) if old.settings == new.settings else old for old in kept]
    if kept and not other_data:
        raise InputError(
            f"{path}: fingerprints are {kept[0].settings['fingerprints']}, but "
            f"{new.settings['fingerprints']} in the new runs: other data; --other-data keeps both apart, "
            "or name another file"
        )
    return [*kept, new]


def finished_runs(runs: Path) -> list[Path]:
    """The folders <runs>/<twin>/seed_<n> whose training has ended."""
    return sorted(path.parent for path in runs.glob("*/seed_*/model.safetensors"))


def read_runs(folder: Path, groups: Mapping[str, Mapping[str, Twin]]) -> Results:
    """Of every finished `folder`/<twin>/seed_<n>. groups: of twins; the first of all is the whole model.

    Raises InputError if there is none, if the log of one lacks the validation loss, and if runs differ in steps, batch,
    data, autoencoder or scoring, so that they cannot be compared.
    """
    settings, scoring, origin = None, None, None
    runs: dict[str, dict[int, Values]] = {}
    for run in finished_runs(folder):
        start = read_json(run / "run.json")["starts"][-1]
        own = {name: start["settings"][name] for name in SAME} | {
            "fingerprints": start["fingerprints"],
            "autoencoder": _autoencoder(run / "model.safetensors"),
        }
        for name, value in own.items():
            if settings is not None and settings[name] != value:
                raise InputError(
                    f"{run}: {name} is {value}, but {settings[name]} in {origin}; compare like with "
                    "like: train one of them again"
                )
        settings, origin = own, origin or run
        values, scores = _logged(run), run / "scores.json"
        if scores.is_file():
            scored = read_json(scores)
            if scoring not in (None, scored["settings"]):
                raise InputError(f"{scores}: made with other settings than the rest; score them all again")
            scoring = scored["settings"]
            values |= scored["scores"]
        runs.setdefault(run.parent.name, {})[int(run.name.removeprefix("seed_"))] = values
    if settings is None:
        raise InputError(f"{folder}: no finished run; train them with scripts/ablations.sh")
    return Results(settings, scoring, _equal_to_whole(folder, groups), runs)


def read_results(path: Path) -> list[Results]:
    """Those that `write_results` kept, a set of data each. Raises InputError."""
    content = read_json(path)
    try:
        return [
            Results(
                one["settings"],
                one["scoring"],
                one["whole"],
                {twin: {int(seed): values for seed, values in seeds.items()} for twin, seeds in one["runs"].items()},
            )
            for one in content["results"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected results as `table --results` keeps them ({error!r})") from error


def write_results(path: Path, results: Sequence[Results]) -> None:
    from diff_v2m.common.files import atomic

    content = {"results": [asdict(one) for one in results]}
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _equal_to_whole(folder: Path, groups: Mapping[str, Mapping[str, Twin]]) -> list[str]:
    twins = {name: twin for group in groups.values() for name, twin in group.items()}
    first = folder / next(iter(twins))
    if not (first / "model.json").is_file():
        return []
    model, dataset = read_json(first / "model.json"), read_json(first / "dataset.json")
    return [
        name
        for name, twin in twins.items()
        if changed(model, twin.model, "") == model and changed(dataset, twin.dataset, "") == dataset
    ]


def _logged(run: Path) -> dict[str, float]:
    curves = read_logs(run).curves
    if "val/loss" not in curves:
        raise InputError(f"{run}: its log has no val/loss; train it with --val-dataset-config and --logger csv")
    return {id: last(curves[id]) for id in LOGGED if id in curves}


def _autoencoder(weights: Path) -> str:
    """By its biases, which no two trainings share: reading all of a large one, for each of sixty runs, takes long."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(weights, "pt") as file:
        for name in sorted(file.keys()):
            if name.startswith("diffusion.pretransform.") and len(file.get_slice(name).get_shape()) == 1:
                digest.update(name.encode() + file.get_tensor(name).float().numpy().tobytes())
    return digest.hexdigest()
