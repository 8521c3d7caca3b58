"""Earlier results that are changed in part: their kept latents and finished files, and what is asked of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import Scratch, parts
from diff_v2m.generation.inputs import Output
from diff_v2m.generation.settings import DEFAULT_GUIDANCE
from diff_v2m.generation.spans import Span, check_spans, clock
from diff_v2m.generation.windows import Window
from diff_v2m.score.score import VOICES, BeatGrid, Key

if TYPE_CHECKING:  # a rerun that finds everything done does not import torch
    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.composition import Composition
    from diff_v2m.model.music import Music
    from diff_v2m.score.planner import Plan

log = logging.getLogger(__name__)

LATENTS = "latents.safetensors"  # suffix of the kept latents


@dataclass(frozen=True)
class Revision:
    """What changes in earlier results: spans composed again, or what their videos gained at the end."""

    spans: tuple[Span, ...] = ()
    extend: bool = False

    def entry(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`revisions` in the manifest: what was asked for, of `Request.of`. Equal entries give equal music."""
        differing = ("source", "variation", "seed", "steps", "sampler", "guidance_scale", "guidance_interval", "sheet")
        kind = {"extend": True} if self.extend else {"redo": [list(span) for span in self.spans]}
        given = {"guidance": "given"} if asked.get("guidance") else {}
        return kind | {key: asked[key] for key in differing} | given | {"weights_sha256": asked["weights_sha256"]}


@dataclass(frozen=True)
class Earlier:
    """A finished result: its manifest, latents and sound."""

    record: dict[str, Any]
    latents: np.ndarray  # (64, N) float16
    music: Music  # as it was written, with its stems
    plan: Plan | None  # beat grid and key that it was composed to
    semantic: np.ndarray  # (S, 512) float16: embeddings of its video
    motion: np.ndarray | None  # (S · 8,) float32: motion of its video, as in VideoFeatures

    @property
    def request(self) -> dict[str, Any]:
        return self.record["request"]

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(Window(window["start"], window["stop"]) for window in self.record["windows"])


def is_done(revision: Revision, asked: Mapping[str, Any], output: Output, folder: Path) -> bool:
    """Whether the last revision of a result was this one. asked: by `Request.of`.

    Raises InputError if the result cannot be revised.
    """
    base = Output(output.clip)  # variations of a span change the clip's own result
    record = read_record(base, folder)
    source = asked["source"]
    if not revision.extend:
        check_spans(revision.spans, record["duration"], output.clip.label)
        if record["request"]["source"] != source:
            raise InputError(
                f"{output.clip.label}: {folder / base.name}.json is of another video, {record.get('source')}; for a "
                "video that got longer use --extend"
            )
    if output.variation > 1 and not (folder / f"{output.name}.json").exists():
        return False
    own = read_record(output, folder)
    if output.variation > 1 and not own.get("revisions"):
        raise InputError(
            f"{output.clip.label}: {folder / output.name}.json is another variation of the whole video; rename it, or "
            "replace it with --overwrite"
        )
    if revision.extend and own["request"]["source"] == source:
        log.info("%s is as long as its earlier result; skipped", output.clip.label)
        return True
    if not own.get("revisions"):
        return False
    before, now = own["revisions"][-1]["asked"], revision.entry(asked)
    return all(before.get(key) == now.get(key) for key in {*before, *now} - without_effect(own))


def without_effect(record: Mapping[str, Any]) -> set[str]:
    """Keys of a request that do not change the result.

    A student has its own sampler, whatever the default is. Whether the guidance scale was given matters only to one
    whose own scale is not the default of other models, which a request holds in its place.
    """
    try:
        student = record["config"]["model"]["diffusion"].get("student") or {}
        guidance = float(student.get("guidance", DEFAULT_GUIDANCE))
    except (KeyError, TypeError, ValueError, AttributeError):  # no config, or not one of this program
        student, guidance = {}, DEFAULT_GUIDANCE
    keys = {"sampler"} if student else set()
    return keys | {"guidance"} if guidance == DEFAULT_GUIDANCE else keys


