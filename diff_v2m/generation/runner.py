"""File to file: a clip in, <name>.mp4 .wav .png .json in the output folder, all of them or none.

Everything is written into a hidden folder first and moved into place when complete: a clip whose json is there, with
all the files it names, is done. The json says what was asked for, so that a rerun knows whether that is wanted now.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from diff_v2m import media, plots
from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetEntry
from diff_v2m.data.feature_store import FeatureFolder
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation import manifest
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.generation.inputs import Clip, Failure
from diff_v2m.generation.manifest import Settings, Take, Weights
from diff_v2m.generation.pipeline import Composition, DiffV2M
from diff_v2m.generation.read_ahead import read_ahead
from diff_v2m.generation.windows import SLACK, plan_windows
from diff_v2m.generation.write_behind import Work, write_behind
from diff_v2m.media import loudness

log = logging.getLogger(__name__)

MUSIC_UNDER_WAY = 1200.0  # seconds of it that may wait to be written, and more only of a single film
_STAGING = ".diff-v2m-"


class Shown(NamedTuple):
    """What was read off a clip, once for all its variations."""

    features: VideoFeatures
    storyboard: plots.Storyboard | None  # None: it has no film


@dataclass
class Scorer:
    """A model at work on a list of takes."""

    model: DiffV2M
    weights: Weights
    settings: Settings
    output_dir: Path
    folder: Path  # for unfinished files, see `staging`
    batch_size: int = 4  # windows denoised together
    decode_chunk: float | None = None  # seconds decoded at a time; None: whole windows
    feature_cache: FeatureCache | None = None
    on_done: Callable[[Take], None] = lambda take: None
    on_failure: Callable[[Failure], None] = lambda failure: None
    _failures: list[Failure] = field(default_factory=list)
    _folders: dict[str, FeatureFolder] = field(default_factory=dict)  # each data set is opened and checked once

    def score(self, takes: Sequence[Take]) -> list[Failure]:
        """Score every take, variations of a clip next to each other; what fails is returned, the rest goes on."""
        self._failures, waiting, windows = [], [], 0
        clips = [(clip, list(clip_takes)) for clip, clip_takes in groupby(takes, key=lambda take: take.clip)]
        ahead = self.batch_size if self.model.idle_cores else 0
        writers = min(self.model.idle_cores, self.batch_size)
        with write_behind(self._written, writers, MUSIC_UNDER_WAY) as do:
            for (clip, clip_takes), read in read_ahead(lambda group: self._read(group[0]), clips, ahead):
                try:
                    shown = read()
                except Exception as error:
                    self._fail(clip, error)
                    continue
                for take in clip_takes:
                    waiting.append((take, shown))
                    windows += len(plan_windows(shown.features.duration, self.model.config.window_seconds))
                    if windows >= self.batch_size:
                        self._make(waiting, do)
                        waiting, windows = [], 0
            self._make(waiting, do)
        return self._failures

    def _read(self, clip: Clip) -> Shown:
        features = self._features(clip)
        return Shown(features, plots.read_storyboard(clip.video, features.duration) if clip.video else None)

    def _features(self, clip: Clip) -> VideoFeatures:
        """Read off the video, or from the data set's folders; there the video only says how long it is exactly."""
        if clip.entry is None:
            cache, extract = self.feature_cache, self.model.extract
            return cache.get(clip.video, self.model.encoder_name, extract) if cache else extract(clip.video)
        features = self._folder(clip.entry).read(clip.name)
        if clip.video is None:
            return features
        duration = media.probe(clip.video).duration
        if abs(duration - features.duration) > 1.5:
            raise InputError(
                f"{clip.label}: {clip.video} lasts {duration:.1f} s, its features {features.duration:.1f} s; "
                "extract the features again"
            )
        return replace(features, duration=min(duration, len(features) + SLACK))

    def _folder(self, entry: DatasetEntry) -> FeatureFolder:
        if entry.id not in self._folders:
            with_color = self.model.config.model.diffusion.uses_color
            self._folders[entry.id] = FeatureFolder(entry, encoder=self.model.encoder_name, with_color=with_color)
        return self._folders[entry.id]

    def _make(self, waiting: list[tuple[Take, Shown]], do: Callable[[Take, Work, float], None]) -> None:
        """Compose together and have it written; if that fails, one by one, so that a bad clip does not take its batch
        with it."""
        if not waiting:
            return
        takes, features = [take for take, _ in waiting], [shown.features for _, shown in waiting]
        try:
            compositions = self.model.compose(
                features,
                [take.clip.name for take in takes],
                seed=self.settings.seed,
                steps=self.settings.steps,
                sampler=self.settings.sampler,
                guidance_scale=self.settings.guidance_scale,
                guidance_interval=tuple(self.settings.guidance_interval),
                class_label=[self.settings.label_of(take.clip) for take in takes],
                variation=[take.variation for take in takes],
                batch_size=self.batch_size,
                decode_chunk=self.decode_chunk,
            )
        except Exception as error:
            if len(waiting) == 1:
                self._fail(takes[0].clip, error)
                return
            for one in waiting:
                self._make([one], do)
            return
        for (take, shown), composition in zip(waiting, compositions, strict=True):
            do(take, partial(self._write, take, shown, composition), shown.features.duration)

    def _written(self, take: Take, error: Exception | None) -> None:
        if error is None:
            self.on_done(take)
        else:
            self._fail(take.clip, error)

    def _write(self, take: Take, shown: Shown, composition: Composition) -> None:
        """All files of a take or none, perhaps while others are being made."""
        try:
            self._stage(take, shown, composition)
            _publish(take, self.folder, self.output_dir)
        except Exception:
            for path in take.targets(self.folder):  # the next clip may need the space
                path.unlink(missing_ok=True)
            raise

    def _stage(self, take: Take, shown: Shown, composition: Composition) -> None:
        """Normalise, and write all files of a take into the staging folder."""
        name, video, rate = take.output_name, take.clip.video, self.model.config.sample_rate
        features = shown.features
        audio, levels = loudness.normalize(composition.audio, rate, self.settings.normalize)
        wav = self.folder / f"{name}.wav"
        media.write_wav(wav, audio, rate)
        if video is not None:
            media.mux(video, wav, self.folder / f"{name}.mp4", duration=features.duration)
        plots.draw(
            self.folder / f"{name}.png",
            title=name,
            subtitle=self._subtitle(take, levels),
            audio=audio,
            sample_rate=rate,
            scene_cut=features.scene_cut,
            predicted_rhythm=composition.rhythm,
            storyboard=shown.storyboard,
        )
        record = manifest.record(take, features, composition, self.model, self.weights, self.settings, levels)
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        (self.folder / f"{name}.json").write_text(text, encoding="utf-8")

    def _subtitle(self, take: Take, levels: loudness.LoudnessReport) -> str:
        steps = self.settings.steps or self.model.default_steps(self.settings.sampler)
        parts = [f"seed {self.settings.seed}", f"{steps} {self.settings.sampler} steps"]
        parts += [f"variation {take.variation}"] if take.variation > 1 else []
        parts += [f"guidance {self.settings.guidance_scale:g}"]
        parts += ["silence" if levels.lufs_after is None else f"{levels.lufs_after:.1f} LUFS".replace("-", "−")]
        return " · ".join(parts)

    def _fail(self, clip: Clip, error: Exception) -> None:
        """One line for the person at the keyboard; what is nobody's fault but ours goes to the log in full."""
        if isinstance(error, InputError):
            reason = str(error)
        elif isinstance(error, OSError) and error.strerror:
            reason = f"{clip.label}: {error.filename or 'writing the results'}: {error.strerror}"
        else:
            log.error("%s: unexpected error, please report it", clip.label, exc_info=error)
            reason = f"{clip.label}: unexpected {type(error).__name__}: {error}"
        reason = reason.replace(str(self.folder), str(self.output_dir))
        self._failures.append(Failure(clip.label, reason))
        self.on_failure(self._failures[-1])


@contextmanager
def staging(output_dir: Path) -> Iterator[Path]:
    """A hidden folder in output_dir for unfinished files, gone at the end, however that comes.

    Those of killed processes of this machine are swept first. InputError when output_dir cannot be written.
    """
    host = socket.gethostname()
    folder = output_dir / f"{_STAGING}{host}-{os.getpid()}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for old in output_dir.glob(f"{_STAGING}{host}-*"):
            if old == folder or not _alive(old.name.rsplit("-", 1)[-1]):
                shutil.rmtree(old, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise InputError(f"--output_dir {output_dir}: cannot be written ({error.strerror})") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(take: Take, folder: Path, output_dir: Path) -> None:
    """Old files go first and the new json comes before the others: no json ever stands beside files of another take,
    and by it what a killed run leaves is known as ours and as incomplete."""
    *files, record = zip(take.targets(folder), take.targets(output_dir), strict=True)
    for _, target in files:
        target.unlink(missing_ok=True)
    for made, target in (record, *files):
        os.replace(made, target)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
