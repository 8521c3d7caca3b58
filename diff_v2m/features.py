"""Frames → `VideoFeatures`, one row a second: what is seen, its colours, its cuts and its motion.

Row s is the second [s, s + 1). Rows follow the picture's real length; the last may be cut short. The published project
has no code for this step. [P]: the paper states it; [I]: inferred from the paper, its data and its sources.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from scipy.signal import find_peaks
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.errors import InputError

log = logging.getLogger(__name__)


SEMANTIC_DIM = 512
COLOR_BINS = 32
COLOR_DIM = 3 * COLOR_BINS**2
WINDOW = 30  # seconds: a clip of the training sets, over which motion is normalised
SLIVER = 0.1  # seconds: less than this at the end is a container's rounding (29.97 fps · 900), not a row of its own

CLIP_NAME = "clip-vit-base-patch32"
CLIP_HUB_ID = f"openai/{CLIP_NAME}"
CLIP_FOLDER = Path(__file__).resolve().parents[1] / "saved_model" / CLIP_NAME
CLIP_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")

MOTION_SIZE = 256  # pixels, longer side of the frames in which cuts and motion are sought, as PySceneDetect's default
CUT_THRESHOLD = 27.0  # PySceneDetect's ContentDetector
CUT_DISTANCE = 0.6  # seconds between cuts at least: PySceneDetect's default of 15 frames at 25 a second
MOTION_RATE = 8.0  # frames a second compared for pseudo beats; the paper says 6 or more
PEAK_PROMINENCE = 0.3
STILL = 2.0  # grey levels a second: motion that varies by less is coding noise


def rows(duration: float) -> int:
    """How many rows a video of so many seconds has: every second begun, but for a last sliver."""
    return max(1, int(np.ceil(duration - SLIVER)))


# ------------------------------------------------------------------------------------------------ hand-over type


@dataclass(frozen=True)
class VideoFeatures:
    """What the model sees of a video: S rows, one a second."""

    semantic: np.ndarray  # (S, 512) float32, raw (not normalised) embeddings
    color: np.ndarray | None  # (S, 3072) float32, each row sums to 1; None only when a folder without colour is read
    scene_cut: np.ndarray  # (S,) int64, 1 where the second contains a cut
    pseudo_beats: np.ndarray  # (S,) float32 in [0, 1]
    duration: float  # seconds of picture

    def __len__(self) -> int:
        return len(self.semantic)

    def slice(self, start: int, stop: int) -> "VideoFeatures":
        """The whole seconds [start, stop), as if they were a video of their own."""
        stop = min(stop, len(self))
        return VideoFeatures(
            self.semantic[start:stop],
            None if self.color is None else self.color[start:stop],
            self.scene_cut[start:stop],
            self.pseudo_beats[start:stop],
            (self.duration if stop == len(self) else stop) - start,
        )

    def info(self) -> dict:
        """The clip's entry in videoInfo_30.json ("duration" is ours: the released files have the other two)."""
        return {
            "scene_cut": self.scene_cut.tolist(),
            "pseudo_beats": [round(float(value), 6) for value in self.pseudo_beats],
            "duration": round(self.duration, 6),
        }

    def save(self, directory: str | Path, name: str) -> dict:
        """Write DIR/clip/NAME.npy and DIR/color/NAME.npy atomically; returns the entry for DIR/videoInfo_30.json."""
        for folder, array in (("clip", self.semantic), ("color", self.color)):
            if array is not None:
                with media.atomic(Path(directory) / folder / f"{name}.npy") as part:
                    np.save(part, array.astype(np.float32))
        return self.info()


# ----------------------------------------------------------------------------------------------------- semantics


