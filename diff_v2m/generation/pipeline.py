"""Video features → music: `DiffV2M`, the model with everything that is needed to use it.

    model = DiffV2M.from_pretrained("saved_model/film_music")
    music = model.compose([model.extract("holiday.mp4")], ["holiday"], seed=7)[0].audio      # (channels, samples)

A video of any length is one canvas of latents, see canvas.py. generation/runner.py writes the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diff_v2m.checkpoints.loading import WeightSet, load_model
from diff_v2m.checkpoints.publishing import Publishable
from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import noise_seed
from diff_v2m.config import ModelConfig
from diff_v2m.cues.apply import describe, direct, dynamics, with_rhythm
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.features.extract import extract_with_thumbnails
from diff_v2m.features.semantic import SemanticEncoder, build_encoder
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.canvas import Kept, Part, canvas_noise, predict_rhythm, sample
from diff_v2m.generation.composition import Composition, best_of
from diff_v2m.generation.decoding import decode
from diff_v2m.generation.directing import direct_music
from diff_v2m.generation.extending import continuation
from diff_v2m.generation.landing import measured
from diff_v2m.generation.memory import Memory, advise_for_cpu
from diff_v2m.generation.planning import plan_of
from diff_v2m.generation.settings import DEFAULT_CLASS_LABEL, SamplingSettings
from diff_v2m.generation.spans import SHORTEST, Span, check_spans, clock
from diff_v2m.generation.splicing import free_share, splice_share
from diff_v2m.generation.step_log import StepLog
from diff_v2m.generation.windows import Layout
from diff_v2m.media import Thumbnails
from diff_v2m.model.compiling import compile_blocks, compiler_errors
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.music import Music
from diff_v2m.model.precision import is_batch_invariant, set_precision
from diff_v2m.score.planner import Plan
from diff_v2m.weights.finding import find_weights

log = logging.getLogger(__name__)

DEFAULT_SETTINGS = SamplingSettings()
PLAN = -1  # in place of the window's number in the seed of a clip's plan


class DiffV2M(Publishable):
    """A loaded model, ready to generate.

    A clip's music depends on its features, its name, the variation and the settings, not on the batch it is in or on
    what was generated before. When the device runs out of memory, the work is cut into smaller parts, see memory.py.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        config: ModelConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        offload: bool = False,
        compile: bool = False,
    ):
        place = torch.device(device)
        model = model.eval().requires_grad_(False)
        set_precision(model.model, dtype, place)
        if compile:
            compile_blocks(model.model)
        self.model = model if offload else model.to(device)
        self.memory = Memory(self.model, place, offload=offload)
        self.config = config
        self.dtype = dtype
        self.compiled = compile
        self._encoder: tuple[str, SemanticEncoder] | None = None  # its device, the encoder

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "float32",
        weights: WeightSet = "ema",
        config: ModelConfig | None = None,
        offload: bool = False,
        compile: bool = False,
    ) -> DiffV2M:
        """Load a released-format .ckpt, our .safetensors, the folder of either, or a name: released, hf:owner/repo.

        device: auto, cpu, cuda, cuda:1 or mps. dtype: precision of the diffusion transformer, see precision.py.
        weights: ema or online. config: model JSON of a checkpoint without one. offload: conditioner, network and VAE
        are on the device only while they work. compile: torch.compile for the network's blocks. Raises InputError.
        """
        path, device, loaded = find_weights(path), pick_device(device), None
        if not offload:
            with contextlib.suppress(torch.OutOfMemoryError):
                loaded = load_model(path, config=config, weights=weights, device=device)
            if loaded is None:
                log.warning("out of memory while loading: --offload from here on")
                offload = True
        model, config = loaded or load_model(path, config=config, weights=weights, device="cpu")
        if device == "cpu":
            advise_for_cpu(model, dtype, offload)
        model.pretransform.prepare_for_inference()
        result = cls(model, config, device=device, dtype=dtype, offload=offload, compile=compile)
        return result.loaded_from(path, weights)

    @property
    def device(self) -> torch.device:
        """Where the model works."""
        return self.memory.device

    @property
    def offload(self) -> bool:
        """Whether each part of the model is on the device only while it works."""
        return self.memory.offload

    @property
    def encoder_name(self) -> str:
        """Name of the semantic encoder that the model was trained with."""
        return self.config.model.conditioning["semantic"].config.encoder

    @property
    def idle_cores(self) -> int:
        """CPU cores that are idle while music is generated."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(0, cores - (torch.get_num_threads() if self.device.type == "cpu" else 1))

    def extract(self, video: str | Path) -> VideoFeatures:
        """Features of a video file, by the encoder the model was trained with. Raises InputError."""
        return self.extract_with_thumbnails(video)[0]

    def extract_with_thumbnails(self, video: str | Path) -> tuple[VideoFeatures, Thumbnails]:
        """`extract`, with the frames for the plot, in the same pass. Raises InputError."""
        wanted = "cpu" if self.offload else str(self.device)
        with contextlib.suppress(torch.OutOfMemoryError):
            if self._encoder is None or self._encoder[0] not in (wanted, "cpu"):
                self._encoder = wanted, build_encoder(self.encoder_name, wanted)
            return extract_with_thumbnails(video, self._encoder[1])
        log.warning("out of memory: video features are extracted on the CPU from here on")
        self._encoder = "cpu", build_encoder(self.encoder_name, "cpu")
        return extract_with_thumbnails(video, self._encoder[1])

    def generate(self, video: str | Path, settings: SamplingSettings = DEFAULT_SETTINGS, **options: Any) -> Composition:
        """Video file → music. Options are those of `compose`."""
        return self.compose([self.extract(video)], [Path(video).stem], settings, **options)[0]

    @torch.inference_mode()
    def cue_sheet(
        self,
        features: VideoFeatures,
        name: str,
        *,
        class_label: int = DEFAULT_CLASS_LABEL,
        sheet: CueSheet | None = None,
        seed: int = DEFAULT_SETTINGS.seed,
    ) -> CueSheet:
        """What music for a clip would follow: predicted rhythm, cuts and beats, and `sheet`, whose cues replace them.

        To be edited and given to `compose`. Unedited, it changes nothing in the music of that seed. Raises InputError.
        """
        part = self._part(features, name, class_label, 1, None, sheet, settings=SamplingSettings(seed=seed))
        rhythm = predict_rhythm(self.model, self.config, self.memory, part)
        return describe(part.features, rhythm, name, sheet, part.dynamics)

    @torch.inference_mode()
    def compose(
        self,
        features: Sequence[VideoFeatures],
        names: Sequence[str],
        settings: SamplingSettings = DEFAULT_SETTINGS,
        *,
        class_labels: Sequence[int] | None = None,
        variations: Sequence[int] | None = None,
        batch_size: int = 4,
        decode_chunk: float | None = None,
        logs: Sequence[StepLog | None] | None = None,
        sheets: Sequence[CueSheet | None] | None = None,
        **changes: Any,
    ) -> list[Composition]:
        """Generate music for every clip, in order.

        names: with seed and variation they decide the noise, so a clip keeps its music in any batch.
        settings: how to sample; further keywords replace its fields, as in compose(features, names, seed=7, steps=50).
        class_labels, variations: one per clip; by default `settings.class_label` and 1.
        batch_size: windows denoised together. decode_chunk: seconds decoded at a time; None: a window. Both change
        speed and memory only. logs: one per clip, see `StepLog`; a killed call resumes from them.
        sheets: one per clip; what the music follows besides the video.
        Raises InputError if the model yields NaN, a single window does not fit, or a sheet does not fit its video.
        """
        settings = replace(settings, **changes)
        class_labels = class_labels or [settings.label_for()] * len(names)
        parts = [
            self._part(*columns, settings=settings)
            for columns in zip(
                features,
                names,
                class_labels,
                variations or [1] * len(names),
                logs or [None] * len(names),
                sheets or [None] * len(names),
                strict=True,
            )
        ]
        return list(self._compose(parts, settings, batch_size, decode_chunk))

    @torch.inference_mode()
    def best_takes(
        self,
        features: VideoFeatures,
        name: str,
        settings: SamplingSettings = DEFAULT_SETTINGS,
        *,
        takes: int = 8,
        keep: int = 1,
        sheet: CueSheet | None = None,
        class_label: int | None = None,
        batch_size: int = 4,
        decode_chunk: float | None = None,
        logs: Sequence[StepLog | None] | None = None,
        **changes: Any,
    ) -> list[Composition]:
        """Compose variations 1 to `takes` of a clip together, and return the `keep` best, best first.

        They are ranked as takes.py describes. sheet: what the music follows besides the video. The other arguments are
        those of `compose`. Only kept takes stay in memory.
        """
        if not 1 <= keep <= takes:
            raise InputError(f"{name}: keep {keep} of {takes} takes; expected 1 to {takes}")
        settings = replace(settings, **changes)
        label = settings.label_for() if class_label is None else class_label
        parts = [
            self._part(features, name, label, number, log, sheet, settings=settings)
            for number, log in zip(range(1, takes + 1), logs or [None] * takes, strict=True)
        ]
        made = self._compose(parts, settings, batch_size, decode_chunk)
        return best_of(made, keep, self.config.sample_rate, features.cut_times)

    @torch.inference_mode()
    def redo(
        self,
        old: Composition,
        features: VideoFeatures,
        name: str,
        spans: Sequence[tuple[float, float]],
        settings: SamplingSettings = DEFAULT_SETTINGS,
        *,
        class_label: int | None = None,
        variation: int = 1,
        batch_size: int = 4,
        decode_chunk: float | None = None,
        finish: Callable[[Music], Music] = lambda music: music,
        log: StepLog | None = None,
        sheet: CueSheet | None = None,
        **changes: Any,
    ) -> Composition:
        """Compose spans (start, stop in seconds) of a clip again and keep the rest of `old`.

        Outside the spans the audio stays, to the bit. Noise is drawn from seed, name and variation, differently from
        that of `compose`. finish: changes the new music before it joins the old, as if `old` is a finished file.
        sheet: as for `compose`.
        Raises InputError for spans that overlap, are outside or shorter than a second, and as `compose` does.
        """
        settings = replace(settings, **changes)
        chosen = check_spans([Span(*span) for span in spans], features.duration, name)
        label = settings.label_for() if class_label is None else class_label
        part = self._part(features, f"{name} redo", label, variation, log, sheet, settings=settings)
        if old.latents.shape != tuple(part.noise.shape):
            raise InputError(
                f"{name}: latents {old.latents.shape} of the earlier music, expected {tuple(part.noise.shape)} for "
                "this video and model; compose the video again"
            )
        part = replace(part, name=name, plan=old.plan or part.plan)
        return self._revise(old, part, chosen, settings, batch_size, decode_chunk, finish)

    @torch.inference_mode()
    def extend(
        self,
        old: Composition,
        features: VideoFeatures,
        name: str,
        settings: SamplingSettings = DEFAULT_SETTINGS,
        *,
        class_label: int | None = None,
        variation: int = 1,
        batch_size: int = 4,
        decode_chunk: float | None = None,
        finish: Callable[[Music], Music] = lambda music: music,
        log: StepLog | None = None,
        sheet: CueSheet | None = None,
        **changes: Any,
    ) -> Composition:
        """Compose what a video gained at its end, and keep the music of `old` up to its own ending.

        features: of the longer video. The other arguments are those of `redo`. Raises InputError if the video is not
        longer.
        """
        settings = replace(settings, **changes)
        before = old.windows[-1].stop
        if features.duration < before + SHORTEST:
            raise InputError(
                f"{name}: lasts {clock(features.duration)}, the earlier music {clock(before)}; nothing to add"
            )
        label = settings.label_for() if class_label is None else class_label
        part = self._part(features, name, label, variation, log, sheet, settings=settings)
        start, plan = continuation(old, part.features, part.plan)
        spans = (Span(start, features.duration),)
        return self._revise(old, replace(part, plan=plan), spans, settings, batch_size, decode_chunk, finish)

    def _revise(
        self,
        old: Composition,
        part: Part,
        spans: tuple[Span, ...],
        settings: SamplingSettings,
        batch_size: int,
        decode_chunk: float | None,
        finish: Callable[[Music], Music],
    ) -> Composition:
        latents = torch.zeros(part.noise.shape)
        common = min(latents.shape[1], old.latents.shape[1])
        latents[:, :common] = torch.from_numpy(old.latents[:, :common].astype(np.float32))
        duration, rate = part.features.duration, self.config.sample_rate
        share = free_share(spans, part.layout.total, self.config.latent_rate, duration)
        edges = tuple(edge for span in spans for edge in (span.start, span.stop) if 0 < edge < duration)
        part = replace(part, kept=Kept(latents, share), fixed=edges)
        (made,) = self._compose([part], settings, batch_size, decode_chunk)
        new = finish(made.music)
        sounding, joins = splice_share(spans, new.audio, old.audio, rate, duration, new.scratch)
        kept = np.where(share.numpy() == 0, latents.half().numpy(), made.latents)
        music = new.spliced(old.music, sounding)
        hits = measured(made.hits, music, rate)
        return replace(made, music=music, latents=kept, spans=spans, joins=tuple(joins), hits=hits)

    def plan(self, features: VideoFeatures, name: str, *, seed: int, variation: int = 1) -> Plan | None:
        """Beat grid and key of a clip, for a model that receives them."""
        if not self.config.model.diffusion.uses_grid:
            return None
        return plan_of(features, noise_seed(seed, name, variation, PLAN))

    def _part(
        self,
        features: VideoFeatures,
        name: str,
        class_label: int,
        variation: int,
        log: StepLog | None,
        sheet: CueSheet | None,
        *,
        settings: SamplingSettings,
    ) -> Part:
        layout = Layout.of(features.duration, self.config)
        noise = canvas_noise(settings.seed, name, variation, layout, self.config.latent_channels)
        part = Part(name, class_label, features, layout, noise, None, log=log, sheet=sheet or CueSheet())
        return self._directed(part, settings.seed, variation)

    def _directed(self, part: Part, seed: int, variation: int) -> Part:
        """The part as its sheet wants it, with its plan.

        Rhythm that repeats what is predicted, without or with the sheet's other cues, is not edited.
        """
        wanted = direct(part.features, part.sheet, uses_color=self.config.model.diffusion.uses_color)

        def planned(shown: VideoFeatures) -> Part:
            return replace(part, features=shown, plan=self.plan(shown, part.name, seed=seed, variation=variation))

        if part.sheet["rhythm"]:
            both = planned(part.features), planned(wanted)
            curves = [predict_rhythm(self.model, self.config, self.memory, one) for one in both]
            drawn = dynamics(part.sheet, curves[1])
            return replace(both[1], features=with_rhythm(wanted, part.sheet, curves), dynamics=drawn)
        return planned(wanted)

    def _compose(
        self, parts: Sequence[Part], settings: SamplingSettings, batch_size: int, decode_chunk: float | None
    ) -> Iterator[Composition]:
        """Sample all parts together, then decode them one at a time."""
        settings, batch_size = settings.resolve(self.config), batch_size if is_batch_invariant(self.dtype) else 1
        with compiler_errors(self.compiled):
            sampled = sample(self.model, self.config, self.memory, parts, settings, batch_size=batch_size)
        for part, (latents, rhythm) in zip(parts, sampled, strict=True):
            with self.memory.on_device(self.model.pretransform):
                music = decode(self.model, self.config, self.memory, latents, part, decode_chunk)
            music, hits = direct_music(music, part, self.config.sample_rate)
            kept = latents.half().cpu().numpy()
            sheet = describe(part.features, rhythm, part.name, part.sheet, part.dynamics)
            yield Composition(music, rhythm, part.layout.windows, kept, plan=part.plan, sheet=sheet, hits=hits)
