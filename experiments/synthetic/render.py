"""Scenes → a data set on disk, in the common layout of data sets.

    DIR/wav/<seed>.wav          16 kHz mono, 16 bit
    DIR/video/<seed>.mp4        160×90 at 25 frames a second, H.264, with the music
    DIR/clip, DIR/color         features of that mp4, as infer.py extracts them
    DIR/videoInfo_30.json, DIR/features.json, DIR/dataset.json

The same seed gives the same frames and the same samples on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import soundfile
from tqdm import tqdm

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, write_json
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.extract import extract_features
from diff_v2m.features.semantic import HogEncoder
from experiments.synthetic import music, video
from experiments.synthetic.scene import WORLD_VERSION, plan

SAMPLE_RATE = 16000
WORLD = {"world_version": WORLD_VERSION}


def render_set(folder: Path, seeds: range) -> None:
    """Write one clip per seed; existing files are skipped. Raises InputError as `claim_folder` does."""
    claim_folder(folder)
    encoder = HogEncoder()
    for seed in tqdm(seeds, desc=f"rendering {folder.name}"):
        name = f"{seed:07d}"
        wav = render_wav(folder / "wav" / f"{name}.wav", seed)
        mp4 = render_mp4(folder / "video" / f"{name}.mp4", wav, seed)
        entry = folder / "info" / f"{name}.json"  # written last: marks the clip as complete
        if not entry.exists():
            features = extract_features(mp4, encoder)
            write_json(entry, features.save(folder, name))
    # all clips of the folder, because several processes may render parts of it
    info = {f"{path.stem}.mp4": json.loads(path.read_text()) for path in sorted((folder / "info").glob("*.json"))}
    write_json(folder / "videoInfo_30.json", info)
    write_json(folder / "features.json", {"feature_version": FEATURE_VERSION, "encoder": encoder.name})
    write_json(folder / "dataset.json", _dataset(folder))


def render_music(folder: Path, seeds: range) -> None:
    """Write only the music of `render_set`, which is enough to train an autoencoder on."""
    claim_folder(folder)
    for seed in tqdm(seeds, desc=f"rendering music of {folder.name}"):
        render_wav(folder / "wav" / f"{seed:07d}.wav", seed)


def claim_folder(folder: Path, world: Mapping[str, Any] = WORLD) -> None:
    """Note a world and its version in an empty folder. Raises InputError if the folder holds anything else."""
    note = folder / "world.json"
    if not note.is_file() and not any(folder.glob("[!.]*")):  # hidden: the note that another process writes
        write_json(note, world)
    elif not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != world:
        raise InputError(f"{folder}: holds no {note.name} of {json.dumps(world)}; remove the folder or give another")


def render_wav(path: Path, seed: int) -> Path:
    """Write the music of a seed."""
    if not path.exists():
        with atomic(path) as part:
            soundfile.write(part, music.render(plan(seed), SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    return path


def render_mp4(path: Path, wav: Path, seed: int) -> Path:
    """Write the picture of a seed with its music."""
    if path.exists():
        return path
    write_mp4(path, wav, video.render(plan(seed)), (video.WIDTH, video.HEIGHT), video.FPS, "96k")
    return path


def write_mp4(
    path: Path, wav: Path, frames: Iterable[np.ndarray], size: tuple[int, int], fps: int, audio_bitrate: str
) -> None:
    """Encode frames (H, W, 3) uint8 RGB, size (W, H), with the wav as sound. One thread, so that the file repeats."""
    with atomic(path) as part:
        writer = imageio_ffmpeg.write_frames(
            str(part),
            size,
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            audio_path=str(wav),
            audio_codec="aac",
            ffmpeg_log_level="error",
            output_params=["-preset", "veryfast", "-crf", "20", "-threads", "1", "-b:a", audio_bitrate, "-shortest"],
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame).tobytes())
        writer.close()


def _dataset(folder: Path) -> dict:
    """The dataset JSON, with paths relative to its own folder."""
    return {
        "dataset_type": "audio_video_dir",
        "rhythm_type": "odf",
        "drop_last": True,
        "random_crop": True,
        "datasets": [
            {
                "id": f"procedural-{folder.name}",
                "path": "wav",
                "video": "video",
                "video_feat": "clip",
                "video_color": "color",
                "video_info": "videoInfo_30.json",
                "class_label": 2,
            }
        ],
    }
