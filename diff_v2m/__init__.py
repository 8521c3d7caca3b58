"""Diff-V2M: music for a video, by a latent diffusion transformer that is told what the video shows and when.

    from diff_v2m import DiffV2M
    DiffV2M.from_pretrained("saved_model/tiny")

Shapes are written with one legend everywhere: B batch, S seconds (rows of video features, ≤ 30), N latent frames,
D model width, C context width.
"""

__version__ = "0.1.0"
__all__ = ["DiffV2M", "__version__"]


def __getattr__(name: str) -> object:
    # torch and friends take seconds to import, and `--help` must not wait for them.
    if name == "DiffV2M":
        from diff_v2m.generation.pipeline import DiffV2M

        return DiffV2M
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