def read_record(output: Output, folder: Path) -> dict[str, Any]:
    """The manifest of a result. Raises InputError if there is none that keeps its latents."""
    path = folder / f"{output.name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        outputs, request, _, _ = record["outputs"], record["request"], record["windows"], record["duration"]
    except OSError:
        raise InputError(f"{output.clip.label}: no earlier result {path}; generate the video first") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not the manifest of a result; generate the video again") from None
    if f"{output.name}.{LATENTS}" not in outputs or not isinstance(request, dict):
        raise InputError(f"{path}: this result keeps no latents; generate it again with --overwrite")
    return record


def read_earlier(
    output: Output, folder: Path, fingerprint: str, sample_rate: int, channels: int, scratch: Scratch
) -> Earlier:
    """The clip's own result. fingerprint: of the pretransform, which must be the one that decodes the latents.

    scratch: where its sound lies if it is long. Raises InputError.
    """
    from safetensors import SafetensorError, safe_open

    from diff_v2m.model.music import Music

    record = read_record(output, folder)
    path = folder / f"{output.name}.{LATENTS}"
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no mapping
            latents, semantic = kept["latents"], kept["semantic"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); generate the video again with --overwrite") from None
    if about.get("pretransform") != fingerprint:
        raise InputError(
            f"{path}: latents of another autoencoder than this model's; give the --ckpt_path that made them"
        )
    if not np.isfinite(latents).all():
        raise InputError(f"{path}: holds NaN; generate the video again with --overwrite")

    def read(name: str) -> np.ndarray:
        audio = _read_wav(folder / name, sample_rate, channels, scratch)
        if abs(audio.shape[1] / sample_rate - record["duration"]) > 0.01:
            raise InputError(f"{folder / name}: not as long as its manifest says, {clock(record['duration'])}")
        return audio

    voices = [voice for voice in VOICES if f"{output.name}.{voice}.wav" in record["outputs"]]
    stems = {voice: read(f"{output.name}.{voice}.wav") for voice in voices}  # now, as the files may be replaced
    music = Music(read(f"{output.name}.wav"), stems=lambda: stems, scratch=scratch)
    plan = _plan(json.loads(about["plan"])) if "plan" in about else None
    return Earlier(record, latents, music, plan, semantic, kept.get("motion"))


def _read_wav(path: Path, sample_rate: int, channels: int, scratch: Scratch) -> np.ndarray:
    """(channels, samples), read in parts if it has this rate."""
    if media.audio_format(path)[0] != sample_rate:
        return media.read_audio(path, sample_rate, channels)
    audio = scratch.zeros(channels, round(media.audio_duration(path) * sample_rate))
    for part in parts(audio.shape[1]):
        start, stop = part.start / sample_rate, part.stop / sample_rate
        audio[:, part] = media.read_audio(path, sample_rate, channels, start, stop - start)
    return audio


def write_latents(folder: Path, name: str, composition: Composition, features: VideoFeatures, fingerprint: str) -> str:
    """Write latents (64, N) float16 beside a result, its plan and what tells its video. Returns the file name."""
    from safetensors.numpy import save

    path, plan, about = folder / f"{name}.{LATENTS}", composition.plan, {"pretransform": fingerprint}
    tensors = {"latents": composition.latents, "semantic": features.semantic.astype(np.float16)}
    if features.motion is not None:
        tensors["motion"] = features.motion
    if plan is not None:
        grid = {**asdict(plan.grid), "beats": plan.grid.beats.tolist()}
        about["plan"] = json.dumps({"grid": grid, "key": asdict(plan.key)})
    content = save({key: np.ascontiguousarray(value) for key, value in tensors.items()}, metadata=about)
    path.write_bytes(content)  # `save_file` keeps other users from reading the file
    return path.name


def _plan(about: dict[str, Any]) -> Plan:
    from diff_v2m.score.planner import Plan

    grid = BeatGrid(**{**about["grid"], "beats": np.array(about["grid"]["beats"])})
    return Plan(grid, Key(**about["key"]), np.zeros(0, bool))


def at_level_of(record: dict[str, Any], sample_rate: int) -> Callable[[Music], Music]:
    """Gives new music the gain of a finished result, limited as it was."""
    from diff_v2m.media import loudness

    def finish(music: Music) -> Music:
        gain, _ = loudness.limited(music.audio, sample_rate, record["loudness"]["gain_db"])
        ratios = music.scratch.zeros(music.audio.shape[1])
        for part in parts(len(ratios)):
            ratios[part] = gain(part.start, part.stop)
        return music.scaled(ratios)

    return finish
