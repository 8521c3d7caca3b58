"""Videos → a folder of clips with their features: `python -m diff_v2m.preprocess clips VIDEO ... --output DIR`.

    DIR/clip/<clip>.npy   (S, 512) float32     DIR/wav/<clip>.wav     audio of the clip, if it has any
    DIR/color/<clip>.npy  (S, 3072) float32    DIR/video/<clip>.mp4   its picture
    DIR/videoInfo_30.json {"<clip>.mp4": {"scene_cut", "pseudo_beats", "duration"}}
    DIR/dataset.json      for --dataset-config
    DIR/features.json     provenance: versions and settings that all clips share
    DIR/done/<clip>.json  completion record, written last; videoInfo_30.json is merged from these

A clip is called <source>_<segment>. Several processes may work on one DIR (`--part`): each writes its own clips, and
the last to end merges the records of all.
"""

import argparse
import contextlib
import itertools
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diff_v2m.common import cli
from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_json
from diff_v2m.common.stopping import check_not_stopped
from diff_v2m.config import MAX_SECONDS
from diff_v2m.generation.inputs import Clip, Failure, collect, real_path

if TYPE_CHECKING:  # takes seconds to import; --help does without
    from diff_v2m.features.semantic import SemanticEncoder

log = logging.getLogger(__name__)

SUFFIXES = {"done": ".json", "clip": ".npy", "color": ".npy", "video": ".mp4", "wav": ".wav"}  # done: removed first
RECORD_KEYS = {"source", "bytes", "start", "stop", "has_sound", "info"}

