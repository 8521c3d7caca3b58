"""Which files there are and which belong together: by stem within a data set, never by position in a listing.

A clip is called `set/stem`: the path below the folder that was given, without its suffix, or the id of an entry of a
dataset JSON and a stem. So sets are pooled without one clip overwriting another of the same stem.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig
from diff_v2m.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES


@dataclass(frozen=True, order=True)
class Clip:
    """A file under a name that no other file of its side has."""

    name: str
    path: Path

    @property
    def stem(self) -> str:
        return self.name.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Pairing:
    """Pairs in order of their names; `alone`: left-hand clips without a partner; `unused`: partners without a clip."""

    pairs: tuple[tuple[Clip, Clip], ...]
    alone: tuple[Clip, ...]
    unused: tuple[Clip, ...]


def find_audio(folder: Path, what: str) -> list[Clip]:
    """Every sound file under a folder, sorted by name; where there is none, the sound of its videos.

    Raises InputError: no folder, nothing in it, two files of one name.
    """
    clips = find_files(folder, AUDIO_SUFFIXES, what) or find_files(folder, VIDEO_SUFFIXES, what)
    return _some(clips, folder, what, "audio")


def find_videos(folder: Path, what: str) -> list[Clip]:
    """Every video under a folder, sorted by name. Raises InputError as `find_audio`."""
    return _some(find_files(folder, VIDEO_SUFFIXES, what), folder, what, "video")


def dataset_audio(config: DatasetConfig) -> list[Clip]:
    """The soundtracks of a dataset JSON. Raises InputError as `find_audio`, and for an entry without `path`."""
    clips = []
    for entry in config.folders:
        if entry.path is None:
            raise InputError(f"{entry.id}: its path, the folder of soundtracks, is not in the dataset JSON; add it")
        clips += [Clip(f"{entry.id}/{clip.name}", clip.path) for clip in find_audio(entry.path, f"{entry.id}: path")]
    return sorted(clips)


def dataset_videos(config: DatasetConfig) -> list[Clip]:
    """The videos of those entries that name a folder of them."""
    folders = [(entry.id, entry.video) for entry in config.folders if entry.video is not None]
    return sorted(
        Clip(f"{id}/{clip.name}", clip.path) for id, folder in folders for clip in find_videos(folder, f"{id}: video")
    )


def pair(clips: Iterable[Clip], partners: Iterable[Clip]) -> Pairing:
    """Each clip with the partner of the same name; failing that, of the name as infer.py writes it for a dataset JSON
    (`set_stem`); failing that, of the same stem, where one of the two is in no set and nobody else has that stem."""
    left, right = sorted(clips), sorted(partners)
    found: dict[Clip, Clip] = {}
    for rule in (_same_name, _same_joined_name, _same_stem):
        taken = set(found.values())
        matched = rule(left, right)  # of all clips: a stem does not become unique because its twin has been paired
        found |= {a: b for a, b in matched.items() if a not in found and b not in taken}
    taken = set(found.values())
    return Pairing(
        tuple((clip, found[clip]) for clip in left if clip in found),
        tuple(clip for clip in left if clip not in found),
        tuple(clip for clip in right if clip not in taken),
    )


def _same_name(left: list[Clip], right: list[Clip]) -> dict[Clip, Clip]:
    return _matched(left, right, lambda clip: clip.name)


def _same_joined_name(left: list[Clip], right: list[Clip]) -> dict[Clip, Clip]:
    return _matched(left, right, lambda clip: clip.name.replace("/", "_"))


def _same_stem(left: list[Clip], right: list[Clip]) -> dict[Clip, Clip]:
    matched = _matched(left, right, lambda clip: clip.stem)
    return {clip: partner for clip, partner in matched.items() if "/" not in clip.name or "/" not in partner.name}


def _matched(left: list[Clip], right: list[Clip], key: Callable[[Clip], str]) -> dict[Clip, Clip]:
    """Clips of equal key, where that key is unique on both sides."""
    sides = []
    for clips in (left, right):
        count = Counter(map(key, clips))
        sides.append({key(clip): clip for clip in clips if count[key(clip)] == 1})
    return {clip: sides[1][name] for name, clip in sides[0].items() if name in sides[1]}


def in_all(systems: Mapping[str, Sequence[Clip]]) -> tuple[dict[str, list[Clip]], dict[str, str]]:
    """The clips that every system has, under the first system's names and in its order, and clip → why the others are
    left out. Raises InputError where none is in all."""
    first, *others = systems
    partners = {name: {mine: theirs for mine, theirs in pair(systems[first], systems[name]).pairs} for name in others}
    common = [clip for clip in systems[first] if all(clip in partners[name] for name in others)]
    if not common:
        examples = ", ".join(f"{name}: {clips[0].name}, …" for name, clips in systems.items())
        raise InputError(f"no clip of the same stem is in all of the systems ({examples})")
    found = {first: common}
    left = {
        clip.name: f"not in {', '.join(n for n in others if clip not in partners[n])}"
        for clip in systems[first]
        if clip not in common
    }
    for name in others:
        found[name] = [Clip(clip.name, partners[name][clip].path) for clip in common]
        used = set(partners[name].values())
        left |= {clip.name: f"not in {first}" for clip in systems[name] if clip not in used}
    return found, left


def find_files(folder: Path, suffixes: Collection[str], what: str) -> list[Clip]:
    """Every file of these suffixes under a folder, sorted by name; perhaps none. Raises InputError as `find_audio`."""
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{what}: {folder} {kind}; expected a folder")

    def unreadable(error: OSError) -> None:
        raise InputError(f"{what}: {error.filename} cannot be listed ({error.strerror})") from error

    found: dict[str, Path] = {}
    for root, subfolders, files in os.walk(folder, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in sorted(files):
            path = Path(root) / file
            if path.suffix.lower() not in suffixes or file.startswith("."):
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise InputError(f"{what}: clip {name} twice: {found[name].name} and {file}; remove one")
            found[name] = path
    return sorted(Clip(name, path) for name, path in found.items())


def _some(clips: list[Clip], folder: Path, what: str, kind: str) -> list[Clip]:
    if not clips:
        raise InputError(f"{what}: no {kind} files in {folder}")
    return clips
