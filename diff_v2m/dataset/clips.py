"""Training clips: a soundtrack, the features of its picture and the rhythm target, all cut to the same seconds."""

import importlib.util
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.dataset.batches import Item
from diff_v2m.dataset.files import AUDIO_SUFFIXES, FeatureFolder, files_by_stem, open_folder
from diff_v2m.errors import InputError
from diff_v2m.features import VideoFeatures
from diff_v2m.media import audio_duration, read_audio
from diff_v2m.rhythm import rhythm_target, to_mono

log = logging.getLogger(__name__)

SILENCE = 1e-3  # peak below −60 dBFS over the whole clip: nothing to learn from, as released
PROBE_SECONDS = 0.1  # of the middle; only where that is silent the whole file is read
SCAN_THREADS = 8
METADATA_KEYS = ("class", "seconds_start", "seconds_total")  # what get_custom_metadata may change


@dataclass(frozen=True)
class Clip:
    """One clip of one set; lengths in seconds."""

    folder: FeatureFolder
    stem: str
    audio: Path
    latents: Path | None
    audio_seconds: float
    rows: int  # of features

    @property
    def usable_seconds(self) -> float:
        """Where sound and picture both are."""
        return min(self.audio_seconds, float(self.rows))

    @property
    def label(self) -> str:
        """What a message calls this clip."""
        return f"{self.folder.entry.id}: clip {self.stem}"


