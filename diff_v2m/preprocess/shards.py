"""`python -m diff_v2m.preprocess shards`: a data set of folders → tar files, which data/tar_shards.py reads.

    DIR/<set>/00000.tar, …     a fixed number of clips each, in WebDataset's layout
    DIR/<set>/00000.json, …    completion record: the clips of the tar file, and a digest of their sources
    DIR/<set>/index.json       merged from these when all are there
    DIR/dataset.json           for --dataset-config

Tar files whose clips have not changed are kept, so a stopped run resumes. Several processes may share the work
(`--part`). Audio files are copied unchanged. Formats that WebDataset's readers do not know become flac, and so does
surround sound, mixed down to stereo.
"""

import argparse
import hashlib
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import stage
from diff_v2m.generation.inputs import Failure

if TYPE_CHECKING:  # takes seconds to import; --help does without
    from diff_v2m.config import DatasetConfig
    from diff_v2m.data.audio_folder import FolderClip, SoundtrackFolder

log = logging.getLogger(__name__)


SUMMARY = "put a data set into tar files, for corpora too large for single files"
DESCRIPTION = "Put a data set into tar files in WebDataset's layout, for corpora too large for single files."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", "--shards", required=True, type=Path, metavar="DIR", help="folder for the tar files"
    )
    parser.add_argument(
        "--dataset-config",
        required=True,
        type=Path,
        metavar="JSON",
        help="data set of folders; its latents are packed if it names them, otherwise the audio",
    )
    parser.add_argument(
        "--model-config",
        required=True,
        type=Path,
        metavar="JSON",
        help="model to be trained; features that it does not use are skipped",
    )
    parser.add_argument("--clips-per-shard", type=cli.whole_number(1), default=256, metavar="N", help="(default 256)")
    cli.add_part(parser, of="tar file")


def run(options: argparse.Namespace) -> list[Failure]:
    """Write every set. Returns the failures. Raises InputError if nothing can be done."""
    from diff_v2m.common.files import write_json
    from diff_v2m.config import load_dataset_config, load_model_config, whole_model
    from diff_v2m.data.audio_folder import SoundtrackFolder

    config = whole_model(load_model_config(options.model_config), options.model_config)
    data = load_dataset_config(options.dataset_config)
    sets = [SoundtrackFolder(entry, data, config) for entry in data.folders]
    if wrong := next((found.entry.id for found in sets if Path(found.entry.id).name != found.entry.id), None):
        raise InputError(f"{options.dataset_config}: id {wrong!r} is to be the name of a folder; choose another")
    failures = []
    for found in sets:
        writer = ShardWriter(found, options.output / found.entry.id, options.clips_per_shard)
        failures += writer.write(options.part)
    path = options.output / "dataset.json"
    if not path.exists():  # only once: the user may edit it
        write_json(path, _dataset(data))
    return failures


def _dataset(data: "DatasetConfig") -> dict:
    """Paths are relative to the file itself."""
    loading = {key: getattr(data, key) for key in ("rhythm_type", "drop_last", "random_crop", "phase_flip")}
    sets = [{"id": entry.id, "shards": entry.id} for entry in data.folders]
    return {"dataset_type": "audio_video_shards", **loading, "datasets": sets}


