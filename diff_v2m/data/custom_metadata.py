"""The published project's hook: a Python file, named in the dataset JSON, that changes a clip's metadata."""

import contextlib
import importlib.util
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.config import CLASSES
from diff_v2m.data.crops import Clip, Item

KEYS = ("class", "seconds_start", "seconds_total")  # what get_custom_metadata may change


def with_custom_metadata(item: Item, clip: Clip, sample_rate: int, module: Path) -> Item:
    """Apply the file's get_custom_metadata(info, audio) → dict to an item; audio is None with precomputed latents.

    As released. class, seconds_start and seconds_total of the returned dict are used; prompt is ignored. InputError for
    another key, or a value that the model cannot take.
    """
    info = {
        "path": clip.source,
        "name": item.name,
        "sample_rate": sample_rate,
        "class": item.class_label,
        "seconds_start": item.seconds_start,
        "seconds_total": item.seconds_total,
    }
    changes = metadata_function(module)(info, item.audio) or {}
    unknown = set(changes) - {*KEYS, "prompt"}
    if unknown:
        raise InputError(f"{module}: get_custom_metadata returned {sorted(unknown)}, expected {KEYS}")
    where = f"{clip.label}: {module}: get_custom_metadata returned"
    label = changes.get("class", item.class_label)
    if label not in range(CLASSES):
        raise InputError(f"{where} class {label!r}, expected a whole number from 0 to {CLASSES - 1}")
    item.class_label = int(label)
    for key in ("seconds_start", "seconds_total"):
        setattr(item, key, _finite(changes.get(key, getattr(item, key)), f"{where} {key}"))
    return item


def _finite(given: Any, what: str) -> float:
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(number := float(given)):
            return number
    raise InputError(f"{what} {given!r}, expected a finite number")


@lru_cache
def metadata_function(path: Path) -> Callable[[dict, Tensor | None], dict]:
    """InputError for a file that does not define it."""
    try:
        spec = importlib.util.spec_from_file_location("custom_metadata", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_custom_metadata
    except Exception as error:  # the user's file may raise anything
        raise InputError(f"custom_metadata_module: {path}: no get_custom_metadata can be loaded ({error})") from error
