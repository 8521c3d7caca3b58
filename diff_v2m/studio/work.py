"""How each kind of task is done with the model."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, write_json
from diff_v2m.cues.markers import read_cues
from diff_v2m.cues.table import SUFFIX, format_sheet
from diff_v2m.cues.timebase import Timebase
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.generation.inputs import Clip, Output
from diff_v2m.generation.manifest import Request, Weights
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.generation.revision import Revision
from diff_v2m.generation.runner import Runner
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.generation.sheets import Sheets
from diff_v2m.generation.spans import Span
from diff_v2m.generation.staging import staging
from diff_v2m.generation.takes import score_take
from diff_v2m.media.metering import measured
from diff_v2m.mix.publishing import mix_video
from diff_v2m.mix.settings import MixSettings
from diff_v2m.studio.folders import ANALYSE, POWERS, TAKE, JobFolder, Task, save_text
from diff_v2m.studio.levels import write_sound
from diff_v2m.studio.tasks import COMPOSE, LEAST_GUIDANCE, MIX, MOST_GUIDANCE, REDO, sampling_settings
from diff_v2m.studio.timeline import describe_video, measure_sound, write_strip

log = logging.getLogger(__name__)

PART = ".part"  # suffix of a take's folder while it is made

Progress = Callable[[int, int], None]  # piece of work from 0 on, number of pieces


@dataclass
class Studio:
    """A model, and what it does for the page. It is loaded for the first task."""

    weights: Path
    device: str = "auto"
    dtype: str = "float32"
    cache: FeatureCache | None = None
    _identity: list[Weights] = field(default_factory=list)

    @cached_property
    def model(self) -> DiffV2M:
        return DiffV2M.from_pretrained(self.weights, device=self.device, dtype=self.dtype)

    def about(self) -> dict[str, Any]:
        """Steps and guidance where none are asked for, and what may be asked for. Raises InputError."""
        own, student = SamplingSettings().resolve(self.model.config), self.model.config.model.diffusion.student
        return {
            "steps": own.steps,
            "guidance_scale": own.guidance_scale,
            "guidance_range": (LEAST_GUIDANCE, MOST_GUIDANCE) if student is None else student.guidance_range,
            "is_student": student is not None,
        }

    def do(self, task: Task, begin: Progress) -> dict[str, Any]:
        """Do a task and return what its state tells. begin: called before each piece. Raises InputError."""
        return {ANALYSE: self._analyse, COMPOSE: self._compose, REDO: self._redo, MIX: self._mix}[task.kind](
            task, begin
        )

    def _analyse(self, task: Task, begin: Progress) -> dict[str, Any]:
        job = task.job
        begin(0, 1)
        features, thumbnails = self._features(job)
        sheet = self.model.cue_sheet(features, job.name)
        sound = measure_sound(job.video, features.duration)
        write_sound(job.path / "sound.npz", sound)
        with atomic(job.path / "thumbnails.jpg") as part:
            write_strip(part, thumbnails)
        if not job.sheet.exists():
            save_text(job.sheet, format_sheet(sheet))
        about = describe_video(features, sheet, thumbnails)
        write_json(job.path / "timeline.json", {**about, "has_sound": bool(len(sound["powers"]))})
        return {}

    def _compose(self, task: Task, begin: Progress) -> dict[str, Any]:
        job, count = task.job, task.asked["takes"]
        made = {take["piece"]: take["number"] for take in job.takes() if take["task"] == task.number}
        for piece in range(count):
            if piece in made:  # by a worker that was interrupted
                continue
            begin(piece, count)
            with _new_take(task, piece) as (folder, number):
                settings = sampling_settings(task.asked, task.asked["seed"] + piece)
                sheets = Sheets(task.sheet) if task.sheet else Sheets()
                self._run(job, folder, self._request(settings, stems=task.asked["stems"], sheets=sheets))
                self._finish(task, folder, {"seed": settings.seed, "piece": piece})
            made[piece] = number
        return {"made": sorted(made.values())}

    def _redo(self, task: Task, begin: Progress) -> dict[str, Any]:
        begin(0, 1)
        base = task.job.take(task.asked["take"])
        with _new_take(task, 0, fresh=True) as (folder, number):
            for path in base.iterdir():
                if path.is_file():
                    shutil.copy2(path, folder / path.name)
            spans = tuple(Span(*span) for span in task.asked["spans"])
            settings = sampling_settings(task.asked, task.asked["seed"])
            sheets = Sheets(task.sheet) if task.sheet else Sheets(revised=folder)
            self._run(task.job, folder, self._request(settings, revision=Revision(spans), sheets=sheets))
            changed = {"redo": task.asked["spans"], "of": task.asked["take"]}
            self._finish(task, folder, {"seed": settings.seed, "piece": 0, **changed})
        return {"made": [number]}

    def _mix(self, task: Task, begin: Progress) -> dict[str, Any]:
        begin(0, 1)
        job, take = task.job, task.job.take(task.asked["take"])
        rate, channels = self.model.config.sample_rate, self.model.config.audio_channels
        music = media.read_audio(take / f"{job.name}.wav", rate, channels)
        part = take / f".mix{PART}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        duration = music.shape[1] / rate
        mix, _ = mix_video(job.video, music, rate, MixSettings(**task.asked["settings"]), part, job.name, duration)
        write_json(part / "mix.json", {"settings": task.asked["settings"], **mix.figures})
        shutil.rmtree(take / "mix", ignore_errors=True)
        os.rename(part, take / "mix")
        return {"figures": mix.figures}

    def _features(self, job: JobFolder) -> tuple[VideoFeatures, media.Thumbnails]:
        found = None

        def extract(video: Path) -> VideoFeatures:
            nonlocal found
            features, found = self.model.extract_with_thumbnails(video)
            return features

        features = self.cache.get(job.video, self.model.encoder_name, extract) if self.cache else extract(job.video)
        return features, found or media.read_thumbnails(job.video, features.duration)

    @property
    def _weights(self) -> Weights:
        if not self._identity:
            self._identity.append(Weights.of(self.weights))
        return self._identity[0]

    def _request(self, settings: SamplingSettings, **options: Any) -> Request:
        return Request(settings, self._weights, dtype=self.dtype, **options)

    def _run(self, job: JobFolder, folder: Path, request: Request) -> None:
        """Have the runner write one output into a folder. Raises InputError."""
        clip = Clip(job.name, job.video, output_name=job.name)
        with staging(folder) as unfinished:
            runner = Runner(self.model, request, folder, unfinished, feature_cache=self.cache)
            failures = runner.run([Output(clip)])
        if failures:
            raise InputError(failures[0].reason)

    def _finish(self, task: Task, folder: Path, about: dict[str, Any]) -> None:
        """Write the score of a finished take and how it was made."""
        job, rate = task.job, self.model.config.sample_rate
        record = json.loads((folder / f"{job.name}.json").read_text(encoding="utf-8"))
        audio = media.read_audio(folder / f"{job.name}.wav", rate, self.model.config.audio_channels)
        sheet = read_cues(folder / f"{job.name}{SUFFIX}", Timebase())
        cuts = np.array([cue.time for cue in sheet["cut"]], float)
        score = score_take(audio, rate, np.array(record["predicted_rhythm"]), cuts, sheet.hits)
        with atomic(folder / POWERS) as part, part.open("wb") as file:
            np.save(file, measured(audio, rate).powers)
        notes = record.get("score", {})  # absent where the model writes none
        loudness = record["loudness"].get("lufs_after")
        write_json(
            folder / TAKE,
            {
                **about,
                "task": task.number,
                "created": task.asked["created"],
                "steps": record["steps"],
                "score": score.about(),
                "hits": record["hits"],
                "facts": {key: notes[key] for key in ("key", "tempo") if key in notes},
                "lufs": loudness if loudness is not None and math.isfinite(loudness) else None,
            },
        )


@contextmanager
def _new_take(task: Task, piece: int, *, fresh: bool = False) -> Iterator[tuple[Path, int]]:
    """A folder to make a take in, and the take's number, which it gets when it is complete.

    On an error the folder is removed. Of a killed process it stays, and the same task resumes in it unless `fresh`.
    """
    target = task.job.new_take()
    part = target.with_name(f".{task.number:04d}-{piece}{PART}")
    if fresh:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part, int(target.name)
        os.rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
