"""Job folders: everything of one video. They outlive the page, the worker and the server.

    <jobs>/model.json                 written by the worker: the model's own steps and guidance
           presets.json               settings that were kept
           .uploads/                  videos on their way
    <jobs>/<id>/job.json              written once: name of the video, file, length, size
                video.<suffix>        as uploaded
                timeline.json         what the page draws; thumbnails.jpg beside it
                cues.csv              the sheet as it is edited
                log.txt               what the worker logged
                tasks/<number>.json   what was asked for, written once by the page; <number>.cues.csv: its sheet
                tasks/<number>.state.json   written by the worker alone
                tasks/<number>.cancel       exists once the page cancels the task
                takes/<number>/       a finished take: mp4, wav, png, json, sheet, latents; .take.json with its score
                takes/<number>/mix/   its last mix

Every file is written atomically and has one writer, so no reader needs a lock. Names of results begin with that of the
video, which never begins with a dot, so files of the studio beside them do.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, write_json
from diff_v2m.generation.inputs import text_of

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
SERVED = re.compile(r"(video\.\w+|thumbnails\.jpg|log\.txt|cues\.csv|takes/\d{3}/(mix/)?[^/]+)")
TAKE, POWERS = ".take.json", ".powers.npy"  # beside the files of a take
MODEL, PRESETS = "model.json", "presets.json"  # beside the jobs
ANALYSE = "analyse"  # the first task of every job
ENDED = ("done", "failed", "cancelled")
MOST_SECONDS, MOST_PIXELS = 6 * 3600, 64 << 20  # of a video
LONGEST_NAME = 120  # bytes; names of results are longer
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f<>:"/\\|?*\u2028\u2029]+')


@dataclass(frozen=True)
class Task:
    """Something that the page asked for, and how far the worker is."""

    job: JobFolder
    number: int
    asked: dict[str, Any]  # kind, created, and what tasks.py describes
    state: dict[str, Any]  # state: queued, running or one of ENDED; progress and messages

    @property
    def kind(self) -> str:
        return self.asked["kind"]

    @property
    def is_open(self) -> bool:
        return self.state["state"] not in ENDED

    @property
    def sheet(self) -> Path | None:
        """The cue sheet that was asked for."""
        path = self.job.path / "tasks" / f"{self.number:04d}.cues.csv"
        return path if path.is_file() else None

    @property
    def is_cancelled(self) -> bool:
        """Whether the page wants it cancelled."""
        return (self.job.path / "tasks" / f"{self.number:04d}.cancel").exists()

    def cancel(self) -> None:
        if self.is_open:
            (self.job.path / "tasks" / f"{self.number:04d}.cancel").touch()

    def write_state(self, **state: Any) -> None:
        """For the worker alone."""
        write_json(self.job.path / "tasks" / f"{self.number:04d}.state.json", {**state, "updated": time.time()})


@dataclass(frozen=True)
class JobFolder:
    """The folder of one video."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def about(self) -> dict[str, Any]:
        """name, file, created, duration, width, height, has_audio."""
        return read_object(self.path / "job.json") or {}

    @property
    def name(self) -> str:
        return self.about["name"]

    @property
    def video(self) -> Path:
        return self.path / self.about["file"]

    @property
    def timeline(self) -> dict[str, Any] | None:
        return read_object(self.path / "timeline.json")

    @property
    def sheet(self) -> Path:
        return self.path / "cues.csv"

    def tasks(self) -> list[Task]:
        """In the order in which they were asked for."""
        found = []
        for path in sorted(self.path.glob("tasks/[0-9][0-9][0-9][0-9].json")):
            asked = read_object(path)
            if asked is not None:
                unseen = "cancelled" if path.with_suffix(".cancel").exists() else "queued"
                state = read_object(path.with_suffix(".state.json")) or {"state": unseen}
                found.append(Task(self, int(path.stem), asked, state))
        return found

    def add_task(self, asked: dict[str, Any], sheet: str | None = None) -> Task:
        """Queue a task. sheet: text of the cue sheet that it follows."""
        folder = self.path / "tasks"
        folder.mkdir(exist_ok=True)
        number = max((int(path.name[:4]) for path in folder.glob("[0-9]*.json")), default=0) + 1
        while True:  # two pages may ask at once
            try:
                os.close(os.open(folder / f"{number:04d}.claim", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                number += 1
        if sheet is not None:
            save_text(folder / f"{number:04d}.cues.csv", sheet)
        asked = {**asked, "created": time.time()}
        write_json(folder / f"{number:04d}.json", asked)
        return Task(self, number, asked, {"state": "queued"})

    def takes(self) -> list[dict[str, Any]]:
        """What is known of every finished take: .take.json, its number, its files and its mix."""
        found = []
        for path in sorted(self.path.glob("takes/[0-9][0-9][0-9]/.take.json")):
            about = read_object(path)
            if about is not None:
                files = sorted(file.name for file in path.parent.glob("[!.]*") if file.is_file())
                mix = read_object(path.parent / "mix" / "mix.json")
                found.append({**about, "number": int(path.parent.name), "files": files, "mix": mix})
        return found

    def take(self, number: int) -> Path:
        """Folder of a take. Raises InputError."""
        path = self.path / "takes" / f"{number:03d}"
        if not (path / TAKE).is_file():
            raise InputError(f"{self.name}: there is no take {number}")
        return path

    def new_take(self) -> Path:
        """Where the next take goes; it does not exist. Only the worker makes takes."""
        numbers = [int(path.name) for path in self.path.glob("takes/[0-9][0-9][0-9]")]
        return self.path / "takes" / f"{max(numbers, default=0) + 1:03d}"

    def without_paths(self, text: str) -> str:
        """A message in which the video has its own name, and files of this folder no folder."""
        return text.replace(str(self.video), self.name).replace(f"{self.path}{os.sep}", "")

    def served(self, name: str) -> Path | None:
        """A file of this folder that the page may show; None for any other name."""
        if not SERVED.fullmatch(name) or "/." in name:
            return None
        path = self.path / name
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path))
        return path if inside and path.is_file() else None


