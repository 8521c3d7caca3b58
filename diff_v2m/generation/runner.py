"""From clips to files: <name>.mp4, .wav, .png and .json for each output, all of them or none.

Files are written into a hidden folder and moved into place when complete. An output is done when its json and all files
that the json names exist. The json holds the request. A rerun compares this request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_text
from diff_v2m.common.scratch import Scratch
from diff_v2m.common.stopping import check_not_stopped
from diff_v2m.config import DatasetEntry
from diff_v2m.cues.table import SUFFIX
from diff_v2m.data.feature_store import FeatureFolder
from diff_v2m.features.semantic import encoder_identity
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation import extras, manifest
from diff_v2m.generation.album import Album, Levels
from diff_v2m.generation.background import Writer, executor, meanwhile, read_ahead
from diff_v2m.generation.extending import of_longer_video
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.generation.inputs import Clip, Failure, Output
from diff_v2m.generation.jobs import Job, Source
from diff_v2m.generation.needs import warn_of_other_encoder
from diff_v2m.generation.picture import draw_output
from diff_v2m.generation.pipeline import Composition, DiffV2M
from diff_v2m.generation.revision import at_level_of, read_earlier, write_latents
from diff_v2m.generation.sheets import write_beside
from diff_v2m.generation.staging import publish
from diff_v2m.generation.step_log import StepLog
from diff_v2m.generation.windows import SLACK, plan_windows
from diff_v2m.media import loudness
from diff_v2m.mix.mixing import Mix
from diff_v2m.mix.publishing import mix_video, write
from diff_v2m.mix.settings import MixSettings

log = logging.getLogger(__name__)

WRITING_CAPACITY = 1200.0  # seconds of music that may wait to be written
DURATION_TOLERANCE = 1.5  # seconds between a video and the features extracted from it


@dataclass
class Runner:
    """Generates a list of outputs with one model."""

    model: DiffV2M
    request: manifest.Request
    output_dir: Path
    folder: Path  # for unfinished files, see staging.py
    batch_size: int = 4  # windows denoised together
    decode_chunk: float | None = None  # seconds decoded at a time; None: whole windows
    feature_cache: FeatureCache | None = None
    overwrite: bool = False  # replace MIDI and stems of another origin too
    mention_sound: bool = False  # say once that the sound of a video is replaced
    on_done: Callable[[Output], None] = lambda output: None
    on_failure: Callable[[Failure], None] = lambda failure: None
    _failures: list[Failure] = field(default_factory=list)
    _album: Album | None = None
    _folders: dict[str, FeatureFolder] = field(default_factory=dict)  # each data set is opened and checked once

    def run(self, outputs: Sequence[Output]) -> list[Failure]:
        """Generate every output; outputs of one clip are adjacent. Returns the failures."""
        self._failures, batch, windows = [], [], 0
        self.model.memory.scratch = Scratch(self.folder)
        if self.request.album is not None:
            self._album = Album(self.folder, self.request, self.model.config.sample_rate)
        clips = [(clip, list(group)) for clip, group in groupby(outputs, key=lambda output: output.clip)]
        idle = self.model.idle_cores
        ahead = self.batch_size if idle else 0
        with (
            executor(min(1, idle)) as reader,
            Writer(min(idle, self.batch_size), WRITING_CAPACITY, self._written) as writer,
        ):
            for (clip, clip_outputs), reading in read_ahead(reader, lambda item: self._read_all(item[0]), clips, ahead):
                try:
                    source = reading.result()
                except Exception as error:
                    self._fail(clip, error)
                    continue
                if self.request.takes > 1:
                    self._generate_takes(clip_outputs, source, writer)
                    continue
                for output in clip_outputs:
                    job = Job(output, source, self._logs(source, output))
                    batch.append(job)
                    windows += self._windows(source)
                    if windows >= self.batch_size:
                        self._generate(batch, writer)
                        batch, windows = [], 0
            self._generate(batch, writer)
            for composition, source, job, levels in self._album or ():
                self._submit(replace(job, source=source), composition, levels, writer)
        return self._failures

    def _read_all(self, clip: Clip) -> Source:
        """Read a clip, and the result to change if there is one to."""
        source = self._read(clip)
        if self.request.revision is None:
            return source
        config = self.model.config
        about = self._fingerprint, config.sample_rate, config.audio_channels, self.model.memory.scratch
        source = replace(source, earlier=read_earlier(Output(clip), self.output_dir, *about))
        if self.request.revision.extend:
            return of_longer_video(source, clip.label, gains_rows=self.request.sheets.gains_rows)
        return source

    def _read(self, clip: Clip) -> Source:
        """Read a clip, decoding its video once at most."""
        source = replace(self._read_source(clip), sheet=self.request.sheets.read(clip))
        if source.sheet is not None:
            source.sheet.check_video(source.features.duration, len(source.features))
        return source

    def _read_source(self, clip: Clip) -> Source:
        if clip.entry is None:
            return self._read_video(clip.video)
        folder = self._folder(clip.entry)
        features = folder.read(clip.name)
        if clip.video is None:
            return Source(features, None, folder.encoder)
        duration = media.probe(clip.video).duration
        if abs(duration - features.duration) > DURATION_TOLERANCE:
            raise InputError(
                f"{clip.label}: {clip.video} lasts {duration:.1f} s, its features {features.duration:.1f} s; "
                "extract the features again"
            )
        features = replace(features, duration=min(duration, len(features) + SLACK))
        return Source(features, media.read_thumbnails(clip.video, features.duration), folder.encoder)

    def _read_video(self, video: Path) -> Source:
        """Features come from the cache or are extracted, then with the thumbnails in the same pass."""
        thumbnails = None

        def extract(video: Path) -> VideoFeatures:
            nonlocal thumbnails
            features, thumbnails = self.model.extract_with_thumbnails(video)
            return features

        cache, name = self.feature_cache, self.model.encoder_name
        features = cache.get(video, name, extract) if cache else extract(video)
        encoder = cache.identity(name) if cache else encoder_identity(name)
        return Source(features, thumbnails or media.read_thumbnails(video, features.duration), encoder)

    def _folder(self, entry: DatasetEntry) -> FeatureFolder:
        if entry.id not in self._folders:
            with_color = self.model.config.model.diffusion.uses_color
            folder = FeatureFolder(entry, encoder=self.model.encoder_name, with_color=with_color)
            warn_of_other_encoder(self.model.config.model.conditioning["semantic"].config, folder.encoder)
            self._folders[entry.id] = folder
        return self._folders[entry.id]

    def _windows(self, source: Source) -> int:
        return len(plan_windows(source.features.duration, self.model.config.window_seconds))

    def _logs(self, source: Source, *outputs: Output) -> tuple[StepLog, ...]:
        """Where the sampling steps of a long clip are kept, one for each output; none for a short clip."""
        return tuple(map(self._log, outputs)) if self._windows(source) > 1 else ()

    def _log(self, output: Output) -> StepLog:
        key = json.dumps([self.request.of(output), repr(self.request.revision)], sort_keys=True)
        return StepLog(self.output_dir / f".{output.name}.steps", key)

    def _generate(self, batch: list[Job], writer: Writer[Output]) -> None:
        """Generate a batch and hand it to the writer. If that fails, one by one, so that only the bad clip fails."""
        if not batch:
            return
        outputs = [job.output for job in batch]
        try:
            compositions = self._compose(batch) if self.request.revision is None else list(map(self._revise, batch))
        except Exception as error:
            if len(batch) == 1:
                self._fail(outputs[0].clip, error)
                return
            check_not_stopped()
            for single in batch:
                self._generate([single], writer)
            return
        for job, composition in zip(batch, compositions, strict=True):
            self._hand_over(job, composition, writer)

    def _hand_over(self, job: Job, composition: Composition, writer: Writer[Output]) -> None:
        """To the writer; what belongs to an album waits for the others."""
        if self._album is None:
            self._submit(job, composition, Levels(), writer)
            return
        try:
            duration, waiting = job.source.features.duration, replace(job, source=None)
            self._album.add(composition, job.output.clip.video, duration, job.source, waiting)
        except Exception as error:
            self._fail(job.output.clip, error)

    def _submit(self, job: Job, composition: Composition, levels: Levels, writer: Writer[Output]) -> None:
        writer.submit(job.output, partial(self._write, job, composition, levels), job.source.features.duration)

    def _compose(self, batch: list[Job]) -> list[Composition]:
        outputs = [job.output for job in batch]
        return self.model.compose(
            [job.source.features for job in batch],
            [output.clip.name for output in outputs],
            self.request.sampling,
            class_labels=[self._label(output) for output in outputs],
            variations=[output.variation for output in outputs],
            batch_size=self.batch_size,
            decode_chunk=self.decode_chunk,
            logs=[next(iter(job.logs), None) for job in batch],
            sheets=[job.source.sheet for job in batch],
        )

    def _revise(self, job: Job) -> Composition:
        """Change an earlier result as the request's revision says."""
        revision, earlier, output, features = self.request.revision, job.source.earlier, job.output, job.source.features
        settings = replace(self.request.sampling, class_label=earlier.request["class_label"])
        old = Composition(earlier.music, np.array([]), earlier.windows, earlier.latents, plan=earlier.plan)
        options = {
            "variation": output.variation,
            "batch_size": self.batch_size,
            "decode_chunk": self.decode_chunk,
            "finish": at_level_of(earlier.record, self.model.config.sample_rate),
            "log": next(iter(job.logs), None),
            "sheet": job.source.sheet,
        }
        if revision.extend:
            return self.model.extend(old, features, output.clip.name, settings, **options)
        return self.model.redo(old, features, output.clip.name, revision.spans, settings, **options)

    def _generate_takes(self, outputs: list[Output], source: Source, writer: Writer[Output]) -> None:
        """Compose all takes of a clip and hand the best to the writer: variation 1 is the best one."""
        clip, count = outputs[0].clip, self.request.takes
        logs = self._logs(source, *(Output(clip, take) for take in range(1, count + 1)))
        try:
            kept = self.model.best_takes(
                source.features,
                clip.name,
                self.request.sampling,
                takes=count,
                keep=max(output.variation for output in outputs),
                sheet=source.sheet,
                class_label=self._label(outputs[0]),
                batch_size=self.batch_size,
                decode_chunk=self.decode_chunk,
                logs=logs,
            )
        except Exception as error:
            self._fail(clip, error)
            return
        chosen = {composition.takes.number for composition in kept}
        log.info("%s: takes, best first\n%s", clip.label, kept[0].takes.table(chosen))
        for output in outputs:
            composition = kept[output.variation - 1]
            job = Job(output, source, logs if output is outputs[-1] else ())
            self._hand_over(job, composition, writer)

    def _label(self, output: Output) -> int:
        return self.request.sampling.label_for(output.clip.class_label)

    @cached_property
    def _fingerprint(self) -> str:
        return self.model.model.pretransform.fingerprint()

    def _written(self, output: Output, error: Exception | None) -> None:
        if error is None:
            self.on_done(output)
        else:
            self._fail(output.clip, error)

    def _write(self, job: Job, composition: Composition, shared: Levels) -> None:
        """All files of an output or none."""
        output, folder = job.output, self.folder / job.output.name
        try:
            folder.mkdir()
            beside = self._stage(folder, output, job.source, composition, shared)
            old = extras.results_named_in(self.output_dir / f"{output.name}.json")
            if not self.overwrite:
                self.request.sheets.check_untouched(output, self.output_dir)
                others = [name for name in beside if not name.endswith(SUFFIX)]
                extras.check_replaceable(others, self.output_dir, old)
            names = [path.name for path in reversed(output.files(Path()))] + beside  # the json first
            moves = [(folder / name, self.output_dir / name) for name in names]
            publish(moves, [self.output_dir / name for name in old])
            for step_log in job.logs:
                step_log.remove()
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # after a failure, the next output may need the space

    def _stage(
        self, folder: Path, output: Output, source: Source, composition: Composition, shared: Levels
    ) -> list[str]:
        """Normalise, and write all files of an output into the staging folder. Returns the names of the extra ones."""
        name, video, rate = output.name, output.clip.video, self.model.config.sample_rate
        features = source.features
        mode = self.request.normalize if source.earlier is None else "none"  # what is changed has its gain already
        audio, levels = loudness.level(composition.audio, rate, mode, shared.gain_db)
        if source.earlier is not None:
            before = source.earlier.record["loudness"]
            levels = replace(levels, mode=before["mode"], gain_db=before["gain_db"])
        wav, mp4 = folder / f"{name}.wav", folder / f"{name}.mp4"
        media.write_wav(wav, audio, rate)
        mix, beside = shared.mix, []
        settings = self.request.mix if source.earlier is None else MixSettings.of(source.earlier.request)
        if video is not None and settings is None:
            with meanwhile(media.mux, video, wav, mp4, duration=features.duration):  # ffmpeg has its own process
                self._mention_sound(video)
                return self._stage_beside(folder, output, source, composition, audio, levels, None, [])
        if video is not None and mix is None:
            mix, beside = mix_video(video, composition.audio, rate, settings, folder, name, features.duration)
        elif video is not None:
            beside = write(mix, video, folder, name, features.duration)
        return self._stage_beside(folder, output, source, composition, audio, levels, mix, beside)

    def _stage_beside(
        self,
        folder: Path,
        output: Output,
        source: Source,
        composition: Composition,
        audio: loudness.Amplified,
        levels: loudness.LoudnessReport,
        mix: Mix | None,
        beside: list[str],
    ) -> list[str]:
        """Everything beside wav and mp4. beside: names of extra files so far; returned with those written here."""
        name, rate, features = output.name, self.model.config.sample_rate, source.features
        stems = self.request.stems if source.earlier is None else bool(source.earlier.music.stems())
        beside = beside + extras.write_extras(folder, name, composition.music, audio, rate, stems=stems)
        beside.append(write_latents(folder, name, composition, features, self._fingerprint))
        beside.append(write_beside(folder, output, composition.sheet, self.request.sheets, self.output_dir))
        self._report_hits(output, composition)
        sampling = self.request.sampling.resolve(self.model.config)
        draw_output(folder / f"{name}.png", output, source, composition, sampling, audio, rate, levels, mix)
        record = manifest.record(
            output, features, source.encoder, composition, self.model, self.request, levels, beside, source.earlier, mix
        )
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / f"{name}.json", text)
        return beside

    def _mention_sound(self, video: Path) -> None:
        """Say once that a video has sound, which is replaced, if nobody asked for that."""
        if self.mention_sound and media.is_audible(video):
            self.mention_sound = False
            log.info("%s has sound, which the music replaces; --video_sound duck or mix keeps it", video)

    def write_sheets(self, outputs: Sequence[Output]) -> list[Failure]:
        """Write only the cue sheet of each clip: what its music would follow, without composing it."""
        self._failures = []
        for output in tqdm(outputs, desc="cue sheets", unit="video", disable=None, leave=False):
            clip = output.clip
            try:
                source = self._read(clip)
                label = self.request.sampling.label_for(clip.class_label)
                sheet = self.model.cue_sheet(
                    source.features, clip.name, class_label=label, sheet=source.sheet, seed=self.request.sampling.seed
                )
                name = write_beside(self.folder, output, sheet, self.request.sheets, self.output_dir)
                os.replace(self.folder / name, self.output_dir / name)
            except Exception as error:
                self._fail(clip, error)
            else:
                self.on_done(output)
        return self._failures

    def _report_hits(self, output: Output, composition: Composition) -> None:
        missed = [f"{hit.wanted:.2f} s" for hit in composition.hits if not hit.landed]
        if missed:
            count = len(composition.hits)
            log.warning("%s: %d of %d hits missed: %s", output.clip.label, len(missed), count, ", ".join(missed))

    def _fail(self, clip: Clip, error: Exception) -> None:
        """Record a failure in one line; an unexpected one is logged. Raises KeyboardInterrupt after a stop signal."""
        check_not_stopped()
        if isinstance(error, InputError):
            reason = str(error)
        elif isinstance(error, OSError) and error.strerror:
            reason = f"{clip.label}: {error.filename or 'writing the results'}: {error.strerror}"
        else:
            log.error("%s: unexpected error, please report it", clip.label, exc_info=error)
            reason = f"{clip.label}: unexpected {type(error).__name__}: {error}"
        unfinished = f"{re.escape(str(self.folder))}(/[^/:]+)?(?=/)"  # the folder of one output, or of all
        reason = re.sub(unfinished, lambda _: str(self.output_dir), reason)
        if clip.video is not None:  # paths are shown as they were given
            reason = reason.replace(os.path.abspath(clip.video), str(clip.video))
        self._failures.append(Failure(clip.label, reason))
        self.on_failure(self._failures[-1])
