"""A data set of folders: clips with features and a soundtrack, or precomputed latents instead of the soundtrack.

With `latents` in the dataset JSON, a soundtrack is opened only if its latents are missing, to report why. The folder
of soundtracks may be missing.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import in_stage
from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.data.crops import Clip, ClipContent
from diff_v2m.data.feature_store import FeatureFolder, files_by_stem, streams_for
from diff_v2m.data.latent_store import Encodings, Provenance, check_provenance
from diff_v2m.data.sources import read_score, source_of
from diff_v2m.media import AUDIO_SUFFIXES

log = logging.getLogger(__name__)

SCAN_THREADS = 8


@dataclass(frozen=True)
class Skipped:
    """Why a clip with valid features cannot be trained on."""

    reason: str
    silent: bool = False


Inspected = tuple[str, Clip | Skipped | InputError]  # a clip's stem, and the clip or why it cannot be used


def by_outcome(inspected: Iterable[Inspected]) -> tuple[list[Any], dict[str, Skipped], dict[str, InputError]]:
    """The usable clips, and by stem the skipped and the broken ones."""
    found = dict(inspected)
    clips = [what for what in found.values() if isinstance(what, Clip)]
    skipped = {stem: what for stem, what in found.items() if isinstance(what, Skipped)}
    return clips, skipped, {stem: what for stem, what in found.items() if isinstance(what, InputError)}


@dataclass(frozen=True)
class FolderClip(Clip):
    """A clip of a `SoundtrackFolder`."""

    folder: "SoundtrackFolder"
    audio: Path | None
    latents: Path | None
    score: Path | None = None

    @property
    def source(self) -> str:
        return str(self.audio or self.latents)

    def open(self) -> ClipContent:
        reader = None if self.audio is None else self.folder.source.audio_reader(self.audio)
        encodings = None if self.latents is None else Encodings.open(self.latents)
        score = None if self.score is None else read_score(self.score)
        return ClipContent(self.folder.read(self.stem), reader, encodings, self.audio, score)


class SoundtrackFolder(FeatureFolder):
    """Features with soundtracks or latents. Raises InputError if the set as a whole is unusable."""

    def __init__(self, entry: DatasetEntry, dataset: DatasetConfig, config: ModelConfig):
        super().__init__(entry, **streams_for(entry, dataset, config))
        self.config, self.source = config, source_of(config)
        if entry.path is None and entry.latents is None:
            raise InputError(f"{entry.id}: path: training needs the folder of soundtracks, or `latents`")

    @property
    def custom_metadata(self) -> Path | None:
        return self.entry.custom_metadata_module

    @property
    def with_color(self) -> bool:
        return self.color_files is not None

    def class_label(self, stem: str) -> int:
        return self.entry.class_label

    def video_path(self, stem: str) -> Path | None:
        """The clip's video file, if there is one."""
        path = self.entry.video / f"{stem}.mp4" if self.entry.video else None
        return path if path and path.is_file() else None

    def audio_path(self, stem: str) -> Path | None:
        """The clip's soundtrack, if it exists."""
        paths = (self.entry.path / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES) if self.entry.path else ()
        return next((path for path in paths if path.is_file()), None)

    @cached_property
    def audio_files(self) -> dict[str, Path]:
        """What the pretransform encodes, by stem: soundtracks or MIDI files."""
        entry = self.entry
        return {} if entry.path is None else files_by_stem(entry.path, self.source.suffixes, f"{entry.id}: path")

    @cached_property
    def latents_files(self) -> dict[str, Path]:
        """Latents by stem."""
        where = f"{self.entry.id}: latents (made by python -m diff_v2m.preprocess latents)"
        return {} if self.entry.latents is None else files_by_stem(self.entry.latents, (".safetensors",), where)

    @cached_property
    def candidates(self) -> list[str]:
        """Stems of all clips with audio or latents, sorted. InputError if none of them has features."""
        audio, latents = self.audio_files, self.latents_files
        stems = sorted(audio or latents)
        self._report_unused(stems)
        return stems

    def scan(self, stems: Sequence[str] | None = None) -> Iterator[Inspected]:
        """Check these clips (default: all): the clip, why it is skipped, or its error.

        Reads every feature file once, and a tenth of a second of every soundtrack that is used.
        """
        stems = self.candidates if stems is None else stems
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            results = pool.map(self._inspect, stems)
            yield from in_stage(results, f"checking {self.entry.id}", "clip", len(stems))

    def _inspect(self, stem: str) -> Inspected:
        audio, latents = self.audio_files.get(stem), self.latents_files.get(stem)
        label, provenance = f"{self.entry.id}: clip {stem}", None
        try:
            seconds = len(self.read(stem))
            if latents is not None:
                provenance = Provenance.read(latents)
                check_provenance(provenance, self.config, f"{label}: {latents}", seconds, audio)
        except InputError as error:
            return stem, error
        score = None
        if self.entry.scores is not None and self.config.model.diffusion.uses_grid:
            score = self.entry.scores / f"{stem}.mid"
            if not score.is_file():
                return stem, InputError(f"{label}: no score {score}; write it, or remove the clip")
        clip = partial(FolderClip, self.entry.id, stem, self.entry.class_label, folder=self, score=score)
        if provenance is not None:
            return stem, clip(provenance.audio_seconds, seconds, provenance.made, audio=None, latents=latents)
        try:
            audio_seconds = self.source.seconds(audio)
            if self.source.is_silent(audio, audio_seconds, self.config):
                return stem, Skipped(f"{audio} is silent", silent=True)
        except InputError as error:
            return stem, Skipped(str(error))
        if self.entry.latents is not None:
            return stem, InputError(f"{label}: no latents file for it in {self.entry.latents}; encode the set again")
        return stem, clip(audio_seconds, seconds, None, audio=audio, latents=None)

    def _report_unused(self, stems: list[str]) -> None:
        """Warn of features without a soundtrack. It is no error: splits of a collection may share a folder."""
        unused = sorted(set(self.semantic_files) - set(stems))
        if len(unused) == len(self.semantic_files):
            raise InputError(
                f"{self.entry.id}: no stem in {self.entry.path or self.entry.latents} matches one in "
                f"{self.entry.video_feat} (for example {stems[0]} and {unused[0]}); expected <stem>.wav and <stem>.npy"
            )
        if unused:
            log.warning("%s: %d clips have features but no soundtrack, %s first", self.entry.id, len(unused), unused[0])


def without_latents(entry: DatasetEntry) -> DatasetEntry:
    """The entry before its latents are computed."""
    return entry.model_copy(update={"latents": None})
