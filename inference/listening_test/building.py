"""The page of a blind listening test and its key.

Every clip is shown with two systems' music, for every two systems. All that could tell one from the other besides the
music is taken away: each sound is put into the same video anew, as stereo at 44.1 kHz, as long and as loud as the
others of its clip, under a number that was drawn. Which number is whose stands in the key alone. In the page, order and
sides are drawn for each listener from their name.

    <output>/index.html, <output>/media/<number>.mp4      for the listeners
    <key>    test, seed, systems, questions, media: number → clip, system
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, content_hash
from diff_v2m.media import loudness
from inference.pairing import Clip, find_audio, find_videos, in_all, pair
from inference.report import page

FORMAT = 1
MEDIA = "media"  # folder within the page's
SAMPLE_RATE = 44100
SHORTEST = 1.0  # seconds that can be judged
HEARD = 5.0  # seconds of each sound before an answer counts
QUESTIONS = {
    "quality": "Taken for itself, without the picture: which is the better music?",
    "match": "Which music suits better what the video shows and the mood it is in?",
    "sync": "Which music keeps better time with the picture, with its cuts and its movement?",
    "overall": "All in all: which of the two would you choose for this video?",
}


def make(
    systems: Mapping[str, Path], videos: Path, output: Path, key: Path, *, seed: int, count: int = 0
) -> dict[str, str]:
    """Write both; `count`: so many clips, 0 all → clip: why it was left out.

    Raises InputError where the output is there already, the key would lie within it, or no clip can be shown.
    """
    if output.exists():
        raise InputError(f"--output {output} is there already; name a new folder, so that no two tests are mixed")
    if output.absolute() in key.absolute().parents:
        raise InputError(f"--key {key} lies in the folder for the listeners; put it elsewhere")
    sounds, left_out = in_all({name: find_audio(folder, f"--system {name}") for name, folder in systems.items()})
    first = next(iter(sounds))
    films = dict(pair(sounds[first], find_videos(videos, "--videos")).pairs)
    left_out |= {clip.name: "no video of that name" for clip in sounds[first] if clip not in films}
    takes = {
        clip.name: {name: clips[i] for name, clips in sounds.items()}
        for i, clip in enumerate(sounds[first])
        if clip in films
    }
    films = {clip.name: film for clip, film in films.items()}

    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(sorted(takes))[: count or None].tolist())
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as work:
        folder = Path(work) / "page"
        (folder / MEDIA).mkdir(parents=True)
        shown = []
        for clip in tqdm(chosen, desc="clips", unit="clip", disable=None, leave=False):
            try:
                for name, sound in levelled(takes[clip], films[clip]).items():
                    _write(films[clip], sound, Path(work) / _file(clip, name))
                shown.append(clip)
            except InputError as error:
                left_out[clip] = str(error)
        if not shown:
            raise InputError(f"no clip can be shown: {next(iter(left_out.values()), 'there is none')}")
        pairs = [(clip, *two) for clip in shown for two in itertools.combinations(systems, 2)]
        names = [(clip, name) for clip in shown for name in systems]
        number = {names[i]: f"{k:03d}" for k, i in enumerate(rng.permutation(len(names)), 1)}
        for whose, k in number.items():
            (Path(work) / _file(*whose)).rename(folder / MEDIA / f"{k}.mp4")
        trials = [[number[clip, a], number[clip, b]] for clip, a, b in (pairs[i] for i in rng.permutation(len(pairs)))]
        test = _identity(takes, shown, seed)
        known = {"test": test, "trials": trials, "questions": QUESTIONS, "heard": HEARD, "format": FORMAT}
        (folder / "index.html").write_text(page.render("listening.html", "listening.js", known=known), encoding="utf-8")
        secret = {
            "format": FORMAT,
            "test": test,
            "seed": seed,
            "questions": QUESTIONS,
            "systems": {name: str(folder) for name, folder in systems.items()},
            "media": {
                number[names]: dict(zip(("clip", "system"), names, strict=True))
                for names in sorted(number, key=number.get)
            },
        }
        with atomic(key) as part:
            part.write_text(json.dumps(secret, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        folder.chmod(0o755)
        folder.rename(output)
    return left_out


def levelled(takes: Mapping[str, Clip], film: Clip) -> dict[str, np.ndarray]:
    """The music of all systems for one clip → (2, n) each, of one length and one loudness: −16 LUFS, or as much less as
    it takes for the spikiest of them to stay under −1 dBTP. Silence stays silence, near-silence near it.

    Raises InputError for sound or video that cannot be read or is too short."""
    sounds = {name: media.read_audio(clip.path, SAMPLE_RATE, 2) for name, clip in takes.items()}
    seconds = min(media.probe(film.path).duration, *(sound.shape[1] / SAMPLE_RATE for sound in sounds.values()))
    if seconds < SHORTEST:
        raise InputError(f"{film.path}: only {seconds:.2f} s of picture and all music; expected {SHORTEST:g} s or more")
    sounds = {name: sound[:, : round(seconds * SAMPLE_RATE)] for name, sound in sounds.items()}
    if not all(np.isfinite(sound).all() for sound in sounds.values()):
        raise InputError(f"{film.path}: one of its soundtracks holds NaN or infinite samples")
    level = {name: loudness.integrated_loudness(sound, SAMPLE_RATE) for name, sound in sounds.items()}
    room = [
        level[name] + loudness.CEILING_DBTP - loudness.true_peak(sound)
        for name, sound in sounds.items()
        if level[name] > -math.inf
    ]
    target = min([loudness.TARGET_LUFS, *room])
    gain = {name: min(target - lufs, loudness.MAX_BOOST_DB) for name, lufs in level.items()}
    return {name: (sound * 10 ** (gain[name] / 20)).astype(np.float32) for name, sound in sounds.items()}


def _file(clip: str, system: str) -> str:
    return f"{hashlib.sha256(f'{clip}/{system}'.encode()).hexdigest()[:16]}.mp4"


def _write(film: Clip, sound: np.ndarray, path: Path) -> None:
    wav = path.with_suffix(".wav")
    media.write_wav(wav, sound, SAMPLE_RATE)
    media.mux(film.path, wav, path, sound.shape[1] / SAMPLE_RATE)
    wav.unlink()


def _identity(takes: Mapping[str, Mapping[str, Clip]], clips: Sequence[str], seed: int) -> str:
    """The same for the same sounds, order and questions."""
    parts = [
        f"{seed} {QUESTIONS}",
        *(f"{clip} {name} {content_hash(take.path)}" for clip in clips for name, take in takes[clip].items()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
