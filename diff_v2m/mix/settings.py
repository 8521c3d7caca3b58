"""What the sound of a result is made of: options of the mix, from the command line to the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from diff_v2m.common.errors import InputError

VIDEO_SOUND = ("replace", "mix", "duck")  # what happens to the sound of the video
DUCK_UNDER = ("speech", "sound")
TARGETS = {"r128": -23.0, "a85": -24.0, "web": -16.0}  # LUFS: EBU R 128, ATSC A/85, usual on the web
QUIETEST, LOUDEST = -40.0, -8.0  # LUFS


@dataclass(frozen=True)
class MixSettings:
    """How music goes under the sound of a video. LU below the speech, or below the sound where there is no speech."""

    video_sound: str = "duck"  # duck: the music goes down under speech; mix: it stays at one level
    duck_under: str = "speech"  # speech | sound
    target: float = TARGETS["r128"]  # LUFS of the speech in the mix
    under: float = 12.0  # LU: music under speech
    gap: float = 0.0  # LU: music between speech
    dip: float = 0.0  # dB taken from the music at 2 to 4 kHz under speech
    tracks: bool = False  # the mp4 holds original and music as tracks too

    @classmethod
    def of(cls, request: dict[str, Any]) -> MixSettings | None:
        """The settings in a manifest's request; None: the sound was replaced."""
        if "video_sound" not in request:
            return None
        return cls(**{field.name: request[field.name] for field in fields(cls)})

    def request(self) -> dict[str, Any]:
        """Keys and values for the manifest's request."""
        return asdict(self)


def target_of(text: str) -> float:
    """A name of `TARGETS`, or a loudness in LUFS. Raises InputError."""
    if text in TARGETS:
        return TARGETS[text]
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not QUIETEST <= value <= LOUDEST:
        names = ", ".join(f"{name} ({value:g})" for name, value in TARGETS.items())
        raise InputError(f"{text!r}: expected {names} or a loudness from {QUIETEST:g} to {LOUDEST:g} LUFS")
    return value
