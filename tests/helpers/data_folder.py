"""Data sets written to disk for tests: real wav, npy and json files, and a small model to go with them."""

import json
import os

import numpy as np
import soundfile

from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.config import parse_dataset_config, parse_model_config

RATE = 16000
WINDOW = 10  # seconds


def model_config(rhythm_type="odf", *, color=True, channels=1, seconds=WINDOW, encoder="hog"):
    rhythm_dim = 1 if rhythm_type in ("odf", "beat") else 16
    ids = ["semantic", "rhythm", "seconds_start", "seconds_total"] + ["color"] * color
    conditioners = [
        ("semantic", "semantic", {"rhythm_type": rhythm_type, "encoder": encoder}),
        ("rhythm", "rhythm", {"dim": rhythm_dim}),
        ("color", "color", {}),
        ("class", "int", {"max_val": 2}),
        ("seconds_start", "number", {"max_val": 30}),
        ("seconds_total", "number", {"max_val": 30}),
    ]
    stack = {"channels": 4, "c_mults": [1, 2], "strides": [32, 32]}
    raw = {
        "model_type": "diffusion_cond",
        "sample_rate": RATE,
        "sample_size": seconds * RATE,
        "audio_channels": channels,
        "model": {
            "io_channels": 4,
            "pretransform": {
                "type": "autoencoder",
                "config": {
                    "encoder": {"type": "oobleck", "config": {"in_channels": channels, "latent_dim": 8, **stack}},
                    "decoder": {"type": "oobleck", "config": {"out_channels": channels, "latent_dim": 4, **stack}},
                    "bottleneck": {"type": "vae"},
                    "latent_dim": 4,
                    "downsampling_ratio": 1024,
                    "io_channels": channels,
                },
            },
            "conditioning": {
                "cond_dim": 64,
                "configs": [{"id": i, "type": t, "config": c} for i, t, c in conditioners],
            },
            "diffusion": {
                "type": "dit",
                "cross_attention_cond_ids": ids,
                "global_cond_ids": ["class"],
                "config": {
                    "io_channels": 4,
                    "embed_dim": 64,
                    "depth": 1,
                    "num_heads": 2,
                    "cond_token_dim": 64,
                    "global_cond_dim": 64,
                    "project_cond_tokens": False,
                    "attention_weight_type": "FiLM",
                },
            },
        },
    }
    return parse_model_config(raw, "test model")


class Folder:
    """A data set on disk; clip number n carries n in its colours and n + second / 100 in its semantics."""

    def __init__(self, root, id="set", *, color=True, class_label=2):
        self.root, self.id, self.color, self.class_label, self.info = root / id, id, color, class_label, {}
        for name in ("wav", "clip", "color", "latents"):
            (self.root / name).mkdir(parents=True)
        self.write_provenance(FEATURE_VERSION, "hog")

    def write_provenance(self, version, encoder):
        (self.root / "features.json").write_text(json.dumps({"feature_version": version, "encoder": encoder}))

    def add(
        self, stem, number=0, *, seconds=10.0, clicks=(), feature_seconds=None, channels=1, rate=RATE, silent=False
    ):
        feature_seconds = int(np.ceil(seconds)) if feature_seconds is None else feature_seconds
        audio = np.random.default_rng(number).normal(0, 2e-3, (round(seconds * rate), channels))
        for time in clicks:
            start = round(time * rate)
            piece = 0.8 * np.exp(-np.arange(min(320, len(audio) - start)) / 64)
            audio[start : start + len(piece)] += piece[:, None]
        soundfile.write(os.fsencode(self.root / "wav" / f"{stem}.wav"), audio * (not silent), rate, subtype="PCM_16")
        seconds_of = np.arange(feature_seconds, dtype=np.float32)[:, None]
        self.save("clip", stem, np.tile(number + seconds_of / 100, (1, 512)))
        self.save("color", stem, np.full((feature_seconds, 3072), number, dtype=np.float32))
        cuts = [0] * feature_seconds
        for time in clicks:
            cuts[min(int(time), feature_seconds - 1)] = 1
        self.info[f"{stem}.mp4"] = {"scene_cut": cuts, "pseudo_beats": [0.5 * cut for cut in cuts]}
        return self

    def save(self, kind, stem, array):
        np.save(self.root / kind / f"{stem}.npy", array)

    def entry(self, **changes):
        (self.root / "info.json").write_text(json.dumps(self.info))
        entry = {
            "id": self.id,
            "path": "wav",
            "video_feat": "clip",
            "video_info": "info.json",
            "video_color": "color",
            "class_label": self.class_label,
        }
        if not self.color:
            del entry["video_color"]
        entry |= changes
        given = {key: value for key, value in entry.items() if value is not None}
        return given | {key: str(self.root / value) for key, value in given.items() if key not in ("id", "class_label")}


def dataset_config(*folders, rhythm_type="odf", random_crop=False, drop_last=False, **changes):
    raw = {
        "dataset_type": "audio_video_dir",
        "rhythm_type": rhythm_type,
        "random_crop": random_crop,
        "drop_last": drop_last,
        "datasets": [folder.entry(**changes) for folder in folders],
    }
    return parse_dataset_config(raw)


def peaks(rhythm):
    """Seconds of a rhythm (S, 1) that contain a click."""
    return np.flatnonzero(np.asarray(rhythm)[:, 0] > 0.5 * float(rhythm.max())).tolist()
