"""The feature files of one data set, as preprocessing (or the published set) lays them out, read and checked.

    <video_feat>/<stem>.npy     float32 (S, 512)      what is seen, a row a second
    <video_color>/<stem>.npy    float32 (S, 3072)     colour histograms; whole sets may come without
    <video_info>                {"<stem>.mp4": {"scene_cut": [S of 0/1], "pseudo_beats": [S floats], "duration": s}}
                                ("duration" is ours and optional: else a clip is as long as it has rows)
    features.json               beside them: which code and which encoder made them

Files belong together by stem, never by position (as released: by position, so that one set without colour shifted the
colours of all others). Whatever does not fit is an `InputError` of one line that names clip and file.
"""

import json
import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import parse_npy
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.features.video_features import COLOR_DIM, SEMANTIC_DIM, SLIVER, VideoFeatures
from diff_v2m.media import AUDIO_SUFFIXES

log = logging.getLogger(__name__)


class FeatureFolder:
    """One entry of a dataset JSON. Raises InputError at once where the set as a whole is unusable."""

    def __init__(self, entry: DatasetEntry, *, encoder: str | None = None, with_color: bool = True) -> None:
        """encoder: what the model expects to have made the semantics (None: any); with_color: read colour if given."""
        self.entry = entry
        self.semantic_files = files_by_stem(entry.video_feat, (".npy",), f"{entry.id}: video_feat")
        self.color_files: dict[str, Path] | None = None
        if with_color and entry.video_color is not None:
            self.color_files = files_by_stem(entry.video_color, (".npy",), f"{entry.id}: video_color")
        self.info = _read_info(entry)
        self.encoder = _check_stamp(entry, encoder)

    @property
    def stems(self) -> list[str]:
        """Clips of the set, sorted: those that have features, and those that should, of which `read` says so.

        A soundtrack or a video should have features; an entry of the info file only where neither folder exists,
        since splits of a collection may share one info file.
        """
        companions = [
            path.stem
            for folder, suffixes in ((self.entry.path, AUDIO_SUFFIXES), (self.entry.video, (".mp4",)))
            if folder is not None and folder.is_dir()
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        ]
        return sorted(set(self.semantic_files).union(companions or self.info))

    def read(self, stem: str) -> VideoFeatures:
        """The whole clip, all streams cut to the shortest (they may differ by a row). `color` is None without colour.

        Raises InputError for a file that is missing or unreadable, has another shape, holds NaN, or is of another
        length than the semantics.
        """
        clip = f"{self.entry.id}: clip {stem}"
        semantic = _read_array(self.semantic_files.get(stem), SEMANTIC_DIM, clip, self.entry.video_feat, "video_feat")
        streams = {"semantic": semantic}
        if self.color_files is not None:
            path = self.color_files.get(stem)
            streams["color"] = _read_array(path, COLOR_DIM, clip, self.entry.video_color, "video_color")
        streams |= self._read_seconds(stem, clip)

        for name, values in streams.items():
            if abs(len(values) - len(semantic)) > 1 or len(values) == 0:
                raise InputError(
                    f"{clip}: {len(values)} rows of {name}, {len(semantic)} of semantics; expected one a second "
                    "in both; extract the features again"
                )
        rows = min(map(len, streams.values()))
        streams = {name: values[:rows] for name, values in streams.items()}
        duration = self.info[stem].get("duration", rows)
        if not isinstance(duration, int | float) or not duration > 0:
            raise InputError(f"{clip}: {self.entry.video_info}: duration is {duration!r}, expected seconds")
        return VideoFeatures(**({"color": None} | streams), duration=min(float(duration), rows + SLIVER))

    def files(self, stem: str) -> list[Path]:
        """Those that hold the clip's features, the info file aside."""
        return [files[stem] for files in (self.semantic_files, self.color_files) if files and stem in files]

    def _read_seconds(self, stem: str, clip: str) -> dict[str, np.ndarray]:
        """scene_cut (S,) int64 and pseudo_beats (S,) f32 from the info file."""
        where = f"{clip}: {self.entry.video_info}"
        if stem not in self.info:
            raise InputError(f"{where} has no entry {stem}.mp4; extract the features again")
        values = {}
        for key in ("scene_cut", "pseudo_beats"):
            try:
                values[key] = np.asarray(self.info[stem][key], dtype=np.float32)
            except KeyError:
                raise InputError(f"{where}: entry {stem}.mp4 has no {key}; extract the features again") from None
            except (TypeError, ValueError):
                raise InputError(f"{where}: {key} of {stem}.mp4 is not a list of numbers") from None
            if values[key].ndim != 1 or not np.isfinite(values[key]).all():
                raise InputError(f"{where}: {key} of {stem}.mp4 is not a list of finite numbers, one a second")
        if not np.isin(values["scene_cut"], (0, 1)).all():
            raise InputError(f"{where}: scene_cut of {stem}.mp4 holds something other than 0 and 1")
        return values | {"scene_cut": values["scene_cut"].astype(np.int64)}


