"""The stages that benchmarks.released runs: `python released_stages.py STAGE FOLDER SCRATCH`, a process for each.

The code under test is the one on PYTHONPATH, so imports stand in the functions. Prints the stage's CPU seconds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

RATE, WINDOW, FRAMES = 44100, 30.0, 645  # Hz; seconds and latent frames of the model's window
CLIP = 5.3  # seconds
THIRD = 3  # decoding is measured on a third of a window: all of it takes a minute and a half


def hashing(folder: Path, scratch: Path) -> float:
    """Identify the checkpoint for the first time."""
    for remembered in scratch.rglob("hashes"):  # in an earlier round
        shutil.rmtree(remembered)
    return hashing_again(folder, scratch)


def hashing_again(folder: Path, scratch: Path) -> float:
    """Identify it in the next run or array task."""
    from diff_v2m.generation.manifest import Weights

    return spent(lambda: Weights.of(folder / "model.ckpt"))


def loading(folder: Path, scratch: Path) -> float:
    """Load the model."""
    from diff_v2m.generation.pipeline import DiffV2M

    return spent(lambda: DiffV2M.from_pretrained(folder / "model.ckpt", device="cpu"))


def step(folder: Path, scratch: Path, dtype: str = "float32") -> float:
    """A guided sampling step, float32."""
    import torch

    from diff_v2m.generation.pipeline import DiffV2M

    model = DiffV2M.from_pretrained(folder / "model.ckpt", device="cpu", dtype=dtype)
    noise = torch.randn(1, 64, model.config.latent_length())
    with torch.inference_mode():
        cache = model.model.model.precompute(model.model.condition(batch()), noise.shape[-1])
        denoise = model.model.model.denoise
        denoise(noise, torch.tensor([0.5]), cache, guidance_scale=3.0)  # its weights are read from the disk
        return spent(lambda: denoise(noise, torch.tensor([0.5]), cache, guidance_scale=3.0))


def step_bf16(folder: Path, scratch: Path) -> float:
    """A guided sampling step, bf16."""
    return step(folder, scratch, "bf16")


def step_int8(folder: Path, scratch: Path) -> float:
    """A guided sampling step, int8."""
    return step(folder, scratch, "int8")


def composing(folder: Path, scratch: Path) -> float:
    """Load the model, compose a clip of 5.3 s in 2 steps and level it."""
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.media import loudness

    def compose() -> None:
        model = DiffV2M.from_pretrained(folder / "model.ckpt", device="cpu")
        (made,) = model.compose([features(CLIP)], ["clip"], steps=2)
        loudness.normalize(made.audio, RATE)

    return spent(compose)


def decoding(folder: Path, scratch: Path, seconds: float = CLIP / THIRD) -> float:
    """Decode a clip of 1.8 s in a window of 10 s."""
    import torch

    vae, latents = autoencoder(folder), torch.randn(64, FRAMES // THIRD)
    vae.prepare_for_inference()
    with torch.inference_mode():
        if hasattr(vae, "music"):
            return spent(lambda: vae.music(latents, seconds, RATE))
        return spent(lambda: vae.decode_piece(latents))


def decoding_window(folder: Path, scratch: Path) -> float:
    """Decode all of a window of 10 s."""
    return decoding(folder, scratch, WINDOW / THIRD)


def encoding(folder: Path, scratch: Path) -> float:
    """Encode 4 s of audio."""
    import torch

    vae, audio = autoencoder(folder), 0.1 * torch.randn(1, 2, 4 * RATE)
    with torch.inference_mode():
        return spent(lambda: vae.encode(audio))


def levelling(folder: Path, scratch: Path) -> float:
    """Level 4 minutes of spiky audio."""
    import numpy as np

    from diff_v2m.media import loudness

    burst = np.exp(-(np.arange(240 * RATE, dtype=np.float32) / RATE % 0.5) * 12)
    audio = 0.2 * burst * np.random.default_rng(0).standard_normal((2, len(burst)), dtype=np.float32)
    if hasattr(loudness, "level"):
        return spent(lambda: read_in_blocks(loudness.level(audio, RATE)[0]))
    return spent(lambda: loudness.normalize_with_gain(audio, RATE))


def training(folder: Path, scratch: Path) -> float:
    """Train on one clip of 30 s: forward, backward, AdamW and moving average."""
    from dataclasses import replace

    import torch

    from diff_v2m.config import load_model_config
    from diff_v2m.training.diffusion_module import DiffusionModule
    from diff_v2m.training.losses import training_losses

    torch.manual_seed(0)
    module = DiffusionModule(load_model_config(folder / "model_config.json"))
    optimizer = torch.optim.AdamW([p for p in module.diffusion.parameters() if p.requires_grad])
    clip = replace(batch(), rhythm=torch.randn(1, int(WINDOW), 1))

    def train_step() -> None:
        latents, noise, t = torch.randn(1, 64, FRAMES), torch.randn(1, 64, FRAMES), torch.rand(1)
        conditions = module.diffusion.condition(clip)
        training_losses(module.diffusion.model, conditions, latents, noise, t).total.backward()
        optimizer.step()
        module.diffusion_ema.update()
        optimizer.zero_grad()

    train_step()  # makes the optimiser's state
    return spent(train_step)


def resuming(folder: Path, scratch: Path) -> float:
    """Read the checkpoint to resume a run."""
    from diff_v2m.training.run_folder import WholeCheckpoints

    io = WholeCheckpoints()
    return spent(lambda: io.load_checkpoint(folder / "model.ckpt", map_location="cpu", weights_only=True))


def exporting(folder: Path, scratch: Path) -> float:
    """Export the checkpoint in fp16."""
    return spent(lambda: export(folder / "model.ckpt", scratch))


def adapting(folder: Path, scratch: Path) -> float:
    """Prepare LoRA of rank 16."""
    import torch

    from diff_v2m.config import load_model_config
    from diff_v2m.training.diffusion_module import DiffusionModule

    settings = argparse.Namespace(
        seed=0,
        lora_rank=16,
        pretrained_ckpt_path=str(folder / "model.ckpt"),
        init_dit_ckpt_path=None,
        pretransform_ckpt_path=None,
        compile=False,
    )
    config, made = load_model_config(folder / "model_config.json"), []
    seconds = spent(lambda: made.append(DiffusionModule.from_settings(config, settings)))
    content = {"state_dict": made[0].state_dict(), "adapters": made[0].adapters, "model_config": config.raw}
    torch.save(content | {"optimizer_states": [{}]}, scratch / "adapters.ckpt")
    return seconds


def merging(folder: Path, scratch: Path) -> float:
    """Export LoRA: merge it and write fp16."""
    if not (scratch / "adapters.ckpt").is_file():
        adapting(folder, scratch)
    return spent(lambda: export(scratch / "adapters.ckpt", scratch))


STAGES = {
    stage.__name__: stage
    for stage in (
        hashing,
        hashing_again,
        loading,
        step,
        step_bf16,
        step_int8,
        composing,
        decoding,
        decoding_window,
        encoding,
        levelling,
        training,
        resuming,
        exporting,
        adapting,
        merging,
    )
}


def spent(work) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def autoencoder(folder: Path):
    from diff_v2m.checkpoints.loading import load_model

    return load_model(folder / "model.ckpt")[0].pretransform


def read_in_blocks(audio) -> None:
    for start in range(0, audio.shape[1], 1 << 19):
        audio[:, start : start + (1 << 19)].max()


def export(checkpoint: Path, scratch: Path) -> None:
    from diff_v2m.checkpoints.__main__ import export as write

    write(checkpoint, scratch / "exported.safetensors")


def features(duration: float):
    """Random features of a video of this many seconds."""
    import math

    import numpy as np

    from diff_v2m.features.video_features import VideoFeatures

    rng, seconds = np.random.default_rng(0), math.ceil(duration)
    color = rng.random((seconds, 3072), dtype=np.float32)
    return VideoFeatures(
        rng.standard_normal((seconds, 512), dtype=np.float32),
        color / color.sum(axis=1, keepdims=True),
        rng.integers(0, 2, seconds),
        rng.random(seconds, dtype=np.float32),
        duration,
    )


def batch():
    """A clip of one window."""
    from diff_v2m.data.collate import feature_batch

    return feature_batch([features(WINDOW)], ["clip"], [2])


if __name__ == "__main__":
    sys.stdout.write(f"{STAGES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))}\n")
