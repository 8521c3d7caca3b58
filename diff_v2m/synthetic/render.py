"""Scenes → a data set on disk, in the layout that every other data set has.

    DIR/wav/<seed>.wav          16 kHz mono, 16 bit
    DIR/video/<seed>.mp4        160×90 at 25 frames a second, H.264, with the music
    DIR/clip, DIR/color         features of that mp4, by the same code that reads a user's video
    DIR/videoInfo_30.json, DIR/features.json, DIR/dataset.json

The same seed gives the same frames and the same samples on any machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import imageio_ffmpeg
import soundfile
from tqdm import tqdm

from .. import media
from ..features import FEATURE_VERSION, HogEncoder, extract_features
from . import music, video
from .scene import plan

SAMPLE_RATE = 16000


def render_set(folder: Path, seeds: range, audio_only: bool = False) -> None:
    """Write one clip a seed; what is there already is left alone."""
    encoder, info = HogEncoder(), {}
    for seed in tqdm(seeds, desc=f"rendering {folder.name}"):
        name = f"{seed:07d}"
        wav = render_wav(folder / "wav" / f"{name}.wav", seed)
        if audio_only:
            continue
        mp4 = render_mp4(folder / "video" / f"{name}.mp4", wav, seed)
        entry = folder / "info" / f"{name}.json"  # written last: its presence says that the clip is complete
        if not entry.exists():
            features = extract_features(mp4, encoder)
            _write_json(entry, features.save(folder, name))
        info[mp4.name] = json.loads(entry.read_text())
    if not audio_only:
        _write_json(folder / "videoInfo_30.json", info)
        _write_json(folder / "features.json", {"feature_version": FEATURE_VERSION, "encoder": encoder.name})
        _write_json(folder / "dataset.json", _dataset(folder))


def render_wav(path: Path, seed: int) -> Path:
    """The music of a seed."""
    if not path.exists():
        with media.atomic(path) as part:
            soundfile.write(part, music.render(plan(seed), SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    return path


def render_mp4(path: Path, wav: Path, seed: int) -> Path:
    """The picture of a seed, with its music as sound."""
    if path.exists():
        return path
    with media.atomic(path) as part:
        writer = imageio_ffmpeg.write_frames(
            str(part), (video.WIDTH, video.HEIGHT), fps=video.FPS, codec="libx264", quality=None, macro_block_size=2,
            audio_path=str(wav), audio_codec="aac", ffmpeg_log_level="error",
            output_params=["-preset", "veryfast", "-crf", "20", "-threads", "1", "-b:a", "96k", "-shortest"],
        )  # fmt: skip
        writer.send(None)
        for frame in video.render(plan(seed)):
            writer.send(frame.tobytes())
        writer.close()
    return path


def _dataset(folder: Path) -> dict:
    """The dataset JSON, with paths relative to its own folder."""
    return {
        "dataset_type": "audio_video_dir",
        "rhythm_type": "odf",
        "drop_last": True,
        "random_crop": True,
        "datasets": [{
            "id": f"procedural-{folder.name}", "path": "wav", "video": "video", "video_feat": "clip",
            "video_color": "color", "video_info": "videoInfo_30.json", "class_label": 2,
        }],
    }  # fmt: skip


def _write_json(path: Path, content: dict) -> None:
    with media.atomic(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
