"""Toy scores, and a model of a few thousand random weights that writes scores."""

from pathlib import Path

import numpy as np
import torch
from helpers import toys
from helpers.scores import note_array

from diff_v2m.score.score import BeatGrid, Key, Score, Voice

RATE = 44100


def toy_score(seconds: float = 6.0, seed: int = 0) -> Score:
    """C minor at 100 beats a minute in three: a tune, strummed chords, a bass, and drums; no figure, no pad."""
    rng = np.random.default_rng(seed)
    beat, beats = 0.6, int(seconds / 0.6)
    scale = (60, 62, 63, 65, 67, 68, 70, 72)
    tune = [(beat * i, 0.5, scale[rng.integers(8)], 60 + i % 40) for i in range(beats)]
    chords = [
        (beat * i + 0.02 * k, 1.5, pitch, 70) for i in range(0, beats - 2, 3) for k, pitch in enumerate((48, 55, 63))
    ]
    bass = [(beat * i, 0.55, 36 + 7 * (i % 2), 80) for i in range(beats)]
    drums = [(beat * i + 0.011, 0.12, (36, 42, 38)[i % 3], 90) for i in range(beats)]
    voices = (
        Voice("melody", 73, note_array(tune)),
        Voice("harmony", 0, note_array(chords)),
        Voice("bass", 33, note_array(bass)),
        Voice("drums", 40, note_array(drums)),
    )
    return Score(voices, BeatGrid(np.arange(beats + 2) * beat, 3), Key(0, "minor"), seconds)


def score_autoencoder_json(**changes: object) -> dict:
    sizes = {"latent_dim": 64, "width": 32, "encoder_depth": 1, "decoder_depth": 1, "kernel_size": 3}
    return {"type": "score", "latent_noise": 0.1, **sizes, **changes}


def toy_score_config() -> dict:
    """The toy model of helpers.toys with a score pretransform."""
    raw = toys.toy_raw_config()
    raw |= {"sample_rate": RATE, "sample_size": toys.WINDOW * RATE, "audio_channels": 2}
    raw["model"]["pretransform"] = {"type": "score", "config": score_autoencoder_json()}
    return raw


def save_toy_score_model(path: Path) -> Path:
    """Random weights that write some notes, as a safetensors file with its config inside."""
    from diff_v2m.checkpoints.files import save_model
    from diff_v2m.config import parse_model_config
    from diff_v2m.model.dit import LatentDiffusion

    config = parse_model_config(toy_score_config(), "toy")
    torch.manual_seed(0)
    model = LatentDiffusion(config)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        last = model.pretransform.model["decoder"][-1]
        last.weight.mul_(3)
        last.bias.fill_(-2)
        model.pretransform.latent_std.fill_(1.5)  # 1 is that of an autoencoder whose training has not ended
    save_model(model, config, path, dtype=None)
    return path
