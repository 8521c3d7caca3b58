"""What the page draws of a video: thumbnails, palette, cuts, predicted rhythm; and where its sound is speech."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diff_v2m import media
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.mix.detection import sound_spans
from diff_v2m.mix.mixing import prepare
from diff_v2m.mix.settings import MixSettings
from diff_v2m.plots import palette

HEIGHT = 72  # pixels of a thumbnail
MOST = 60  # thumbnails of a video
QUALITY = 80  # of the jpg


def thumbnail_strip(thumbnails: media.Thumbnails) -> tuple[np.ndarray, list[float]]:
    """(HEIGHT, n · width, 3) uint8 RGB, at most MOST frames side by side, and their seconds."""
    step = -(-len(thumbnails.times) // MOST)
    frames, times = thumbnails.frames[::step], thumbnails.times[::step]
    width = max(1, round(frames.shape[2] * HEIGHT / frames.shape[1]))
    small = [cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.concatenate(small, axis=1), times.tolist()


def describe_video(features: VideoFeatures, sheet: CueSheet, thumbnails: media.Thumbnails) -> dict[str, Any]:
    """For the page. sheet: what music would follow. Times in seconds; colours as #rrggbb with their shares."""
    strip, times = thumbnail_strip(thumbnails)
    colors = []
    for second in range(len(features)):
        frame = thumbnails.frames[max(0, int(np.searchsorted(thumbnails.times, second, side="right")) - 1)]
        found, shares = palette(frame)
        names = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in found]
        colors.append([[name, round(float(share), 3)] for name, share in zip(names, shares, strict=True)])
    return {
        "duration": features.duration,
        "thumbnails": {"times": times, "width": strip.shape[1] // len(times), "height": HEIGHT},
        "palette": colors,
        "cuts": [cue.time for cue in sheet["cut"]],
        "beats": [[cue.time, 1.0 if cue.value is None else cue.value] for cue in sheet["beat"]],
        "rhythm": [float(cue.value) for cue in sheet["rhythm"]],
    }


def write_strip(path: Path, thumbnails: media.Thumbnails) -> None:
    """The strip of thumbnails as jpg."""
    strip, _ = thumbnail_strip(thumbnails)
    _, content = cv2.imencode(".jpg", strip[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    path.write_bytes(content.tobytes())


def measure_sound(video: Path, duration: float) -> dict[str, np.ndarray]:
    """Powers (hops,) of the video's own sound, and spans (n, 2) with speech and with any sound. Empty without sound."""
    sound = media.open_sound(video)
    if sound is None:
        return {"powers": np.zeros(0), "speech": np.zeros((0, 2)), "sound": np.zeros((0, 2))}
    silence = np.broadcast_to(np.float32(0), (1, round(duration * sound.sample_rate)))  # no memory, whatever its length
    with tempfile.TemporaryDirectory() as scratch:
        clip = prepare(sound, silence, sound.sample_rate, duration, MixSettings(), Path(scratch))
    powers = clip.measured.original
    spans = {"speech": clip.measured.spans, "sound": sound_spans(powers)}
    return {"powers": powers, **{name: np.array(found, float).reshape(-1, 2) for name, found in spans.items()}}
