"""Generate music for videos: python infer.py VIDEO_OR_FOLDER … [flags]. docs/generation.md explains the flags."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import BUNDLED, user_cache
from diff_v2m.common.versions import VERSION
from diff_v2m.config import DTYPES, ModelConfig, load_dataset_config, load_model_config
from diff_v2m.cues.command import add_timebase, timebase_of
from diff_v2m.cues.table import SUFFIX
from diff_v2m.generation.inputs import Clip, Failure, Output, collect
from diff_v2m.generation.manifest import Request, Weights, album_of, is_to_do
from diff_v2m.generation.revision import Revision
from diff_v2m.generation.settings import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    MAX_STEPS,
    SAMPLERS,
    SamplingSettings,
)
from diff_v2m.generation.sheets import Sheets
from diff_v2m.generation.spans import Span, parse_spans
from diff_v2m.mix.flags import add_mix_flags, mix_settings
from diff_v2m.weights.finding import find_weights
from diff_v2m.weights.names import FORM

ROOT = Path(__file__).resolve().parent
DEFAULTS = SamplingSettings()
EXAMPLES = ROOT / "examples"

log = logging.getLogger("diff_v2m.infer")


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(args: argparse.Namespace) -> int:
    """Generate the missing outputs. Returns 0 if every requested output exists, 1 if something failed."""
    model_config = load_model_config(args.model_config_path) if args.model_config_path else None
    dataset = load_dataset_config(args.dataset_config_path) if args.dataset_config_path else None
    inputs = args.inputs or ([] if dataset else sorted(EXAMPLES.glob("*.mp4")))
    if not inputs and not dataset:
        raise InputError(f"no input: name videos or folders, or put an mp4 into {EXAMPLES}")
    sampling = SamplingSettings(
        seed=args.seed,
        steps=args.steps,
        sampler=args.sampler,
        guidance_scale=args.guidance_scale,
        guidance_interval=tuple(args.guidance_interval),
        class_label=args.class_label,
    )
    mix = mix_settings(args)
    sheets = Sheets(args.sheet, timebase_of(args))
    clips, failures = collect(inputs, dataset, args.output_dir, variations=args.variations)
    sheets.check(clips)
    clips = args.part.of(clips)
    failures = [] if args.part.index else failures  # the first part reports inputs without a clip
    new = [clip for clip in clips if args.overwrite or not _has_results(clip, args)]
    if not clips:  # then no weights are needed either
        for failure in failures:
            _report(failure)
        return _summarise(0, 0, failures)
    ckpt = find_weights(args.ckpt_path or _bundled())  # after the inputs: it may be a name, and a download
    if new:  # else torch may not be needed
        _check_needs(new, ckpt, model_config, args, sampling)
    weights = Weights.of(ckpt, args.weights, args.model_config_path)
    revision = Revision(args.redo or (), args.extend) if args.redo or args.extend else None
    album = album_of(clips, args.variations) if args.album else None
    sheets = replace(sheets, revised=args.output_dir if revision else None, longer=args.extend)
    request = Request(
        sampling,
        weights,
        dtype=args.dtype,
        normalize=args.normalize,
        stems=args.stems,
        takes=args.takes,
        revision=revision,
        mix=mix,
        album=album,
        sheets=sheets,
    )

    todo, skipped, done = [], 0, 0
    is_missing = _has_no_sheet if args.write_sheet else is_to_do
    for clip in clips:
        variations = 1 if args.write_sheet else args.variations
        outputs = [Output(clip, variation) for variation in range(1, variations + 1)]
        try:
            wanted = [output for output in outputs if args.overwrite or is_missing(output, request, args.output_dir)]
        except InputError as error:  # all variations of a clip fail together: none stands beside another clip's
            failures.append(Failure(clip.label, str(error)))
            continue
        todo += wanted
        skipped += len(outputs) - len(wanted)
    if args.album and not args.write_sheet and todo and skipped:  # their gain depends on all of them
        todo = [Output(clip, variation) for clip in clips for variation in range(1, args.variations + 1)]
        todo = [output for output in todo if output.clip.label not in {failure.name for failure in failures}]
        skipped = 0
    for failure in failures:
        _report(failure)

    if todo:
        if not new:  # all have results, some of another request
            _check_needs([output.clip for output in todo], ckpt, model_config, args, sampling)
        if args.ckpt_path is None:
            log.info("using the bundled model saved_model/film_music (--ckpt_path for another)")
        done, new_failures = _generate(todo, args, model_config, request)
        failures += new_failures
    return _summarise(done, skipped, failures)


def _generate(
    todo: list[Output], args: argparse.Namespace, config: ModelConfig | None, request: Request
) -> tuple[int, list[Failure]]:
    """Load the model and generate: (number of outputs, failures). Imports torch."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from diff_v2m.generation.feature_cache import FeatureCache
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.generation.runner import Runner
    from diff_v2m.generation.staging import staging

    count = 0

    def on_done(output: Output) -> None:
        nonlocal count
        count += 1
        if args.write_sheet:
            log.info("[%d/%d] %s → %s%s", count, len(todo), output.clip.label, args.output_dir / output.name, SUFFIX)
            return
        kinds = ", ".join(["mp4"] * bool(output.clip.video) + ["wav", "png", "json", *model.model.pretransform.extras])
        log.info("[%d/%d] %s → %s.{%s}", count, len(todo), output.clip.label, args.output_dir / output.name, kinds)

    with staging(args.output_dir) as folder, logging_redirect_tqdm():
        model = DiffV2M.from_pretrained(
            request.weights.path,
            device=args.device,
            dtype=args.dtype,
            weights=args.weights,
            config=config,
            offload=args.offload,
            compile=args.compile,
        )
        runner = Runner(
            model,
            request,
            args.output_dir,
            folder,
            args.batch_size,
            args.decode_chunk,
            FeatureCache(args.feature_cache) if args.feature_cache else None,
            args.overwrite,
            mention_sound=args.video_sound is None,
            on_done=on_done,
            on_failure=_report,
        )
        failures = runner.write_sheets(todo) if args.write_sheet else runner.run(todo)
    return count, failures


