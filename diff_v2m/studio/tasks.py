"""What the page asks the worker for. Values come from outside: they are checked here, and unknown ones refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.features.video_features import seconds_of
from diff_v2m.generation.settings import SAMPLERS, SamplingSettings
from diff_v2m.generation.spans import Span, check_spans
from diff_v2m.mix.settings import DUCK_UNDER, LOUDEST, QUIETEST, VIDEO_SOUND, MixSettings
from diff_v2m.studio.folders import JobFolder

COMPOSE, REDO, MIX = "compose", "redo", "mix"
MOST_TAKES = 16
LARGEST_SEED = 2**31 - 1
LEAST_GUIDANCE, MOST_GUIDANCE = 0.0, 30.0

PRESETS: dict[str, dict[str, Any]] = {
    "Standard": {"takes": 1},
    "Draft": {"takes": 1, "steps": 10},
    "Choice of four": {"takes": 4},
    "Close to the picture": {"takes": 2, "guidance_scale": 5.0},
}


def compose_task(settings: Mapping[str, Any]) -> dict[str, Any]:
    """takes, seed, steps, guidance_scale, sampler, stems; the model's own values where absent. Raises InputError."""
    return {"kind": COMPOSE, **_sampling(settings, extra=("takes", "stems"))}


def redo_task(job: JobFolder, take: Any, spans: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Compose spans [[start, stop], …] of a take again. Raises InputError."""
    job.take(number := take_number(take))
    try:
        chosen = [Span(float(start), float(stop)) for start, stop in spans]
    except (TypeError, ValueError):
        raise InputError("spans: expected pairs of seconds, such as [[12, 20]]") from None
    chosen = list(check_spans(chosen, job.about["duration"], job.name))
    return {"kind": REDO, "take": number, "spans": [list(span) for span in chosen], **_sampling(settings)}


def take_number(value: Any) -> int:
    """Raises InputError."""
    return _whole("take")(value)


def mix_task(job: JobFolder, take: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Mix a take with the video's own sound. Raises InputError."""
    job.take(number := take_number(take))
    return {"kind": MIX, "take": number, "settings": mix_settings(settings).request()}


def mix_settings(values: Mapping[str, Any]) -> MixSettings:
    """Raises InputError."""
    checked = _checked(values, _MIX)
    settings = MixSettings(**checked)
    if settings.gap > settings.under:
        raise InputError(f"gap {settings.gap:g}: expected at most under, {settings.under:g}")
    return settings


def check_sheet(sheet: CueSheet, job: JobFolder) -> None:
    """Raise InputError unless a sheet fits the video of a job."""
    duration = job.about["duration"]
    sheet.check_video(duration, seconds_of(duration))


def sampling_settings(asked: Mapping[str, Any], seed: int) -> SamplingSettings:
    """The settings of a task that was asked for."""
    return SamplingSettings(seed=seed, **{name: asked[name] for name in _OF_THE_MODEL if name in asked})


def preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset keeps: everything but the seed. Raises InputError."""
    kept = _sampling(values, extra=("takes", "stems"))
    return {key: value for key, value in kept.items() if key != "seed"}


# ---------------------------------------------------------------------------------------------------------- values

Check = Callable[[Any], Any]


def _number(name: str, least: float, most: float) -> Check:
    def check(value: Any) -> float:
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not numeric or not least <= value <= most:
            raise InputError(f"{name} {str(value)[:40]!r}: expected a number from {least:g} to {most:g}")
        return float(value)

    return check


def _whole(name: str, least: int = 1, most: int = 999) -> Check:
    number = _number(name, least, most)

    def check(value: Any) -> int:
        if number(value) != int(value):
            raise InputError(f"{name} {value!r}: expected a whole number")
        return int(value)

    return check


def _one_of(name: str, choices: tuple[str, ...]) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise InputError(f"{name} {str(value)[:40]!r}: expected one of {', '.join(choices)}")
        return value

    return check


def _switch(name: str) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{name} {str(value)[:40]!r}: expected true or false")
        return value

    return check


_OF_THE_MODEL = ("steps", "sampler", "guidance_scale")  # a student refuses others than its own
_SAMPLING: dict[str, Check] = {
    "seed": _whole("seed", 0, LARGEST_SEED - MOST_TAKES),
    "steps": _whole("steps", 1, 1000),
    "guidance_scale": _number("guidance_scale", LEAST_GUIDANCE, MOST_GUIDANCE),
    "sampler": _one_of("sampler", SAMPLERS),
    "takes": _whole("takes", 1, MOST_TAKES),
    "stems": _switch("stems"),
}
_DEFAULTS = {"seed": 42, "takes": 1, "stems": False}
_MIX: dict[str, Check] = {
    "video_sound": _one_of("video_sound", VIDEO_SOUND[1:]),
    "duck_under": _one_of("duck_under", DUCK_UNDER),
    "target": _number("target", QUIETEST, LOUDEST),
    "under": _number("under", 0, 40),
    "gap": _number("gap", 0, 40),
    "dip": _number("dip", 0, 12),
    "tracks": _switch("tracks"),
}


def _sampling(values: Mapping[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    defaults = {name: _DEFAULTS[name] for name in ("seed", *extra)}
    known = {name: _SAMPLING[name] for name in (*defaults, *_OF_THE_MODEL)}
    return {**defaults, **_checked(values, known)}


def _checked(values: Mapping[str, Any], known: Mapping[str, Check]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise InputError("settings: expected an object of names and values")
    for name in values:
        if name not in known:
            raise InputError(f"{str(name)[:40]!r}: no such setting; expected some of {', '.join(known)}")
    return {name: known[name](value) for name, value in values.items()}
