"""Ablations: variants of a model from configs/ablations.json. scripts/ablations.sh trains them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from experiments.ablations.variants import TABLE, expand, read_variants, variant_names


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(options: argparse.Namespace) -> None:
    if options.command == "names":
        sys.stdout.write("".join(f"{name}\n" for name in variant_names(options.model_config)))
    elif options.command == "expand":
        datasets = {"dataset": options.dataset_config}
        if options.val_dataset_config:
            datasets["val_dataset"] = options.val_dataset_config
        expand(options.name, options.model_config, datasets, options.output, options.table)
    elif options.command == "score":
        if options.clips < 2:
            raise InputError(
                f"--clips {options.clips}: expected at least 2, since each is also measured against the next"
            )
        from diff_v2m.generation.settings import SamplingSettings
        from experiments.ablations.scores import score_all

        sampling = SamplingSettings(
            steps=options.steps,
            sampler="dpmpp-3m",  # with which all runs are scored
            guidance_scale=options.guidance_scale,
        )
        score_all(options.runs, options.dataset_config, options.clips, sampling)
    else:
        from experiments.ablations.results import read_results, read_runs, write_results
        from experiments.ablations.table import table, write_into

        groups = read_variants()
        if options.runs:
            results = [read_runs(options.runs, groups)]
            if options.results:
                write_results(options.results, results)
        elif options.results:
            results = read_results(options.results)
        else:
            raise InputError("table: neither RUNS nor --results given; name a folder of runs or a JSON of results")
        text = table(results, groups)
        if options.write:
            write_into(options.write, text)
        else:
            sys.stdout.write(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.ablations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    names = commands.add_parser("names", help="list the variants that differ from a base")
    names.add_argument("--model-config", type=Path, required=True, help="model JSON of the base")

    expanding = commands.add_parser("expand", help="write the complete model.json and dataset.json of a variant")
    expanding.add_argument("name", help="name of the variant")
    expanding.add_argument("--model-config", type=Path, required=True, help="model JSON of the base")
    expanding.add_argument("--dataset-config", type=Path, required=True, help="dataset JSON to train on")
    expanding.add_argument("--val-dataset-config", type=Path, help="dataset JSON to validate on")
    expanding.add_argument("--output", type=Path, required=True, help="folder to write to")
    expanding.add_argument("--table", type=Path, default=TABLE, help="JSON of variants (default: %(default)s)")

    score = commands.add_parser("score", help="generate music with every finished variant and score it")
    score.add_argument("runs", type=Path, help="folder of <variant>/seed_<n>; runs that have scores are skipped")
    score.add_argument("--dataset-config", type=Path, required=True, help="dataset JSON of held-out procedural clips")
    score.add_argument("--clips", type=int, default=24, help="number of clips (default: %(default)s)")
    score.add_argument("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    score.add_argument("--guidance-scale", type=float, default=3.0, help="(default: %(default)s)")

    table = commands.add_parser("table", help="write mean and spread over seeds of every variant as markdown")
    table.add_argument("runs", type=Path, nargs="?", help="folder of <variant>/seed_<n> (default: read --results)")
    table.add_argument("--results", type=Path, help="JSON of results: written from RUNS, or read if there are none")
    table.add_argument("--write", type=Path, help="markdown file to write the table into (default: print it)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
