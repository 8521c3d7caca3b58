"""The files of one evaluation, their pairs, their embeddings, and what was skipped."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.cache import Cache
from diff_v2m.common.errors import InputError
from inference.bootstrap import mean_interval
from inference.metric import MetricResult, NotComputed
from inference.pairing import MediaFile, Pairing, pair

if TYPE_CHECKING:
    from diff_v2m.features.events import PictureEvents
    from inference.encoders.base import Embedding, Encoder
    from inference.encoders.imagebind import ImageBindEncoder

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Workspace:
    """Lists are sorted by name. A clip that fails is reported once, and skipped by each metric that needs it."""

    generated: list[MediaFile]
    reference: list[MediaFile]
    videos: list[MediaFile]
    cache: Cache
    weights: Path
    training: list[MediaFile] = field(default_factory=list)  # to search for copies
    device: str = "cpu"
    seed: int = 0
    draws: int = 200  # bootstrap
    skipped: dict[str, list[str]] = field(default_factory=dict)  # clip or file → reasons
    notes: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))  # clip → details for the report
    encoders: dict[str, Encoder | NotComputed] = field(default_factory=dict)  # loaded; several workspaces may share it
    _embedded: dict[tuple[str, Path], Embedding | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference_pairs = pair(self.generated, self.reference)
        self.video_pairs = pair(self.generated, self.videos)
        for side, pairing in (("reference", self.reference_pairs), ("video", self.video_pairs)):
            for file in pairing.alone if pairing.pairs else ():
                self.skip(file.name, f"{file.path}: no {side} of that name; skipped in metrics that need the {side}")

    # ------------------------------------------------------------------------------------------------- skipping

    def skip(self, name: str, reason: object) -> None:
        """Record and log what is wrong with a clip; each reason once."""
        reasons = self.skipped.setdefault(name, [])
        if str(reason) not in reasons:
            reasons.append(str(reason))
            log.error("skipped: %s: %s", name, reason)

    def attempt(self, file: MediaFile, work: Callable[[], T]) -> T | None:
        """Return what `work` returns. On an InputError, skip the clip and return None."""
        try:
            return work()
        except InputError as error:
            self.skip(file.name, error)
            return None

    def note(self, file: MediaFile, **details: Any) -> None:
        """Record details of a clip for its section of the report."""
        self.notes[file.name] |= {
            key: value.astype(float).tolist() if isinstance(value, np.ndarray) else value
            for key, value in details.items()
        }

    def why_no_reference_pairs(self) -> str:
        return _why_none(self.reference_pairs, self.generated, self.reference, "reference")

    def why_no_video_pairs(self) -> str:
        return _why_none(self.video_pairs, self.generated, self.videos, "video")

    # ------------------------------------------------------------------------------------------------- contents

    def audio(self, file: MediaFile, sample_rate: int, *, shortest: float, needed_by: str) -> np.ndarray:
        """Mono (n,) at `sample_rate`. Raises InputError: unreadable, shorter than `shortest` seconds, not finite."""
        audio = media.read_audio(file.path, sample_rate, 1)[0]
        seconds = len(audio) / sample_rate
        if seconds < shortest:
            raise InputError(f"{file.path}: {seconds:.2f} s long; {needed_by} needs at least {shortest:g} s")
        if not np.isfinite(audio).all():
            raise InputError(f"{file.path}: holds NaN or infinite samples; make it again")
        return audio

    def events(self, video: MediaFile) -> PictureEvents | None:
        """Cuts and pseudo beats of a video, cached. None where it is skipped."""
        from diff_v2m.features import events

        def compute() -> Mapping[str, np.ndarray]:
            return {name: np.asarray(value) for name, value in vars(events.picture_events(video.path)).items()}

        found = self.attempt(video, lambda: self.cache.get(video.path, events.IDENTITY, compute))
        if found is None:
            return None
        return events.PictureEvents(found["cuts"], found["pseudo_beats"], float(found["duration"]))

    # ----------------------------------------------------------------------------------------------- embeddings

    def encoder(self, name: str) -> Encoder:
        """Return the encoder, loaded once. Raises NotComputed where it is missing or wrong."""
        from inference.encoders.registry import load_encoder

        if name not in self.encoders:
            try:
                self.encoders[name] = load_encoder(name, self.weights, self.device)
            except NotComputed as error:
                self.encoders[name] = error
            except InputError as error:  # the weights exist but are wrong: the user wants them used
                self.skip(name, error)
                self.encoders[name] = NotComputed(str(error))
        found = self.encoders[name]
        if isinstance(found, NotComputed):
            raise found
        return found

    def embeddings(self, encoder: str, files: Sequence[MediaFile]) -> dict[str, Embedding]:
        """Return name → embedding in the order given, without files that fail. Each file is embedded once.

        Raises NotComputed where the encoder is missing or no file is left.
        """
        if not files:
            raise NotComputed("needs a set of real music: name one with --reference or --dataset-config")
        network = self.encoder(encoder)
        todo = [file for file in files if (encoder, file.path) not in self._embedded]
        for file in tqdm(todo, desc=f"{encoder} embeddings", unit="clip", disable=None, leave=False):
            self._embedded[encoder, file.path] = self.attempt(file, lambda file=file: self._embed(network, file))
        found = {file.name: self._embedded[encoder, file.path] for file in files}
        found = {name: embedding for name, embedding in found.items() if embedding is not None}
        if not found:
            raise NotComputed(f"none of {len(files)} clips could be embedded")
        return found

    def reference_embeddings(self, encoder: str) -> dict[str, Embedding]:
        """As `embeddings`, of the real music; empty without any, or if no file of it can be embedded.

        For the value of real music beside a metric that needs none.
        """
        try:
            return self.embeddings(encoder, self.reference)
        except NotComputed:
            return {}

    def embedded_pairs(self, encoder: str) -> dict[str, tuple[Embedding, Embedding]]:
        """Return generated clip → (generated, reference). A pair with one failed side is skipped as a pair.

        Raises NotComputed where the encoder is missing or no pair is left.
        """
        self.encoder(encoder)
        pairs = self.reference_pairs.pairs
        if not pairs:
            raise NotComputed(self.why_no_reference_pairs())
        generated = self.embeddings(encoder, [file for file, _ in pairs])
        reference = self.embeddings(encoder, [partner for _, partner in pairs])
        found = {
            file.name: (generated[file.name], reference[partner.name])
            for file, partner in pairs
            if file.name in generated and partner.name in reference
        }
        if not found:
            raise NotComputed(f"of {len(pairs)} pairs, none has two clips that can be embedded")
        return found

    def video_embeddings(self, network: ImageBindEncoder) -> dict[str, Embedding]:
        """Return generated clip → embedding of its video, cached, without videos that fail."""
        from inference.encoders.base import Embedding

        def embed(path: Path) -> Mapping[str, np.ndarray]:
            maker = f"{network.identity}, film"  # part of the cache's file names, so it stays
            return self.cache.get(path, maker, lambda: {"frames": network.embed_video(path).frames})

        embedded = {}
        pairs = self.video_pairs.pairs
        for file, video in tqdm(pairs, desc="video embeddings", unit="video", disable=None, leave=False):
            found = self.attempt(video, lambda video=video: embed(video.path))
            if found is not None:
                embedded[file.name] = Embedding(**found)
        return embedded

    def _embed(self, network: Encoder, file: MediaFile) -> Embedding:
        from inference.encoders.base import Embedding

        def compute() -> Mapping[str, np.ndarray]:
            audio = self.audio(file, network.sample_rate, shortest=network.shortest, needed_by=network.name)
            found = network.embed(audio)
            return {name: value for name, value in vars(found).items() if value is not None}

        return Embedding(**self.cache.get(file.path, network.identity, compute))

    # -------------------------------------------------------------------------------------------------- results

    def mean_result(self, id: str, name: str, per_clip: Mapping[str, float | None], **known: Any) -> MetricResult:
        """The mean of one value a clip, over the clips for which it is defined."""
        values = [value for value in per_clip.values() if value is not None]
        if not values:
            return MetricResult(id, name, not_computed="it is undefined for every clip", per_clip=per_clip)
        return MetricResult(
            id,
            name,
            float(np.mean(values)),
            n=len(values),
            per_clip=per_clip,
            interval=mean_interval(values, self.draws, self.seed),
            **known,
        )


def _why_none(pairing: Pairing, generated: Sequence[MediaFile], partners: Sequence[MediaFile], kind: str) -> str:
    if pairing.pairs:
        return f"none of {len(pairing.pairs)} pairs of music and {kind} could be read"
    if not partners:
        flags = "--videos" if kind == "video" else "--reference"
        return f"needs a {kind} for each clip: name them with {flags} or --dataset-config"
    return (
        f"no generated clip has a {kind} of the same stem (generated: {generated[0].name}, …; {kind}: "
        f"{partners[0].name}, …)"
    )
