"""Feature files of one data set, read and checked. Preprocessing and the published data set use the same layout.

    <video_feat>/<stem>.npy     float32 (S, 512)      CLIP embeddings, one per second
    <video_color>/<stem>.npy    float32 (S, 3072)     colour histograms; a whole set may lack them
    <video_info>                {"<stem>.mp4": {"scene_cut": [S of 0/1], "pseudo_beats": [S floats], "duration": s}}
                                ("duration" is ours and optional; default: S.
                                                 Ours, and needed for more than one row a second only, are also
                                                 "cut_times": [k seconds], "motion_peaks": [m of [second, height]],
                                                 "motion": [S * 8 floats])
    features.json               feature version and encoder

Files are matched by stem. Corrected: as released, they are matched by position, so one set without colour shifts the
colours of all others. Any mismatch raises an InputError that names clip and file.
"""

import json
import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import parse_npy
from diff_v2m.common.versions import FEATURE_VERSION, READABLE_FEATURES
from diff_v2m.config import DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.features.semantic import encoder_name
from diff_v2m.features.video_features import COLOR_DIM, MOTION_ROWS, SEMANTIC_DIM, SLIVER, VideoFeatures
from diff_v2m.media import AUDIO_SUFFIXES

log = logging.getLogger(__name__)


class FeatureFolder:
    """The features of one entry of a dataset JSON. Raises InputError if the set as a whole is unusable."""

    def __init__(self, entry: DatasetEntry, *, encoder: str | None = None, with_color: bool = True) -> None:
        """encoder: the encoder that must have made the semantics (None: any); with_color: read colour if there is."""
        self.entry = entry
        self.semantic_files = files_by_stem(entry.video_feat, (".npy",), f"{entry.id}: video_feat")
        self.color_files: dict[str, Path] | None = None
        if with_color and entry.video_color is not None:
            self.color_files = files_by_stem(entry.video_color, (".npy",), f"{entry.id}: video_color")
        self.info = _read_info(entry)
        self.encoder, self.feature_version = _check_provenance(entry, encoder)  # None: unknown

    @property
    def stems(self) -> list[str]:
        """Clips of the set, sorted: those with features, and those whose features are missing, for which `read` raises.

        Every soundtrack and video must have features. An entry of the info file counts only if neither folder exists,
        because splits of a collection may share one info file.
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
        """Features of the whole clip, cut to the shortest stream; streams may differ by one second.

        Raises InputError for a file that is missing or unreadable, has another shape, holds NaN, or differs in length
        from the semantics.
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
                    f"{clip}: {len(values)} seconds of {name}, {len(semantic)} of semantics; expected equal "
                    "lengths; extract the features again"
                )
        seconds = min(map(len, streams.values()))
        streams = {name: values[:seconds] for name, values in streams.items()}
        duration = self.info[stem].get("duration", seconds)
        if not isinstance(duration, int | float) or not duration > 0:
            raise InputError(f"{clip}: {self.entry.video_info}: duration is {duration!r}, expected seconds")
        trimmed = len(self.info[stem]["scene_cut"]) > seconds
        times = exact_times(self.info[stem], seconds, f"{clip}: {self.entry.video_info}", trimmed=trimmed)
        duration = min(float(duration), seconds + SLIVER)
        return VideoFeatures(**({"color": None} | streams), duration=duration, **times)

    def files(self, stem: str) -> list[Path]:
        """The clip's feature files, without the info file."""
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
                raise InputError(f"{where}: {key} of {stem}.mp4 is not a list of finite numbers, one per second")
        if not np.isin(values["scene_cut"], (0, 1)).all():
            raise InputError(f"{where}: scene_cut of {stem}.mp4 holds something other than 0 and 1")
        return values | {"scene_cut": values["scene_cut"].astype(np.int64)}


