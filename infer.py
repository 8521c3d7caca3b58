"""Videos in, scored videos out:  python infer.py VIDEO_OR_FOLDER … [flags].  README: what the flags are for."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from diff_v2m import __version__
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.config import DTYPES, ModelConfig, load_dataset_config, load_model_config
from diff_v2m.generation.inputs import Failure, collect
from diff_v2m.generation.manifest import Settings, Take, Weights, is_to_do

ROOT = Path(__file__).resolve().parent
BUNDLED = ROOT / "saved_model" / "tiny"
EXAMPLES = ROOT / "examples"

log = logging.getLogger("diff_v2m.infer")


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(args: argparse.Namespace) -> int:
    """0 when everything asked for is there in the end, else 1."""
    model_config = load_model_config(args.model_config_path) if args.model_config_path else None
    dataset = load_dataset_config(args.dataset_config_path) if args.dataset_config_path else None
    inputs = args.inputs or ([] if dataset else sorted(EXAMPLES.glob("*.mp4")))
    if not inputs and not dataset:
        raise InputError(f"nothing to score: name videos or folders, or put an mp4 into {EXAMPLES}")
    settings = Settings(
        seed=args.seed,
        steps=args.steps,
        sampler=args.sampler,
        guidance_scale=args.guidance_scale,
        guidance_interval=tuple(args.guidance_interval),
        class_label=args.class_label,
        normalize=args.normalize,
        dtype=args.dtype,
    )
    weights = Weights.of(args.ckpt_path or _bundled(), args.weights, args.model_config_path)

    clips, failures = collect(inputs, dataset, args.output_dir, variations=args.variations)
    clips = args.part.of(clips)
    failures = [] if args.part.index else failures  # reported once, by the first part
    todo, already, scored = [], 0, 0
    for take in (Take(clip, variation) for clip in clips for variation in range(1, args.variations + 1)):
        try:
            wanted = args.overwrite or is_to_do(take, settings, weights, args.output_dir)
        except InputError as error:
            failures.append(Failure(take.clip.label, str(error)))
            continue
        todo += [take] * wanted
        already += not wanted
    for failure in failures:
        _report(failure)

    if todo:
        scored, new_failures = _score(todo, args, model_config, settings, weights)
        failures += new_failures
    names = list(dict.fromkeys(failure.name for failure in failures))
    report = f"{scored} scored, {already} already there, {len(names)} failed"
    log.info("%s%s", report, f": {', '.join(names)}" if names else "")
    return 1 if failures else 0


def _score(
    todo: list[Take], args: argparse.Namespace, config: ModelConfig | None, settings: Settings, weights: Weights
) -> tuple[int, list[Failure]]:
    """Load the model and put it to work: (number of takes scored, failures). Everything heavy is imported here."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from diff_v2m.generation.feature_cache import FeatureCache
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.generation.runner import Scorer, staging

    count = 0

    def on_done(take: Take) -> None:
        nonlocal count
        count += 1
        kinds = "mp4, wav, png, json" if take.clip.video else "wav, png, json"
        log.info("[%d/%d] %s → %s.{%s}", count, len(todo), take.clip.label, args.output_dir / take.output_name, kinds)

    with staging(args.output_dir) as folder, logging_redirect_tqdm():
        model = DiffV2M.from_pretrained(
            weights.path,
            device=args.device,
            dtype=args.dtype,
            weights=args.weights,
            config=config,
            offload=args.offload,
            compile=args.compile,
        )
        batch_size, decode_chunk = args.batch_size, args.decode_chunk
        if args.memory is not None:
            plan = model.plan(args.memory * 1e9)
            batch_size, decode_chunk = plan.batch_size, plan.decode_chunk
            pieces = "whole" if decode_chunk is None else f"{decode_chunk:g} s at a time"
            log.info("--memory %g: %d windows together, decoded %s", args.memory, batch_size, pieces)
        scorer = Scorer(
            model,
            weights,
            settings,
            args.output_dir,
            folder,
            batch_size,
            decode_chunk,
            FeatureCache(args.feature_cache) if args.feature_cache else None,
            on_done=on_done,
            on_failure=_report,
        )
        failures = scorer.score(todo)
    return count, failures


def _report(failure: Failure) -> None:
    log.error("error: %s", failure.reason if failure.name in failure.reason else f"{failure.name}: {failure.reason}")


