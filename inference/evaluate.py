"""Evaluate generated music from files on disk:  python -m inference.evaluate --generated DIR …   docs/evaluation.md."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diff_v2m.common import cli
from diff_v2m.common.devices import pick_device
from diff_v2m.common.files import user_cache

if TYPE_CHECKING:
    from inference.metric import MetricResult
    from inference.pairing import MediaFile
    from inference.workspace import Workspace

METRICS = ("fad", "kl", "density_coverage", "imagebind_score", "rhythm", "audio")  # modules with `compute(workspace)`
ALL = "all"

log = logging.getLogger("inference")


def main(arguments: list[str] | None = None, metric: str | None = None) -> int:
    """`metric`: run as the command line of that metric, which prints its report unless --output is given."""
    return cli.main(partial(parse, metric=metric), run, arguments)


def run(args: argparse.Namespace) -> int:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from inference.pairing import find_audio
    from inference.report import building

    args.device = pick_device(args.device)
    with logging_redirect_tqdm():
        if args.compare:
            return _compare(args)
        workspace, results, report = _evaluate(args, find_audio(args.generated, "--generated"), args.output, {})
    if args.output is None:
        text = building.markdown(report).encode(errors="backslashreplace").decode()  # names that are not UTF-8
        sys.stdout.write(text + "\n")
    return _status(results, workspace.skipped)


def _compare(args: argparse.Namespace) -> int:
    """Evaluate each system into its own folder, then write one report of their differences."""
    from inference.comparison import differences
    from inference.comparison import page as comparison_page
    from inference.pairing import common_files, find_audio
    from inference.report import building, page

    files, skipped = common_files({name: find_audio(dir, f"--compare {name}") for name, dir in args.compare.items()})
    for clip, reason in sorted(skipped.items()):
        log.error("skipped in all systems: %s: %s", clip, reason)
    results, reports, folders, encoders = {}, {}, {}, {}
    failures = dict(skipped)
    for name, generated in files.items():
        log.info("%s:", name)
        folders[name] = f"systems/{name}"
        workspace, results[name], reports[name] = _evaluate(args, generated, args.output / folders[name], encoders)
        failures |= {f"{name}/{clip}": reasons for clip, reasons in workspace.skipped.items()}
    apart = differences.differences(results, args.bootstrap, args.seed)
    report = differences.build(reports, folders, apart, _settings(args), skipped)
    building.write(report, differences.markdown(report), args.output)
    page.write(comparison_page.html(report), args.output)
    log.info("%s: index.html, report.json, report.md", args.output)
    return _status([result for of_system in results.values() for result in of_system], failures)


def _evaluate(
    args: argparse.Namespace, generated: list[MediaFile], output: Path | None, encoders: dict[str, Any]
) -> tuple[Workspace, list[MetricResult], dict[str, Any]]:
    """Evaluate one system; write its report if there is an output. `encoders`: those that are already loaded."""
    from inference.report import building, page, thumbnails

    workspace = _workspace(args, generated, encoders)
    results = []
    for metric in args.metrics:
        log.info("%s …", metric)
        results += importlib.import_module(f"inference.{metric}").compute(workspace)
    if output is not None:
        thumbnails.add(workspace, output, args.copy_media)
    report = building.build(workspace, results, _settings(args), output or Path())
    if output is not None:
        building.write(report, building.markdown(report), output)
        page.write(page.html(report), output)
        log.info("%s: index.html, report.json, report.md", output)
    return workspace, results, report


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"metrics": args.metrics, "seed": args.seed, "bootstrap": args.bootstrap, "device": args.device}


def _status(results: list[MetricResult], skipped: Mapping[str, Any]) -> int:
    """Exit status: 1 if a clip was skipped or nothing was computed. A metric without weights or data is no failure."""
    missing = [result for result in results if result.not_computed]
    if missing:
        log.info("%d of %d metrics not computed; the report says why", len(missing), len(results))
    if skipped:
        log.error("%d skipped: %s", len(skipped), ", ".join(sorted(skipped)))
    return 1 if skipped or len(missing) == len(results) else 0


def _workspace(args: argparse.Namespace, generated: list[MediaFile], encoders: dict[str, Any]) -> Workspace:
    from diff_v2m.common.cache import Cache
    from diff_v2m.config import load_dataset_config
    from inference.pairing import dataset_audio, dataset_videos, find_audio, find_videos
    from inference.workspace import Workspace

    dataset = load_dataset_config(args.dataset_config) if args.dataset_config else None
    reference = find_audio(args.reference, "--reference") if args.reference else []
    videos = find_videos(args.videos, "--videos") if args.videos else []
    return Workspace(
        generated=generated,
        reference=reference or (dataset_audio(dataset) if dataset else []),
        videos=videos or (dataset_videos(dataset) if dataset else []),
        training=find_audio(args.training, "--training") if args.training else [],
        cache=Cache(args.cache),
        weights=args.weights_dir,
        device=args.device,
        seed=args.seed,
        draws=args.bootstrap,
        encoders=encoders,
    )


# ------------------------------------------------------------------------------------------------------- flags


def parse(arguments: list[str], metric: str | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        prog=f"python -m inference.{metric or 'evaluate'}",
        description="Evaluate music generated for videos against real music, the videos, and chance.",
        epilog="Flags may be written with underscores. Exit status: 0 done, 1 a clip was skipped or nothing "
        "could be computed.",
    )

    def flag(name: str, help: str, **options) -> None:
        shown = f" (default: {options['default']})" if options.get("default") is not None else ""
        parser.add_argument(f"--{name}", help=help + shown, **options)

    path = {"type": Path, "metavar": "PATH"}
    flag("generated", "folder of the generated music, as infer.py writes it", **path)
    if metric is None:
        flag(
            "compare",
            "several systems on the same clips, each compared with the first; if --generated is also given, it is the "
            "first system, under the name of its folder",
            nargs="+",
            type=system,
            metavar="NAME=DIR",
            default=[],
        )
    flag("reference", "folder of real music, paired with the clips by stem", **path)
    flag("dataset-config", "dataset JSON with the folders of real music and videos", **path)
    flag("videos", "folder of the videos that the music was made for", **path)
    flag("training", "folder of the training music, to find copies of it", **path)
    if metric is None:
        flag(
            "metrics",
            f"{ALL}, or one or more of {' '.join(METRICS)}",
            nargs="+",
            metavar="NAME",
            default=[ALL],
            choices=(ALL, *METRICS),
        )
    flag(
        "output",
        "folder for index.html, report.json and report.md" + ("; without it the report is printed" if metric else ""),
        default=None if metric else Path("report"),
        **path,
    )
    flag("copy-media", "copy audio and videos into the output folder, so that it can be moved", action="store_true")
    flag("weights-dir", "folder with the weights of the encoders", default=Path("saved_model/evaluation"), **path)
    flag(
        "cache",
        "folder for cached embeddings; none disables the cache",
        default=user_cache("evaluation"),
        type=_folder,
        metavar="PATH",
    )
    flag("device", "auto, cpu, cuda, cuda:1 or mps", default="auto")
    flag("seed", "seed of intervals and chance levels", type=cli.whole_number(0), metavar="N", default=0)
    flag("bootstrap", "resamples for the 95 %% intervals; 0: none", type=cli.whole_number(0), metavar="N", default=200)
    args = parser.parse_args(arguments)
    if args.reference and args.dataset_config:
        parser.error("give --reference or --dataset-config, not both: each names the real music")
    systems = list(getattr(args, "compare", ()))
    if args.generated and systems:
        systems.insert(0, (args.generated.resolve().name, args.generated))
    if not (args.generated or systems):
        parser.error("name the music to evaluate: --generated DIR" + ("" if metric else ", or --compare NAME=DIR …"))
    names = [name.casefold() for name, _ in systems]
    if len(names) == 1 or len(set(names)) < len(names):
        parser.error(f"--compare: expected two or more systems of different names; given: {', '.join(names)}")
    args.compare = dict(systems)
    args.metrics = [metric] if metric else list(METRICS) if ALL in args.metrics else list(dict.fromkeys(args.metrics))
    return args


def system(text: str) -> tuple[str, Path]:
    """NAME=DIR. NAME becomes a folder of the report."""
    name, equals, folder = text.partition("=")
    if not (equals and folder and re.fullmatch(r"\w[\w .+-]*", name)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=DIR, NAME of letters, digits, blanks and _ . + -")
    return name.strip(), Path(folder)


def _folder(text: str) -> Path | None:
    return None if text == "none" else Path(text)


if __name__ == "__main__":
    sys.exit(main())
