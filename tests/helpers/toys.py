"""A model of a few thousand random weights with a 4 s window, its features and videos."""

import json
from pathlib import Path

import av
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
RATE, WINDOW = 16000, 4


def toy_raw_config(*, channels: int = 1, depth: int = 2, student_steps: int | None = None) -> dict:
    """configs/model/diff_v2m_corrected.json, shrunk: 16 kHz, 4 s, HOG features, 3 demo steps."""
    raw = json.loads((ROOT / "configs/model/diff_v2m_corrected.json").read_text())
    raw |= {"sample_rate": RATE, "sample_size": WINDOW * RATE, "audio_channels": channels}
    codec = {"channels": 8, "c_mults": [1, 2], "strides": [8, 4], "use_snake": False}
    vae = raw["model"]["pretransform"]["config"]
    vae |= {"patch_size": 32, "downsampling_ratio": 1024, "io_channels": channels}
    vae["encoder"]["config"] |= codec | {"in_channels": 32 * channels}
    vae["decoder"]["config"] |= codec | {"out_channels": 32 * channels}
    conditioning, dit = raw["model"]["conditioning"], raw["model"]["diffusion"]["config"]
    conditioning["cond_dim"] = 32
    for entry in conditioning["configs"]:
        if entry["id"] in ("semantic", "rhythm", "color"):
            entry["config"]["hidden_dim"] = 32 if entry["id"] != "semantic" else 512
        if entry["id"] == "semantic":
            entry["config"] |= {"encoder": "hog", "extractor": {"dim": 64, "depth": 1, "num_heads": 2}}
    dit |= {"embed_dim": 64, "depth": depth, "num_heads": 2, "cond_token_dim": 32, "global_cond_dim": 96}
    raw["training"]["demo"]["demo_steps"] = 3
    if student_steps is not None:
        raw["model"]["diffusion"]["student"] = {"steps": student_steps}
    return raw


def save_toy_model(path: Path, **options) -> Path:
    """Random weights, none of them zero, as a safetensors file with its config inside."""
    from diff_v2m.checkpoints.files import save_model
    from diff_v2m.config import parse_model_config
    from diff_v2m.model.dit import LatentDiffusion

    config = parse_model_config(toy_raw_config(**options), "toy")
    torch.manual_seed(0)
    model = LatentDiffusion(config)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, config, path, dtype=None)
    return path


def write_video(path: Path, seconds: float, *, fps: int = 10, size: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """A moving gradient with a hard change of colour every two seconds; size is (width, height)."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(40, 255, (64, 3))
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(max(1, round(seconds * fps))):
            wave = 0.6 + 0.4 * np.sin((column + 7 * n) / 9 + row / 5)
            image = (wave[..., None] * palette[n // (2 * fps) % 64]).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def toy_features(seconds: float, seed: int = 0):
    """Random VideoFeatures, scaled as real ones are."""
    from diff_v2m.features.video_features import VideoFeatures, seconds_of

    rng, count = np.random.default_rng(seed), seconds_of(seconds)
    color = rng.random((count, 3072), dtype=np.float32) ** 8
    return VideoFeatures(
        rng.standard_normal((count, 512)).astype(np.float32),
        color / color.sum(axis=1, keepdims=True),
        rng.integers(0, 2, count),
        rng.random(count, dtype=np.float32),
        float(seconds),
    )
