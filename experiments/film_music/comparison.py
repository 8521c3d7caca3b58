"""Several models on the same held-out videos, side by side: what `check` measures, by network evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.generation.pipeline import DEFAULT_SETTINGS, DiffV2M
from experiments.film_music.check import NAN, HeldOut, Piece, Row, load_model, measured, table

EVALUATIONS, DISTANCE = "network evaluations for a clip", "distance of latents to the first model's"
_PLOTTED = (  # rows of the table by the beginning of their names, and their labels
    (DISTANCE, "distance of latents to the first model's"),
    ("onset strength, r with the real, 1", "onset strength, r a second (≥ .80)"),
    ("cuts", "cuts with an onset (≥ .90)"),
    ("family", "family of instruments (≥ .85)"),
    ("one tempo", "one tempo (≥ .90)"),
    ("pulse", "pulse clarity (≥ .60)"),
    ("beat F1", "beat F1 (≥ .80)"),
    ("recall", "recall (≥ .50)"),
)


def compare(
    model_paths: Sequence[Path], folder: Path, count: int = 40, *, first: int = 0, plot: Path | None = None
) -> str:
    """A markdown table. The arguments are those of `check`; models with latents of one shape get the same noise.

    plot: a picture to write, measures against network evaluations. Raises InputError as `check` does, and for two
    models of one name.
    """
    names = [path.name if path.is_dir() else path.parent.name for path in model_paths]
    if len(set(names)) < len(names):
        raise InputError(
            f"{', '.join(names)}: the folders' names head the columns; give models in folders of other names"
        )
    models = {name: load_model(path) for name, path in zip(names, model_paths, strict=True)}
    held_out = HeldOut.render(folder, first, count)
    played = {name: held_out.play(model, held_out.features(model), DEFAULT_SETTINGS) for name, model in models.items()}
    pieces, seconds = ({name: each[part] for name, each in played.items()} for part in (0, 1))
    rows = [
        Row(EVALUATIONS, {name: float(evaluations(model)) for name, model in models.items()}),
        Row(DISTANCE, distances(models, pieces)),
        *measured(held_out.classifiers, pieces, seconds),
    ]
    if plot is not None:
        draw(rows, plot)
    return table(rows) + f"\n{count} held-out clips.\n"


def evaluations(model: DiffV2M) -> int:
    """Passes of the network over one window, with the model's own settings."""
    return DEFAULT_SETTINGS.resolve(model.config).steps * (1 if model.config.model.diffusion.student else 2)


def distances(models: Mapping[str, DiffV2M], pieces: Mapping[str, Sequence[Piece]]) -> dict[str, float]:
    """`distance` of each model's latents to those of the first; NaN for latents of another pretransform."""
    first = next(iter(models))
    spaces = {name: model.model.pretransform.fingerprint() for name, model in models.items()}
    return {name: distance(pieces[name], pieces[first]) if spaces[name] == spaces[first] else NAN for name in models}


def distance(group: Sequence[Piece], leading: Sequence[Piece]) -> float:
    """Root mean square of the difference of latents over that of the leading model's, mean over the clips."""
    pairs = [
        (ours.latents.astype(float), theirs.latents.astype(float)) for ours, theirs in zip(group, leading, strict=True)
    ]
    return float(
        np.mean([np.sqrt(np.square(ours - theirs).mean() / np.square(theirs).mean()) for ours, theirs in pairs])
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: a line for each measure over the evaluations of the models."""
    from matplotlib.figure import Figure

    count = rows[0].means
    models = sorted(count, key=count.__getitem__)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for beginning, label in _PLOTTED:
        row = next(row for row in rows if row.name.startswith(beginning))
        style = "k--" if row.name == DISTANCE else "-"
        axes.plot(
            [count[name] for name in models], [row.means[name] for name in models], style, marker="o", label=label
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([count[name] for name in models], [f"{count[name]:g}" for name in models])
    axes.set_xlabel("network evaluations for a clip")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right", fontsize="small")
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=120)
