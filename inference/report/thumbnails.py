"""What a page shows of each clip: its spectrogram and the colours of its film as png, and where its media lie.

Each picture is drawn once: it is called after the content of the file it shows.
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
    from inference.pairing import Clip
    from inference.workspace import Workspace

PICTURES, MEDIA = "pictures", "media"  # folders within the report
RANGE_DB = 70.0  # of the spectrogram, below its loudest


def add(workspace: Workspace, folder: Path, copy_media: bool) -> None:
    """Note under `page`, for every generated clip, paths relative to the report and lengths in seconds:

    audio, reference, video; own_sound: the video carries the generated music, as infer.py's does; mel, seconds;
    palette, video_seconds. What is not there is None; a file that cannot be read is reported as left out.
    """
    films, partners = dict(workspace.films.pairs), dict(workspace.pairs.pairs)
    for clip in tqdm(workspace.generated, desc="pictures", unit="clip", disable=None, leave=False):
        workspace.note(clip, page=_of_clip(workspace, folder, copy_media, clip, films.get(clip), partners.get(clip)))


def mel(wav: Path, folder: Path) -> tuple[str, float]:
    """Draw the mel-spectrogram, low at the bottom, a picture as wide as the sound is long → its path, seconds."""
    from diff_v2m import plots

    sample_rate, channels = media.audio_format(wav)
    seconds = media.audio_duration(wav)
    path = f"{PICTURES}/{content_hash(wav)[:16]}-mel.png"
    if not (folder / path).is_file():
        _, decibel = plots.analyse(media.read_audio(wav, sample_rate, channels), sample_rate)
        decibel = np.nan_to_num(decibel, nan=-100.0)
        level = (decibel - max(float(decibel.max(initial=-100.0)), -99.0)) / RANGE_DB + 1
        _save(folder / path, (level[::-1].clip(0, 1) * 255).astype(np.uint8), colormap="magma")
    return path, seconds


def palette(film: Path, folder: Path) -> tuple[str, float]:
    """Draw the dominant colours over time → path, seconds of the film."""
    from diff_v2m import plots

    seconds = media.probe(film).duration
    path = f"{PICTURES}/{content_hash(film)[:16]}-palette.png"
    if not (folder / path).is_file():
        _save(folder / path, plots.palette_strip(plots.read_storyboard(film, seconds).frames)[::-1])
    return path, seconds


def _of_clip(
    workspace: Workspace, folder: Path, copy_media: bool, clip: Clip, film: Clip | None, partner: Clip | None
) -> dict[str, Any]:
    scored = clip.path if clip.path.suffix.lower() in media.VIDEO_SUFFIXES else clip.path.with_suffix(".mp4")
    own_sound = scored.is_file()
    video = scored if own_sound else film.path if film else None
    drawn_mel = workspace.attempt(clip, lambda: mel(clip.path, folder)) or (None, None)
    drawn_palette = (None, None)
    if video is not None:
        drawn_palette = workspace.attempt(clip, lambda: palette(video, folder)) or drawn_palette

    def link(path: Path | None) -> str | None:
        if path is None or not copy_media:
            return path and _relative(path, folder)
        return workspace.attempt(clip, lambda: _copied(path, folder))

    return {
        "audio": link(clip.path),
        "reference": link(partner.path if partner else None),
        "video": link(video),
        "own_sound": own_sound,
        "mel": drawn_mel[0],
        "seconds": drawn_mel[1],
        "palette": drawn_palette[0],
        "video_seconds": drawn_palette[1],
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
    """(H, W, 3) colours, or (H, W) levels of a colormap, uint8."""
    from PIL import Image

    drawn = Image.fromarray(np.ascontiguousarray(image))
    if colormap is not None:  # an indexed png: a quarter of the size
        import matplotlib

        drawn.putpalette((matplotlib.colormaps[colormap](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes())
    with atomic(path) as part:
        drawn.save(part, format="png", optimize=True)
