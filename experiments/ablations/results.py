"""Results of trained variants: the values of each run, and the settings that all runs share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.config import read_json
from diff_v2m.training.run_logs import last, read_logs
from experiments.ablations.variants import Variant, changed

SAME = ("max_steps", "max_epochs", "batch_size", "accum_batches", "gradient_clip_val", "precision")  # in all runs
LOGGED = ("val/loss", "val/rhythm_correlation")

Values = Mapping[str, float]  # of one run


@dataclass(frozen=True)
class Results:
    """Runs on one set of data.

    settings: equal in all runs: the options in `SAME` and the fingerprints of data and autoencoder.
    scoring: settings of `score`; None: not scored. whole: variants that equal the whole model.
    runs: variant → seed → values.
    """

    settings: Mapping[str, Any]
    scoring: Mapping[str, Any] | None
    whole: Sequence[str]
    runs: Mapping[str, Mapping[int, Values]]


def finished_runs(runs: Path) -> list[Path]:
    """The folders <runs>/<variant>/seed_<n> whose training is complete."""
    return sorted(path.parent for path in runs.glob("*/seed_*/model.safetensors"))


def read_runs(folder: Path, groups: Mapping[str, Mapping[str, Variant]]) -> Results:
    """Results of every finished `folder`/<variant>/seed_<n>. The first variant of `groups` is the whole model.

    Raises InputError if there is no run, if a log lacks the validation loss, and if runs differ in steps, batch size,
    data, autoencoder or scoring.
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
                    f"{run}: {name} is {value}, but {settings[name]} in {origin}; train one of them "
                    "again with the same value"
                )
        settings, origin = own, origin or run
        values, scores = _logged(run), run / "scores.json"
        if scores.is_file():
            scored = read_json(scores)
            if scoring not in (None, scored["settings"]):
                raise InputError(f"{scores}: made with other settings than the other scores; score all runs again")
            scoring = scored["settings"]
            values |= scored["scores"]
        runs.setdefault(run.parent.name, {})[int(run.name.removeprefix("seed_"))] = values
    if settings is None:
        raise InputError(f"{folder}: no finished run; train them with scripts/ablations.sh")
    return Results(settings, scoring, _equal_to_whole(folder, groups), runs)


def read_results(path: Path) -> list[Results]:
    """Results of a JSON that `write_results` wrote, one for each set of data. Raises InputError."""
    content = read_json(path)
    try:
        return [
            Results(
                one["settings"],
                one["scoring"],
                one["whole"],
                {
                    variant: {int(seed): values for seed, values in seeds.items()}
                    for variant, seeds in one["runs"].items()
                },
            )
            for one in content["results"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected results as `table --results` writes them ({error!r})") from error


def write_results(path: Path, results: Sequence[Results]) -> None:
    """Write results as JSON, atomically."""
    from diff_v2m.common.files import atomic

    content = {"results": [asdict(one) for one in results]}
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _equal_to_whole(folder: Path, groups: Mapping[str, Mapping[str, Variant]]) -> list[str]:
    variants = {name: variant for group in groups.values() for name, variant in group.items()}
    first = folder / next(iter(variants))
    if not (first / "model.json").is_file():
        return []
    model, dataset = read_json(first / "model.json"), read_json(first / "dataset.json")
    return [
        name
        for name, variant in variants.items()
        if changed(model, variant.model, "") == model and changed(dataset, variant.dataset, "") == dataset
    ]


def _logged(run: Path) -> dict[str, float]:
    curves = read_logs(run).curves
    if "val/loss" not in curves:
        raise InputError(f"{run}: its log has no val/loss; train it with --val-dataset-config and --logger csv")
    return {id: last(curves[id]) for id in LOGGED if id in curves}


def _autoencoder(weights: Path) -> str:
    """Hash of the autoencoder's biases. They differ between trainings, and hashing all weights would take long."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(weights, "pt") as file:
        for name in sorted(file.keys()):
            if name.startswith("diffusion.pretransform.") and len(file.get_slice(name).get_shape()) == 1:
                digest.update(name.encode() + file.get_tensor(name).float().numpy().tobytes())
    return digest.hexdigest()
