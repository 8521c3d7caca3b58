"""What a model makes of real videos: scene family, instruments, tempo, key, cuts that are met, difference of takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.features.imagenet import FAMILIES, family_scores
from diff_v2m.generation.pipeline import Composition, DiffV2M
from diff_v2m.generation.planning import mood_of
from diff_v2m.media import loudness
from diff_v2m.score.score import VOICES, Score
from experiments.film_music.check import FITTED_ON
from experiments.film_music.ensembles import family_written
from experiments.film_music.hearing import TOLERANCE, Classifiers, hear
from experiments.film_music.reconstruction import matched
from experiments.synthetic.measures import share_hit

COLUMNS = ("video", "seconds", "shown", "written", "heard", "tempo", "key", "palette", "cuts met", "take 2", "next")


def clip_table(model_path: Path, videos: Sequence[Path], output: Path) -> str:
    """A markdown table with a row for each video; the music is written to the folder `output`.

    shown: the best family of scenes and its share of the whole. written: the family whose instruments the score has.
    heard: the same by a classifier of the wav, which was fitted on 30 s of music. cuts met: those with an onset within
    50 ms. take 2, next: share of notes (50 ms, pitch, voice) that the music has in common with another seed's,
    and with that of the next video in the table. Raises InputError.
    """
    model = DiffV2M.from_pretrained(model_path, device="cpu")
    classifiers = Classifiers(FITTED_ON)
    shown = [model.extract(video) for video in tqdm(videos, desc="extracting features")]
    first = [model.compose([features], ["clip"])[0] for features in tqdm(shown, desc="generating music")]
    second = [model.compose([features], ["clip"], seed=43)[0] for features in tqdm(shown, desc="generating take 2")]
    lines, followed = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"], 0
    for number, (video, features, made) in enumerate(zip(videos, shown, first, strict=True)):
        heard = hear(_wav_of(made, model, output / f"{video.stem}.wav"), model.config.sample_rate)
        scores = family_scores(features.semantic).mean(axis=0)
        best = int(scores.argmax())
        following = first[(number + 1) % len(first)]
        cuts, written = features.cut_times, family_written(made.score)
        followed += written == FAMILIES[best]
        cells = (
            video.name,
            f"{features.duration:.1f}",
            f"{FAMILIES[best]} {scores[best]:.2f}",
            written,
            classifiers.family(heard.timbre),
            f"{made.plan.grid.tempo:.0f}",
            str(made.plan.key),
            mood_of(features.color),
            f"{share_hit(cuts, heard.onsets, TOLERANCE) * len(cuts):.0f} of {len(cuts)}" if len(cuts) else "–",
            f"{common_notes(made.score, second[number].score):.2f}",
            f"{common_notes(made.score, following.score):.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nThe family shown is the one written in {followed} of {len(videos)} videos.\n"


def _wav_of(made: Composition, model: DiffV2M, path: Path) -> np.ndarray:
    """Normalise and write as infer.py does, then read the file back."""
    audio, _ = loudness.normalize(made.audio, model.config.sample_rate, "lufs")
    media.write_wav(path, audio, model.config.sample_rate)
    return media.read_audio(path, model.config.sample_rate, 2)


def common_notes(one: Score, other: Score) -> float:
    """F1 of notes with the same voice and pitch and an onset within 50 ms, over the length of the shorter score."""
    stop = min(one.duration, other.duration)
    one, other = one.slice(0.0, stop), other.slice(0.0, stop)
    pairs = sum(len(matched(one[voice].notes, other[voice].notes)) for voice in VOICES)
    return 2 * pairs / max(one.note_count + other.note_count, 1)
