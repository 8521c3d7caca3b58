"""Builds the page of a blind listening test, and its key.

A trial shows one clip with the music of two systems; every pair of systems meets on every clip. The two versions differ
in nothing but the music: same video, stereo AAC at 44.1 kHz, same length and loudness, and a random number as file
name. Only the key says which system a number belongs to. The page randomizes order and sides by the listener's name.

    <output>/index.html, <output>/media/<number>.mp4      for the listeners
    <key>    test, seed, systems, questions, media: number → clip, system
"""

from __future__ import annotations

import hashlib
import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash, write_json
from diff_v2m.media import loudness, metering
from inference.pairing import MediaFile, common_files, find_audio, find_videos, pair
from inference.report import page

FORMAT = 1
MEDIA = "media"  # folder within the page's
SAMPLE_RATE = 44100
SHORTEST = 1.0  # seconds of a clip
HEARD = 5.0  # seconds of each version that a listener must play before answering
QUESTIONS = {
    "quality": "Regardless of the video: which music is better?",
    "match": "Which music fits the content and the mood of the video better?",
    "sync": "Which music is better synchronized with the cuts and movements of the video?",
    "overall": "Overall: which of the two would you choose for this video?",
}


def make(
    systems: Mapping[str, Path], videos: Path, output: Path, key: Path, *, seed: int, count: int = 0
) -> dict[str, str]:
    """Write the page and its key; return clip → why it was skipped. `count`: number of clips to draw, 0: all.

    Raises InputError if the output exists, the key would lie within it, or no clip can be shown.
    """
    if output.exists():
        raise InputError(f"--output {output} exists; name a new folder, so that no two tests are mixed")
    if output.absolute() in key.absolute().parents:
        raise InputError(f"--key {key} lies in the folder for the listeners; put it elsewhere")
    music, paired, skipped = _find(systems, videos)
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.permutation(sorted(music))[: count or None].tolist())
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as work:
        versions, folder = Path(work), Path(work) / "page"
        shown = []
        for clip in tqdm(chosen, desc="clips", unit="clip", disable=None, leave=False):
            try:
                for system, audio in matched_loudness(music[clip], paired[clip]).items():
                    _write_video(paired[clip], audio, versions / _file(clip, system))
                shown.append(clip)
            except InputError as error:
                skipped[clip] = str(error)
        if not shown:
            raise InputError(f"no clip can be shown: {next(iter(skipped.values()), 'there is none')}")

        owners = [(clip, system) for clip in shown for system in systems]
        numbers = {owners[i]: f"{k:03d}" for k, i in enumerate(rng.permutation(len(owners)), 1)}
        pairs = [(clip, *two) for clip in shown for two in itertools.combinations(systems, 2)]
        pairs = [pairs[i] for i in rng.permutation(len(pairs))]
        trials = [[numbers[clip, a], numbers[clip, b]] for clip, a, b in pairs]
        test = _identity(music, shown, seed)

        (folder / MEDIA).mkdir(parents=True)
        for (clip, system), number in numbers.items():
            (versions / _file(clip, system)).rename(folder / MEDIA / f"{number}.mp4")
        known = {"test": test, "trials": trials, "questions": QUESTIONS, "heard": HEARD, "format": FORMAT}
        (folder / "index.html").write_text(page.render("listening.html", "listening.js", known=known), encoding="utf-8")
        secret = {
            "format": FORMAT,
            "test": test,
            "seed": seed,
            "questions": QUESTIONS,
            "systems": {name: str(path) for name, path in systems.items()},
            "media": {
                number: {"clip": clip, "system": system}
                for (clip, system), number in sorted(numbers.items(), key=lambda item: item[1])
            },
        }
        write_json(key, secret)
        folder.chmod(0o755)
        folder.rename(output)
    return skipped


def _find(
    systems: Mapping[str, Path], videos: Path
) -> tuple[dict[str, dict[str, MediaFile]], dict[str, MediaFile], dict[str, str]]:
    """Return clip → system → music, clip → video, and clip → why it is skipped."""
    files, skipped = common_files({name: find_audio(folder, f"--system {name}") for name, folder in systems.items()})
    first = next(iter(files))
    paired = {file.name: video for file, video in pair(files[first], find_videos(videos, "--videos")).pairs}
    skipped |= {file.name: "no video of that name" for file in files[first] if file.name not in paired}
    music = {
        file.name: {name: of_system[i] for name, of_system in files.items()}
        for i, file in enumerate(files[first])
        if file.name in paired
    }
    return music, paired, skipped


def matched_loudness(music: Mapping[str, MediaFile], video: MediaFile) -> dict[str, np.ndarray]:
    """The music of all systems for one clip → (2, n) each, of equal length and loudness.

    The target is −16 LUFS, or lower where a system would exceed −1 dBTP. The gain is limited, so near-silence stays
    near-silent. Raises InputError for audio or video that cannot be read or is too short.
    """
    waveforms = {name: media.read_audio(file.path, SAMPLE_RATE, 2) for name, file in music.items()}
    seconds = min(media.probe(video.path).duration, *(audio.shape[1] / SAMPLE_RATE for audio in waveforms.values()))
    if seconds < SHORTEST:
        raise InputError(f"{video.path}: video and music share only {seconds:.2f} s; expected {SHORTEST:g} s or more")
    waveforms = {name: audio[:, : round(seconds * SAMPLE_RATE)] for name, audio in waveforms.items()}
    if not all(np.isfinite(audio).all() for audio in waveforms.values()):
        raise InputError(f"{video.path}: one of its soundtracks holds NaN or infinite samples")
    level = {name: metering.integrated_loudness(audio, SAMPLE_RATE) for name, audio in waveforms.items()}
    reachable = [
        level[name] + loudness.CEILING_DBTP - metering.true_peak(audio)
        for name, audio in waveforms.items()
        if level[name] > -math.inf
    ]
    target = min([loudness.TARGET_LUFS, *reachable])
    gain = {name: min(target - lufs, loudness.MAX_BOOST_DB) for name, lufs in level.items()}
    return {name: (audio * 10 ** (gain[name] / 20)).astype(np.float32) for name, audio in waveforms.items()}


def _file(clip: str, system: str) -> str:
    """A temporary name; clip and system may hold characters that a file name may not."""
    return f"{_digest(f'{clip}/{system}')[:16]}.mp4"


def _write_video(video: MediaFile, audio: np.ndarray, path: Path) -> None:
    wav = path.with_suffix(".wav")
    media.write_wav(wav, audio, SAMPLE_RATE)
    media.mux(video.path, wav, path, audio.shape[1] / SAMPLE_RATE)
    wav.unlink()


def _identity(music: Mapping[str, Mapping[str, MediaFile]], clips: Sequence[str], seed: int) -> str:
    """Name of the test: equal for equal audio files, order and questions."""
    parts = [
        f"{seed} {QUESTIONS}",
        *(f"{clip} {name} {content_hash(file.path)}" for clip in clips for name, file in music[clip].items()),
    ]
    return _digest("\n".join(parts))[:12]


def _digest(text: str) -> str:
    """SHA-256 in hex; a name that is not UTF-8 counts with its own bytes."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