class AudioVideoDataset(Dataset):
    """The clips of all sets of a dataset JSON; an item is one window of one clip.

    The clips are the files in `path`; features, colour and info are found by stem. Where a clip is longer than the
    window and random_crop is on, the window starts at a random whole second, and audio, features, latents and rhythm
    target all start there (corrected: as released, only the audio was cropped). The rhythm target is that of the
    cropped audio, computed once per clip and start and kept.

    Silent and unreadable soundtracks are left out at the start: counted in the log, listed in `excluded`. One that
    turns out broken only when it is decoded becomes None, which collate leaves out of its batch (logged once).
    Everything else that is wrong with a file raises InputError in the constructor, naming clip and file.
    """

    def __init__(self, config: DatasetConfig, model_config: ModelConfig, *, random_crop: bool | None = None) -> None:
        """random_crop: default, what the dataset JSON says."""
        self.config, self.model_config = config, model_config
        self.random_crop = config.random_crop if random_crop is None else random_crop
        self.excluded: dict[str, str] = {}  # label → reason
        self._broken: set[int] = set()
        self._rhythm: dict[tuple[int, int], Tensor] = {}
        _check_rhythm_type(config, model_config)
        _check_latents_given(config)
        self.clips: list[Clip] = []
        for entry in config.datasets:
            self.clips += self._scan(open_folder(entry, config, model_config))
        if not self.clips:
            reason = next(iter(self.excluded.values()), "no clips found")
            raise InputError(f"nothing to train on in {', '.join(e.id for e in config.datasets)}: {reason}")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Item | None:
        clip = self.clips[index]
        start = self._choose_start(clip)
        # Sample-exact end of the window: the clip's end or the window's, whichever comes first.
        samples = round((clip.usable_seconds - start) * self.model_config.sample_rate)
        samples = min(samples, self.model_config.sample_size)
        rows = math.ceil(samples / self.model_config.sample_rate)
        features = clip.folder.read(clip.stem).slice(start, start + rows)
        audio = None
        if clip.latents is None or self._needs_audio(index, start):
            try:
                audio = self._read_audio(clip, start, samples)
            except InputError as error:
                if index not in self._broken:
                    log.warning("%s is left out: %s", clip.label, error)
                    self._broken.add(index)
                return None
        item = Item(
            name=clip.stem,
            features=features,
            class_label=clip.folder.entry.class_label,
            seconds_start=start,
            seconds_total=math.ceil(clip.audio_seconds),
            rhythm=self._rhythm_of(index, start, None if audio is None else audio[:, :samples], features),
            audio=audio if clip.latents is None else None,
            latents=None if clip.latents is None else self._read_latents(clip, start),
        )
        return _with_custom_metadata(item, clip, self.model_config.sample_rate)

    def _choose_start(self, clip: Clip) -> int:
        """A whole second such that the window fits into the clip; torch's generator, which is seeded per worker."""
        spare = math.floor(clip.usable_seconds - self.model_config.window_seconds + 1e-6)
        if not self.random_crop or spare < 1:
            return 0
        return int(torch.randint(spare + 1, ()))

    def _read_audio(self, clip: Clip, start: int, samples: int) -> Tensor:
        """(channels, sample_size) f32: `samples` of sound from second `start`, then silence."""
        config = self.model_config
        duration = samples / config.sample_rate
        audio = read_audio(clip.audio, config.sample_rate, config.audio_channels, start, duration)[:, :samples]
        window = torch.zeros(config.audio_channels, config.sample_size)
        window[:, : audio.shape[1]] = torch.from_numpy(audio)
        if not torch.isfinite(window).all():
            raise InputError(f"{clip.audio}: holds NaN or infinite samples")
        return window

    def _read_latents(self, clip: Clip, start: int) -> Tensor:
        """(64, N) f32: latent frames of the window; frame floor(start · rate) is its first, zeros follow the last."""
        stored = np.load(clip.latents, mmap_mode="r")
        first, length = math.floor(start * self.model_config.latent_rate), self.model_config.latent_length()
        piece = torch.from_numpy(np.array(stored[:, first : first + length], dtype=np.float32))
        if not torch.isfinite(piece).all():
            raise InputError(f"{clip.latents}: holds NaN or infinity; encode the clip again")
        return torch.nn.functional.pad(piece, (0, length - piece.shape[1]))

    def _needs_audio(self, index: int, start: int) -> bool:
        """Whether the rhythm target of this window is yet to be computed, and from sound."""
        return self.config.rhythm_type != "beat" and (index, start) not in self._rhythm

    def _rhythm_of(self, index: int, start: int, audio: Tensor | None, features: VideoFeatures) -> Tensor:
        """(S, r) f32, S as the features. audio: the sound of the window without padding, where it is needed."""
        if (index, start) not in self._rhythm:
            self._rhythm[index, start] = rhythm_target(
                self.config.rhythm_type,
                None if audio is None else to_mono(audio),
                self.model_config.sample_rate,
                scene_cut=features.scene_cut,
                pseudo_beats=features.pseudo_beats,
            )
        return self._rhythm[index, start]

    def _scan(self, folder: FeatureFolder) -> list[Clip]:
        """The usable clips of one set; reads every feature file once, and a tenth of a second of every soundtrack."""
        entry = folder.entry
        if entry.path is None:
            raise InputError(f"{entry.id}: path: training needs the folder of soundtracks")
        audio = files_by_stem(entry.path, AUDIO_SUFFIXES, f"{entry.id}: path")
        latents = {}
        if entry.latents is not None:
            latents = files_by_stem(entry.latents, (".npy",), f"{entry.id}: latents")
        if entry.custom_metadata_module is not None:
            _metadata_function(entry.custom_metadata_module)
        _report_unused(entry, folder, audio)

        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            results = pool.map(partial(_inspect, folder, latents, self.model_config), audio.items())
            results = list(tqdm(results, total=len(audio), desc=f"checking {entry.id}", unit="clip", delay=2))
        errors = [result for result in results if isinstance(result, InputError)]
        if errors:
            others = f" (and {len(errors) - 1} more clips with errors)" if len(errors) > 1 else ""
            raise InputError(f"{errors[0]}{others}")
        excluded = {f"{entry.id}: clip {stem}": reason for stem, reason in results if isinstance(reason, str)}
        if excluded:
            some = "; ".join(list(excluded.values())[:5]) + ("; …" if len(excluded) > 5 else "")
            log.warning("%s: %d of %d clips are left out: %s", entry.id, len(excluded), len(audio), some)
        self.excluded |= excluded
        return [clip for _, clip in results if isinstance(clip, Clip)]


