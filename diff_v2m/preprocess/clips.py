"""Videos → a feature folder that `dataset/` reads: `python -m diff_v2m.preprocess clips VIDEO ... --output DIR`.

    DIR/clip/<clip>.npy   (T, 512) float32     DIR/wav/<clip>.wav     the clip's sound, where it has one
    DIR/color/<clip>.npy  (T, 3072) float32    DIR/video/<clip>.mp4   its picture
    DIR/videoInfo_30.json {"<clip>.mp4": {"scene_cut", "pseudo_beats", "duration"}}
    DIR/dataset.json      what --dataset-config wants
    DIR/features.json     the stamp: which code and which encoder made all this
    DIR/done/<clip>.json  written last of a clip: it is complete; videoInfo_30.json is these put together

A clip is called <source>_<segment>. Any number of processes may work on one DIR (`--part`): each writes only clips of
its own, and whichever ends last puts the JSON together from all of them.
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
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_json
from diff_v2m.config import MAX_SECONDS
from diff_v2m.generation.inputs import Clip, Failure, collect, real_path

if TYPE_CHECKING:  # importing these takes seconds, which --help has no use for
    from diff_v2m.features.semantic import SemanticEncoder

log = logging.getLogger(__name__)

SUFFIXES = {"done": ".json", "clip": ".npy", "color": ".npy", "video": ".mp4", "wav": ".wav"}  # done: removed first


SUMMARY = "cut videos into clips and extract their features"
DESCRIPTION = "Cut videos into clips and extract the features that training and inference read."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files, or folders of them")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the feature folder; may hold clips")
    parser.add_argument(
        "--encoder",
        default="clip",
        help="semantics: clip (default), hog (nothing to download; what "
        "the bundled model uses), or a folder with a CLIP model",
    )
    parser.add_argument(
        "--segment-seconds",
        type=_seconds,
        default=MAX_SECONDS,
        metavar="N",
        help=f"length of a clip, 1 to {MAX_SECONDS} (default); the last may be shorter",
    )
    parser.add_argument("--sample-rate", type=int, default=44100, metavar="HZ", help="of the wav files (default 44100)")
    parser.add_argument(
        "--class-label",
        type=int,
        choices=(0, 1, 2),
        default=2,
        help="kind of video (default: 2, music videos and background music)",
    )
    cli.add_part(parser, of="source")
    parser.add_argument("--overwrite", action="store_true", help="make clips anew that are there already")
    parser.add_argument("--device", help="for CLIP: cpu, cuda, … (default: cuda where there is one)")


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole seconds from 1 to {MAX_SECONDS}")
    return int(text)


# -------------------------------------------------------------------------------------------------------- the work


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
        """What its mark remembers, to tell whether a clip of that name is this one."""
        return {"source": str(self.source), "bytes": self.source.stat().st_size, "start": self.start, "stop": self.stop}


def run(options: argparse.Namespace) -> list[Failure]:
    """Do what the command line says; returns what could not be done. InputError if nothing can."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from diff_v2m.features.semantic import build_encoder

    folder = FeatureFolderWriter(options.output, options.segment_seconds, options.sample_rate)
    folder.stamp(options.encoder)
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
                if segments and encoder is None:  # without one nothing can be done: let that error end the run
                    encoder = build_encoder(options.encoder, options.device)
                for segment in segments:
                    try:
                        folder.write(segment, encoder)
                    except Exception as error:
                        failures.append(_failure(clip, error))
    finally:  # also when interrupted: what is done is usable
        total = folder.put_together(options.class_label)
    log.info("%s: holds %d clips; %d sources looked at in this run", options.output, total, len(clips))
    return failures


def _failure(clip: Clip, error: Exception) -> Failure:
    """What is nobody's fault but ours goes to the log in full."""
    if isinstance(error, InputError):
        return Failure(clip.label, str(error))
    log.error("%s: unexpected error, please report it", clip.label, exc_info=error)
    return Failure(clip.label, f"unexpected {type(error).__name__}: {error}")


