"""Cue sheets of a run: which clip has which, and the sheet beside each result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash, write_text
from diff_v2m.cues.markers import READABLE, read_cues, read_text
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.cues.table import SUFFIX, format_sheet, is_edited
from diff_v2m.cues.timebase import Timebase, nearest_rate
from diff_v2m.generation.inputs import Clip, Output, real_path


@dataclass(frozen=True)
class Sheets:
    """A cue sheet or marker file for one clip, or a folder of them, each named like its clip.

    timebase: of timecodes; without a frame rate, that of the clip's video. revised: folder of earlier results that
    change in part; each keeps its own sheet if the run gives none. longer: their videos got longer, so that sheet gains
    rows.
    """

    path: Path | None = None
    timebase: Timebase = field(default_factory=Timebase)
    revised: Path | None = None
    longer: bool = False

    def check(self, clips: Sequence[Clip]) -> None:
        """Raise InputError unless the path fits these clips."""
        if self.path is None:
            return
        if not self.path.exists():
            raise InputError(f"--sheet {self.path}: no such file or folder")
        if self.path.is_file() and len(clips) > 1:
            raise InputError(
                f"--sheet {self.path}: one sheet for {len(clips)} videos; give a folder of <video>{SUFFIX}"
            )
        if clips and not any(self.file_of(clip) for clip in clips):
            raise InputError(f"--sheet {self.path}: this folder has a sheet of no video; expected <video>{SUFFIX}")

    @property
    def gains_rows(self) -> bool:
        """Whether sheets of earlier results are made longer."""
        return self.longer and self.path is None

    def file_of(self, clip: Clip) -> Path | None:
        """The file with a clip's cues; None if it has none."""
        if self.path is None:
            own = None if self.revised is None else self.revised / f"{clip.output_name}{SUFFIX}"
            return own if own is not None and own.is_file() else None
        if self.path.is_file():
            return self.path
        candidates = (self.path / f"{name}{suffix}" for name in (clip.output_name, clip.name) for suffix in READABLE)
        return next((path for path in candidates if path.is_file()), None)

    def read(self, clip: Clip) -> CueSheet | None:
        """The cues of a clip; None if it has none. Raises InputError with the number of the line."""
        path = self.file_of(clip)
        if path is None:
            return None
        timebase = self.timebase
        if timebase.fps is None and clip.video is not None:
            from diff_v2m import media

            timebase = timebase.with_fps(nearest_rate(Fraction(media.probe(clip.video).fps)))
        sheet = _read(path, content_hash(path), timebase)
        return sheet if self.path is not None else sheet.replacing(["end"], [])  # the video may have got longer

    def digest(self, clip: Clip) -> str | None:
        """Identifies the cues of a clip by content, the images of its moods among them. Raises InputError."""
        sheet = self.read(clip)
        if sheet is None:
            return None
        digest = hashlib.sha256(format_sheet(sheet, self.file_of(clip).parent).encode())
        for image in sheet.images():
            digest.update(content_hash(image).encode())
        return digest.hexdigest()

    def check_untouched(self, output: Output, output_dir: Path) -> None:
        """Raise InputError if someone edited the sheet at the place of this output's and did not give it to the run."""
        beside = output_dir / f"{output.name}{SUFFIX}"
        if beside.is_file() and not self.is_own(output, output_dir) and is_edited(read_text(beside)):
            raise InputError(
                f"{output.clip.label}: {beside} was edited; compose to it with --sheet {beside}, or replace it with "
                "--overwrite"
            )

    def is_own(self, output: Output, output_dir: Path) -> bool:
        """Whether the cues of an output are in the very file that its sheet would be written to."""
        own = self.file_of(output.clip)
        return own is not None and real_path(own) == real_path(output_dir / f"{output.name}{SUFFIX}")


def write_beside(folder: Path, output: Output, sheet: CueSheet, sheets: Sheets, output_dir: Path) -> str:
    """Write <name>.cues.csv into `folder` and return its name. A sheet that a person keeps there stays as it is."""
    path = folder / f"{output.name}{SUFFIX}"
    if sheets.is_own(output, output_dir) and not sheets.gains_rows:
        shutil.copyfile(output_dir / path.name, path)
    else:
        text = format_sheet(sheet, output_dir)  # images are named from where the file will be
        write_text(path, text)
    return path.name


@cache
def _read(path: Path, content: str, timebase: Timebase) -> CueSheet:
    """content: hash of the file, so that a changed one is read again."""
    return read_cues(path, timebase)
