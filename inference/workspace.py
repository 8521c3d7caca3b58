"""The clips of one evaluation: which there are, which belong together, what they sound like, and what was left out."""

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
from inference.metric import Figure, NotComputed
from inference.pairing import Clip, Pairing, pair

if TYPE_CHECKING:
    from diff_v2m.features.events import PictureEvents
    from inference.encoders.registry import Embedder, Embedding, ImageBindEmbedder

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Workspace:
    """Lists are sorted by name. A clip that fails is reported once and left out of whatever it failed in."""

    generated: list[Clip]
    reference: list[Clip]
    videos: list[Clip]
    cache: Cache
    weights: Path
    training: list[Clip] = field(default_factory=list)  # what the model may have copied from
    device: str = "cpu"
    seed: int = 0
    draws: int = 200  # of the bootstrap
    failures: dict[str, list[str]] = field(default_factory=dict)  # clip or file → reasons
    notes: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))  # clip → what is known of it
    embedders: dict[str, Embedder | NotComputed] = field(default_factory=dict)  # may be shared with other workspaces
    _embedded: dict[tuple[str, Path], Embedding | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pairs = pair(self.generated, self.reference)
        self.films = pair(self.generated, self.videos)
        for side, pairing in (("reference", self.pairs), ("video", self.films)):
            for clip in pairing.alone if pairing.pairs else ():
                self.fail(clip.name, f"{clip.path}: no {side} of that name; left out of what compares the two")

    # ------------------------------------------------------------------------------------------------ failures

    def fail(self, name: str, reason: object) -> None:
        """Report what is wrong with a clip, once for each thing."""
        reasons = self.failures.setdefault(name, [])
        if str(reason) not in reasons:
            reasons.append(str(reason))
            log.error("error: %s: %s", name, reason)

    def attempt(self, clip: Clip, work: Callable[[], T]) -> T | None:
        """What `work` gives for a clip; None, and the clip is reported, on an InputError."""
        try:
            return work()
        except InputError as error:
            self.fail(clip.name, error)
            return None

    def note(self, clip: Clip, **known: Any) -> None:
        """Remember what was found out about a clip, for its page of the report."""
        self.notes[clip.name] |= {
            key: value.astype(float).tolist() if isinstance(value, np.ndarray) else value
            for key, value in known.items()
        }

    def why_no_pairs(self) -> str:
        return _why_none(self.pairs, self.generated, self.reference, "reference")

    def why_no_films(self) -> str:
        return _why_none(self.films, self.generated, self.videos, "video")

    # --------------------------------------------------------------------------------------------- sound, picture

    def audio(self, clip: Clip, sample_rate: int, *, shortest: float, why: str) -> np.ndarray:
        """Mono (n,) at `sample_rate`. InputError: unreadable, shorter than `shortest` seconds, not finite."""
        audio = media.read_audio(clip.path, sample_rate, 1)[0]
        seconds = len(audio) / sample_rate
        if seconds < shortest:
            raise InputError(f"{clip.path}: {seconds:.2f} s long; {why} needs at least {shortest:g} s")
        if not np.isfinite(audio).all():
            raise InputError(f"{clip.path}: holds NaN or infinite samples; make it again")
        return audio

    def events(self, film: Clip) -> PictureEvents | None:
        """Cuts and pseudo beats of a video, from the cache if it was watched before; None where that fails."""
        from diff_v2m.features import events

        def compute() -> Mapping[str, np.ndarray]:
            return {name: np.asarray(value) for name, value in vars(events.picture_events(film.path)).items()}

        found = self.attempt(film, lambda: self.cache.get(film.path, events.IDENTITY, compute))
        if found is None:
            return None
        return events.PictureEvents(found["cuts"], found["pseudo_beats"], float(found["duration"]))

    # ---------------------------------------------------------------------------------------------- embeddings

    def embeddings(self, embedder: str, clips: Sequence[Clip]) -> dict[str, Embedding]:
        """By clip, in the order given, without those that fail; each file is embedded once, whoever asks.

        Raises NotComputed where the network is missing or no clip is left.
        """
        if not clips:
            raise NotComputed("needs a set of real music: name one with --reference or --dataset-config")
        network = self.embedder(embedder)
        todo = [clip for clip in clips if (embedder, clip.path) not in self._embedded]
        for clip in tqdm(todo, desc=f"{embedder} embeddings", unit="clip", disable=None, leave=False):
            self._embedded[embedder, clip.path] = self.attempt(clip, lambda clip=clip: self._embed(network, clip))
        found = {clip.name: self._embedded[embedder, clip.path] for clip in clips}
        found = {name: embedding for name, embedding in found.items() if embedding is not None}
        if not found:
            raise NotComputed(f"none of {len(clips)} clips could be embedded")
        return found

    def embedded_pairs(self, embedder: str) -> dict[str, tuple[Embedding, Embedding]]:
        """(generated, reference) by generated clip; a pair of which one side fails is left out as a pair."""
        self.embedder(embedder)
        if not self.pairs.pairs:
            raise NotComputed(self.why_no_pairs())
        sides = [self.embeddings(embedder, [p[side] for p in self.pairs.pairs]) for side in (0, 1)]
        found = {
            made.name: (sides[0][made.name], sides[1][real.name])
            for made, real in self.pairs.pairs
            if made.name in sides[0] and real.name in sides[1]
        }
        if not found:
            raise NotComputed(f"of {len(self.pairs.pairs)} pairs, none has two clips that can be embedded")
        return found

    def embedder(self, name: str) -> Embedder:
        """The network of that name, loaded once. Raises NotComputed where it is missing or wrong."""
        from inference.encoders.registry import build

        if name not in self.embedders:
            try:
                self.embedders[name] = build(name, self.weights, self.device)
            except NotComputed as error:
                self.embedders[name] = error
            except InputError as error:  # weights that are there and wrong: somebody meant them to be used
                self.fail(name, error)
                self.embedders[name] = NotComputed(str(error))
        found = self.embedders[name]
        if isinstance(found, NotComputed):
            raise found
        return found

    def _embed(self, network: Embedder, clip: Clip) -> Embedding:
        from inference.encoders.registry import Embedding

        def compute() -> Mapping[str, np.ndarray]:
            audio = self.audio(clip, network.sample_rate, shortest=network.shortest, why=network.name)
            found = network.embed(audio)
            return {name: value for name, value in vars(found).items() if value is not None}

        return Embedding(**self.cache.get(clip.path, network.identity, compute))

    def film_embeddings(self, network: ImageBindEmbedder) -> dict[str, Embedding]:
        """What the network sees in the films, by generated clip, without those that fail; a film watched before is not
        watched again."""
        from inference.encoders.registry import Embedding

        def look(film: Path) -> Mapping[str, np.ndarray]:
            return self.cache.get(film, f"{network.identity}, film", lambda: {"frames": network.watch(film).frames})

        seen = {}
        for made, film in tqdm(self.films.pairs, desc="films watched", unit="film", disable=None, leave=False):
            found = self.attempt(film, lambda film=film: look(film.path))
            if found is not None:
                seen[made.name] = Embedding(**found)
        return seen

    # ------------------------------------------------------------------------------------------------- figures

    def mean_figure(self, id: str, name: str, per_clip: Mapping[str, float | None], **known: Any) -> Figure:
        """The mean of one value a clip, over the clips for which it is defined."""
        values = [value for value in per_clip.values() if value is not None]
        if not values:
            return Figure(id, name, not_computed="it is undefined for every clip", per_clip=per_clip)
        return Figure(
            id,
            name,
            float(np.mean(values)),
            n=len(values),
            per_clip=per_clip,
            interval=mean_interval(values, self.draws, self.seed),
            **known,
        )


def _why_none(pairing: Pairing, generated: Sequence[Clip], partners: Sequence[Clip], what: str) -> str:
    if pairing.pairs:
        return f"none of {len(pairing.pairs)} pairs of music and {what} could be read"
    if not partners:
        flags = "--videos" if what == "video" else "--reference"
        return f"needs a {what} for each clip: name them with {flags} or --dataset-config"
    return (
        f"no generated clip has a {what} of the same stem (generated: {generated[0].name}, …; {what}: "
        f"{partners[0].name}, …)"
    )
