"""The clips of one folder set: which soundtracks, or latents encoded of them, go with which features.

With `latents` in the dataset JSON nothing else is listened to: a soundtrack is opened only to say why it was never
encoded, and the folder of them may be gone.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.data.crops import Clip, ClipContent
from diff_v2m.data.feature_store import FeatureFolder, files_by_stem, open_folder
from diff_v2m.data.latent_store import Encodings, Stamp, check_stamp
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.media import AUDIO_SUFFIXES, audio_duration, read_audio

log = logging.getLogger(__name__)

SILENCE = 1e-3  # peak below −60 dBFS over the whole clip: nothing to learn from, as released
PROBE_SECONDS = 0.1  # of the middle; only where that is silent the whole file is read
SCAN_THREADS = 8


@dataclass(frozen=True)
class LeftOut:
    """Why a clip cannot be trained on, though nothing is wrong with its features."""

    reason: str
    silent: bool = False


Inspected = tuple[str, Clip | LeftOut | InputError]  # a clip's stem, and the clip or what is wrong with it


def sorted_out(inspected: Iterable[Inspected]) -> tuple[list[Clip], dict[str, LeftOut], dict[str, InputError]]:
    """The clips that can be trained on; by stem, those that are left out and those that are broken."""
    by_stem = dict(inspected)
    clips = [what for what in by_stem.values() if isinstance(what, Clip)]
    left_out = {stem: what for stem, what in by_stem.items() if isinstance(what, LeftOut)}
    return clips, left_out, {stem: what for stem, what in by_stem.items() if isinstance(what, InputError)}


@dataclass(frozen=True)
class FolderClip(Clip):
    """A clip of a folder set."""

    folder: FeatureFolder
    audio: Path | None
    latents: Path | None

    @property
    def source(self) -> str:
        return str(self.audio or self.latents)

    def open(self) -> ClipContent:
        sound = None if self.audio is None else partial(read_audio, self.audio)
        encodings = None if self.latents is None else Encodings.open(self.latents)
        return ClipContent(self.folder.read(self.stem), sound, encodings)


class SoundtrackFolder:
    """One entry of a dataset JSON with what training needs. InputError at once where the set as a whole is unusable."""

    def __init__(self, folder: FeatureFolder, config: ModelConfig):
        self.folder, self.entry, self.config = folder, folder.entry, config
        if self.entry.path is None and self.entry.latents is None:
            raise InputError(f"{self.entry.id}: path: training needs the folder of soundtracks, or `latents`")

    @property
    def custom_metadata(self) -> Path | None:
        return self.entry.custom_metadata_module

    @property
    def with_color(self) -> bool:
        return self.folder.color_files is not None

    @property
    def stems(self) -> list[str]:
        return self.folder.stems

    def read(self, stem: str) -> VideoFeatures:
        return self.folder.read(stem)

    def class_label(self, stem: str) -> int:
        return self.entry.class_label

    def film(self, stem: str) -> Path | None:
        """Its picture, where the set has one."""
        path = self.entry.video / f"{stem}.mp4" if self.entry.video else None
        return path if path and path.is_file() else None

    def sound(self, stem: str) -> Path | None:
        """Its soundtrack, where that is still there."""
        paths = (self.entry.path / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES) if self.entry.path else ()
        return next((path for path in paths if path.is_file()), None)

    @cached_property
    def audio(self) -> dict[str, Path]:
        """Soundtracks by stem."""
        entry = self.entry
        return {} if entry.path is None else files_by_stem(entry.path, AUDIO_SUFFIXES, f"{entry.id}: path")

    @cached_property
    def latents(self) -> dict[str, Path]:
        """What was encoded of them."""
        where = f"{self.entry.id}: latents (made by python -m diff_v2m.preprocess latents)"
        return {} if self.entry.latents is None else files_by_stem(self.entry.latents, (".safetensors",), where)

    @cached_property
    def candidates(self) -> list[str]:
        """Stems of all clips that might be trained on, sorted. InputError if none has features."""
        audio, latents = self.audio, self.latents
        stems = sorted(audio or latents)
        _report_unused(self.entry, self.folder, stems)
        return stems

    def scan(self, stems: Sequence[str] | None = None) -> Iterator[Inspected]:
        """These clips, by default all: the clip, why its sound is left out, or the error that it has.

        Reads every feature file once, and a tenth of a second of every soundtrack that is to be heard.
        """
        stems = self.candidates if stems is None else stems
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            results = pool.map(self._inspect, stems)
            yield from tqdm(results, total=len(stems), desc=f"checking {self.entry.id}", unit="clip", delay=2)

    def _inspect(self, stem: str) -> Inspected:
        sound, encoded, label = self.audio.get(stem), self.latents.get(stem), f"{self.entry.id}: clip {stem}"
        try:
            rows, stamp = len(self.folder.read(stem).semantic), None
            if encoded is not None:
                stamp = Stamp.read(encoded)
                check_stamp(stamp, self.config, f"{label}: {encoded}", rows, sound)
        except InputError as error:
            return stem, error
        clip = partial(FolderClip, self.entry.id, stem, self.entry.class_label, folder=self.folder)
        if stamp is not None:
            return stem, clip(stamp.audio_seconds, rows, stamp.made, audio=None, latents=encoded)
        try:
            seconds = audio_duration(sound)
            if _is_silent(sound, seconds, self.config):
                return stem, LeftOut(f"{sound} is silent", silent=True)
        except InputError as error:
            return stem, LeftOut(str(error))
        if self.entry.latents is not None:
            return stem, InputError(f"{label}: no latents file for it in {self.entry.latents}; encode the set again")
        return stem, clip(seconds, rows, None, audio=sound, latents=None)


def open_soundtracks(entry: DatasetEntry, config: DatasetConfig, model_config: ModelConfig) -> SoundtrackFolder:
    return SoundtrackFolder(open_folder(entry, config, model_config), model_config)


def without_latents(entry: DatasetEntry) -> DatasetEntry:
    """The set as it is before anything of it is encoded."""
    return entry.model_copy(update={"latents": None})


def _is_silent(path: Path, seconds: float, config: ModelConfig) -> bool:
    read = partial(read_audio, path, config.sample_rate, config.audio_channels)
    middle = max(0.0, (seconds - PROBE_SECONDS) / 2)
    return not (np.abs(read(middle, PROBE_SECONDS)) >= SILENCE).any() and not (np.abs(read()) >= SILENCE).any()


def _report_unused(entry: DatasetEntry, folder: FeatureFolder, stems: list[str]) -> None:
    """Features without a soundtrack are no error: splits of a collection may share one feature folder."""
    unused = sorted(set(folder.semantic_files) - set(stems))
    if len(unused) == len(folder.semantic_files):
        raise InputError(
            f"{entry.id}: no stem in {entry.path or entry.latents} matches one in {entry.video_feat} "
            f"(for example {stems[0]} and {unused[0]}); expected <stem>.wav and <stem>.npy"
        )
    if unused:
        log.warning("%s: %d clips have features but no soundtrack, %s first", entry.id, len(unused), unused[0])