def exact_times(entry: dict, seconds: int, where: str, *, trimmed: bool = False) -> dict[str, np.ndarray]:
    """`cut_times` (k,), `motion_peaks` (m, 2) and `motion` (S · 8,) of an entry of the info file; {} if it has none.

    trimmed: the entry has more seconds than these; what lies after them is dropped.
    """
    if "cut_times" not in entry:
        return {}
    try:
        cuts = np.asarray(entry["cut_times"], float).reshape(-1)
        peaks = np.asarray(entry["motion_peaks"], float).reshape(-1, 2)
        motion = np.asarray(entry["motion"], np.float32).reshape(-1)[: seconds * MOTION_ROWS]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{where}: cut_times, motion_peaks or motion are no lists of numbers; extract them again"
        ) from None
    if not all(np.isfinite(values).all() for values in (cuts, peaks, motion)) or len(motion) < seconds * MOTION_ROWS:
        raise InputError(
            f"{where}: expected cut_times [k], motion_peaks [m of 2] and motion [{seconds * MOTION_ROWS}], finite "
            "numbers; extract the features again"
        )
    if trimmed:
        cuts, peaks = cuts[cuts < seconds], peaks[peaks[:, 0] < seconds]
    return {"cut_times": cuts, "motion_peaks": peaks, "motion": motion}


def load_features(
    config: DatasetConfig, model_config: ModelConfig | None = None
) -> Iterator[tuple[DatasetEntry, str, VideoFeatures | InputError]]:
    """Every clip of a dataset JSON, without its audio: (entry, stem, features).

    A clip that cannot be read gives its InputError in place of features. A set that is unusable as a whole gives one
    such triple, with its id as stem. model_config: refuse features of another encoder, and skip colour that the model
    does not use.
    """
    for entry in config.datasets:
        try:
            folder = FeatureFolder(entry, **streams_for(entry, config, model_config))
            stems = folder.stems
        except InputError as error:
            yield entry, entry.id, error
            continue
        for stem in stems:
            try:
                yield entry, stem, folder.read(stem)
            except InputError as error:
                yield entry, stem, error


def streams_for(entry: DatasetEntry, config: DatasetConfig, model_config: ModelConfig | None) -> dict[str, Any]:
    """Arguments of `FeatureFolder`: the encoder that the model asks for (None: any), and whether it uses colour.

    Corrected: a set without colour among others that have it is an error; as released, it shifts their colours.
    """
    with_color = model_config is None or model_config.model.diffusion.uses_color
    if with_color and entry.video_color is None and any(other.video_color for other in config.datasets):
        raise InputError(f"{entry.id}: no video_color, but other data sets of the file have it: give all or none")
    return {"encoder": expected_encoder(model_config), "with_color": with_color}


def expected_encoder(model_config: ModelConfig | None) -> str | None:
    """Name of the semantic encoder that the model was trained with; None: any."""
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


def _check_provenance(entry: DatasetEntry, encoder: str | None) -> tuple[str | None, int | None]:
    """Encoder and version of the features; None: unknown. InputError for another feature version or encoder."""
    path = entry.video_feat.parent / "features.json"
    if not path.exists():
        _warn_unknown(entry.id, path)
        return None, None
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
        version, made_by = provenance["feature_version"], str(provenance["encoder"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{entry.id}: {path} lacks feature_version or encoder; extract the features again") from None
    if version not in READABLE_FEATURES:
        raise InputError(
            f"{entry.id}: {path}: features of version {version}, this code makes version {FEATURE_VERSION}; "
            "extract them again"
        )
    if version != FEATURE_VERSION:
        warn_older(entry.id, path)
    if encoder is not None and encoder_name(made_by) != encoder:
        raise InputError(
            f"{entry.id}: {path}: semantics made by {made_by}, the model expects {encoder}; "
            "extract them again with it, or choose the model they were made for"
        )
    return made_by, version


@lru_cache  # warn once, although a run may open a set several times
def _warn_unknown(id: str, path: Path) -> None:
    log.warning("%s: no %s; the code and encoder that made its features are unknown", id, path)


@lru_cache
def warn_older(id: str, where: Path | str) -> None:
    """One line about features of version 1, which are still read."""
    log.warning(
        "%s: %s: features of version 1; extract them again if the set has HDR, wide-gamut or mirrored videos, or some "
        "whose pixels are not square; they are the same for other videos",
        id,
        where,
    )


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