@dataclass(frozen=True)
class Jobs:
    """All job folders."""

    path: Path

    def __iter__(self) -> Iterator[JobFolder]:
        """Oldest first."""
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else ():
            if ID.fullmatch(path.name) and (path / "job.json").is_file():
                yield JobFolder(path)

    def __getitem__(self, id: str) -> JobFolder:
        """Raises InputError: an id comes from outside."""
        if not isinstance(id, str) or not ID.fullmatch(id) or not (self.path / id / "job.json").is_file():
            raise InputError(f"no job {str(id)[:40]!r}; it may have been removed")
        return JobFolder(self.path / id)

    def open_tasks(self) -> list[Task]:
        """What is to do, in the order in which it was asked for."""
        tasks = [task for job in self for task in job.tasks() if task.is_open]
        return sorted(tasks, key=lambda task: (task.asked["created"], task.job.id, task.number))

    def add(self, upload: Path, name: str) -> JobFolder:
        """Move an uploaded file into a new folder and queue its analysis. Raises InputError if it is no video."""
        from diff_v2m import media

        shown = clean_name(name)
        folder = self.path / f".{secrets.token_hex(8)}.part"
        folder.mkdir(parents=True)
        try:
            suffix = Path(shown).suffix.lower()
            video = folder / f"video{suffix if suffix in media.VIDEO_SUFFIXES else '.mp4'}"  # it is served as such
            shutil.move(upload, video)
            try:
                info = media.probe(video)
            except InputError as error:
                raise InputError(str(error).replace(str(video), shown)) from None
            if info.duration > MOST_SECONDS or info.width * info.height > MOST_PIXELS:  # small files can hold that
                raise InputError(
                    f"{shown}: {info.width} × {info.height} pixels, {info.duration / 3600:.1f} hours; the studio takes "
                    f"up to {MOST_PIXELS >> 20} million pixels and {MOST_SECONDS // 3600} hours"
                )
            about = {
                "name": Path(shown).stem or "video",
                "file": video.name,
                "created": time.time(),
                "bytes": video.stat().st_size,
                **{key: getattr(info, key) for key in ("duration", "fps", "width", "height", "has_audio")},
            }
            write_json(folder / "job.json", about)
            JobFolder(folder).add_task({"kind": ANALYSE})
            now, nanoseconds = divmod(time.time_ns(), 10**9)
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
            target = self.path / f"{stamp}-{nanoseconds // 1000:05x}{secrets.token_hex(2)[1:]}"  # in order of arrival
            os.rename(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return JobFolder(target)

    def remove(self, id: str) -> None:
        """Delete a job with all its files. Raises InputError while the worker is at it."""
        job = self[id]
        if any(task.state["state"] == "running" for task in job.tasks()):
            raise InputError(f"{job.name}: is being worked on; cancel that first")
        hidden = self.path / f".{job.id}.removed"
        os.rename(job.path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def clean_name(name: str) -> str:
    """The last part of a file name that a client gave, without what file systems refuse; cut to 120 bytes."""
    base = text_of(name.replace("\\", "/").rsplit("/", 1)[-1])
    path = Path(_NOT_IN_NAMES.sub("_", base).strip(" .") or "video")
    stem = path.stem.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore").strip(" .")
    return f"{stem or 'video'}{path.suffix[:8]}"


def save_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically. Raises InputError."""
    with atomic(path) as part:
        part.write_text(content, encoding="utf-8", newline="")


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if it is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
