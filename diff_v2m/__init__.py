"""Diff-V2M: music for a video, by a latent diffusion transformer conditioned on per-second features of the video.

    from diff_v2m import DiffV2M
    DiffV2M.from_pretrained("saved_model/film_music")

Shape legend everywhere: B batch, S seconds (at most 30), N latent frames, D model width, C context width.
"""

import os

from diff_v2m.common.versions import VERSION as __version__

# Pages of 2 MB for large tensors, instead of 4 kB: a large part of decoding's time on a CPU is page faults. Torch reads
# this when it allocates for the first time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = ["DiffV2M", "__version__"]


def __getattr__(name: str) -> object:
    # imported on demand: torch takes seconds, and --help must not wait for it
    if name == "DiffV2M":
        from diff_v2m.generation.pipeline import DiffV2M

        return DiffV2M
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
