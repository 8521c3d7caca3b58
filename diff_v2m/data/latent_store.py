"""Precomputed latents: one safetensors file per clip, which replaces its audio in training.

    latents       (K, 64, N) float16 or bfloat16    K crops of the clip, each a whole window
    start, flip   (K,) int64, (K,) bool             first second of each crop; inverted polarity
    rhythm.odf    (K, S, 1) float32                 rhythm target of each crop; .mel, .tempo (K, S, 16)
                                              with r rows a second, rhythm.odf is (K, S · r, 1)

The first crop is the clip's beginning, not inverted; validation uses it. The header holds the provenance: autoencoder,
model window and audio. A file that does not match is refused.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.config import ModelConfig
from diff_v2m.features.rhythm import RHYTHM_VERSION

FORMAT = "diff_v2m latents 1"
RHYTHMS = ("odf", "mel", "tempo")  # computed from audio; `beat` is computed from the video
AGAIN = "encode it again: python -m diff_v2m.preprocess latents"


class Crop(NamedTuple):
    """A window of a clip from whole second `start` on; its audio has inverted polarity if `inverted`."""

    start: int
    inverted: bool


@dataclass(frozen=True)
class EncodingSettings:
    """Autoencoder and window of precomputed latents. All clips of a run must have the same."""

    autoencoder: str  # its fingerprint
    sample_rate: int
    sample_size: int
    audio_channels: int
    rhythm_version: int
    rows_per_second: int = 1  # of the rhythm target odf

    @classmethod
    def of(cls, autoencoder: str, config: ModelConfig) -> "EncodingSettings":
        rows = config.model.conditioning.rows_per_second
        return cls(autoencoder, config.sample_rate, config.sample_size, config.audio_channels, RHYTHM_VERSION, rows)

    def check(self, config: ModelConfig, where: str) -> None:
        """InputError unless the window is that of this model. Training checks the autoencoder."""
        expected = EncodingSettings.of(self.autoencoder, config)
        wrong = [
            f"{field.name} {getattr(self, field.name)}, now {getattr(expected, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(expected, field.name)
        ]
        if wrong:
            raise InputError(f"{where}: encoded with {', '.join(wrong)}; {AGAIN}")


@dataclass(frozen=True)
class Provenance:
    """The header of one clip's file: how it was made, and from what."""

    made: EncodingSettings
    audio_bytes: int  # size of the soundtrack, to notice another file of the same name
    audio_seconds: float
    rows: int  # seconds of features; with `audio_seconds`, the length in which windows must fit

    @classmethod
    def read(cls, path: Path) -> "Provenance":
        """InputError if the file is broken or of another kind."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and {AGAIN}") from None
        if FORMAT not in metadata:
            raise InputError(f"{path}: not latents of this version ({FORMAT}); {AGAIN}")
        provenance = json.loads(metadata[FORMAT])
        return cls(**provenance | {"made": EncodingSettings(**provenance["made"])})


class Encodings:
    """The latents and rhythm targets of one clip's crops, read on demand."""

    def __init__(self, name: str, tensors: Callable[[str], Any]):
        """tensors: name → a tensor, or a slice of a file, that can be indexed along K."""
        self.name, self._tensors = name, tensors

    @classmethod
    def open(cls, path: Path) -> "Encodings":
        try:
            return cls(str(path), safe_open(path, "pt").get_slice)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and {AGAIN}") from None

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Encodings":
        """From the bytes of a file."""
        try:
            return cls(name, load(content).__getitem__)
        except SafetensorError as error:
            raise InputError(f"{name}: cannot be read ({error})") from None

    @cached_property
    def crops(self) -> tuple[Crop, ...]:
        starts, flips = self._tensors("start")[:], self._tensors("flip")[:]
        return tuple(Crop(*pair) for pair in zip(starts.tolist(), flips.tolist(), strict=True))

    def draw(self, *, random_crop: bool, phase_flip: bool) -> int:
        """Index of a random crop among those that the settings allow, drawn with torch's global generator."""
        allowed = [
            number
            for number, crop in enumerate(self.crops)
            if (random_crop or crop.start == 0) and (phase_flip or not crop.inverted)
        ]
        return allowed[int(torch.randint(len(allowed), ()))] if len(allowed) > 1 else allowed[0]

    def latents(self, number: int) -> Tensor:
        """(64, N) f32."""
        latents = self._tensors("latents")[number].float()
        if not torch.isfinite(latents).all():
            raise InputError(f"{self.name}: holds NaN or infinity; delete it and {AGAIN}")
        return latents

    def rhythm(self, kind: str, number: int) -> Tensor:
        """Rhythm target (S, r) f32 of a kind in RHYTHMS."""
        return self._tensors(f"rhythm.{kind}")[number]


def save_encodings(
    path: Path, provenance: Provenance, crops: Sequence[Crop], latents: Tensor, rhythms: Mapping[str, Tensor]
) -> None:
    """Write one clip's file atomically. latents (K, 64, N) in the dtype for the disk; rhythms by kind (K, S, r)."""
    tensors = {"latents": latents, **{f"rhythm.{kind}": values for kind, values in rhythms.items()}}
    tensors["start"] = torch.tensor([crop.start for crop in crops])
    tensors["flip"] = torch.tensor([crop.inverted for crop in crops])
    content = save(tensors, {FORMAT: json.dumps(asdict(provenance))})  # one key, because safetensors keeps no order
    with atomic(path) as part:
        part.write_bytes(content)


def check_provenance(provenance: Provenance, config: ModelConfig, where: str, seconds: int, audio: Path | None) -> None:
    """InputError unless the latents fit the model's window, the clip's features and, if it exists, its audio."""
    provenance.made.check(config, where)
    if provenance.rows != seconds:
        raise InputError(f"{where}: encoded with {provenance.rows} seconds of features, now {seconds}; {AGAIN}")
    if audio is not None and provenance.audio_bytes != audio.stat().st_size:
        raise InputError(f"{where}: {audio} is not the file that was encoded; {AGAIN}")
    if not (math.isfinite(provenance.audio_seconds) and provenance.audio_seconds > 0):
        raise InputError(f"{where}: encoded from {provenance.audio_seconds} s of audio; {AGAIN}")