SUMMARY = "cut videos into clips and extract their features"
DESCRIPTION = "Cut videos into clips and extract the features that training and inference read."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files, or folders of them")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for the clips",
    )
    parser.add_argument(
        "--encoder",
        default="clip",
        help="semantic features: clip (default), imagenet (a Python package brings it), hog (what saved_model/tiny "
        "uses), or a folder with a CLIP model",
    )
    parser.add_argument(
        "--segment-seconds",
        type=cli.whole_number(1, MAX_SECONDS),
        default=MAX_SECONDS,
        metavar="N",
        help=f"length of a clip, 1 to {MAX_SECONDS} (default); the last one of a video may be shorter",
    )
    parser.add_argument(
        "--sample-rate",
        type=cli.whole_number(1),
        default=44100,
        metavar="HZ",
        help="sample rate of the wav files (default 44100)",
    )
    parser.add_argument(
        "--class-label",
        type=int,
        choices=(0, 1, 2),
        default=2,
        help="kind of video (default: 2, music videos and background music)",
    )
    cli.add_part(parser, of="source")
    parser.add_argument("--overwrite", action="store_true", help="make complete clips again")
    parser.add_argument(
        "--device", default="auto", help="device of the encoder: auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )


@dataclass(frozen=True)
class Segment:
    """One clip to make: seconds [start, stop) of a source."""

    name: str
    source: Path
    start: float
    stop: float
    has_audio: bool

    @property
    def origin(self) -> dict:
        """Part of the completion record that identifies the segment."""
        return {"source": str(self.source), "bytes": self.source.stat().st_size, "start": self.start, "stop": self.stop}


def run(options: argparse.Namespace) -> list[Failure]:
    """Cut the sources and extract features. Returns the failures. Raises InputError if nothing can be done."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    pick_device(options.device)  # before the folder is claimed and a video is read
    folder = FeatureFolderWriter(options.output, options.encoder, options.segment_seconds, options.sample_rate)
    folder.claim()
    clips, failures = collect(options.videos, None, options.output)
    clips = [clip for clip in clips if options.output.resolve() not in real_path(clip.video).parents]
    clips = options.part.of(clips)
    encoder = None
    try:
        with logging_redirect_tqdm(), tqdm(clips, unit="video", disable=None) as bar:
            for clip in bar:
                bar.set_postfix_str(clip.output_name)
                try:
                    segments = folder.missing(clip, overwrite=options.overwrite)
                except Exception as error:
                    failures.append(_failure(clip, error))
                    continue
                if segments and encoder is None:  # an error here ends the run: no clip can be made
                    encoder = _build(options)
                for segment in segments:
                    try:
                        folder.write(segment, encoder)
                    except Exception as error:
                        failures.append(_failure(clip, error))
    finally:  # also when interrupted: complete clips are usable
        total = folder.merge_records(options.class_label)
    log.info("%s: holds %d clips; this run processed %d sources", options.output, total, len(clips))
    return failures


def _build(options: argparse.Namespace) -> "SemanticEncoder":
    from diff_v2m.features.semantic import build_encoder

    try:
        return build_encoder(options.encoder, options.device)
    except InputError as error:
        advice = "; or choose --encoder hog, which needs no download" if options.encoder == "clip" else ""
        raise InputError(f"{error}{advice}") from error


def _failure(clip: Clip, error: Exception) -> Failure:
    """An error other than InputError is a defect of this code: its traceback is logged.

    Raises KeyboardInterrupt after a stop signal, see `check_not_stopped`.
    """
    check_not_stopped()
    if isinstance(error, InputError):
        return Failure(clip.label, str(error))
    log.error("%s: unexpected error, please report it", clip.label, exc_info=error)
    return Failure(clip.label, f"unexpected {type(error).__name__}: {error}")


class FeatureFolderWriter:
    """Writes the folder described at the top of this file."""

    def __init__(self, root: Path, encoder: str, segment_seconds: int, sample_rate: int):
        from diff_v2m.common.versions import FEATURE_VERSION
        from diff_v2m.features.semantic import encoder_identity

        self.root, self.segment_seconds, self.sample_rate = root, segment_seconds, sample_rate
        self.provenance = {
            "feature_version": FEATURE_VERSION,
            "encoder": encoder_identity(encoder),
            "segment_seconds": segment_seconds,
            "sample_rate": sample_rate,
        }
        self.records = _read_records(root / "done")
        self.names = {record["source"]: clip.rpartition("_")[0] for clip, record in self.records.items()}

    def claim(self) -> None:
        """Write features.json into a folder without clips. Raises InputError if it has clips of another provenance."""
        path = self.root / "features.json"
        if not any((self.root / "clip").glob("*.npy")):
            write_json(path, self.provenance)
            return
        if not path.exists():
            raise InputError(
                f"{self.root}: holds features but no features.json that says how they were made; "
                "choose another --output"
            )
        old = _read_json(path)
        differing = [f"{key} {old.get(key)}, now {new}" for key, new in self.provenance.items() if old.get(key) != new]
        if differing:
            raise InputError(f"{self.root}: made with {', '.join(differing)}; choose another --output or delete it")

    def missing(self, clip: Clip, overwrite: bool) -> list[Segment]:
        """Segments of the source that are not complete. Raises InputError if it is no video or its name is taken."""
        from diff_v2m import media
        from diff_v2m.features.video_features import SLIVER

        source, info = real_path(clip.video), media.probe(clip.video)
        name = self.names.get(str(source), clip.output_name)
        count = max(1, math.ceil((info.duration - SLIVER) / self.segment_seconds))
        edges = [*(n * self.segment_seconds for n in range(count)), info.duration]
        edges[-1] = min(info.duration, count * self.segment_seconds)
        segments = [
            Segment(f"{name}_{n}", source, *span, info.has_audio) for n, span in enumerate(itertools.pairwise(edges))
        ]
        owner = self.records.get(segments[0].name)
        if owner and owner["source"] != str(source) and owner["bytes"] != source.stat().st_size:
            raise InputError(
                f"{clip.video}: its clips would be called {name}_…, as those of {owner['source']} already are; "
                "give both in one run, rename one, or choose another --output"
            )
        clips_of = [record for record in self.records.values() if record["source"] == str(source)]
        size = source.stat().st_size
        if overwrite or any(record["bytes"] != size or record["start"] >= edges[-1] for record in clips_of):
            self._forget(name)  # another video had this name, or --overwrite
        return [segment for segment in segments if not self._is_complete(segment)]

    def write(self, segment: Segment, encoder: "SemanticEncoder") -> None:
        """Make one clip, its record last. An error leaves nothing of it."""
        from diff_v2m import media
        from diff_v2m.data.sources import SILENCE
        from diff_v2m.features.extract import extract_features

        name, source, start, stop = segment.name, segment.source, segment.start, segment.stop
        try:
            features = extract_features(source, encoder, start=start, stop=stop)
            self.claim()  # again: another process may have claimed the folder meanwhile
            media.cut_clip(source, start, stop, self._file("video", name))
            audio = media.read_audio(source, self.sample_rate, 2, start, stop - start) if segment.has_audio else None
            has_sound = audio is not None and audio.shape[1] > 0
            if has_sound:
                media.write_wav(self._file("wav", name), audio, self.sample_rate)
                if abs(audio).max() < SILENCE:
                    log.info("%s: its soundtrack is silent: usable for generation, not for training (%s)", name, source)
            else:
                log.info("%s: has no audio: usable for generation, not for training (%s)", name, source)
            info = features.save(self.root, name)
            write_json(self._file("done", name), {**segment.origin, "has_sound": has_sound, "info": info})
        except Exception:
            self._remove(name)
            raise

    def merge_records(self, class_label: int) -> int:
        """Write videoInfo_30.json and, the first time, dataset.json; returns the number of clips."""
        while True:
            records = _read_records(self.root / "done")
            if records:
                entries = {f"{clip}.mp4": record["info"] for clip, record in records.items()}
                write_json(self.root / f"videoInfo_{self.segment_seconds}.json", entries)
            # Another process may have finished a clip, or written this file, meanwhile: write it again.
            if _read_records(self.root / "done").keys() == records.keys():
                break
        dataset = self.root / "dataset.json"
        if records and not dataset.exists():  # only once: the user may edit it
            (self.root / "wav").mkdir(exist_ok=True)
            write_json(dataset, self._dataset(class_label))
        return len(records)

    def _dataset(self, class_label: int) -> dict:
        """Paths are relative to the file itself."""
        entry = {
            "id": self.root.resolve().name,
            "path": "wav",
            "video_feat": "clip",
            "video_info": f"videoInfo_{self.segment_seconds}.json",
            "video_color": "color",
            "video": "video",
            "class_label": class_label,
        }
        kind = {"dataset_type": "audio_video_dir", "rhythm_type": "odf", "drop_last": False, "random_crop": True}
        return {**kind, "datasets": [entry]}

    def _file(self, folder: str, clip: str) -> Path:
        return self.root / folder / f"{clip}{SUFFIXES[folder]}"

    def _is_complete(self, segment: Segment) -> bool:
        record = self.records.get(segment.name)
        if record is None or any(record[key] != segment.origin[key] for key in ("bytes", "start", "stop")):
            return False
        folders = [folder for folder in SUFFIXES if folder != "wav" or record["has_sound"]]
        return all(self._file(folder, segment.name).exists() for folder in folders)

    def _forget(self, name: str) -> None:
        """Remove a source's clips, the record first."""
        for clip in [clip for clip in self.records if clip.rpartition("_")[0] == name]:
            self._remove(clip)
            del self.records[clip]

    def _remove(self, clip: str) -> None:
        for folder in SUFFIXES:
            self._file(folder, clip).unlink(missing_ok=True)


def _read_records(folder: Path) -> dict[str, dict]:
    """Clip → completion record, sorted by source and segment. Clips of damaged records are made again.

    Raises InputError if the folder cannot be read.
    """
    try:
        paths = list(folder.glob("[!.]*.json"))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); choose another --output") from error
    records = {}
    for path in paths:
        with contextlib.suppress(InputError):
            record = _read_json(path)
            if record.keys() >= RECORD_KEYS:
                records[path.stem] = record
    return dict(sorted(records.items(), key=lambda item: (item[1]["source"], item[1]["start"])))


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        return content
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable JSON ({error}); delete it, and it is made again") from error
