"""What the page and the API can ask for. Actions only read job folders and write requests into them."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_json
from diff_v2m.cues.markers import FORMATS, SHEET, read_cues, write_cues
from diff_v2m.cues.sheet import KINDS, Cue, CueSheet, is_image
from diff_v2m.cues.table import SUFFIX, format_sheet, parse_sheet
from diff_v2m.cues.timebase import Timebase, nearest_rate
from diff_v2m.studio import tasks
from diff_v2m.studio.folders import ANALYSE, MODEL, POWERS, PRESETS, JobFolder, Jobs, Task, read_object, save_text
from diff_v2m.studio.levels import estimate, read_sound

log = logging.getLogger(__name__)

MOST_PRESETS = 50
LONGEST_SHEET = 1 << 20  # characters
LONGEST_TEXT = 500  # characters of a cue's value or name
_CUE_FIELDS = ("time", "kind", "value", "name", "stop")


class Actions:
    """What the page can ask for. Every value comes from outside. Each action raises InputError."""

    def __init__(self, jobs: Jobs, is_working: Callable[[], bool]):
        self.jobs, self.is_working = jobs, is_working
        self._one_writer = threading.Lock()

    def ask(self, request: Any) -> dict[str, Any]:
        """Do what a page asks for: {"do": action, …}. A refusal is {"error": one line}."""
        actions = {
            action.__name__: action
            for action in (
                self.state,
                self.save_cues,
                self.import_cues,
                self.export_cues,
                self.predicted_cues,
                self.analyse,
                self.compose,
                self.redo,
                self.mix,
                self.estimate,
                self.cancel,
                self.remove,
                self.save_preset,
                self.remove_preset,
            )
        }
        try:
            if not isinstance(request, dict) or request.get("do") not in actions:
                raise InputError(f"unknown request; expected one of {', '.join(actions)}")
            values = {key: value for key, value in request.items() if key != "do"}
            return actions[request["do"]](**values)
        except InputError as error:
            return {"error": str(error)}
        except TypeError as error:  # wrong names or kinds of values
            log.warning("request refused: %s", error)
            return {"error": f"{request['do']}: wrong or missing values"}
        except (OSError, KeyError):  # a job that is removed meanwhile, a full disk
            log.exception("request failed")
            return {"error": f"{request['do']}: files of the job cannot be read or written; see the log of the studio"}

    def state(self, id: str | None = None, timeline: bool = True, seen: str | None = None) -> dict[str, Any]:
        """All jobs in short, one in detail. Without its timeline, and without cues of the version `seen`, if so asked.

        Of an hour of video both are large, and a page asks once a second.
        """
        jobs = [self._short(job) for job in self.jobs]
        known = any(job["id"] == id for job in jobs)
        return {
            "jobs": jobs,
            "job": self._detail(self.jobs[id], timeline, seen) if known else None,
            "working": self.is_working(),
            "presets": self._presets(),
            "model": read_object(self.jobs.path / MODEL),
        }

    def save_cues(self, id: str, cues: list[dict[str, Any]], seen: str | None = None) -> dict[str, Any]:
        """Replace the sheet of a job.

        Where it is no longer of the version `seen`, it stays, and the answer is the sheet with `stale`.
        """
        job = self.jobs[id]
        sheet = _sheet(cues)
        tasks.check_sheet(sheet, job)
        with self._one_writer:
            stale = seen is not None and seen != _version(job.sheet)
            if not stale:
                save_text(job.sheet, format_sheet(sheet))
            return {"stale": stale, "version": _version(job.sheet), "rows": self._rows(job)}

    def import_cues(self, id: str, name: str, text: str) -> dict[str, Any]:
        """Read a cue sheet or markers of an editing program. Cues of kinds that it lacks stay."""
        job = self.jobs[id]
        if not isinstance(text, str) or len(text) > LONGEST_SHEET:
            raise InputError("expected a text file of at most a million characters")
        suffix = next(
            (end for end in (SUFFIX, *(form.suffix for form in FORMATS.values())) if str(name).endswith(end)), ""
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"cues{suffix or '.csv'}"
            path.write_text(text, encoding="utf-8", newline="")
            try:
                found = read_cues(path, _timebase(job), images=False)
            except InputError as error:
                raise InputError(str(error).replace(str(path), str(name)[-80:])) from None
        tasks.check_sheet(found, job)
        given = [cue for cue in found.cues if cue.kind != "end"]
        merged = self._sheet(job).replacing({cue.kind for cue in given}, given)
        save_text(job.sheet, format_sheet(merged))
        return {"version": _version(job.sheet)}

    def export_cues(self, id: str, form: str) -> dict[str, Any]:
        """The sheet as text: a cue sheet, or markers of an editing program."""
        job = self.jobs[id]
        if form not in (SHEET, *FORMATS):
            raise InputError(f"format {str(form)[:40]!r}: expected one of {', '.join((SHEET, *FORMATS))}")
        suffix = SUFFIX if form == SHEET else FORMATS[form].suffix
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{job.name}{suffix}"
            write_cues(path, self._sheet(job), _timebase(job), form)
            return {"name": path.name, "text": path.read_text(encoding="utf-8")}

    def predicted_cues(self, id: str) -> dict[str, Any]:
        """Undo all edits: the sheet as the video has it."""
        job = self.jobs[id]
        timeline = job.timeline
        if timeline is None:
            raise InputError(f"{job.name}: still being read")
        cues = [Cue(float(second), "rhythm", value) for second, value in enumerate(timeline["rhythm"])]
        cues += [Cue(time, "cut") for time in timeline["cuts"]] or [Cue(0.0, "cut", "none")]
        cues += [Cue(time, "beat", height) for time, height in timeline["beats"]] or [Cue(0.0, "beat", "none")]
        cues.append(Cue(round(timeline["duration"], 6), "end", None, job.name))
        save_text(job.sheet, format_sheet(CueSheet(cues)))
        return {"version": _version(job.sheet)}

    def analyse(self, id: str) -> dict[str, Any]:
        """Read a video again whose reading was cancelled or failed."""
        job = self.jobs[id]
        if job.timeline is not None or any(task.is_open for task in job.tasks()):
            raise InputError(f"{job.name}: is read, or will be")
        return _queued(job.add_task({"kind": ANALYSE}))

    def compose(self, id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Queue new takes, which follow the sheet of the job."""
        job = self.jobs[id]
        return _queued(job.add_task(tasks.compose_task(settings), self._text(job)))

    def redo(self, id: str, take: int, spans: list[list[float]], settings: dict[str, Any]) -> dict[str, Any]:
        """Queue a take in which spans are composed again."""
        job = self.jobs[id]
        return _queued(job.add_task(tasks.redo_task(job, take, spans, settings), self._text(job)))

    def mix(self, id: str, take: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Queue a mix of a take with the video's own sound."""
        job = self.jobs[id]
        return _queued(job.add_task(tasks.mix_task(job, take, settings)))

    def estimate(self, id: str, take: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Loudness of a mix, at once."""
        job = self.jobs[id]
        checked = tasks.mix_settings(settings)
        folder = job.take(tasks.take_number(take))
        music = np.load(folder / POWERS, allow_pickle=False)
        return estimate(read_sound(job.path / "sound.npz"), music, job.about["duration"], checked)

    def cancel(self, id: str, task: int) -> dict[str, Any]:
        """Cancel a queued or running task; finished takes stay."""
        for known in self.jobs[id].tasks():
            if known.number == task:
                known.cancel()
        return {}

    def remove(self, id: str) -> dict[str, Any]:
        """Delete a job and its files."""
        self.jobs.remove(id)
        return {}

    def save_preset(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Keep settings under a name, for all jobs."""
        name = " ".join(str(name).split())[:40]
        own = self._own_presets()
        if not name or name in tasks.PRESETS or len(own) >= MOST_PRESETS:
            raise InputError(f"preset {name!r}: give another name than those of the studio; at most {MOST_PRESETS}")
        write_json(self.jobs.path / PRESETS, {**own, name: tasks.preset(settings)})
        return {"name": name, "presets": self._presets()}

    def remove_preset(self, name: str) -> dict[str, Any]:
        """Forget settings that were kept."""
        if name in tasks.PRESETS:
            raise InputError(f"preset {name!r}: belongs to the studio; choose one of your own")
        own = self._own_presets()
        own.pop(name, None)
        write_json(self.jobs.path / PRESETS, own)
        return {"presets": self._presets()}

    def _presets(self) -> dict[str, Any]:
        is_student = (read_object(self.jobs.path / MODEL) or {}).get("is_student")
        own = {name: values for name, values in tasks.PRESETS.items() if not is_student or "steps" not in values}
        return {**own, **self._own_presets()}

    def _own_presets(self) -> dict[str, Any]:
        return read_object(self.jobs.path / PRESETS) or {}

    def _sheet(self, job: JobFolder) -> CueSheet:
        text = self._text(job)
        if text is None:
            raise InputError(f"{job.name}: still being read")
        return parse_sheet(text, Path("cue sheet"), Timebase(), images=False)

    def _rows(self, job: JobFolder) -> list[dict[str, Any]]:
        return [{key: getattr(cue, key) for key in _CUE_FIELDS} for cue in self._sheet(job).cues]

    def _text(self, job: JobFolder) -> str | None:
        try:
            return job.sheet.read_text(encoding="utf-8")
        except OSError:
            return None

    def _short(self, job: JobFolder) -> dict[str, Any]:
        opened = [_task(task) for task in job.tasks() if task.is_open]
        about = job.about
        return {"id": job.id, "name": about["name"], "duration": about["duration"], "open": opened[:1]}

    def _detail(self, job: JobFolder, timeline: bool, seen: str | None) -> dict[str, Any]:
        version = _version(job.sheet)
        rows = None if version == seen else self._rows(job) if version else []
        about = job.about
        return {
            **{key: about[key] for key in ("name", "file", "duration", "width", "height")},
            "id": job.id,
            "timeline": job.timeline if timeline else None,
            "cues": {"version": version, "rows": rows},
            "tasks": [_task(task) for task in job.tasks()],
            "takes": job.takes(),
        }


def _queued(task: Task) -> dict[str, Any]:
    return {"task": task.number}


def _task(task: Task) -> dict[str, Any]:
    shown = {key: value for key, value in task.state.items() if key != "updated"}
    asked: dict[str, Any] = {key: task.asked[key] for key in ("takes", "take", "spans", "seed") if key in task.asked}
    return {"number": task.number, "kind": task.kind, "created": task.asked["created"], **asked, **shown}


def _sheet(cues: Any) -> CueSheet:
    """Raises InputError. A mood that names a file is refused before anything looks for the file."""
    if not isinstance(cues, list) or not all(isinstance(cue, dict) and set(cue) <= set(_CUE_FIELDS) for cue in cues):
        raise InputError(f"cues: expected a list of objects with {', '.join(_CUE_FIELDS)}")
    made = []
    for cue in cues:
        if any(isinstance(value, str) and len(value) > LONGEST_TEXT for value in cue.values()):
            raise InputError(f"cues: a text is longer than {LONGEST_TEXT} characters")
        try:
            time, stop = float(cue["time"]), None if cue.get("stop") is None else float(cue["stop"])
        except (KeyError, TypeError, ValueError):
            raise InputError("cues: a time is not a number") from None
        kind, value = str(cue.get("kind")), cue.get("value")
        if kind == "mood" and is_image(str(value)):
            raise InputError(f"mood {time:g}: {value!r} is an image file; only colours are taken here")
        made.append(Cue(time, kind, value, str(cue.get("name") or ""), stop))
    order = {kind: number for number, kind in enumerate(KINDS)}
    return CueSheet(sorted(made, key=lambda cue: (cue.time, order.get(cue.kind, 0))))


def _timebase(job: JobFolder) -> Timebase:
    return Timebase(nearest_rate(Fraction(job.about["fps"])))


def _version(path: Path) -> str:
    """Time and SHA-256 of a file: two saves may have the same time, two sheets the same content. "" without a file."""
    try:
        return f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        return ""