class ShardWriter:
    """The tar files of one set."""

    def __init__(self, source: "SoundtrackFolder", folder: Path, clips_per_shard: int):
        """InputError if there are no clips at all."""
        self.source, self.folder = source, folder
        stems = source.candidates
        self.parts = [stems[first : first + clips_per_shard] for first in range(0, len(stems), clips_per_shard)]
        self.failures: list[Failure] = []

    def write(self, part: cli.Part) -> list[Failure]:
        """Write this part of the tar files, and the index when all are there.

        Returns the unusable clips of the tar files written now; silent ones are only counted.
        """
        from tqdm.contrib.logging import logging_redirect_tqdm

        from diff_v2m.data.tar_shards import INDEX

        todo = [n for n in part.of(range(len(self.parts))) if not self._is_done(n)]
        total = sum(len(self.parts[n]) for n in todo)
        if todo:  # an index must not describe tar files that are about to change
            (self.folder / INDEX).unlink(missing_ok=True)
        with (
            logging_redirect_tqdm(),
            stage(f"packing {self.source.entry.id}", total, "clip") as bar,
        ):
            for number in todo:
                self._write_part(number, bar.update)
        self._merge_records()
        return self.failures

    def _write_part(self, number: int, progress) -> None:
        from diff_v2m.common.files import atomic
        from diff_v2m.data.tar_shards import IndexedClip, Place, webdataset_key

        path, clips, makers = self._tar(number), [], []
        usable, silent = self._usable(self.parts[number])
        with atomic(path) as part, part.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for clip in usable:
                try:
                    members = list(self._members(clip))
                except InputError as error:
                    self.failures.append(Failure(clip.label, str(error)))
                    continue
                offset = file.tell()
                for suffix, content in members:
                    info = tarfile.TarInfo(f"{webdataset_key(clip.stem)}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, BytesIO(content))
                place = Place(path.name, offset, file.tell() - offset)
                clips.append(IndexedClip(clip.stem, place, clip.class_label, clip.audio_seconds, clip.seconds))
                makers.append(clip.encoded_by and asdict(clip.encoded_by))
        record = {"made_of": self._digest(number), "silent": silent, "encoded_by": makers, "clips": clips}
        with atomic(self._record(number)) as part:
            part.write_text(json.dumps(record, default=asdict), encoding="utf-8")
        progress(len(self.parts[number]))

    def _usable(self, stems: list[str]) -> tuple[list["FolderClip"], int]:
        """The clips that can be trained on, and how many are silent."""
        from diff_v2m.data.audio_folder import by_outcome

        clips, skipped, errors = by_outcome(self.source.scan(stems))
        broken = [what.reason for what in skipped.values() if not what.silent]
        self.failures += [Failure(self.source.entry.id, reason) for reason in broken]
        self.failures += [Failure(stem, str(error)) for stem, error in errors.items()]
        return clips, len(skipped) - len(broken)

    def _members(self, clip: "FolderClip") -> Iterator[tuple[str, bytes]]:
        """(suffix, content) of a clip's files."""
        import numpy as np

        features = clip.open().features
        seconds = {"scene_cut": features.scene_cut.tolist(), "pseudo_beats": features.pseudo_beats.tolist()}
        yield "json", json.dumps({**features.info(), **seconds, "duration": features.duration}).encode()
        for name, array in (("semantic", features.semantic), ("color", features.color)):
            if array is not None:
                buffer = BytesIO()
                np.save(buffer, array)
                yield f"{name}.npy", buffer.getvalue()
        if clip.latents is not None:
            yield "latents.safetensors", _read(clip.latents)
        else:
            yield _sound(clip.audio, self.source.config.audio_channels)

    def _merge_records(self) -> None:
        """Write index.json if all tar files are up to date."""
        from diff_v2m.common.files import atomic
        from diff_v2m.data.latent_store import EncodingSettings
        from diff_v2m.data.tar_shards import INDEX, Index, IndexedClip, Place

        missing = sum(not self._is_done(number) for number in range(len(self.parts)))
        if missing:
            log.info(
                "%s: %d of %d tar files are missing; the index is written when all are there",
                self.folder,
                missing,
                len(self.parts),
            )
            return
        records = [json.loads(self._record(number).read_text(encoding="utf-8")) for number in range(len(self.parts))]
        clips = [IndexedClip(**row | {"place": Place(**row["place"])}) for record in records for row in record["clips"]]
        if not clips:
            raise InputError(f"{self.source.entry.id}: no clip can be used: {self.failures or 'all are silent'}")
        makers = [maker for record in records for maker in record["encoded_by"]]
        if odd := next((n for n, maker in enumerate(makers) if maker != makers[0]), None):
            raise InputError(
                f"{self.source.entry.id}: clip {clips[odd].stem}: not encoded as {clips[0].stem} is; "
                "encode the set again"
            )
        encoded_by = makers[0] and EncodingSettings(**makers[0])
        source = self.source
        index = Index(source.feature_version, source.encoder, source.with_color, encoded_by, tuple(clips))
        with atomic(self.folder / INDEX) as part:
            part.write_text(json.dumps(index.as_json()), encoding="utf-8")
        silent = sum(record["silent"] for record in records)
        broken = sum(map(len, self.parts)) - len(clips) - silent
        log.info(
            "%s: holds %d clips in %d tar files; %d silent and skipped, %d not done",
            self.folder,
            len(clips),
            len(self.parts),
            silent,
            broken,
        )

    def _is_done(self, number: int) -> bool:
        try:
            record = json.loads(self._record(number).read_text(encoding="utf-8"))
            return record["made_of"] == self._digest(number) and self._tar(number).exists()
        except (OSError, ValueError, KeyError):
            return False

    def _digest(self, number: int) -> str:
        """Digest of the sources of a tar file: names of the clips, sizes and modification times of their files."""
        source = self.source
        digest = hashlib.sha256(f"{source.encoder} {source.with_color} {source.entry.class_label}".encode())
        for stem in self.parts[number]:
            files = [source.latents_files.get(stem) or source.audio_files[stem], *source.files(stem)]
            found = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
            digest.update(f"{stem} {source.info.get(stem)} {found}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _tar(self, number: int) -> Path:
        return self.folder / f"{number:05d}.tar"

    def _record(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _sound(path: Path, wanted: int) -> tuple[str, bytes]:
    """(suffix, content). wanted: channels of the model; other numbers above two become stereo.

    They are mixed here, as a tar file's reader decodes in memory and does not learn which channel is which.
    """
    from diff_v2m import media

    suffix = path.suffix.lower()
    rate, channels = media.audio_format(path)
    keeps = channels in (1, 2, wanted)
    if keeps and suffix in media.SLICEABLE:
        return suffix[1:], _read(path)
    import soundfile

    channels = channels if keeps else 2
    buffer = BytesIO()
    soundfile.write(buffer, media.read_audio(path, rate, channels).T, rate, subtype="PCM_24", format="FLAC")
    return "flac", buffer.getvalue()
