"""ImageBind (Girdhar et al. 2023), vision and audio branches: a video or audio → 1024 numbers in one joint space.

Attribute names are those of the published weights file, imagebind_huge.pth. Its text, depth, thermal and IMU branches
are not built. Video and audio are cut into pieces as ImageBind's own loader does it.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diff_v2m import media
from diff_v2m.common.files import content_hash
from inference.encoders.base import Embedding, WeightsFile, load_strictly, read_state

WEIGHTS = WeightsFile("imagebind/imagebind_huge.pth", "ImageBind on GitHub, 4.5 GB, for non-commercial use")
SAMPLE_RATE = 16000
SECONDS = 2.0  # of a piece
AUDIO_PIECES, VIDEO_PIECES = 3, 5  # evenly spread over the clip
MELS, FRAMES, MEL_MEAN, MEL_STD = 128, 204, -4.268, 9.138
SIZE, FRAMES_OF_PIECE = 224, 2  # pixels a side; the first and the last frame of a piece
RGB_MEAN, RGB_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Branch(NamedTuple):
    """Size of one transformer."""

    width: int
    blocks: int
    heads: int


VISION, AUDIO = Branch(1280, 32, 16), Branch(768, 12, 12)


def load(weights: Path, device: str) -> ImageBindEncoder:
    return ImageBindEncoder(WEIGHTS.at(weights), device)


class ImageBindEncoder:
    """Embeddings of unit length: 3 for the pieces of an audio clip, 15 for the crops of a video, in the same space."""

    name, sample_rate, shortest = "imagebind", SAMPLE_RATE, 0.1
    unused = (".text.", ".depth.", ".thermal.", ".imu.", "modality_postprocessors.")  # scales do not change cosines

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 5, **sizes: Any) -> None:
        self.identity = f"imagebind 2, weights {content_hash(path)} {sizes or ''}"
        state = {key: value for key, value in read_state(path).items() if not any(part in key for part in self.unused)}
        self.network = load_strictly(ImageBind(**sizes), state, path).to(device)
        self.device, self.batch_size = device, batch_size

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        return Embedding(self.network.embed_audio(spectrograms(audio).to(self.device)).cpu().numpy())

    @torch.inference_mode()
    def embed_video(self, video: Path) -> Embedding:
        """Raises InputError for a file that is no video."""
        batches = crops(video).split(self.batch_size)
        embedded = [self.network.embed_video(batch.to(self.device)).cpu().numpy() for batch in batches]
        return Embedding(np.concatenate(embedded))


class ImageBind(nn.Module):
    """The two branches. The defaults are the published sizes; tests use smaller ones."""

    def __init__(self, vision: Branch = VISION, audio: Branch = AUDIO, dims: int = 1024) -> None:
        super().__init__()
        patches = nn.Conv3d(3, vision.width, (2, 14, 14), stride=(2, 14, 14), bias=False)
        tiles = nn.Conv2d(1, audio.width, 16, stride=10, bias=False)  # overlapping
        self.modality_preprocessors = nn.ModuleDict(
            {
                "vision": _Tokens(nn.Sequential(nn.Identity(), patches), None, (SIZE // 14) ** 2, vision.width),
                "audio": _Tokens(tiles, nn.LayerNorm(audio.width), 12 * 19, audio.width),
            }
        )
        self.modality_trunks = nn.ModuleDict(
            {
                "vision": _Trunk(vision, norm_first=True, bias_kv=False),
                "audio": _Trunk(audio, norm_first=False, bias_kv=True),
            }
        )
        self.modality_heads = nn.ModuleDict(
            {
                kind: nn.Sequential(_norm(width), _ClassToken(), nn.Linear(width, dims, bias=False))
                for kind, width in (("vision", vision.width), ("audio", audio.width))
            }
        )

    def embed_video(self, pieces: Tensor) -> Tensor:
        """(n, 3, 2, 224, 224) from `crops` → (n, dims) of unit length."""
        return self._embed("vision", pieces)

    def embed_audio(self, pieces: Tensor) -> Tensor:
        """(n, 1, 128, 204) from `spectrograms` → (n, dims) of unit length."""
        return self._embed("audio", pieces)

    def _embed(self, kind: str, x: Tensor) -> Tensor:
        x = self.modality_trunks[kind](self.modality_preprocessors[kind](x))
        return functional.normalize(self.modality_heads[kind](x), dim=-1)


class _Tokens(nn.Module):
    """Patches of the input with positional embeddings, after a class token: → (n, 1 + patches, width)."""

    def __init__(self, proj: nn.Module, norm: nn.Module | None, patches: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rgbt_stem = nn.Module()
        self.rgbt_stem.proj, self.rgbt_stem.norm_layer = proj, norm
        self.pos_embedding_helper = nn.Module()
        self.pos_embedding_helper.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rgbt_stem.proj(x).flatten(2).transpose(1, 2)
        if self.rgbt_stem.norm_layer is not None:
            x = self.rgbt_stem.norm_layer(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.pos_embedding_helper.pos_embed


class _Trunk(nn.Module):
    """Transformer over (n, tokens, width)."""

    def __init__(self, size: Branch, *, norm_first: bool, bias_kv: bool) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(*([_norm(size.width)] if norm_first else []))
        self.blocks = nn.Sequential(*(_Block(size.width, size.heads, bias_kv) for _ in range(size.blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pre_transformer_layer(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, bias_kv: bool) -> None:
        super().__init__()
        self.norm_1 = _norm(width)
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=bias_kv, batch_first=True)
        self.norm_2 = _norm(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm_2(x))


class _ClassToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


# ------------------------------------------------------------------------------------------------------ inputs


def spectrograms(audio: np.ndarray) -> Tensor:
    """Mono (samples,) at 16 kHz in [-1, 1] → (3, 1, 128, 204): normalized Kaldi log-mel banks of three pieces."""
    from torchaudio.compliance import kaldi

    rows = []
    for start in _starts(len(audio) / SAMPLE_RATE, AUDIO_PIECES):
        first = int(start * SAMPLE_RATE)
        piece = torch.from_numpy(audio[first : first + int(SECONDS * SAMPLE_RATE)]).float()
        bands = kaldi.fbank(
            (piece - piece.mean())[None],
            htk_compat=True,
            sample_frequency=SAMPLE_RATE,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=MELS,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T[:, :FRAMES]
        rows.append(functional.pad(bands, (0, FRAMES - bands.shape[1])))  # zeros before normalization, as in training
    return ((torch.stack(rows) - MEL_MEAN) / MEL_STD)[:, None]


def crops(video: str | Path) -> Tensor:
    """Video → (15, 3, 2, 224, 224): two frames of each of five pieces, in left, middle and right crops of a landscape
    video and top, middle and bottom crops of a portrait one. Raises InputError for a file that is no video.
    """
    duration = media.probe(video).duration
    starts = _starts(duration, VIDEO_PIECES)
    stops = np.minimum(starts + SECONDS, duration) - 2 * media.SAME_TIME  # within the last frame of the piece
    times = np.stack([starts, np.maximum(stops, starts)], axis=1).ravel()
    order = np.argsort(times, kind="stable")  # pieces of a short video overlap
    frames = torch.from_numpy(media.sample_frames(video, times[order])[np.argsort(order)])
    scaled = _short_side(frames.permute(0, 3, 1, 2).float() / 255)
    scaled = (scaled - torch.tensor(RGB_MEAN)[:, None, None]) / torch.tensor(RGB_STD)[:, None, None]
    pieces = scaled.unflatten(0, (VIDEO_PIECES, FRAMES_OF_PIECE)).transpose(1, 2)  # (5, 3, 2, height, width)
    return torch.stack([crop for piece in pieces for crop in _three(piece)])


def _starts(duration: float, count: int) -> np.ndarray:
    """(count,) seconds, evenly spread so that the last piece ends with the clip."""
    return np.linspace(0, max(duration - SECONDS, 0), count)


def _short_side(frames: Tensor) -> Tensor:
    """(n, 3, H, W) → the shorter side is SIZE pixels."""
    height, width = frames.shape[-2:]
    ratio = max(height, width) / min(height, width)  # divided first, as in ImageBind: SIZE exactly for a square
    longer = int(ratio * SIZE)
    size = (SIZE, longer) if height <= width else (longer, SIZE)
    return functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)


def _three(piece: Tensor) -> list[Tensor]:
    """Square crops at both ends and in the middle of the longer side."""
    axis = -1 if piece.shape[-1] >= piece.shape[-2] else -2
    room = piece.shape[axis] - SIZE
    return [piece.narrow(axis, start, SIZE) for start in (0, -(-room // 2), room)]