def load_features(
    config: DatasetConfig, model_config: ModelConfig | None = None
) -> Iterator[tuple[DatasetEntry, str, VideoFeatures | InputError]]:
    """Every clip of a dataset JSON, without its audio: (entry, stem, features).

    In place of features comes the InputError that says why there are none, so that one bad clip never stops the rest;
    a set unusable as a whole gives one such triple, with its id for a stem. A wav or mp4 whose features are missing
    is reported too, as is an info entry where neither folder exists. model_config: refuse features that it was not
    made for, and leave out colour that it would not use.
    """
    for entry in config.datasets:
        try:
            folder = open_folder(entry, config, model_config)
            stems = folder.stems
        except InputError as error:
            yield entry, entry.id, error
            continue
        for stem in stems:
            try:
                yield entry, stem, folder.read(stem)
            except InputError as error:
                yield entry, stem, error


def open_folder(entry: DatasetEntry, config: DatasetConfig, model_config: ModelConfig | None) -> FeatureFolder:
    """One entry of `config`, with the streams and the encoder that the model asks for (None: all, any).

    Corrected: a set without colour among others that have it is an error; as released, it shifted their colours.
    """
    with_color = model_config is None or model_config.model.diffusion.uses_color
    if with_color and entry.video_color is None and any(other.video_color for other in config.datasets):
        raise InputError(f"{entry.id}: no video_color, but other data sets of the file have it: give all or none")
    return FeatureFolder(entry, encoder=expected_encoder(model_config), with_color=with_color)


def expected_encoder(model_config: ModelConfig | None) -> str | None:
    """The name of the semantic encoder whose rows the model takes; None: any."""
    return None if model_config is None else model_config.model.conditioning["semantic"].config.encoder


def files_by_stem(folder: Path, suffixes: tuple[str, ...], where: str) -> dict[str, Path]:
    """Files of a folder by stem, sorted. InputError: no such folder, none of these files, or two of one stem."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except OSError as error:
        raise InputError(f"{where}: cannot list the folder {folder} ({error.strerror})") from None
    found: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{where}: clip {path.stem} twice: {found[path.stem].name} and {path.name}; remove one")
        found[path.stem] = path
    if not found:
        raise InputError(f"{where}: no {' '.join(suffixes)} files in {folder}")
    return found


def _read_info(entry: DatasetEntry) -> dict[str, dict]:
    """The info file by stem."""
    where = f"{entry.id}: video_info: {entry.video_info}"
    try:
        data = json.loads(entry.video_info.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error})") from None
    if not isinstance(data, dict) or not all(isinstance(value, dict) for value in data.values()):
        raise InputError(f'{where}: expected {{"<stem>.mp4": {{"scene_cut": […], "pseudo_beats": […]}}, …}}')
    info: dict[str, dict] = {}
    for name, value in data.items():
        stem = Path(name).stem
        if stem in info:
            raise InputError(f"{where}: two entries for clip {stem}; remove one")
        info[stem] = value
    return info


def _check_stamp(entry: DatasetEntry, encoder: str | None) -> str | None:
    """Who made the features, if that is known. Refuse those that other code or another encoder made: they look alike
    and mean something else."""
    path = entry.video_feat.parent / "features.json"
    if not path.exists():
        _warn_unstamped(entry.id, path)
        return None
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        version, made_by = stamp["feature_version"], str(stamp["encoder"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{entry.id}: {path} lacks feature_version or encoder; extract the features again") from None
    if version != FEATURE_VERSION:
        raise InputError(
            f"{entry.id}: {path}: features of version {version}, this code makes version {FEATURE_VERSION}; "
            "extract them again"
        )
    if encoder is not None and made_by.rsplit("/", 1)[-1] != encoder:
        raise InputError(
            f"{entry.id}: {path}: semantics made by {made_by}, the model expects {encoder}; "
            "extract them again with it, or choose the model they were made for"
        )
    return made_by


@lru_cache  # a set may be opened several times in one run: say it once
def _warn_unstamped(id: str, path: Path) -> None:
    log.warning("%s: no %s, so nothing tells which code and encoder made its features", id, path)


def _read_array(path: Path | None, width: int, clip: str, folder: Path, key: str) -> np.ndarray:
    """(S, width) f32, finite, S ≥ 1."""
    if path is None:
        raise InputError(f"{clip}: no {key} file for it in {folder}; extract the features again or remove the clip")
    try:
        array = parse_npy(path.read_bytes())
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{clip}: {path} cannot be read as npy ({error})".splitlines()[0]) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != width or len(array) == 0:
        shape = getattr(array, "shape", "several arrays")
        raise InputError(f"{clip}: {path} has shape {shape}, expected (seconds, {width})")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{clip}: {path} holds {array.dtype}, expected float32")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        row = int(np.nonzero(~np.isfinite(array).all(axis=1))[0][0])
        raise InputError(f"{clip}: {path} holds NaN or infinity (first in row {row}); extract the features again")
    return array