def _check_needs(
    clips: list[Clip], ckpt: Path, config: ModelConfig | None, args: argparse.Namespace, sampling: SamplingSettings
) -> None:
    from diff_v2m.generation.feature_cache import FeatureCache
    from diff_v2m.generation.needs import check_needs

    videos = [clip.video for clip in clips if clip.entry is None]
    cache = FeatureCache(args.feature_cache) if args.feature_cache else None
    check_needs(
        ckpt,
        config,
        device=args.device,
        dtype=args.dtype,
        compile=args.compile,
        stems=args.stems,
        videos=videos,
        cache=cache,
        sampling=sampling,
    )


def _has_results(clip: Clip, args: argparse.Namespace) -> bool:
    """Whether every variation has a manifest, whatever made it."""
    outputs = [Output(clip, variation) for variation in range(1, args.variations + 1)]
    return all(output.files(args.output_dir)[-1].is_file() for output in outputs)


def _has_no_sheet(output: Output, request: Request, output_dir: Path) -> bool:
    path = output_dir / f"{output.name}{SUFFIX}"
    if path.exists():
        log.info("%s exists; skipped", path)
    return not path.exists()


def _summarise(done: int, skipped: int, failures: list[Failure]) -> int:
    """Log the counts and return the exit status."""
    names = list(dict.fromkeys(failure.name for failure in failures))
    report = f"{done} generated, {skipped} skipped, {len(names)} failed"
    log.info("%s%s", report, f": {', '.join(names)}" if names else "")
    return 1 if failures else 0


def _report(failure: Failure) -> None:
    log.error("error: %s", failure.reason if failure.name in failure.reason else f"{failure.name}: {failure.reason}")


def _bundled() -> Path:
    if not BUNDLED.is_dir():
        raise InputError(f"{BUNDLED} is missing; restore it with git, or name a checkpoint with --ckpt_path")
    return BUNDLED


