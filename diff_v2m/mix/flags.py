"""Flags of a mix, for every command line that puts music to a video."""

from __future__ import annotations

import argparse
from typing import Any

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.mix.settings import DUCK_UNDER, TARGETS, VIDEO_SOUND, MixSettings, target_of

DEFAULTS = MixSettings()


def add_mix_flags(parser: argparse.ArgumentParser) -> None:
    """Add --video-sound and what belongs to it."""
    group = parser.add_argument_group("sound of the video")
    add = group.add_argument
    add(
        "--video-sound",
        choices=VIDEO_SOUND,
        help="replace: the music is the only sound; mix: music under the video's sound at one level; "
        "duck: the music goes down under speech (default: replace)",
    )
    add(
        "--duck-under",
        choices=DUCK_UNDER,
        help=f"what the music goes down under (default: {DEFAULTS.duck_under})",
    )
    names = ", ".join(f"{name} {value:g}" for name, value in TARGETS.items()).replace("-", "−")
    add("--target", type=_target, metavar="LUFS", help=f"loudness of speech: {names}, or a number (default: r128)")
    levels: dict[str, Any] = {"type": cli.number(0, 40), "metavar": "LU"}
    add("--under", help=f"music under speech, below it (default: {DEFAULTS.under:g})", **levels)
    add("--gap", help=f"music between speech, below it (default: {DEFAULTS.gap:g})", **levels)
    add("--dip", metavar="DB", type=cli.number(0, 12), help="take 2 to 4 kHz from the music under speech (default: 0)")
    add("--tracks", action="store_true", default=None, help="mp4 with mix, original and music as audio tracks")


def mix_settings(options: argparse.Namespace) -> MixSettings | None:
    """The settings that the flags give; None: the sound is replaced. Raises InputError for flags without effect."""
    names = ("duck_under", "target", "under", "gap", "dip", "tracks")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.video_sound in (None, "replace"):
        if given:
            raise InputError(f"--{next(iter(given))} needs --video_sound mix or duck")
        return None
    settings = MixSettings(options.video_sound, **given)
    if settings.video_sound == "mix" and (idle := [name for name in ("gap", "dip") if name in given]):
        raise InputError(f"--{idle[0]} needs --video_sound duck")
    if settings.video_sound == "duck" and settings.gap > settings.under:
        raise InputError(f"--gap {settings.gap:g}: expected at most --under {settings.under:g}")
    return settings


def _target(text: str) -> float:
    try:
        return target_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