class SemanticEncoder(Protocol):
    """Frames → 512 numbers each. `name` is what model JSON and features.json call it."""

    name: str

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB → (n, 512) float32."""


class HogEncoder:
    """Histogram of oriented gradients of the grey frame at 64×64 pixels: shapes without colour; nothing to download.

    4×4 blocks of 2×2 cells of 8×8 pixels, 8 orientations: 512 numbers, each block of unit length at most.
    """

    name = "hog"

    def __init__(self):
        if not hasattr(cv2, "HOGDescriptor"):
            raise InputError(f"OpenCV {cv2.__version__} has no HOGDescriptor; pip install 'opencv-python-headless<5'")
        self.descriptor = cv2.HOGDescriptor((64, 64), (16, 16), (16, 16), (8, 8), 8)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        small = (cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames)
        return np.stack([self.descriptor.compute(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in small])


class ClipEncoder:
    """CLIP ViT-B/32's projected image embedding, raw, after CLIP's own preprocessing [P: ViT-B/32 at 1 fps].

    model: a local folder or a hub id; None: saved_model/clip-vit-base-patch32 where that exists, else the hub.
    device: as torch names it; None: cuda where there is one.
    """

    def __init__(self, model: str | Path | None = None, device: str | None = "cpu"):
        import torch
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        if model is None:
            model = CLIP_FOLDER if CLIP_FOLDER.is_dir() else CLIP_HUB_ID
        self.name = encoder_name(str(model))
        try:
            folder = str(model) if Path(model).is_dir() else _from_hub(str(model))
            self.processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            self.network = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            where = model if Path(model).is_dir() else CLIP_FOLDER
            raise InputError(
                f"{model}: CLIP cannot be loaded; put {', '.join(CLIP_FILES)} of {CLIP_HUB_ID} into {where}/ "
                f"(from https://huggingface.co/{CLIP_HUB_ID}), or choose the encoder hog, which needs none "
                f"({str(error).strip().partition(chr(10))[0]})"
            ) from error
        width = self.network.config.projection_dim
        if width != SEMANTIC_DIM:
            raise InputError(f"{model}: its image embedding has {width} numbers, expected {SEMANTIC_DIM}")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        import torch

        pixels = self.processor(images=list(frames), return_tensors="pt")["pixel_values"].to(self.device)
        with torch.inference_mode():
            return self.network(pixel_values=pixels).image_embeds.float().cpu().numpy()


def _from_hub(model: str) -> str:
    """The folder of a hub model in the Hugging Face cache, downloaded if need be. OSError when that cannot be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(model, allow_patterns=CLIP_FILES, local_files_only=True)
    except LocalEntryNotFoundError:
        log.info("%s: not on this machine; downloading it from the Hugging Face hub (600 MB, once)", model)
        return snapshot_download(model, allow_patterns=CLIP_FILES)


def encoder_name(choice: str) -> str:
    """What model JSON and features.json call the encoder that `build_encoder(choice)` makes."""
    if choice in ("clip", CLIP_HUB_ID):
        return CLIP_NAME
    return Path(choice).resolve().name if Path(choice).is_dir() else choice.rsplit("/", 1)[-1]


def build_encoder(choice: str, device: str | None = "cpu") -> SemanticEncoder:
    """choice: hog, clip (= clip-vit-base-patch32), a folder with a CLIP model, or a hub id. Raises InputError."""
    if choice == HogEncoder.name:
        return HogEncoder()
    if choice in ("clip", CLIP_NAME, CLIP_HUB_ID):
        return ClipEncoder(device=device)
    if Path(choice).is_dir() or (choice.count("/") == 1 and not choice.startswith((".", "/"))):
        return ClipEncoder(choice, device)
    raise InputError(f"encoder {choice!r}: expected hog, clip, an existing folder with a CLIP model, or a hub id")


# -------------------------------------------------------------------------------------------------------- colour