class FeatureFolderWriter:
    """The folder laid out as at the top of this file."""

    def __init__(self, root: Path, segment_seconds: int, sample_rate: int):
        self.root, self.segment_seconds, self.sample_rate = root, segment_seconds, sample_rate
        self.marks = _read_marks(root / "done")
        self.names = {mark["source"]: clip.rpartition("_")[0] for clip, mark in self.marks.items()}

    def stamp(self, encoder: str) -> None:
        """Mark an empty folder as made by this code and encoder; InputError if it was made by others."""
        from diff_v2m.common.versions import FEATURE_VERSION
        from diff_v2m.features.semantic import encoder_name

        path = self.root / "features.json"
        stamp = {
            "feature_version": FEATURE_VERSION,
            "encoder": encoder_name(encoder),
            "segment_seconds": self.segment_seconds,
            "sample_rate": self.sample_rate,
        }
        if path.exists():
            old = _read_json(path)
            differing = [f"{key} {old.get(key)}, now {new}" for key, new in stamp.items() if old.get(key) != new]
            if differing:
                raise InputError(f"{self.root}: made with {', '.join(differing)}; choose another --output or delete it")
        elif any((self.root / "clip").glob("*.npy")):
            raise InputError(
                f"{self.root}: holds features but no features.json that says how they were made; "
                "choose another --output"
            )
        else:
            write_json(path, stamp)

    def missing(self, clip: Clip, overwrite: bool) -> list[Segment]:
        """The source's segments that are not complete yet. InputError if it is no video, or its name is taken."""
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
        owner = self.marks.get(segments[0].name)
        if owner and owner["source"] != str(source) and owner["bytes"] != source.stat().st_size:
            raise InputError(
                f"{clip.video}: its clips would be called {name}_…, as those of {owner['source']} already are; "
                "give both in one run, rename one, or choose another --output"
            )
        clips_of = [mark for mark in self.marks.values() if mark["source"] == str(source)]
        size = source.stat().st_size
        if overwrite or any(mark["bytes"] != size or mark["start"] >= edges[-1] for mark in clips_of):
            self._forget(name)  # of another film that was there, or made again
        return [segment for segment in segments if not self._is_complete(segment)]

    def write(self, segment: Segment, encoder: "SemanticEncoder") -> None:
        """Make one clip, its mark last. InputError leaves nothing of it."""
        from diff_v2m import media
        from diff_v2m.features.extract import extract_features

        name, source, start, stop = segment.name, segment.source, segment.start, segment.stop
        try:
            features = extract_features(source, encoder, start=start, stop=stop, progress=True)
            media.cut_clip(source, start, stop, self._file("video", name))
            audio = media.read_audio(source, self.sample_rate, 2, start, stop - start) if segment.has_audio else None
            has_sound = audio is not None and audio.shape[1] > 0
            if has_sound:
                media.write_wav(self._file("wav", name), audio, self.sample_rate)
            else:
                log.info("%s: has no sound, so no wav: it can be scored, not trained on (%s)", name, source)
            info = features.save(self.root, name)
            write_json(self._file("done", name), {**segment.origin, "has_sound": has_sound, "info": info})
        except Exception:
            self._remove(name)
            raise

    def put_together(self, class_label: int) -> int:
        """Write videoInfo_30.json and, the first time, dataset.json; returns how many clips there are."""
        while True:
            marks = _read_marks(self.root / "done")
            if marks:
                entries = {f"{clip}.mp4": mark["info"] for clip, mark in marks.items()}
                write_json(self.root / f"videoInfo_{self.segment_seconds}.json", entries)
            # Another process may have finished a clip, and even written this file, since: then write it again.
            if _read_marks(self.root / "done").keys() == marks.keys():
                break
        dataset = self.root / "dataset.json"
        if marks and not dataset.exists():  # once: it is the user's to edit
            (self.root / "wav").mkdir(exist_ok=True)
            write_json(dataset, self._dataset(class_label))
        return len(marks)

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
        mark = self.marks.get(segment.name)
        if mark is None or any(mark[key] != segment.origin[key] for key in ("bytes", "start", "stop")):
            return False
        folders = [folder for folder in SUFFIXES if folder != "wav" or mark["has_sound"]]
        return all(self._file(folder, segment.name).exists() for folder in folders)

    def _forget(self, name: str) -> None:
        """Remove a source's clips, the mark first."""
        for clip in [clip for clip in self.marks if clip.rpartition("_")[0] == name]:
            self._remove(clip)
            del self.marks[clip]

    def _remove(self, clip: str) -> None:
        for folder in SUFFIXES:
            self._file(folder, clip).unlink(missing_ok=True)


def _read_marks(folder: Path) -> dict[str, dict]:
    """Clip → its mark, sorted by source and segment. A damaged mark is none: its clip is made again.

    InputError where the folder may not be looked into.
    """
    try:
        paths = list(folder.glob("[!.]*.json"))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); choose another --output") from error
    marks = {}
    for path in paths:
        with contextlib.suppress(InputError):
            mark = _read_json(path)
            if mark.keys() >= {"source", "bytes", "start", "stop", "has_sound", "info"}:
                marks[path.stem] = mark
    return dict(sorted(marks.items(), key=lambda item: (item[1]["source"], item[1]["start"])))


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        return content
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable JSON ({error}); delete it to make it anew") from error
