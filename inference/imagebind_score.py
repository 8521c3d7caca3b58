"""How near a video and its music lie in ImageBind's common space (Girdhar et al. 2023)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from inference.metric import Figure, NotComputed, not_computed

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
    try:
        network = workspace.embedder("imagebind")
        if not workspace.films.pairs:
            raise NotComputed(workspace.why_no_films())
        heard = workspace.embeddings("imagebind", [made for made, _ in workspace.films.pairs])
        seen = workspace.film_embeddings(network)
        rows = [(name, seen[name].clip, sound.clip) for name, sound in heard.items() if name in seen]
        if not rows:
            raise NotComputed(workspace.why_no_films())
    except NotComputed as error:
        return [not_computed(ID, NAME, error)]
    names, video, audio = zip(*rows, strict=True)
    video, audio = np.stack(video), np.stack(audio)
    scores = dict(zip(names, cosine(video, audio).tolist(), strict=True))
    return [
        workspace.mean_figure(
            ID,
            NAME,
            scores,
            better="higher",
            chance=wrong_pairs(video, audio),
            chance_is="the same music with the other videos",
        )
    ]


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="imagebind_score"))
