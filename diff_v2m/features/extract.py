"""Video file → `VideoFeatures` and thumbnails, in one pass over the frames.

The published project has no code for this step. [P]: stated by the paper; [I]: inferred from the paper, its data and
its sources.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import stage
from diff_v2m.features.color import rgb_uv_histogram
from diff_v2m.features.imagenet import moving_average
from diff_v2m.features.motion import MOTION_SIZE, CutFinder, MotionMeter, second_of
from diff_v2m.features.semantic import SemanticEncoder
from diff_v2m.features.video_features import VideoFeatures, motion_features, motion_rows, seconds_of


def extract_features(
    video: str | Path,
    encoder: SemanticEncoder,
    *,
    start: float = 0.0,
    stop: float | None = None,
) -> VideoFeatures:
    """The features of the seconds [start, stop) of a video file, as if they were a video of their own.

    Reads it once, in pieces: one full-size frame per second for semantics and colour, every frame at 256 pixels for
    cuts and motion. Memory does not grow with the length. Raises InputError if it is not a whole video.
    """
    info = media.probe(video)
    stop = info.duration if stop is None else min(stop, info.duration)
    if start < 0 or stop <= start:
        raise InputError(f"{video}: {info.duration:.2f} s long, seconds {start:g} to {stop:g} were asked for")
    return _extract(video, encoder, start, stop)[0]


def extract_with_thumbnails(video: str | Path, encoder: SemanticEncoder) -> tuple[VideoFeatures, media.Thumbnails]:
    """`extract_features` of a whole video and its thumbnails. Raises InputError."""
    duration = media.probe(video).duration
    view = media.thumbnail_view(duration)
    features, thumbnails = _extract(video, encoder, 0.0, duration, further=view)
    return features, media.Thumbnails(view.times, np.concatenate(thumbnails))


def _extract(
    video: str | Path,
    encoder: SemanticEncoder,
    start: float,
    stop: float,
    further: media.View | None = None,
) -> tuple[VideoFeatures, list[np.ndarray]]:
    """Features, and the frames of one further view."""
    seconds, fps = seconds_of(stop - start), media.probe(video).fps
    stills, moving = media.View(start + np.arange(seconds, dtype=float), chunk=8), media.View(size=MOTION_SIZE)
    views = (stills, moving) if further is None else (stills, moving, further)
    described, cutter, meter, frames_of_further = [], CutFinder(), MotionMeter(fps, start), []

    def describe(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return encoder(frames), rgb_uv_histogram(frames)

    with stage(f"features of {Path(video).name}", seconds, "s") as bar, ThreadPoolExecutor(1) as beside:
        for view, times, frames in media.iter_views(video, views, start=start, stop=stop):
            if view is stills:
                if described:
                    described[-1].result()  # one chunk at a time: memory does not grow
                described.append(beside.submit(describe, frames))
            elif view is moving:
                cutter.watch(times, frames)
                meter.watch(times, frames)
                bar.update(min(seconds, int(times[-1] - start) + 1) - bar.n)
            else:
                frames_of_further.append(frames)

    semantic, color = zip(*(future.result() for future in described), strict=True)
    cuts = np.array(cutter.cuts, float) - start
    times, motion = np.array(meter.times, float) - start, np.array(meter.motion, float)
    scene_cut = np.zeros(seconds, np.int64)
    scene_cut[second_of(cuts, seconds)] = 1
    features = VideoFeatures(
        semantic=moving_average(np.concatenate(semantic), encoder.smoothing),
        color=np.concatenate(color),
        scene_cut=scene_cut,
        duration=stop - start,
        cut_times=cuts,
        **motion_features(motion_rows(times, motion, seconds)),
    )
    return features, frames_of_further