def _inspect(
    folder: FeatureFolder, latents: dict[str, Path], config: ModelConfig, item: tuple[str, Path]
) -> tuple[str, Clip | str] | InputError:
    """(stem, the clip or why its soundtrack is left out), or the error that ends the run."""
    stem, audio = item
    try:
        rows = len(folder.read(stem).semantic)
        if folder.entry.latents is not None:
            _check_latents(latents.get(stem), f"{folder.entry.id}: clip {stem}", folder.entry.latents, config)
    except InputError as error:
        return error
    try:
        seconds = audio_duration(audio)
        if _is_silent(audio, seconds, config):
            return stem, f"{audio} is silent"
    except InputError as error:
        return stem, str(error)
    return stem, Clip(folder, stem, audio, latents.get(stem), seconds, rows)


def _is_silent(path: Path, seconds: float, config: ModelConfig) -> bool:
    read = partial(read_audio, path, config.sample_rate, config.audio_channels)
    middle = max(0.0, (seconds - PROBE_SECONDS) / 2)
    return not (np.abs(read(middle, PROBE_SECONDS)) >= SILENCE).any() and not (np.abs(read()) >= SILENCE).any()


def _check_latents(path: Path | None, clip: str, folder: Path, config: ModelConfig) -> None:
    if path is None:
        raise InputError(f"{clip}: no latents file for it in {folder}; encode the data set again")
    try:
        shape = np.load(path, mmap_mode="r").shape
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{clip}: {path} cannot be read as npy ({error})".splitlines()[0]) from None
    if len(shape) != 2 or shape[0] != config.latent_channels or shape[1] < 1:
        raise InputError(f"{clip}: {path} has shape {shape}, expected ({config.latent_channels}, latent frames)")


def _check_rhythm_type(config: DatasetConfig, model_config: ModelConfig) -> None:
    expected = model_config.model.conditioning["semantic"].config.rhythm_type
    if config.rhythm_type != expected:
        raise InputError(
            f"rhythm_type: the dataset JSON says {config.rhythm_type}, the model JSON predicts {expected}; "
            "give both the same"
        )


def _check_latents_given(config: DatasetConfig) -> None:
    without = [entry.id for entry in config.datasets if entry.latents is None]
    if without and len(without) < len(config.datasets):
        raise InputError(f"{without[0]}: no latents, but other data sets of the file have them: give all or none")


def _report_unused(entry: DatasetEntry, folder: FeatureFolder, audio: dict[str, Path]) -> None:
    """Features without a soundtrack are no error: splits of a collection may share one feature folder."""
    unused = sorted(set(folder.semantic_files) - set(audio))
    if len(unused) == len(folder.semantic_files):
        raise InputError(
            f"{entry.id}: no stem in {entry.path} matches one in {entry.video_feat} "
            f"(for example {next(iter(audio))} and {unused[0]}); expected <stem>.wav and <stem>.npy"
        )
    if unused:
        log.warning("%s: %d clips have features but no soundtrack, %s first", entry.id, len(unused), unused[0])


# --------------------------------------------------------------------------------------------- custom metadata


def _with_custom_metadata(item: Item, clip: Clip, sample_rate: int) -> Item:
    """The dataset JSON may name a python file whose get_custom_metadata(info, audio) → dict changes an item.

    As released; of what it returns, class, seconds_start and seconds_total count, prompt is ignored (no text here).
    """
    module = clip.folder.entry.custom_metadata_module
    if module is None:
        return item
    info = {
        "path": str(clip.audio), "name": item.name, "sample_rate": sample_rate, "class": item.class_label,
        "seconds_start": item.seconds_start, "seconds_total": item.seconds_total,
    }  # fmt: skip
    changes = _metadata_function(module)(info, item.audio) or {}
    unknown = set(changes) - {*METADATA_KEYS, "prompt"}
    if unknown:
        raise InputError(f"{module}: get_custom_metadata returned {sorted(unknown)}, expected {METADATA_KEYS}")
    item.class_label = int(changes.get("class", item.class_label))
    item.seconds_start = changes.get("seconds_start", item.seconds_start)
    item.seconds_total = changes.get("seconds_total", item.seconds_total)
    return item


@lru_cache
def _metadata_function(path: Path) -> Callable[[dict, Tensor | None], dict]:
    try:
        spec = importlib.util.spec_from_file_location("custom_metadata", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_custom_metadata
    except Exception as error:  # whatever the user's file raises
        raise InputError(f"custom_metadata_module: {path}: no get_custom_metadata can be loaded ({error})") from error


