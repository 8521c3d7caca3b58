"""Thumbnails of each clip for the page, as png: the mel-spectrogram of the music and the colours of the video.

A thumbnail is named by the content of its file and drawn once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.files import atomic, content_hash

if TYPE_CHECKING:
    from inference.pairing import MediaFile
    from inference.workspace import Workspace

PICTURES, MEDIA = "pictures", "media"  # folders within the report
RANGE_DB = 70.0  # of the spectrogram, below its maximum


def add(workspace: Workspace, folder: Path, copy_media: bool) -> None:
    """Note under `page`, for every generated clip, paths relative to the report and lengths in seconds.

    audio, reference, video; own_sound: the video carries the generated music, as infer.py writes it; mel, seconds;
    palette, video_seconds. Each is None where there is none. A file that cannot be read is skipped.
    """
    videos, partners = dict(workspace.video_pairs.pairs), dict(workspace.reference_pairs.pairs)
    for clip in tqdm(workspace.generated, desc="thumbnails", unit="clip", disable=None, leave=False):
        workspace.note(clip, page=_of_clip(workspace, folder, copy_media, clip, videos.get(clip), partners.get(clip)))


def mel(audio: Path, folder: Path) -> tuple[str, float]:
    """Draw the mel-spectrogram, low frequencies at the bottom; return its path and the duration in seconds."""
    from diff_v2m import plots

    sample_rate, channels = media.audio_format(audio)
    seconds = media.audio_duration(audio)
    path = f"{PICTURES}/{content_hash(audio)[:16]}-mel.png"
    if not (folder / path).is_file():
        _, decibel = plots.analyse(media.read_audio(audio, sample_rate, channels), sample_rate)
        decibel = np.nan_to_num(decibel, nan=-100.0)
        level = (decibel - max(float(decibel.max(initial=-100.0)), -99.0)) / RANGE_DB + 1
        _save(folder / path, (level[::-1].clip(0, 1) * 255).astype(np.uint8), colormap="magma")
    return path, seconds


def palette(video: Path, folder: Path) -> tuple[str, float]:
    """Draw the dominant colours over time; return the path and the duration in seconds."""
    from diff_v2m import plots

    seconds = media.probe(video).duration
    path = f"{PICTURES}/{content_hash(video)[:16]}-palette.png"
    if not (folder / path).is_file():
        _save(folder / path, plots.palette_strip(media.read_thumbnails(video, seconds).frames)[::-1])
    return path, seconds


def _of_clip(
    workspace: Workspace,
    folder: Path,
    copy_media: bool,
    clip: MediaFile,
    paired_video: MediaFile | None,
    partner: MediaFile | None,
) -> dict[str, Any]:
    with_music = clip.path if clip.path.suffix.lower() in media.VIDEO_SUFFIXES else clip.path.with_suffix(".mp4")
    own_sound = with_music.is_file()
    video = with_music if own_sound else paired_video.path if paired_video else None
    mel_path, seconds = workspace.attempt(clip, lambda: mel(clip.path, folder)) or (None, None)
    palette_path, video_seconds = None, None
    if video is not None:
        palette_path, video_seconds = workspace.attempt(clip, lambda: palette(video, folder)) or (None, None)

    def link(path: Path | None) -> str | None:
        if path is None or not copy_media:
            return path and _relative(path, folder)
        return workspace.attempt(clip, lambda: _copied(path, folder))

    return {
        "audio": link(clip.path),
        "reference": link(partner.path if partner else None),
        "video": link(video),
        "own_sound": own_sound,
        "mel": mel_path,
        "seconds": seconds,
        "palette": palette_path,
        "video_seconds": video_seconds,
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _copied(path: Path, folder: Path) -> str:
    target = f"{MEDIA}/{content_hash(path)[:16]}{path.suffix.lower()}"
    if not (folder / target).is_file():
        with atomic(folder / target) as part:
            shutil.copyfile(path, part)
    return target


def _save(path: Path, image: np.ndarray, colormap: str | None = None) -> None:
    """Write (H, W, 3) colours, or (H, W) levels of a colormap, uint8."""
    from PIL import Image

    drawn = Image.fromarray(np.ascontiguousarray(image))
    if colormap is not None:  # an indexed png: a quarter of the size
        import matplotlib

        drawn.putpalette((matplotlib.colormaps[colormap](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes())
    with atomic(path) as part:
        drawn.save(part, format="png", optimize=True)
