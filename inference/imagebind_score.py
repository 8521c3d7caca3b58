"""Cosine similarity of a video and its music in ImageBind's joint space (Girdhar et al. 2023)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from inference.metric import MetricResult, NotComputed, not_computed

if TYPE_CHECKING:
    from inference.workspace import Workspace

ID, NAME = "imagebind", "ImageBind cosine"


def cosine(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(n, d) and (n, d) → (n,) cosine of each pair, in [-1, 1]."""
    return (_unit(video) * _unit(audio)).sum(axis=-1)


def wrong_pairs(video: np.ndarray, audio: np.ndarray) -> float | None:
    """(n, d) and (n, d) → mean cosine of all wrong pairs; None if there are none. Variations share their video."""
    table = _unit(video) @ _unit(audio).T
    wrong = (video[:, None] != video[None]).any(axis=-1)
    return float(table[wrong].mean()) if wrong.any() else None


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


# --------------------------------------------------------------------------------------------------- results


def compute(workspace: Workspace) -> list[MetricResult]:
    """The mean cosine over clips, with all wrong pairs as chance."""
    try:
        network = workspace.encoder("imagebind")
        if not workspace.video_pairs.pairs:
            raise NotComputed(workspace.why_no_video_pairs())
        music = workspace.embeddings("imagebind", [file for file, _ in workspace.video_pairs.pairs])
        videos = workspace.video_embeddings(network)
        rows = [(name, videos[name].clip, audio.clip) for name, audio in music.items() if name in videos]
        if not rows:
            raise NotComputed(workspace.why_no_video_pairs())
    except NotComputed as error:
        return [not_computed(ID, NAME, error)]
    names, video, audio = zip(*rows, strict=True)
    video, audio = np.stack(video), np.stack(audio)
    scores = dict(zip(names, cosine(video, audio).tolist(), strict=True))
    return [
        workspace.mean_result(
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
