"""What to score: files, folders and dataset JSONs → a list of clips, each with a name of its own in the output folder.

Nothing is opened here and nothing heavy imported; what cannot be found becomes a `Failure`, and the rest goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, DatasetEntry
from diff_v2m.media import VIDEO_SUFFIXES

GENERATOR = "diff-v2m"  # how the json beside a result begins to name its maker


class Failure(NamedTuple):
    """An input that could not be scored, and one line that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Clip:
    """One film to score: a video file, or features made earlier (then `entry` says where), or both."""

    name: str  # the stem; with the seed it decides the noise, so it must not depend on what else is scored
    video: Path | None
    entry: DatasetEntry | None = None
    output_name: str = ""  # the name plus what tells it from others of the same name

    @property
    def label(self) -> str:
        """What a message calls this clip."""
        return str(self.video) if self.entry is None else f"{self.entry.id}/{self.name}"


def collect(
    inputs: Sequence[Path], dataset: DatasetConfig | None, output_dir: Path, *, variations: int = 1
) -> tuple[list[Clip], list[Failure]]:
    """Every clip to score, in a stable order and once each, and the inputs that hold none.

    Raises InputError when two clips would be written to the same files whatever they are called.
    """
    clips, failures = [], []
    for path in inputs:
        clips += [Clip(video.stem, video) for video in _videos_of(path, failures)]
    for entry in dataset.folders if dataset else ():
        clips += _clips_of(entry, failures)
    clips = _with_output_names(_once_each(clips))
    _check_outputs(clips, variations)
    return [clip for clip in clips if not _overwrites_itself(clip, output_dir, variations, failures)], failures


def real_path(path: Path) -> Path:
    """Absolute and without links, as far as they lead anywhere: one that leads to itself stays as it is."""
    return Path(os.path.realpath(path))


def variation_suffix(variation: int) -> str:
    """Variation 1 is the clip itself; 2 and on are <stem>_v2, …"""
    return "" if variation == 1 else f"_v{variation}"


def _videos_of(path: Path, failures: list[Failure]) -> Iterator[Path]:
    """The file itself, or every video under the folder, sorted; not the results of an earlier run."""
    try:
        path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file or folder" if missing else f"cannot be read: {error.strerror}"
        failures.append(Failure(str(path), reason))
        return
    if not path.is_dir():
        yield path
        return

    def unreadable(error: OSError) -> None:
        failures.append(Failure(str(error.filename), f"folder cannot be read: {error.strerror}"))

    found, before = 0, len(failures)
    for folder, subfolders, files in os.walk(path, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            video = Path(folder) / name
            if video.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and not is_result(video):
                found += 1
                yield video
    if not found and len(failures) == before:
        failures.append(Failure(str(path), f"no videos in this folder (looked for {' '.join(sorted(VIDEO_SUFFIXES))})"))


def is_result(path: Path) -> bool:
    """Whether a file is one that we made: the json beside it says so."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(record, dict) and str(record.get("generator")).startswith(GENERATOR)
    return ours and path.name in (f"{path.stem}.json", *record.get("outputs", ()))


def _clips_of(entry: DatasetEntry, failures: list[Failure]) -> list[Clip]:
    """Clips of a data set by stem, also those whose features are missing: that is reported when their turn comes."""
    from diff_v2m.data.feature_store import FeatureFolder

    try:
        stems = FeatureFolder(entry).stems
        videos = {stem: entry.video / f"{stem}.mp4" for stem in stems} if entry.video is not None else {}
        return [Clip(stem, videos[stem] if videos and videos[stem].is_file() else None, entry) for stem in stems]
    except (InputError, OSError) as error:  # the latter: a folder that may not be looked into
        failures.append(Failure(entry.id, str(error)))
        return []


def _once_each(clips: Iterable[Clip]) -> list[Clip]:
    """The same file given twice, by itself and in its folder, is one clip."""
    seen: dict[object, Clip] = {}
    for clip in clips:
        key = (clip.entry.id, clip.name) if clip.entry is not None else real_path(clip.video)
        seen.setdefault(key, clip)
    return list(seen.values())


def _with_output_names(clips: list[Clip]) -> list[Clip]:
    """Clips of one name get the shortest of a few longer names that tells them all apart."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.name.casefold()].append(clip)  # casefold: many file systems do not tell A.mp4 from a.mp4
    named = {}
    for group in groups.values():
        choices = zip(*(_names(clip) for clip in group), strict=True)
        chosen = next((names for names in choices if _distinct(names)), None)
        if chosen is None:
            raise InputError(f"{group[0].label} and {group[1].label} cannot be told apart by name; rename one of them")
        named.update(zip(map(id, group), chosen, strict=True))
    return [replace(clip, output_name=named[id(clip)]) for clip in clips]


def _names(clip: Clip) -> list[str]:
    """Names for the output, shortest first: clip, folder_clip, clip_mov, folder_clip_mov, a_folder_clip_mov."""
    if clip.entry is not None:
        owner = clip.entry.id
        return [clip.name, f"{owner}_{clip.name}", clip.name, *[f"{owner}_{clip.name}"] * 2]
    parts = real_path(clip.video).parent.parts[1:]
    parent, all_parents = parts[-1] if parts else "root", "_".join(parts)
    suffix = clip.video.suffix.lstrip(".").lower()
    return [
        clip.name,
        f"{parent}_{clip.name}",
        f"{clip.name}_{suffix}",
        f"{parent}_{clip.name}_{suffix}",
        f"{all_parents}_{clip.name}_{suffix}",
    ]


def _distinct(names: Iterable[str]) -> bool:
    return max(Counter(name.casefold() for name in names).values()) == 1


def _check_outputs(clips: list[Clip], variations: int) -> None:
    """clip_v2.mp4 beside the second variation of clip.mp4, and the like."""
    owner: dict[str, Clip] = {}
    for clip in clips:
        for variation in range(1, variations + 1):
            name = f"{clip.output_name}{variation_suffix(variation)}"
            other = owner.setdefault(name.casefold(), clip)
            if other is not clip:
                raise InputError(
                    f"{other.label} and {clip.label} would both be written to {name}.*; "
                    "rename one of them or score them into different output folders"
                )


def _overwrites_itself(clip: Clip, output_dir: Path, variations: int, failures: list[Failure]) -> bool:
    """Never write music over the film it was made for."""
    for variation in range(1, variations + 1):
        target = output_dir / f"{clip.output_name}{variation_suffix(variation)}.mp4"
        if clip.video is not None and all(map(os.path.exists, (target, clip.video))) and target.samefile(clip.video):
            failures.append(Failure(clip.label, "would be overwritten by its own result; choose another --output_dir"))
            return True
    return False
