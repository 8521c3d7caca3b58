"""Finding media files and pairing them: by stem within a data set, never by position in a listing.

A file is named `set/stem`: its path below the folder that was given, without suffix, or the id of an entry of a dataset
JSON and a stem. Pooled data sets may therefore share stems.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig
from diff_v2m.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES


@dataclass(frozen=True, order=True)
class MediaFile:
    """An audio or video file. No other file of its side (generated, reference, videos, training) has its name."""

    name: str
    path: Path
    variation: int = 1  # of `infer.py --variations`, see `_variation`

    @property
    def stem(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    @property
    def clip(self) -> str:
        """The name without the suffix of a variation."""
        return self.name if self.variation == 1 else self.name.removesuffix(f"_v{self.variation}")


@dataclass(frozen=True)
class Pairing:
    """Pairs sorted by name; `alone`: files without a partner; `unused`: partners without a file.

    Variations of a clip share its partner.
    """

    pairs: tuple[tuple[MediaFile, MediaFile], ...]
    alone: tuple[MediaFile, ...]
    unused: tuple[MediaFile, ...]


def find_audio(folder: Path, flag: str) -> list[MediaFile]:
    """Every audio file below a folder, sorted by name; if there is none, its videos, for their sound.

    Raises InputError, which begins with `flag`: no folder, no file, two files of one name.
    """
    files = find_files(folder, AUDIO_SUFFIXES, flag) or find_files(folder, VIDEO_SUFFIXES, flag)
    return _not_empty(files, folder, flag, "audio")


def find_videos(folder: Path, flag: str) -> list[MediaFile]:
    """Every video below a folder, sorted by name. Raises InputError as `find_audio`."""
    return _not_empty(find_files(folder, VIDEO_SUFFIXES, flag), folder, flag, "video")


def dataset_audio(config: DatasetConfig) -> list[MediaFile]:
    """The soundtracks of a dataset JSON. Raises InputError as `find_audio`, and for an entry without `path`."""
    files = []
    for entry in config.folders:
        if entry.path is None:
            raise InputError(f"{entry.id}: its path, the folder of soundtracks, is not in the dataset JSON; add it")
        found = find_audio(entry.path, f"{entry.id}: path")
        files += [MediaFile(f"{entry.id}/{file.name}", file.path) for file in found]
    return sorted(files)


def dataset_videos(config: DatasetConfig) -> list[MediaFile]:
    """The videos of the entries that name a folder of videos. Raises InputError as `find_audio`."""
    folders = [(entry.id, entry.video) for entry in config.folders if entry.video is not None]
    return sorted(
        MediaFile(f"{id}/{file.name}", file.path)
        for id, folder in folders
        for file in find_videos(folder, f"{id}: video")
    )


def pair(files: Iterable[MediaFile], partners: Iterable[MediaFile]) -> Pairing:
    """Pair each file with the partner of the same name; failing that, of the name that infer.py writes for a dataset
    JSON (`set_stem`); failing that, of the same stem, if the stem is unique and one of the two names has no set.

    A variation without a partner of its own name gets that of its clip.
    """
    left, right = sorted(files), sorted(partners)
    of_clips = match({MediaFile(file.clip, Path()) for file in left}, right)
    shared = {file: MediaFile(file.clip, Path()) for file in left if file.variation > 1}
    found = {file: of_clips[clip] for file, clip in shared.items() if clip in of_clips} | match(left, right)
    taken = set(found.values())
    return Pairing(
        tuple((file, found[file]) for file in left if file in found),
        tuple(file for file in left if file not in found),
        tuple(file for file in right if file not in taken),
    )


def match(files: Iterable[MediaFile], partners: Iterable[MediaFile]) -> dict[MediaFile, MediaFile]:
    """File → partner by the rules of `pair`, each partner once: a variation is matched only by its own name."""
    left, right = sorted(files), sorted(partners)
    found: dict[MediaFile, MediaFile] = {}
    for rule in (_same_name, _same_joined_name, _same_stem):
        taken = set(found.values())
        matched = rule(left, right)  # over all files: a stem stays ambiguous when one of its files is paired already
        found |= {a: b for a, b in matched.items() if a not in found and b not in taken}
    return found


def _same_name(left: list[MediaFile], right: list[MediaFile]) -> dict[MediaFile, MediaFile]:
    return _matched(left, right, lambda file: file.name)


def _same_joined_name(left: list[MediaFile], right: list[MediaFile]) -> dict[MediaFile, MediaFile]:
    return _matched(left, right, lambda file: file.name.replace("/", "_"))


def _same_stem(left: list[MediaFile], right: list[MediaFile]) -> dict[MediaFile, MediaFile]:
    matched = _matched(left, right, lambda file: file.stem)
    return {file: partner for file, partner in matched.items() if "/" not in file.name or "/" not in partner.name}


def _matched(
    left: list[MediaFile], right: list[MediaFile], key: Callable[[MediaFile], str]
) -> dict[MediaFile, MediaFile]:
    """Files of equal key, where the key is unique on both sides."""
    sides = []
    for files in (left, right):
        count = Counter(map(key, files))
        sides.append({key(file): file for file in files if count[key(file)] == 1})
    return {file: sides[1][name] for name, file in sides[0].items() if name in sides[1]}


def common_files(systems: Mapping[str, Sequence[MediaFile]]) -> tuple[dict[str, list[MediaFile]], dict[str, str]]:
    """Return the files that every system has, under the first system's names and in its order, and name → reason for
    the files that are skipped. Raises InputError if the systems have no file in common.
    """
    first, *others = systems
    partners = {name: match(systems[first], systems[name]) for name in others}
    common = [file for file in systems[first] if all(file in partners[name] for name in others)]
    if not common:
        examples = ", ".join(f"{name}: {files[0].name}, …" for name, files in systems.items())
        raise InputError(f"no clip of the same stem is in all of the systems ({examples})")
    found = {first: common}
    skipped = {
        file.name: f"not in {', '.join(n for n in others if file not in partners[n])}"
        for file in systems[first]
        if file not in common
    }
    for name in others:
        found[name] = [MediaFile(file.name, partners[name][file].path, file.variation) for file in common]
        used = set(partners[name].values())
        skipped |= {file.name: f"not in {first}" for file in systems[name] if file not in used}
    return found, skipped


def find_files(folder: Path, suffixes: Collection[str], flag: str) -> list[MediaFile]:
    """Every file of these suffixes below a folder, sorted by name; the list may be empty. Raises InputError as
    `find_audio`.
    """
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{flag}: {folder} {kind}; expected a folder")

    def unreadable(error: OSError) -> None:
        raise InputError(f"{flag}: {error.filename} cannot be listed ({error.strerror})") from error

    found: dict[str, Path] = {}
    for root, subfolders, files in os.walk(folder, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in sorted(files):
            path = Path(root) / file
            if path.suffix.lower() not in suffixes or file.startswith("."):
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise InputError(f"{flag}: clip {name} twice: {found[name].name} and {file}; remove one")
            found[name] = path
    return sorted(MediaFile(name, path, _variation(path)) for name, path in found.items())


def _variation(path: Path) -> int:
    """The variation of a clip that infer.py generated, from the manifest beside the file; 1 for any other file."""
    if re.search(r"_v\d+$", path.stem) is None:
        return 1
    try:
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        variation = manifest["request"]["variation"]
    except (OSError, ValueError, KeyError, TypeError):
        return 1
    return variation if isinstance(variation, int) and path.stem.endswith(f"_v{variation}") else 1


def _not_empty(files: list[MediaFile], folder: Path, flag: str, kind: str) -> list[MediaFile]:
    if not files:
        raise InputError(f"{flag}: no {kind} files in {folder}")
    return files
