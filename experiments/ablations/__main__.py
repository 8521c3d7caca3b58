"""`python -m experiments.ablations`: the twins of configs/ablations.json. `names` lists them, `expand` writes the
whole JSON of one, `score` listens to the trained ones, `table` sums up. scripts/ablations.sh trains them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from experiments.ablations.twins import expand, read_twins, twin_names


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(settings: argparse.Namespace) -> None:
    if settings.command == "names":
        sys.stdout.write("".join(f"{name}\n" for name in twin_names(settings.model_config)))
    elif settings.command == "expand":
        datasets = {"dataset": settings.dataset_config}
        if settings.val_dataset_config:
            datasets["val_dataset"] = settings.val_dataset_config
        expand(settings.name, settings.model_config, datasets, settings.output)
    elif settings.command == "score":
        if settings.clips < 2:
            raise InputError(f"--clips {settings.clips}: expected at least 2, since each is held against another too")
        from experiments.ablations.scores import Settings, score_all

        score_all(
            settings.runs, settings.dataset_config, Settings(settings.clips, settings.steps, settings.guidance_scale)
        )
    else:
        from experiments.ablations.results import join, read_results, read_runs, write_results
        from experiments.ablations.table import table, write_into

        groups = read_twins()
        results, kept = [read_runs(settings.runs, groups)], settings.results
        if kept:
            before = read_results(kept) if kept.is_file() else []
            results = join(before, *results, kept, other_data=settings.other_data)
            write_results(kept, results)
        text = table(results, groups)
        if settings.write:
            write_into(settings.write, text)
        else:
            sys.stdout.write(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.ablations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    names = commands.add_parser("names", help="the twins of a base, one a line, without those that are the base itself")
    names.add_argument("--model-config", type=Path, required=True, help="model JSON of the base")

    expanding = commands.add_parser("expand", help="write model.json and dataset.json of a twin, checked")
    expanding.add_argument("name", help="of the twin")
    expanding.add_argument("--model-config", type=Path, required=True, help="model JSON of the base")
    expanding.add_argument("--dataset-config", type=Path, required=True, help="dataset JSON to train on")
    expanding.add_argument("--val-dataset-config", type=Path, help="dataset JSON to validate on")
    expanding.add_argument("--output", type=Path, required=True, help="folder for them")

    score = commands.add_parser("score", help="compose with every finished twin for held-out procedural clips")
    score.add_argument("runs", type=Path, help="folder of <twin>/seed_<n>; what has its scores is left alone")
    score.add_argument("--dataset-config", type=Path, required=True, help="dataset JSON of a held-out rendered set")
    score.add_argument("--clips", type=int, default=24, help="(default: %(default)s)")
    score.add_argument("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    score.add_argument("--guidance-scale", type=float, default=3.0, help="(default: %(default)s)")

    table = commands.add_parser("table", help="mean and spread over seeds of every finished twin, as markdown")
    table.add_argument("runs", type=Path, help="folder of <twin>/seed_<n>")
    table.add_argument("--results", type=Path, help="JSON of results: the runs are added to what it holds already")
    table.add_argument(
        "--other-data",
        action="store_true",
        help="the runs may be of other data than those of the "
        "results, as another machine renders it: kept apart, each compared within its own",
    )
    table.add_argument("--write", type=Path, help="markdown file with marks to write it between (default: print it)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
