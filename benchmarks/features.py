"""Cost of feature extraction by part: `python -m benchmarks.features`.

Measures CPU seconds of all threads, which other programs on the machine hardly change, on a test picture of 30 s,
1280×720 at 25 frames per second unless a video is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measuring import PERFORMANCE, in_turn, parse_with_command, write_section
from diff_v2m.common import cli


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument(
        "--encoder",
        help="hog, clip, or a folder with a CLIP model (default: CLIP ViT-B/32 with random weights)",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m.features.semantic import build_encoder

    with tempfile.TemporaryDirectory() as folder:
        video = args.video or write_test_picture(Path(folder) / "test.mp4")
        about = args.video.name if args.video else "A test picture of 30 s, 1280×720"
        encoder = build_encoder(args.encoder or str(write_random_clip(Path(folder) / "clip-vit-base-patch32")))
        text = report(measure(video, encoder, args.rounds), encoder.name, args.rounds, about)
    write_section(args.output, "Features", args.command, text)
    sys.stdout.write(text)


def write_test_picture(path: Path) -> Path:
    import imageio_ffmpeg

    source = ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=30"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-c:v", "libx264", "-preset", "veryfast"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path


def write_random_clip(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).save_pretrained(folder)  # else: ViT-B/32's
    CLIPImageProcessor().save_pretrained(folder)
    return folder


def measure(video: Path, encoder, rounds: int) -> dict[str, float]:
    """Part → median CPU seconds."""
    import av
    import numpy as np

    from diff_v2m import media
    from diff_v2m.features.color import rgb_uv_histogram
    from diff_v2m.features.extract import extract_features
    from diff_v2m.features.motion import MOTION_SIZE, CutFinder, MotionMeter
    from diff_v2m.features.video_features import seconds_of

    def bare_decode() -> None:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for _ in container.decode(stream):
                pass

    def watch(watcher, pieces) -> None:
        for piece in pieces:
            watcher.watch(*piece)

    info = media.probe(video)
    stills = media.View(np.arange(seconds_of(info.duration), dtype=float), chunk=16)
    moving = media.View(size=MOTION_SIZE)
    pieces = list(media.iter_views(video, (stills, moving)))
    large = [frames for view, _, frames in pieces if view is stills]
    small = [(times, frames) for view, times, frames in pieces if view is moving]
    parts: dict[str, Callable[[], object]] = {
        "decoding, once": bare_decode,
        "encoder": lambda: [encoder(frames) for frames in large],
        "all of it": lambda: extract_features(video, encoder),
        "reading a full-size frame per second and every frame at 256 pixels": lambda: list(
            media.iter_views(video, (stills, moving))
        ),
        "colour": lambda: [rgb_uv_histogram(frames) for frames in large],
        "cuts": lambda: watch(CutFinder(), small),
        "motion": lambda: watch(MotionMeter(info.fps), small),
    }
    seconds = in_turn({part: partial(cpu_seconds, work) for part, work in parts.items()}, rounds)
    return {part: float(np.median(values)) for part, values in seconds.items()}


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def report(seconds: dict[str, float], encoder: str, rounds: int, about: str) -> str:
    bare = seconds["decoding, once"] + seconds["encoder"]
    lines = [
        f"{about}, encoder {encoder}, CPU seconds of all threads, median of {rounds} rounds.",
        "",
        "| | CPU s |",
        "|---|---|",
        *(f"| {part} | {value:.2f} |" for part, value in seconds.items()),
        "",
        f"All of it takes {seconds['all of it'] / bare:.1f} times as long as decoding once plus the encoder.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
