"""Soundtracks encoded beforehand: one safetensors file a clip, with everything training hears of it.

    latents       (K, 64, N) float16 or bfloat16    K crops of the clip, each a whole window
    start, flip   (K,) int64, (K,) bool             which crop: its first second, and whether it is upside down
    rhythm.odf    (K, S, 1) float32                 the rhythm target of each crop; .mel, .tempo (K, S, 16)

The first crop is the clip's beginning as it is: what validation hears. The header says which autoencoder made the
latents and from what; a file that does not fit is refused, one by one, so that no two kinds are ever mixed.
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
RHYTHMS = ("odf", "mel", "tempo")  # those that are heard; `beat` is read off the picture
AGAIN = "encode it again: python -m diff_v2m.preprocess latents"


class Crop(NamedTuple):
    """A window of a clip, from whole second `start` on, its sound turned upside down if `flip`."""

    start: int
    flip: bool


@dataclass(frozen=True)
class EncodedBy:
    """What made latents, and of what windows: all that must agree for clips to be used together."""

    autoencoder: str  # its fingerprint
    sample_rate: int
    sample_size: int
    audio_channels: int
    rhythm_version: int

    @classmethod
    def of(cls, autoencoder: str, config: ModelConfig) -> "EncodedBy":
        return cls(autoencoder, config.sample_rate, config.sample_size, config.audio_channels, RHYTHM_VERSION)

    def check(self, config: ModelConfig, where: str) -> None:
        """InputError unless the windows are those of this model; only training can know about the autoencoder."""
        expected = EncodedBy.of(self.autoencoder, config)
        wrong = [
            f"{field.name} {getattr(self, field.name)}, now {getattr(expected, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(expected, field.name)
        ]
        if wrong:
            raise InputError(f"{where}: encoded with {', '.join(wrong)}; {AGAIN}")


@dataclass(frozen=True)
class Stamp:
    """The header of one clip's file: what made it, and what it was made of."""

    made: EncodedBy
    audio_bytes: int  # size of the soundtrack: another file of that name is another sound
    audio_seconds: float
    rows: int  # of features, which with the sound decide where windows fit

    @classmethod
    def read(cls, path: Path) -> "Stamp":
        """InputError if the file is broken or of another kind."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and {AGAIN}") from None
        if FORMAT not in metadata:
            raise InputError(f"{path}: not latents of this version ({FORMAT}); {AGAIN}")
        stamp = json.loads(metadata[FORMAT])
        return cls(**stamp | {"made": EncodedBy(**stamp["made"])})


class Encodings:
    """The crops of one clip; only what is asked for is read."""

    def __init__(self, name: str, tensors: Callable[[str], Any]):
        """tensors: name → something that can be indexed along K, a tensor or a slice of a file."""
        self.name, self._tensors = name, tensors

    @classmethod
    def open(cls, path: Path) -> "Encodings":
        try:
            return cls(str(path), safe_open(path, "pt").get_slice)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and {AGAIN}") from None

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Encodings":
        """Of a file that is in memory."""
        try:
            return cls(name, load(content).__getitem__)
        except SafetensorError as error:
            raise InputError(f"{name}: cannot be read ({error})") from None

    @cached_property
    def crops(self) -> tuple[Crop, ...]:
        starts, flips = self._tensors("start")[:], self._tensors("flip")[:]
        return tuple(Crop(*pair) for pair in zip(starts.tolist(), flips.tolist(), strict=True))

    def draw(self, *, random_crop: bool, phase_flip: bool) -> int:
        """One of the crops that training may see, by torch's generator; without a choice none is drawn."""
        allowed = [
            number
            for number, crop in enumerate(self.crops)
            if (random_crop or crop.start == 0) and (phase_flip or not crop.flip)
        ]
        return allowed[int(torch.randint(len(allowed), ()))] if len(allowed) > 1 else allowed[0]

    def latents(self, number: int) -> Tensor:
        """(64, N) f32."""
        latents = self._tensors("latents")[number].float()
        if not torch.isfinite(latents).all():
            raise InputError(f"{self.name}: holds NaN or infinity; delete it and {AGAIN}")
        return latents

    def rhythm(self, kind: str, number: int) -> Tensor:
        """(S, r) f32 for a kind of RHYTHMS."""
        return self._tensors(f"rhythm.{kind}")[number]


def save_encodings(
    path: Path, stamp: Stamp, crops: Sequence[Crop], latents: Tensor, rhythms: Mapping[str, Tensor]
) -> None:
    """Write one clip's file, whole or not at all. latents (K, 64, N) as they shall lie on disk; rhythms (K, S, r)."""
    tensors = {"latents": latents, **{f"rhythm.{kind}": values for kind, values in rhythms.items()}}
    tensors["start"] = torch.tensor([crop.start for crop in crops])
    tensors["flip"] = torch.tensor([crop.flip for crop in crops])
    content = save(tensors, {FORMAT: json.dumps(asdict(stamp))})  # one key: safetensors does not keep an order
    with atomic(path) as part:
        part.write_bytes(content)


def check_stamp(stamp: Stamp, config: ModelConfig, where: str, rows: int, audio: Path | None) -> None:
    """Raise InputError unless the latents fit the model's window, the clip's rows and, where it exists, its audio."""
    stamp.made.check(config, where)
    if stamp.rows != rows:
        raise InputError(f"{where}: encoded when it had {stamp.rows} rows of features, now {rows}; {AGAIN}")
    if audio is not None and stamp.audio_bytes != audio.stat().st_size:
        raise InputError(f"{where}: {audio} is not the file that was encoded; {AGAIN}")
    if not (math.isfinite(stamp.audio_seconds) and stamp.audio_seconds > 0):
        raise InputError(f"{where}: encoded from {stamp.audio_seconds} s of sound; {AGAIN}")
