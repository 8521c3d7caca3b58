"""Encoders by name. A module is imported when its encoder is asked for.

    vggish      128 numbers every 0.96 s
    panns       2048 numbers and the logits of 527 AudioSet classes for the whole clip
    clap        512 numbers every 10 s
    imagebind   1024 numbers for each of 3 pieces of audio and 15 crops of video
    mel         64 statistics of log-mel bands every second; needs no weights
    passt       768 numbers and 527 logits every 5 s; needs its own package
    aesthetics  4 scores; needs its own package

A new encoder is a module with `load(weights, device)` that returns a `base.Encoder`, and a line in MODULES.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from inference.encoders.base import Encoder

MODULES = {
    "vggish": "vggish",
    "panns": "panns",
    "clap": "clap",
    "imagebind": "imagebind",
    "mel": "mel",
    "passt": "passt",
    "aesthetics": "audiobox",
}


def load_encoder(name: str, weights: Path, device: str = "cpu") -> Encoder:
    """Load an encoder from the weights folder. Raises NotComputed where its weights or its package are absent,
    InputError where the weights are wrong.
    """
    return importlib.import_module(f"inference.encoders.{MODULES[name]}").load(weights, device)
