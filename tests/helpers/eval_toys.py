"""Audio and video with known metrics."""

import numpy as np
import soundfile
import torch
from helpers.videos import write_video

from inference.encoders.imagebind import Branch, ImageBind

RATE = 16000
TOY_IMAGEBIND = {"vision": Branch(16, 2, 4), "audio": Branch(12, 2, 3), "dims": 6}


def clicks(times, seconds, rate=RATE):
    """Short decaying tones, each starting at one of `times`."""
    audio = np.zeros(round(seconds * rate), np.float32)
    t = np.arange(round(0.05 * rate)) / rate
    click = (np.sin(2 * np.pi * 1000 * t) * np.exp(-t * 80)).astype(np.float32)
    for time in times:
        start = round(time * rate)
        part = click[: len(audio) - start]
        audio[start : start + len(part)] += part
    return 0.8 * audio


def music(seed, seconds=4.0, rate=RATE, period=0.5):
    """Notes of a scale with harmonics, one every `period` seconds, at random levels; the seed decides the tune."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(round(seconds * rate), np.float32)
    t = np.arange(round(0.6 * rate)) / rate
    for start in np.arange(0, seconds - 0.1, period):
        pitch = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        note = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2, 3, 4)) * np.exp(-t * 5)
        first = round(start * rate)
        note = rng.uniform(0.1, 0.3) * note[: len(audio) - first]
        audio[first : first + len(note)] += note.astype(np.float32)
    return audio


def noise(seed, seconds=4.0, rate=RATE):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def noise_like(audio, rate=RATE):
    """Noise with the level curve of `audio`: the same rhythm, no notes."""
    block = rate // 100
    level = np.sqrt(np.square(audio[: len(audio) // block * block].reshape(-1, block)).mean(axis=1))
    return np.repeat(level, block).astype(np.float32) * noise(0, len(level) * block / rate, rate) * 10


def write(path, audio, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(audio).T, rate, subtype="PCM_24")  # as float, a wav holds the time of writing
    return path


def video_with_cuts(path, cuts, seconds, fps=25):
    """A video that cuts between two flat colours at `cuts`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * fps)) / fps
    side = np.searchsorted(np.asarray(cuts), times + 1e-6) % 2
    colours = np.array([[200, 40, 40], [30, 60, 220]], np.uint8)
    return write_video(path, np.broadcast_to(colours[side][:, None, None], (len(times), 48, 64, 3)).copy(), fps)


def save_imagebind(path):
    """Save deterministic weights, and keys of the published file that are not used."""
    state = ImageBind(**TOY_IMAGEBIND).state_dict()
    for key, value in state.items():
        wave = 0.3 * torch.sin(torch.arange(value.numel()).double() * 0.7 + len(key))
        value.copy_(wave.float().reshape(value.shape) + ("norm" in key and key.endswith("weight")))
    path.parent.mkdir(parents=True, exist_ok=True)
    others = {
        "modality_trunks.text.blocks.0.norm_1.bias": torch.zeros(2),
        "modality_postprocessors.audio.1.log_logit_scale": torch.tensor(3.0),
    }
    torch.save(state | others, path)
    return path