def _bundled() -> Path:
    log.info(
        "no --ckpt_path: using the small model in saved_model/tiny; for full quality put the released Diff-V2M "
        "model.ckpt and model_config.json into saved_model/ and add --ckpt_path saved_model/model.ckpt (see README)"
    )
    if not BUNDLED.is_dir():
        raise InputError(f"{BUNDLED} is missing; restore it with git, or name a checkpoint with --ckpt_path")
    return BUNDLED


# ------------------------------------------------------------------------------------------------------- flags


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="infer",
        description="Compose music for videos.",
        epilog="Every flag may also be spelt with underscores. Exit status: 0 all done, 1 something failed.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="VIDEO",
        help="video files, and folders of them at any depth; none: the example clip",
    )
    parser.add_argument("--version", action="version", version=f"diff-v2m {__version__}")

    def flag(name: str, help: str, **options) -> None:
        shown = f" (default: {options['default']})" if "default" in options else ""
        parser.add_argument(f"--{name.replace('_', '-')}", help=help + shown, **options)

    files = {"type": Path, "metavar": "PATH"}
    flag("output_dir", "folder for <video>.mp4, .wav, .png and .json", default=Path("output"), **files)
    flag("ckpt_path", "weights, a .ckpt or .safetensors or the folder of one; none: the bundled small model", **files)
    flag("model_config_path", "model JSON, for a checkpoint that brings none", **files)
    flag("dataset_config_path", "dataset JSON: score its clips from their extracted features", **files)

    numbers = {"type": cli.whole_number(1), "metavar": "N"}
    flag("seed", "another seed, other music", type=int, metavar="N", default=42)
    flag("variations", "pieces for each video; from the second on called <video>_v2, …", default=1, **numbers)
    flag("steps", "sampling steps; none: 30, and for ddim as the model JSON says, 250 as released", **numbers)
    flag(
        "sampler",
        "ddim: as released; dpmpp-3m: as accurate in 30 steps as ddim in 250",
        choices=("ddim", "dpmpp-3m"),
        default="dpmpp-3m",
    )
    flag("guidance_scale", "how strongly the music follows the picture", type=cli.number(), metavar="X", default=3.0)
    flag(
        "guidance_interval",
        "noise levels, 1 noise to 0 music, at which it does; wants 40 steps",
        type=cli.number(0, 1),
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(0.0, 1.0),
    )
    flag(
        "class_label",
        "kind of video; none: what the data set says, else 2, music videos and background music",
        type=int,
        choices=(0, 1, 2),
    )
    flag("normalize", "lufs: −16 LUFS, true peak ≤ −1 dBTP", choices=("none", "peak", "lufs"), default="lufs")

    flag(
        "weights",
        "of a checkpoint with both; the published results are online",
        choices=("ema", "online"),
        default="ema",
    )
    flag("device", "auto, cpu, cuda, cuda:1, mps", default="auto")
    flag(
        "dtype",
        "precision of the diffusion transformer; int8 (CPU, CUDA) and fp8 (CUDA): near, not the same music",
        choices=DTYPES,
        default="float32",
    )
    flag(
        "compile",
        "have torch compile the network: the first step waits for it, so for many videos",
        action="store_true",
    )
    flag("batch_size", "windows of music made together; changes speed and memory only", default=4, **numbers)
    flag(
        "decode_chunk",
        "seconds of music decoded at a time, to save memory: the music stays the same; none: all",
        type=cli.number(above=0),
        metavar="S",
    )
    flag(
        "memory",
        "gigabytes that may be taken: chooses batch_size and decode_chunk",
        type=cli.number(above=0),
        metavar="GB",
    )
    flag(
        "offload",
        "keep on the device only the part of the model that is at work: less memory, slower",
        action="store_true",
    )
    flag(
        "feature_cache",
        "folder in which what was read off a video is kept for the next time; none: nowhere",
        type=_folder,
        metavar="PATH",
        default=_user_cache(),
    )
    flag("overwrite", "make again what is there already", action="store_true")
    cli.add_part(parser, of="video")
    args = parser.parse_intermixed_args(arguments)
    if args.guidance_interval[0] > args.guidance_interval[1]:
        parser.error("--guidance_interval: expected LOW ≤ HIGH")
    return args


def _folder(text: str) -> Path | None:
    return None if text == "none" else Path(text)


def _user_cache() -> Path | None:
    """None for an account without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diff_v2m" / "features"
    except RuntimeError:
        return None


if __name__ == "__main__":
    sys.exit(main())
