"""What the score autoencoder keeps of pieces that it was not trained on, with and without noise in the latents."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import mir_eval
import numpy as np
import torch

from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import config_of, load_vae_weights
from diff_v2m.model.pretransform import build_pretransform
from diff_v2m.score.frames import to_frames
from diff_v2m.score.score import DRUMS, VOICES, Score
from experiments.film_music.composer import compose
from experiments.film_music.scene import draw_scene

ONSET_TOLERANCE = 0.05  # s
COLUMNS = ("program", "key", "beats", "onset ms", "velocity", "length ms")


def reconstruct(weights: Path, seeds: Sequence[int], noise_levels: Sequence[float] = (0.0, 0.1, 0.2, 0.3)) -> str:
    """A Markdown table with a row for each level: noise of that standard deviation is added to normalised latents.

    Note F1 by voice (onset within 50 ms, pitch); shares of pieces with every program, the key, and metre and tempo
    right; median error of onsets and lengths, mean error of velocity. Raises InputError.
    """
    config = config_of(read_weights(weights))
    vae = build_pretransform(config.pretransform)
    load_vae_weights(vae, weights)
    rows = [f"| noise | {' | '.join((*VOICES, *COLUMNS))} |", "|---" * (1 + len(VOICES) + len(COLUMNS)) + "|"]
    for level in noise_levels:
        tally = Tally()
        for seed in seeds:
            score = compose(draw_scene(seed))
            generator = torch.Generator().manual_seed(seed)
            frames = to_frames(score, config.latent_rate, round(score.duration * config.latent_rate))
            with torch.no_grad():
                latents = vae.encode(torch.from_numpy(frames)[None], generator)[0]
                noisy = latents + level * torch.randn(latents.shape, generator=generator)
                tally.add(score, vae.score(noisy))
        rows.append(f"| {level:g} | {' | '.join(tally.row())} |")
    return "\n".join(rows) + "\n"


class Tally:
    """Counts and errors over pieces."""

    def __init__(self) -> None:
        self.found, self.notes = Counter(), Counter()  # matched notes; notes of both sides; by voice
        self.errors: dict[str, list[float]] = defaultdict(list)

    def add(self, true: Score, made: Score) -> None:
        for name in VOICES:
            ours, theirs = true[name].notes, made[name].notes
            pairs = matched(ours, theirs)
            self.found[name] += 2 * len(pairs)
            self.notes[name] += len(ours) + len(theirs)
            if len(pairs):
                first, second = ours[pairs[:, 0]], theirs[pairs[:, 1]]
                self.errors["onset ms"] += (1000 * np.abs(first["start"] - second["start"])).tolist()
                self.errors["velocity"] += np.abs(first["velocity"].astype(int) - second["velocity"]).tolist()
                if name != DRUMS:
                    self.errors["length ms"] += (1000 * np.abs(first["duration"] - second["duration"])).tolist()
        both = [voice for voice in true.voices if len(made[voice.name].notes)]
        self.errors["program"] += [voice.program == made[voice.name].program for voice in both]
        self.errors["key"].append(true.key == made.key)
        same_tempo = abs(made.grid.tempo / true.grid.tempo - 1) < 0.02
        self.errors["beats"].append(same_tempo and made.grid.beats_per_bar == true.grid.beats_per_bar)

    def row(self) -> list[str]:
        cells = [f"{self.found[name] / self.notes[name]:.3f}" if self.notes[name] else "–" for name in VOICES]
        for column in COLUMNS:
            values = self.errors[column]
            if not values:
                cells.append("–")
                continue
            average = np.median(values) if column.endswith("ms") else np.mean(values)
            cells.append(f"{average:.1f}" if column.endswith("ms") or column == "velocity" else f"{average:.3f}")
        return cells


def matched(true: np.ndarray, made: np.ndarray) -> np.ndarray:
    """(pairs, 2) indices of notes that agree in pitch and onset, the largest one-to-one matching."""
    if not len(true) or not len(made):
        return np.empty((0, 2), int)
    sides = []
    for notes in (true, made):
        ends = notes["start"] + np.maximum(notes["duration"], 0.01)
        sides += [np.stack([notes["start"], ends], 1), mir_eval.util.midi_to_hz(notes["pitch"].astype(float))]
    pairs = mir_eval.transcription.match_notes(*sides, onset_tolerance=ONSET_TOLERANCE, offset_ratio=None)
    return np.array(pairs, int).reshape(-1, 2)
