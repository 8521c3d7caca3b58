"""The json beside every result: what was asked for, by which a rerun knows what is done, and how it was made."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diff_v2m
from diff_v2m.checkpoints.find import find_weights
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.common.versions import FEATURE_VERSION, installed_versions
from diff_v2m.generation.inputs import GENERATOR, Clip, is_result, real_path, variation_suffix

if TYPE_CHECKING:  # a rerun that finds all done never loads torch
    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.pipeline import Composition, DiffV2M
    from diff_v2m.media.loudness import LoudnessReport

log = logging.getLogger(__name__)

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "stable-audio-tools",
    "transformers",
    "opencv-python-headless",
    "scenedetect",
    "decord",
    "av",
    "pyloudnorm",
    "soundfile",
)
_EDGE = 1 << 20  # bytes hashed at either end of a source: enough to know a film again without reading it all


@dataclass(frozen=True)
class Settings:
    """What, with clip and weights, decides the result."""

    seed: int = 42
    steps: int | None = None  # None: as DiffV2M.default_steps
    sampler: str = "dpmpp-3m"  # a name in diffusion.SAMPLERS
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # the t in which guidance acts
    class_label: int | None = None  # None: 2, or what a dataset JSON says
    normalize: str = "lufs"
    dtype: str = "float32"

    def label_of(self, clip: Clip) -> int:
        if self.class_label is not None:
            return self.class_label
        return clip.entry.class_label if clip.entry is not None else 2


@dataclass(frozen=True)
class Weights:
    """Which model makes the music."""

    path: str
    sha256: str
    kind: str = "ema"  # ema | online
    config_sha256: str | None = None  # of the model JSON given beside a checkpoint

    @classmethod
    def of(cls, path: str | Path, kind: str = "ema", config: str | Path | None = None) -> Weights:
        """Know a weights file (or the folder of one) by its content. Raises InputError."""
        path = find_weights(path)
        if path.stat().st_size > 1 << 30:
            log.info("reading %s once, to know it by its hash", path)
        return cls(str(path), content_hash(path), kind, content_hash(config) if config is not None else None)


@dataclass(frozen=True)
class Take:
    """One result to make: a clip and the number of the variation, 1 being the clip itself."""

    clip: Clip
    variation: int = 1

    @property
    def output_name(self) -> str:
        return f"{self.clip.output_name}{variation_suffix(self.variation)}"

    def targets(self, folder: Path) -> list[Path]:
        """Where its files go; mp4 only where there is a video."""
        suffixes = (".mp4", ".wav", ".png", ".json") if self.clip.video is not None else (".wav", ".png", ".json")
        return [folder / f"{self.output_name}{suffix}" for suffix in suffixes]

    @property
    def source(self) -> str:
        """Where the clip lies, for people to read."""
        return str(real_path(self.clip.video)) if self.clip.video is not None else self.clip.label


def request(take: Take, settings: Settings, weights: Weights) -> dict[str, Any]:
    """What was asked for, complete: the same request makes the same music. Paths are left out, they change."""
    asked = asdict(settings) | {"class_label": settings.label_of(take.clip)}
    asked["guidance_interval"] = list(settings.guidance_interval)  # as json gives it back
    model = {"weights_sha256": weights.sha256, "weights": weights.kind, "config_sha256": weights.config_sha256}
    source = {"source": _source_digest(take.clip), "feature_version": FEATURE_VERSION}
    return {"name": take.clip.name, **source, "variation": take.variation, **asked, **model}


def is_to_do(take: Take, settings: Settings, weights: Weights, output_dir: Path) -> bool:
    """Whether what is asked for is not there yet. InputError when making it would replace what is not its own."""
    advice = "choose another --output_dir, or replace it with --overwrite"
    found = _previous(take, output_dir)
    if found is None:
        there = filter(os.path.exists, take.targets(output_dir))
        stranger = next((path for path in there if not is_result(path)), None)
        if stranger is not None:
            raise InputError(f"{take.clip.label}: {stranger} exists and no json says it was made here; {advice}")
        return True
    before, now = found["request"], request(take, settings, weights)
    changed = [key for key in now if before.get(key) != now[key]]
    target = f"{output_dir / take.output_name}.*"
    if "source" in changed and found.get("source") != take.source:
        raise InputError(f"{take.clip.label}: {target} is of another film, {found.get('source')}; {advice}")
    log.info("%s %s", target, f"was made with another {', '.join(changed)}; again" if changed else "is there already")
    return bool(changed)


def _previous(take: Take, output_dir: Path) -> dict[str, Any] | None:
    """The json of an earlier run whose files are all still there."""
    path = output_dir / f"{take.output_name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        complete = all(os.path.isfile(output_dir / name) for name in found["outputs"])
        return found if complete and isinstance(found["request"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def record(
    take: Take,
    features: VideoFeatures,
    composition: Composition,
    model: DiffV2M,
    weights: Weights,
    settings: Settings,
    levels: LoudnessReport,
) -> dict[str, Any]:
    """Everything needed to make the clip again, and what came of it. Times in seconds."""
    import numpy as np
    import torch

    clip, config = take.clip, model.config
    return {
        "generator": f"{GENERATOR} {diff_v2m.__version__}",
        "outputs": [path.name for path in take.targets(Path()) if path.suffix != ".json"],
        "source": take.source,
        "request": request(take, settings, weights),
        "duration": round(features.duration, 6),
        "sample_rate": config.sample_rate,
        "noise_key": {"seed": settings.seed, "name": clip.name, "variation": take.variation},
        "sampler": f"{settings.sampler}, v-prediction, eta 0",
        "steps": settings.steps or model.default_steps(settings.sampler),
        "windows": [{**asdict(window), "stop": round(window.stop, 6)} for window in composition.windows],
        "weights": asdict(weights),
        "loudness": asdict(levels),
        "predicted_rhythm": _numbers(composition.rhythm),
        "cut_seconds": np.flatnonzero(features.scene_cut).tolist(),
        "features": {
            "version": FEATURE_VERSION,
            "encoder": model.encoder_name,
            "from": "video" if clip.entry is None else str(clip.entry.video_feat),
            "rows": len(features.semantic),
        },
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else model.device.type,
        "compiled": model.compiled,
        "versions": {"platform": platform.platform(), **installed_versions(PACKAGES)},
        "config": config.raw,
    }


def _source_digest(clip: Clip) -> str:
    """Knows a clip's files again, wherever they lie."""
    files = [clip.video] if clip.video is not None else []
    if clip.entry is not None:
        folders = (clip.entry.video_feat, clip.entry.video_color)
        files += [folder / f"{clip.name}.npy" for folder in folders if folder is not None]
    digest = hashlib.sha256()
    if clip.entry is not None:
        digest.update(json.dumps(_info(clip.entry.video_info, clip.name), sort_keys=True).encode())
    for path in files:
        try:
            with open(path, "rb") as file:
                size = path.stat().st_size
                digest.update(str(size).encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read(_EDGE))
        except OSError:
            digest.update(b"unreadable")  # reported when its turn comes to be read
    return digest.hexdigest()


def _info(path: Path, stem: str) -> object:
    """What a data set's info file says of a clip; None if nothing, or nothing that can be read: that is reported when
    its turn comes."""
    try:
        return _info_by_stem(path, path.stat().st_mtime_ns).get(stem)
    except (OSError, ValueError, AttributeError):
        return None


@lru_cache(maxsize=4)
def _info_by_stem(path: Path, changed: int) -> dict[str, object]:
    return {Path(name).stem: about for name, about in json.loads(path.read_text(encoding="utf-8")).items()}


def _numbers(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