def rgb_uv_histogram(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB → (n, 3072) float32: HistoGAN's RGB-uv histogram [I, with high confidence].

    For each channel c with the others a < b: u = log c − log a, v = log c − log b; every pixel spreads its intensity
    over the 32×32 bins (u, v) in [−3, 3]² by an inverse-quadratic kernel of width 0.02; the three sum to 1.
    """
    with threadpool_limits(1, user_api="blas"):  # on a busy machine a second thread makes these matmuls 50 times slower
        return np.stack([_rgb_uv(frame) for frame in frames])


def _rgb_uv(frame: np.ndarray) -> np.ndarray:
    epsilon, sigma, bins = 1e-6, 0.02, np.linspace(-3, 3, COLOR_BINS, dtype=np.float32)
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (min(width, 150), min(height, 150)), interpolation=cv2.INTER_LINEAR)
    pixels = small.reshape(-1, 3).astype(np.float32) / 255
    intensity = np.sqrt((pixels**2).sum(axis=1, keepdims=True) + epsilon)  # ε as HistoGAN: black is a colour too
    red, green, blue = np.log(pixels + epsilon).T

    def kernel(difference: np.ndarray) -> np.ndarray:
        return 1 / (1 + ((difference[:, None] - bins) / sigma) ** 2)

    # The bins are symmetric, so k(−d) is k(d) read backwards: three kernels serve all six differences.
    rg, rb, gb = kernel(red - green), kernel(red - blue), kernel(green - blue)
    gr, br, bg = (np.ascontiguousarray(k[:, ::-1]) for k in (rg, rb, gb))
    histogram = np.stack([(intensity * u).T @ v for u, v in ((rg, rb), (gr, gb), (br, bg))])
    return (histogram / histogram.sum()).reshape(-1).astype(np.float32)


# ----------------------------------------------------------------------------------------------- cuts and motion


class CutFinder:
    """`cuts`, in seconds, of a video that comes in pieces: PySceneDetect's ContentDetector [P] at 27 [I]."""

    def __init__(self):
        from scenedetect import ContentDetector

        self.detector = ContentDetector(threshold=CUT_THRESHOLD, min_scene_len=CUT_DISTANCE)
        self.cuts: list[float] = []

    def watch(self, times: np.ndarray, frames: np.ndarray) -> None:
        """The next frames (n, H, W, 3) uint8 RGB, at times (n,)."""
        from scenedetect import FrameTimecode
        from scenedetect.common import Timecode

        for time, frame in zip(times, frames, strict=True):
            stamp = FrameTimecode(Timecode(round(time * 1e6), Fraction(1, 10**6)), fps=25.0)  # fps: unused by stamps
            found = self.detector.process_frame(stamp, np.ascontiguousarray(frame[:, :, ::-1]))
            self.cuts += [cut.seconds for cut in found]


def pseudo_beats(times: np.ndarray, motion: np.ndarray, seconds: int) -> np.ndarray:
    """(seconds,) float32 in [0, 1]: the largest of the `motion_peaks` in each second, else 0."""
    beats = np.zeros(seconds, np.float32)
    peaks, heights = motion_peaks(times, motion, seconds)
    np.maximum.at(beats, _second_of(times[peaks], seconds), heights)
    return beats


def motion_peaks(times: np.ndarray, motion: np.ndarray, seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """Peaks of the motion curve (n,) at times (n,): their indices (k,) and heights (k,) in [0, 1].

    Motion is min-max scaled and its peaks have a prominence of 0.3 or more [I], window by window of 30 s, so
    that a film's features are those of its clips. Where motion hardly changes there are no beats.
    """
    found, heights = [np.zeros(0, int)], [np.zeros(0)]
    second = _second_of(times, seconds)
    for begin in range(0, seconds, WINDOW):
        inside = np.flatnonzero((second >= begin) & (second < begin + WINDOW))
        curve = motion[inside]
        if len(curve) < 3 or np.ptp(curve) < STILL:
            continue
        curve = (curve - curve.min()) / np.ptp(curve)
        peaks, _ = find_peaks(curve, prominence=PEAK_PROMINENCE)
        found.append(inside[peaks])
        heights.append(curve[peaks])
    return np.concatenate(found), np.concatenate(heights)


def _second_of(times: np.ndarray, seconds: int) -> np.ndarray:
    return np.clip(np.floor(times + media.SAME_TIME).astype(int), 0, seconds - 1)


class MotionMeter:
    """Mean |frame − the one before| of every step-th frame, in grey levels a second, for a video that comes in pieces.

    A step in frames, not in seconds: 8 a second out of 25 would be 3, 3, 3, 4 … frames apart and steady motion would
    seem to beat. Dividing by the time between them does the same for variable frame rates.
    """

    def __init__(self, fps: float):
        self.step = max(1, round(fps / MOTION_RATE))
        self.seen = 0
        self.last: tuple[float, np.ndarray] | None = None
        self.times: list[float] = []
        self.motion: list[float] = []

    def watch(self, times: np.ndarray, frames: np.ndarray) -> None:
        """The next frames (n, H, W, 3) uint8, at times (n,)."""
        first = -self.seen % self.step
        for time, frame in zip(times[first :: self.step], frames[first :: self.step], strict=True):
            if self.last is not None and time > self.last[0]:
                self.times.append(time)
                self.motion.append(cv2.absdiff(frame, self.last[1]).mean() / (time - self.last[0]))
            self.last = (time, frame.copy())  # a copy: a view would keep the whole piece alive
        self.seen += len(frames)


# ---------------------------------------------------------------------------------------------------- everything


def extract_features(
    video: str | Path,
    encoder: SemanticEncoder,
    *,
    start: float = 0.0,
    stop: float | None = None,
    progress: bool = False,
) -> VideoFeatures:
    """The features of the seconds [start, stop) of a video file, as if they were a video of their own.

    Reads it once, in pieces: one full-size frame a second for semantics and colour, every frame at 256 pixels for cuts
    and motion. Memory does not grow with the length. Raises InputError for what is no video.
    """
    info = media.probe(video)
    stop = info.duration if stop is None else min(stop, info.duration)
    if start < 0 or stop <= start:
        raise InputError(f"{video}: {info.duration:.2f} s long, seconds {start:g} to {stop:g} were asked for")
    seconds = rows(stop - start)

    stills, moving = media.View(start + np.arange(seconds, dtype=float), chunk=16), media.View(size=MOTION_SIZE)
    semantic, color, cutter, meter = [], [], CutFinder(), MotionMeter(info.fps)
    hide = None if progress else True  # None: hidden where nobody watches, as in a log file
    with tqdm(total=seconds, unit="s", desc=f"features of {Path(video).name}", disable=hide, leave=False) as bar:
        for view, times, frames in media.iter_views(video, (stills, moving), start=start, stop=stop):
            if view is stills:
                semantic.append(encoder(frames))
                color.append(rgb_uv_histogram(frames))
            else:
                cutter.watch(times, frames)
                meter.watch(times, frames)
                bar.update(min(seconds, int(times[-1] - start) + 1) - bar.n)

    scene_cut = np.zeros(seconds, np.int64)
    scene_cut[_second_of(np.array(cutter.cuts) - start, seconds)] = 1
    return VideoFeatures(
        semantic=np.concatenate(semantic),
        color=np.concatenate(color),
        scene_cut=scene_cut,
        pseudo_beats=pseudo_beats(np.array(meter.times) - start, np.array(meter.motion), seconds),
        duration=stop - start,
    )
