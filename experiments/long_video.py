"""How one piece a long video's music is: `python -m experiments.long_video`.

Each arrangement generates music for the same long videos from the same seeds. Measures are taken at the joins of the
windows and at other times of the same music, so that what differs is due to the joins. Values of finished videos are
kept in the folder, and the same command resumes.

canvas     windows predict their part of one x at every step; what the program does
faded      windows are sampled alone and crossfaded over 2 s at constant power
anchor     canvas that follows the first window's latents down to t = 0.85
reference  canvas; at t > 0.7 every second frame of later windows takes the prediction of the first one
cuts       canvas whose windows are moved so that as many joins as possible lie on cuts, at most 3 s from even ones
shared     canvas whose windows have one global condition, the mean of theirs
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT, write_json
from diff_v2m.generation.windows import OVERLAP
from experiments.joins import COLUMNS, RATE, Constancy, elsewhere, key_and_tempo, measure, mono

if TYPE_CHECKING:
    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.generation.windows import Window

FADE = 2  # seconds, of `faded`
ANCHOR_T, REFERENCE_T = 0.85, 0.7
MOVED = 3  # seconds by which `cuts` moves a window


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.long_video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", nargs="*", type=Path, help="video files too; each is repeated up to --seconds")
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny")
    parser.add_argument("--count", type=int, default=10, help="procedural videos (default: %(default)s)")
    parser.add_argument("--seconds", type=int, nargs="+", default=[120], help="length of each video in turn")
    parser.add_argument("--arrangements", nargs="+", choices=tuple(ARRANGEMENTS), default=["canvas", "faded"])
    parser.add_argument("--folder", type=Path, default=Path("runs/long_video"), help="for the procedural videos")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.generation.pipeline import DiffV2M

    model = DiffV2M.from_pretrained(args.ckpt_path, device=args.device)
    constancy = Constancy.of(model)
    found: dict[str, list[np.ndarray]] = {name: [] for name in args.arrangements}
    apart: dict[str, list[np.ndarray]] = {name: [] for name in args.arrangements}
    same: dict[str, list[tuple[float, ...]]] = {name: [] for name in args.arrangements}
    cost: dict[str, list[float]] = {name: [] for name in args.arrangements}
    for name, seconds, read in tqdm(_videos(model, args), total=args.count + len(args.videos), desc="generating"):
        features = None
        for arrangement in args.arrangements:
            path = args.folder / args.ckpt_path.stem / f"{name}.{seconds}.{args.seed}.{arrangement}.json"
            if not path.exists():
                features = read() if features is None else features
                start = time.process_time()
                audio, joins = ARRANGEMENTS[arrangement](model, features, name, args.seed)
                values = {
                    "cost": (time.process_time() - start) / features.duration,
                    "joins": [measure(audio, join).tolist() for join in joins],
                    "elsewhere": [measure(audio, t).tolist() for t in elsewhere(joins, features.duration)],
                    "key_and_tempo": key_and_tempo(audio),
                    "constancy": constancy(audio),
                }
                write_json(path, values)
            values = json.loads(path.read_text(encoding="utf-8"))
            cost[arrangement].append(values["cost"])
            found[arrangement] += map(np.array, values["joins"])
            apart[arrangement] += map(np.array, values["elsewhere"])
            same[arrangement].append((*values["key_and_tempo"], *values["constancy"]))
        sys.stdout.write(f"after {name}\n{_table(found, apart, same, cost)}\n")
        sys.stdout.flush()


def _videos(model: DiffV2M, args: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[], VideoFeatures]]]:
    """Name, seconds and features: procedural videos of one mode and instrument each, and the files, repeated."""
    from experiments.synthetic import music, video
    from experiments.synthetic.render import write_mp4
    from experiments.synthetic.scene import HELD_OUT, plan

    for number in range(args.count):
        scene = plan(HELD_OUT + number, args.seconds[number % len(args.seconds)])
        path = args.folder / f"{scene.seed}_{scene.duration}.mp4"
        if not path.exists():
            wav = path.with_suffix(".wav")
            _write(wav, music.render(scene, RATE))
            write_mp4(path, wav, video.render(scene), (video.WIDTH, video.HEIGHT), video.FPS, "96k")
        yield path.stem, scene.duration, partial(model.extract, path)
    for number, path in enumerate(args.videos):
        seconds = args.seconds[number % len(args.seconds)]
        yield path.stem, seconds, lambda path=path, seconds=seconds: repeated(model.extract(path), seconds)


def _write(path: Path, audio: np.ndarray) -> None:
    from diff_v2m import media

    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_wav(path, audio[None], RATE)


def repeated(features: VideoFeatures, seconds: int) -> VideoFeatures:
    """The whole seconds of an extracted video, again and again, up to a length."""
    from diff_v2m.features.video_features import MOTION_ROWS, motion_features

    whole = max(1, int(features.duration))
    order = np.arange(seconds) % whole
    cuts = np.concatenate([features.cut_times[features.cut_times < whole] + turn for turn in range(0, seconds, whole)])
    motion = features.motion[: whole * MOTION_ROWS].reshape(whole, MOTION_ROWS)[order].ravel()
    return replace(
        features,
        semantic=features.semantic[order],
        color=features.color[order],
        scene_cut=features.scene_cut[order],
        duration=float(seconds),
        cut_times=cuts[cuts < seconds],
        **motion_features(motion),
    )


def canvas(model: DiffV2M, features: VideoFeatures, name: str, seed: int, **options) -> tuple[np.ndarray, list[float]]:
    """Mono audio at RATE, and the middles of the overlaps in seconds."""
    (made,) = model.compose([features], [name], seed=seed, **options)
    joins = [(left.stop + right.start) / 2 for left, right in zip(made.windows, made.windows[1:], strict=False)]
    return mono(made.audio, model.config.sample_rate), joins


def faded(model: DiffV2M, features: VideoFeatures, name: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """As `canvas`, with windows that know nothing of each other."""
    from diff_v2m.generation.windows import plan_windows

    windows = plan_windows(features.duration, model.config.window_seconds, FADE)
    pieces = model.compose(
        [features.slice(window.start, window.start + int(model.config.window_seconds)) for window in windows],
        [f"{name} {number}" for number in range(len(windows))],
        seed=seed,
    )
    joins = [(left.stop + right.start) / 2 for left, right in zip(windows, windows[1:], strict=False)]
    audio = np.zeros(round(features.duration * RATE))
    edges = [-np.inf, *joins, np.inf]
    for window, piece, first, last in zip(windows, pieces, edges, edges[1:], strict=False):
        sound = mono(piece.audio, model.config.sample_rate)[: len(audio) - window.start * RATE]
        seconds = window.start + np.arange(len(sound)) / RATE
        rise = np.clip((seconds - first) / FADE + 0.5, 0, 1)
        fall = np.clip((last - seconds) / FADE + 0.5, 0, 1)
        audio[window.start * RATE :][: len(sound)] += sound * np.sin(rise * np.pi / 2) * np.sin(fall * np.pi / 2)
    return audio, joins


def anchor(model: DiffV2M, features: VideoFeatures, name: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """Above ANCHOR_T the denoised prediction is the first window's finished latents, repeated: the canvas starts from
    them, noised to ANCHOR_T.
    """
    import torch

    (first,) = model.compose([features.slice(0, int(model.config.window_seconds))], [name], seed=seed)
    latents = torch.from_numpy(first.latents.astype(np.float32))

    def follow(denoised, t):
        return tiled(latents.to(denoised), denoised.shape[-1]) if t > ANCHOR_T else denoised

    return _guided(model, features, name, seed, follow)


def reference(model: DiffV2M, features: VideoFeatures, name: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """Latent swap with a reference window in the early steps, after SaFa (arXiv 2502.05130)."""
    import torch

    frames = model.config.latent_length()

    def swap(denoised, t):
        if t <= REFERENCE_T:
            return denoised
        places = torch.arange(denoised.shape[-1], device=denoised.device)
        return torch.where(
            (places >= frames) & (places % 2 == 1),
            tiled(denoised[0, :, :frames], denoised.shape[-1]),
            denoised,
        )

    return _guided(model, features, name, seed, swap)


def _guided(model: DiffV2M, features: VideoFeatures, name: str, seed: int, change: Callable):
    """`canvas` with changed denoised predictions: change(D (1, C, N), t) → D."""
    from diff_v2m.generation.settings import DEFAULT_SAMPLER, DEFAULT_STEPS
    from diff_v2m.model.diffusion import SAMPLERS, alphas_sigmas

    def sampler(denoise, noise, steps, **options):
        def predict(x, t):
            alpha, sigma = (float(value) for value in alphas_sigmas(t[0]))
            denoised = change(alpha * x - sigma * denoise(x, t), float(t[0]))
            return (alpha * x - denoised) / sigma

        return SAMPLERS[DEFAULT_SAMPLER](predict, noise, steps, **options)

    SAMPLERS["guided"] = sampler
    return canvas(model, features, name, seed, sampler="guided", steps=DEFAULT_STEPS[DEFAULT_SAMPLER])


def tiled(latents, frames: int):
    """(C, n) → (1, C, frames), repeated."""
    return latents.repeat(1, -(-frames // latents.shape[-1]))[None, :, :frames]


def at_cuts(model: DiffV2M, features: VideoFeatures, name: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """`canvas` with `moved` windows."""
    from unittest.mock import patch

    from diff_v2m.generation import windows

    even = windows.plan_windows(features.duration, model.config.window_seconds)
    cuts = np.flatnonzero(features.scene_cut) + 0.5 if features.cut_times is None else features.cut_times
    with patch.object(windows, "plan_windows", lambda *_: moved(even, cuts, features.duration)):
        return canvas(model, features, name, seed)


def moved(windows: tuple[Window, ...], cuts: np.ndarray, duration: float) -> tuple[Window, ...]:
    """Windows that overlap by OVERLAP at least, with as many joins as possible within 0.5 s of a cut.

    The first and the last one stay, the others move by up to MOVED whole seconds. The smallest changes are taken.
    """
    length = windows[0].duration
    best = {0: (0.0, (0,))}  # start of a window → cost, starts up to there
    for window in windows[1:]:
        room = 0 if window is windows[-1] else MOVED
        reached = {}
        for start in range(window.start - room, window.start + room + 1):
            options = []
            for before, (cost, starts) in best.items():
                if 0 < start - before <= length - OVERLAP:
                    join = (before + length + start) / 2
                    missed = np.abs(cuts - join).min(initial=np.inf) > 0.5
                    options.append((cost + missed + 0.01 * abs(start - window.start), (*starts, start)))
            if options:
                reached[start] = min(options)
        best = reached
    ((_, starts),) = best.values()
    return tuple(
        replace(window, start=start, stop=min(start + length, duration))
        for window, start in zip(windows, starts, strict=True)
    )


def shared(model: DiffV2M, features: VideoFeatures, name: str, seed: int) -> tuple[np.ndarray, list[float]]:
    """`canvas` with the mean of the windows' global conditions for all of them."""
    from unittest.mock import patch

    import torch

    network, seen = model.model, []
    condition = network.condition

    def collect(batch):
        conditions = condition(batch)
        seen.append(conditions.global_cond)
        return conditions

    def share(batch):
        conditions = condition(batch)
        whole = torch.cat(seen).mean(dim=0).expand_as(conditions.global_cond)
        return replace(conditions, global_cond=whole)

    with patch.object(network, "condition", collect):  # of every window, for its predicted rhythm
        model.cue_sheet(features, name, seed=seed)
    with patch.object(network, "condition", share):
        return canvas(model, features, name, seed)


ARRANGEMENTS = {
    "canvas": canvas,
    "faded": faded,
    "anchor": anchor,
    "reference": reference,
    "cuts": at_cuts,
    "shared": shared,
}


def _table(
    found: dict[str, list[np.ndarray]],
    apart: dict[str, list[np.ndarray]],
    same: dict[str, list[tuple[float, ...]]],
    cost: dict[str, list[float]],
) -> str:
    """Means over all joins, and over as many other times."""
    names = (*COLUMNS, "key constant", "tempo constant", "mode constant", "instruments constant", "CPU s / s")
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name in found:
        ends = [f"{value:.2f}" for value in (*np.mean(same[name], axis=0), np.mean(cost[name]))]
        for where, values, more in (("at joins", found, ends), ("elsewhere", apart, ["–"] * len(ends))):
            cells = [f"{value:.2f}" for value in np.nanmean(np.array(values[name]), axis=0)]
            lines.append(f"| {name}, {where} ({len(values[name])}) | " + " | ".join(cells + more) + " |")
    return "\n".join(lines).replace("nan", "–")


if __name__ == "__main__":
    sys.exit(main())
