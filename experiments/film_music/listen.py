"""Write the music of some seeds as wav and mid, and a table of what can be measured of it."""

from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.media.writing import write_wav
from diff_v2m.score.midi import write_midi
from diff_v2m.score.synth import SAMPLE_RATE, render
from experiments.film_music.composer import compose
from experiments.film_music.measures import ranges, score_measures, sound_measures
from experiments.film_music.scene import FAMILIES, draw_scene


def listen(seeds: range, output: Path, *, duration: float, family: str | None, sound: bool) -> str:
    """Compose, write and measure each seed. Returns the table, which is also written to `output`/table.txt."""
    if family is not None and family not in FAMILIES:
        raise InputError(f"family {family!r} is unknown; choose one of {', '.join(FAMILIES)}")
    rows, lines = [], []
    for seed in seeds:
        scene = draw_scene(seed, duration, family)
        score = compose(scene)
        name = f"{seed:04d}_{scene.family}"
        write_midi(output / f"{name}.mid", score)
        row = score_measures(score, scene.cuts)
        if sound:
            mix = render(score).mix
            write_wav(output / f"{name}.wav", mix, SAMPLE_RATE)
            row |= sound_measures(mix, SAMPLE_RATE, score, scene.cuts)
        rows.append(row)
        about = f"{score.grid.tempo:5.1f} BPM {score.grid.beats_per_bar}/4 {score.key!s:15s} {len(scene.cuts)} cuts"
        lines += [f"{name:16s} {about}  " + "  ".join(f"{low}-{high}" for low, high in ranges(score).values())]
        lines += ["    " + "  ".join(f"{key} {_number(value)}" for key, value in row.items())]
    lines.append("mean")
    for key in rows[0]:
        values = np.array([row[key] for row in rows if np.isfinite(row[key])])
        if len(values):
            lines.append(f"    {key:16s} {values.mean():7.3f}   from {values.min():.3f} to {values.max():.3f}")
    text = "\n".join(lines) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.txt").write_text(text, encoding="utf-8")
    return text


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
