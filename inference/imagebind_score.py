"""How near a video and its music lie in ImageBind's common space (Girdhar et al. 2023).

ImageBind is in no package that can be installed beside this project, so its embeddings are made elsewhere and read
here, one vector a clip:

    <folder>/video/<clip>.npy     <folder>/audio/<clip>.npy
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m.errors import InputError
from inference.figures import Figure, not_computed
from inference.pairing import find_files, pair

if TYPE_CHECKING:
    from inference.workspace import Workspace

ID, NAME = "imagebind", "ImageBind cosine"


def cosine(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(n, d) and (n, d) → (n,) cosine of each pair, in [-1, 1]."""
    return (_unit(video) * _unit(audio)).sum(axis=-1)


def wrong_pairs(video: np.ndarray, audio: np.ndarray) -> float | None:
    """(n, d) and (n, d) → mean cosine of all pairs that do not belong together; None for fewer than two."""
    n = len(video)
    table = _unit(video) @ _unit(audio).T
    return float((table.sum() - np.trace(table)) / (n * (n - 1))) if n > 1 else None


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


# ---------------------------------------------------------------------------------------------------- of files


def figures(workspace: Workspace) -> list[Figure]:
    folder = workspace.imagebind
    if folder is None:
        reason = (
            "ImageBind has no release on PyPI that fits this environment; embed videos and music with its own code and "
            "name the folder of <clip>.npy in video/ and audio/ with --imagebind"
        )
        return [not_computed(ID, NAME, reason)]
    kinds = (find_files(folder / kind, frozenset({".npy"}), f"--imagebind {kind}") for kind in ("video", "audio"))
    pairing = pair(*kinds)
    rows = {}
    for video, audio in pairing.pairs:
        try:
            rows[video.name] = _read(video.path), _read(audio.path)
        except InputError as error:
            workspace.fail(video.name, error)
    for clip in (*pairing.alone, *pairing.unused):
        workspace.fail(clip.name, f"{clip.path}: no embedding of the same name beside it; left out")
    if not rows:
        return [not_computed(ID, NAME, f"no pair of embeddings in {folder}")]
    video, audio = (np.stack([row[side] for row in rows.values()]) for side in (0, 1))
    scores = dict(zip(rows, cosine(video, audio).tolist(), strict=True))
    return [workspace.mean_figure(ID, NAME, scores, better="higher", chance=wrong_pairs(video, audio),
            chance_is="the same music with the other videos")]  # fmt: skip


def _read(path: Path) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as npy ({error})".splitlines()[0]) from None
    if vector.size != 1024 or not np.isfinite(vector).all():
        raise InputError(f"{path}: shape {vector.shape}; expected 1024 finite numbers, as ImageBind-huge makes them")
    return vector.reshape(-1)


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="imagebind_score"))