# ------------------------------------------------------------------------------------------------------- flags


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="infer.py",
        description="Generate music for videos.",
        epilog="Flags may be written with underscores. Exit status: 0 all done, 1 something failed, 130 interrupted.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="VIDEO",
        help="video files, or folders searched at any depth; default: the example clip",
    )
    parser.add_argument("--version", action="version", version=f"diff-v2m {VERSION}")

    def flag(name: str, help: str, **options) -> None:
        shown = options.get("default")
        if isinstance(shown, tuple):  # as it is typed
            shown = " ".join(f"{value:g}" for value in shown)
        help += f" (default: {shown})" if "default" in options else ""
        parser.add_argument(f"--{name.replace('_', '-')}", help=help, **options)

    files = {"type": Path, "metavar": "PATH"}
    flag("output_dir", "folder for <video>.mp4, .wav, .png and .json", default=Path("output"), **files)
    flag(
        "ckpt_path",
        f"weights: a .ckpt, a .safetensors, a folder with one, or a name: released, {FORM}; default: the bundled small "
        "model",
        **files,
    )
    flag("model_config_path", "model JSON, for a checkpoint without one", **files)
    flag("dataset_config_path", "dataset JSON; its clips are read from extracted features", **files)

    numbers = {"type": cli.whole_number(1), "metavar": "N"}
    flag("seed", "seed of the noise; another seed gives different music", type=int, metavar="N", default=DEFAULTS.seed)
    flag("variations", "outputs per video; the second is <video>_v2", default=1, **numbers)
    flag("takes", "compose so many pieces per video and keep the best, see --keep", default=1, **numbers)
    flag("keep", "takes to keep; the second best is <video>_v2", default=1, **numbers)
    flag(
        "redo",
        "compose spans of an earlier result again and keep the rest, as in 0:12-0:20 or 12-20,40.5-48; give another "
        "--seed for other music",
        type=_spans,
        metavar="SPANS",
    )
    flag("extend", "compose what a video gained at its end since its earlier result", action="store_true")
    flag(
        "steps",
        f"sampling steps, at most {MAX_STEPS} but with ddim; default: {DEFAULT_STEPS['adams']}, for dpmpp-3m "
        f"{DEFAULT_STEPS['dpmpp-3m']}, for ddim as in the model JSON (250 as released), for a student its own",
        **numbers,
    )
    flag(
        "sampler",
        "ddim: as released, and for students; adams: as accurate in 20 steps as ddim in 250, dpmpp-3m: in 30; default: "
        f"{DEFAULT_SAMPLER}, for a student ddim",
        choices=SAMPLERS,
    )
    flag(
        "guidance_scale",
        "how strongly the music follows the video; 1: no guidance; default: "
        f"{DEFAULT_GUIDANCE:g}, for a student its own",
        type=cli.number(),
        metavar="X",
    )
    flag(
        "guidance_interval",
        "timesteps t with guidance (1: noise, 0: music), not for a student",
        type=cli.number(0, 1),
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=DEFAULTS.guidance_interval,
    )
    flag(
        "class_label",
        "kind of video; default: that of the data set, else 2 (music videos and background music)",
        type=int,
        choices=(0, 1, 2),
    )
    flag(
        "normalize",
        "loudness of the output; lufs: −16 LUFS, true peak ≤ −1 dBTP",
        choices=("none", "peak", "lufs"),
        default="lufs",
    )

    flag(
        "album",
        "one gain for all videos of this call, so that their loudness differs as their music does",
        action="store_true",
    )
    flag("write_sheet", "write only <video>.cues.csv: what the music would follow, to edit", action="store_true")
    flag(
        "sheet",
        "cues that the music follows: a cue sheet, markers of an editing program, or a folder with one for each video",
        **files,
    )
    add_timebase(parser, "that of the video")

    flag("stems", "write a wav of each voice too; they add up to the music", action="store_true")

    flag(
        "weights",
        "weights of a checkpoint that has both; published results use online",
        choices=("ema", "online"),
        default="ema",
    )
    flag("device", "auto, cpu, cuda, cuda:1 or mps", default="auto")
    flag(
        "dtype",
        "precision of the diffusion transformer; int8 (CPU, CUDA) and fp8 (CUDA) change the music slightly",
        choices=DTYPES,
        default="float32",
    )
    flag(
        "compile",
        "compile the network; the first step is slow, so this is worthwhile for many videos",
        action="store_true",
    )
    flag("batch_size", "windows denoised together; changes speed and memory only", default=4, **numbers)
    flag(
        "decode_chunk",
        "seconds decoded at a time, to save memory; the music is the same; default: a window, with an audio model on a "
        "CPU 5 s",
        type=cli.number(above=0),
        metavar="S",
    )
    flag(
        "offload",
        "keep only the working part of the model on the device: less memory, slower",
        action="store_true",
    )
    flag(
        "feature_cache",
        "directory for cached video features; none disables the cache",
        type=_folder,
        metavar="PATH",
        default=user_cache("features"),
    )
    flag("overwrite", "regenerate existing results", action="store_true")
    add_mix_flags(parser)
    cli.add_part(parser, of="video")
    args = parser.parse_intermixed_args(arguments)
    if args.guidance_interval[0] > args.guidance_interval[1]:
        parser.error("--guidance_interval: expected LOW ≤ HIGH")
    if args.keep > args.takes:
        parser.error(f"--keep {args.keep}: expected at most the number of --takes, {args.takes}")
    if bool(args.redo) + args.extend + (args.takes > 1) > 1:
        parser.error("--redo, --extend and --takes cannot be combined; run one after the other")
    if args.takes > 1 and args.variations > 1:
        parser.error("--variations: with --takes, give the number of results as --keep")
    args.variations = max(args.variations, args.keep)
    if args.album and (args.part.count > 1 or args.redo or args.extend):
        parser.error("--album: all videos have to be generated in one call; omit --part, --redo and --extend")
    return args


def _spans(text: str) -> tuple[Span, ...]:
    try:
        return parse_spans(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _folder(text: str) -> Path | None:
    return None if text == "none" else Path(text)


if __name__ == "__main__":
    sys.exit(main())
