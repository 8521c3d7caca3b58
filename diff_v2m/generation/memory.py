"""How much memory composing takes, worked out by going through the motions on tensors without contents.

A computed figure, not a measured one: the tensors that live at the same time, as the code makes and drops them. What a
device adds by itself (context, workspaces, fragmentation) is allowed for by `OVERHEAD` and `SLACK`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig
from diff_v2m.data.batch import Batch
from diff_v2m.features.semantic import HogEncoder
from diff_v2m.model.dit import LatentDiffusion

OVERHEAD = 0.6e9  # bytes: a CUDA context with its libraries' workspaces
SLACK = 1.1  # of what lives, for what an allocator cannot use
BATCHES = (16, 8, 4, 2, 1)  # windows together, of which `fit` takes the first that fits
CHUNKS = (None, 10.0, 5.0, 2.0, 1.0)  # seconds decoded at a time


@dataclass(frozen=True)
class Plan:
    """How the work is cut up."""

    batch_size: int = 1
    decode_chunk: float | None = None
    offload: bool = False


class Memory:
    """Memory of one model at one precision of its network; figures in bytes."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32):
        self.config = config
        with torch.device("meta"):
            self.model = LatentDiffusion(config).eval().requires_grad_(False)
        self.model.model.lower_precision(dtype)
        self.model.pretransform.fold_weight_norm()
        self.encoder = encoder_size(config.model.conditioning["semantic"].config.encoder)
        self._denoising: dict[int, int] = {}
        self._decoding: dict[float | None, int] = {}

    def needs(self, plan: Plan) -> int:
        """The most that is taken at any time."""
        network, conditioner, vae = (size_of(part) for part in self._parts())
        denoising, decoding = self.denoising(plan.batch_size), self.decoding(plan.decode_chunk)
        if plan.offload:  # one part at a time, and the encoder of what is seen on the CPU
            live = max(network + denoising, vae + decoding, conditioner)
        else:
            live = self.encoder + network + conditioner + vae + max(denoising, decoding)
        return round(SLACK * live + OVERHEAD)

    def denoising(self, batch_size: int) -> int:
        """A guided step of so many windows, with the keys and values that were prepared for it; weights not counted."""
        if batch_size not in self._denoising:
            frames = self.config.latent_length(self.config.sample_size)
            network, t = self.model.model, torch.ones(batch_size)
            conditions = self.model.condition(_batch(self.config, batch_size))

            def step() -> Tensor:
                cache = network.precompute(conditions, frames)
                x = torch.empty(batch_size, self.config.latent_channels, frames, device="meta")
                return network.denoise(x, t, cache, guidance_scale=3.0)

            self._denoising[batch_size] = peak(step)
        return self._denoising[batch_size]

    def decoding(self, chunk: float | None) -> int:
        """One window to audio, `chunk` seconds at a time; weights not counted."""
        if chunk not in self._decoding:
            frames = self.config.latent_length(self.config.sample_size)
            latents = torch.empty(1, self.config.latent_channels, frames, device="meta")
            count = None if chunk is None else self.config.frames_of(chunk)
            self._decoding[chunk] = peak(lambda: self.model.decode(latents, count))
        return self._decoding[chunk]

    def fit(self, budget: float, *, offload: bool = False) -> Plan:
        """The plan within `budget` bytes that decodes in the largest pieces and then denoises most together.

        Raises InputError when none is small enough.
        """
        plans = [Plan(size, chunk, offload) for chunk in CHUNKS for size in BATCHES]
        fitting = next((plan for plan in plans if self.needs(plan) <= budget), None)
        if fitting is None:
            help = "lower precision, --dtype bf16" if offload else "--offload, or lower precision, --dtype bf16"
            raise InputError(
                f"--memory {budget / 1e9:g}: this model needs {min(map(self.needs, plans)) / 1e9:.1f} GB even for one "
                f"window at a time decoded in small pieces; try {help}"
            )
        return fitting

    def _parts(self) -> tuple[torch.nn.Module, ...]:
        return self.model.model, self.model.conditioner, self.model.pretransform


def size_of(part: torch.nn.Module) -> int:
    """Bytes of its weights."""
    return sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))


def encoder_size(name: str) -> int:
    """Bytes of the semantic encoder, which reads videos on the device while others are composed; HOG does not."""
    if name == HogEncoder.name:
        return 0
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        return size_of(CLIPVisionModelWithProjection(CLIPVisionConfig()))  # whose defaults are ViT-B/32


def peak(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by `work` hold at the same time. To be run on the meta device."""
    with torch.inference_mode(), _OneAttention(), _Living() as living:
        work()
    return living.most


class _Living(TorchDispatchMode):
    """Counts the bytes of every storage that comes to be inside, until nothing holds it any more."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in before and storage._cdata not in self.known and storage.device.type == "meta":
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class _OneAttention(TorchFunctionMode):
    """Attention as the fused kernels do it: the scores are never held."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def _tensors(tree: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _batch(config: ModelConfig, size: int) -> Batch:
    """Clips of a whole window, without contents."""
    seconds = max(1, int(config.window_seconds))
    with torch.device("meta"):
        return Batch(
            semantic=torch.empty(size, seconds, 512),
            color=torch.empty(size, seconds, 3072),
            scene_cut=torch.empty(size, seconds, dtype=torch.long),
            pseudo_beats=torch.empty(size, seconds),
            mask=torch.empty(size, seconds, dtype=torch.bool),
            class_label=torch.empty(size, dtype=torch.long),
            seconds_start=torch.empty(size),
            seconds_total=torch.empty(size),
            names=[""] * size,
        )
