"""Inputs of a run: files, folders and dataset JSONs → clips, each with a distinct name in the output folder.

Torch is not imported here. An input that cannot be found becomes a `Failure`; the others remain.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, DatasetEntry
from diff_v2m.generation.settings import DEFAULT_CLASS_LABEL
from diff_v2m.media import VIDEO_SUFFIXES, holds_pictures

log = logging.getLogger(__name__)

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".dpx", ".bmp"}
GENERATOR = "diff-v2m"  # prefix of a manifest's `generator`


class Failure(NamedTuple):
    """An input without a result, and the reason in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Clip:
    """A video file, or features extracted before (then `entry` says where), or both."""

    name: str  # the stem; with the seed it decides the noise, so it must not depend on the other inputs
    video: Path | None
    entry: DatasetEntry | None = None
    output_name: str = ""  # the name, extended where several clips share it

    @property
    def label(self) -> str:
        """The clip's name in messages."""
        return str(self.video) if self.entry is None else f"{self.entry.id}/{self.name}"

    @property
    def class_label(self) -> int:
        """Class label of its data set, else the default."""
        return self.entry.class_label if self.entry is not None else DEFAULT_CLASS_LABEL


@dataclass(frozen=True)
class Output:
    """One result to generate: a clip and a variation; variation 1 has the clip's own name."""

    clip: Clip
    variation: int = 1

    @property
    def name(self) -> str:
        return f"{self.clip.output_name}{variation_suffix(self.variation)}"

    def files(self, folder: Path) -> list[Path]:
        """Paths of its files in a folder, the json last; the mp4 only if there is a video."""
        suffixes = (".mp4", ".wav", ".png", ".json") if self.clip.video is not None else (".wav", ".png", ".json")
        return [folder / f"{self.name}{suffix}" for suffix in suffixes]


def collect(
    inputs: Sequence[Path], dataset: DatasetConfig | None, output_dir: Path, *, variations: int = 1
) -> tuple[list[Clip], list[Failure]]:
    """Every clip, once and in a stable order, and the inputs without videos.

    Raises InputError if two clips cannot get different output names.
    """
    clips, failures = [], []
    for path in inputs:
        clips += [Clip(text_of(video.stem), video) for video in _videos_of(path, failures)]
    for entry in dataset.folders if dataset else ():
        clips += _clips_of(entry, failures)
    clips = _with_output_names(_once_each(clips))
    _check_outputs(clips, variations)
    return [clip for clip in clips if not _overwrites_itself(clip, output_dir, variations, failures)], failures


def real_path(path: Path) -> Path:
    """Absolute, links resolved; a link that leads to itself stays."""
    return Path(os.path.realpath(path))


def text_of(name: str) -> str:
    """A file name as text. Bytes that are not UTF-8 are read as Latin-1, which has a letter for each."""
    content = os.fsencode(name)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def variation_suffix(variation: int) -> str:
    """Suffix of an output name: none for variation 1, then _v2, _v3."""
    return "" if variation == 1 else f"_v{variation}"


def _videos_of(path: Path, failures: list[Failure]) -> Iterator[Path]:
    """The file itself, or every video under the folder, sorted, without results of earlier runs."""
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

    before, passed_over, visited = len(failures), [], set()
    found = 0
    for folder, subfolders, files in os.walk(path, onerror=unreadable, followlinks=True):
        if (identity := os.path.realpath(folder)) in visited:  # a link that leads to a folder above
            subfolders.clear()
            continue
        visited.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            video = Path(folder) / name
            if is_result(video):
                continue
            if video.suffix.lower() in VIDEO_SUFFIXES or _is_video(video):
                found += 1
                yield video
            else:
                passed_over.append(video.name)
    if passed_over:
        log.info("%s: passed over %s, no videos", path, _listed(passed_over))
    if not found and len(failures) == before:
        failures.append(Failure(str(path), f"no videos in this folder{_advice(passed_over)}"))


def _is_video(path: Path) -> bool:
    """Whether a file of unknown suffix is a video, by its content."""
    try:
        return stat.S_ISREG(path.stat().st_mode) and holds_pictures(path)
    except OSError:
        return False


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _advice(passed_over: Sequence[str]) -> str:
    pictures = [name for name in passed_over if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    if len(pictures) > 1:
        return (
            f", but {len(pictures)} pictures; make a video of them first, for example: "
            "ffmpeg -framerate 25 -i %04d.png -pix_fmt yuv420p video.mp4"
        )
    return f" ({len(passed_over)} other files)" if passed_over else ""


def is_result(path: Path) -> bool:
    """Whether the json beside a file names it as a result of this program."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(record, dict) and str(record.get("generator")).startswith(GENERATOR)
    return ours and path.name in (f"{path.stem}.json", *record.get("outputs", ()))


def _clips_of(entry: DatasetEntry, failures: list[Failure]) -> list[Clip]:
    """Clips of a data set by stem. Missing features are reported when a clip is read."""
    from diff_v2m.data.feature_store import FeatureFolder

    try:
        stems = FeatureFolder(entry).stems
        videos = {stem: entry.video / f"{stem}.mp4" for stem in stems} if entry.video is not None else {}
        return [Clip(stem, videos[stem] if videos and videos[stem].is_file() else None, entry) for stem in stems]
    except (InputError, OSError) as error:  # OSError: a folder without permission
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
    """Clips of one name get the shortest extended names that are all different."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.name.casefold()].append(clip)  # many file systems ignore case
    named = {}
    for group in groups.values():
        choices = zip(*(_names(clip) for clip in group), strict=True)
        chosen = next((names for names in choices if _distinct(names)), None)
        if chosen is None:
            raise InputError(
                f"{group[0].label} and {group[1].label} would get the same output name; rename one of them"
            )
        named.update(zip(map(id, group), chosen, strict=True))
    return [replace(clip, output_name=named[id(clip)]) for clip in clips]


def _names(clip: Clip) -> list[str]:
    """Names for the output, shortest first: clip, folder_clip, clip_mov, folder_clip_mov, a_folder_clip_mov."""
    if clip.entry is not None:
        owner = clip.entry.id
        return [clip.name, f"{owner}_{clip.name}", clip.name, *[f"{owner}_{clip.name}"] * 2]
    parts = [text_of(part) for part in real_path(clip.video).parent.parts[1:]]
    parent, all_parents = parts[-1] if parts else "root", "_".join(parts)
    suffix = text_of(clip.video.suffix.lstrip(".").lower())
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
                    "rename one of them or use different output folders"
                )


def _overwrites_itself(clip: Clip, output_dir: Path, variations: int, failures: list[Failure]) -> bool:
    """Whether a result would replace the clip's own video."""
    for variation in range(1, variations + 1):
        target = output_dir / f"{clip.output_name}{variation_suffix(variation)}.mp4"
        if clip.video is not None and all(map(os.path.exists, (target, clip.video))) and target.samefile(clip.video):
            failures.append(Failure(clip.label, "would be overwritten by its own result; choose another --output_dir"))
            return True
    return False
