"""Music under speech: `python -m benchmarks.mix levels` and `python -m benchmarks.mix length`.

`levels` mixes music with sounds of known truth: speech by espeak-ng (which has to be installed) alone, in noise and
over other music, and noise and music without speech. `length` mixes sounds of several lengths, each in a process of
its own, and reads its peak memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import parse_with_command, write_section
from diff_v2m import media
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.media.metering import integrated_loudness, true_peak
from diff_v2m.mix.mixing import Mix, finish, prepare
from diff_v2m.mix.settings import MixSettings

RESULTS = ROOT / "results" / "mix.md"
RATE, SPEECH_RATE = 48000, 16000
STARTS = (4.0, 17.0, 24.0)  # s, of the sentences
SECONDS = 34.0
SENTENCES = {
    "en-us": "Nobody had seen the boats leave, and nobody would see them come back before the end of the winter.",
    "en-gb": "The harbour was quiet that morning, and the first letters arrived three days later with the news.",
    "de": "Der Hafen war still an diesem Morgen, und niemand hatte gesehen, wie die Boote ausgelaufen waren.",
}
GAP_LEVEL = MixSettings("mix", under=0.0)  # the music stays as loud as it is between speech


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.mix", description=__doc__)
    parser.add_argument("what", choices=("levels", "length", "one"), help="one: a single length, in this process")
    parser.add_argument("--music", type=Path, nargs=2, metavar="WAV", help="music, and the video's own music")
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 120], help="lengths (default: 10 120)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    if args.what == "levels":
        if not args.music:
            raise InputError("levels: name two wav files with --music, for example results of infer.py")
        text = levels(*args.music)
        write_section(args.output, "Speech, levels and intelligibility", args.command, text)
    elif args.what == "length":
        text = length(args.minutes)
        write_section(args.output, "Memory and time by length", args.command, text)
    else:
        text = one_length(args.minutes[0])
    sys.stdout.write(text)


# ------------------------------------------------------------------------------------------------------- levels


def levels(music: Path, own_music: Path) -> str:
    """Markdown: one row for each kind of sound."""
    from pystoi import stoi

    speech, truth = spoken()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(speech)).astype(np.float32)
    noise *= 10 ** (-10 / 20) * speech[speech != 0].std()
    other = looped(own_music)
    other = other * 10 ** ((integrated_loudness(speech[None], RATE) - 10 - integrated_loudness(other, RATE)) / 20)
    other = other.mean(axis=0)
    quiet = 1e-4 * rng.standard_normal(len(speech)).astype(np.float32)
    cases = {
        "speech": (speech + quiet, truth),
        "speech, −16 LUFS": (speech + quiet, truth),
        "speech in noise, 10 dB": (speech + noise, truth),
        "speech over music, 10 LU": (speech + other, truth),
        "noise": (noise, []),
        "music": (10 * other, []),
    }
    columns = ["sound", "F1", "ratio, LU", "target", "loudness", "peak, dBTP", "slope, dB/s", "in words, dB"]
    columns += ["ESTOI alone", "without ducking", "ducked"]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, (sound, said) in cases.items():
        settings = MixSettings(target=-16.0 if "−16" in name else -23.0)
        mix, flat = (mixed(sound, looped(music), chosen) for chosen in (settings, GAP_LEVEL))
        parts = {part: np.asarray(wave[:, : wave.shape[1]]) for part, wave in mix.parts.items()}
        curve = mix.balance.music
        slope = np.abs(np.diff(curve.decibels) / np.diff(curve.times)).max() if len(curve.times) > 1 else 0.0
        row: list[Any] = [name, f1(said, mix), "", settings.target]
        if said:
            inside = within(said)
            heard = {part: integrated_loudness(wave[:, inside], RATE) for part, wave in parts.items()}
            moved = max(np.ptp(np.interp(np.linspace(*span, 200), curve.times, curve.decibels)) for span in said)
            together = flat.mix[:, : flat.mix.shape[1]].mean(axis=0)
            scores = [
                stoi(speech[inside], wave[inside], RATE, extended=True)
                for wave in (parts["original"].mean(axis=0), together, parts["mix"].mean(axis=0))
            ]
            row[2] = heard["original"] - heard["music"]
            row += [heard["mix"], true_peak(parts["mix"]), slope, moved, *scores]
        else:
            row += [integrated_loudness(parts["mix"], RATE), true_peak(parts["mix"]), slope, "", "", "", ""]
        rows.append("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    about = """
F1 counts seconds with speech; without speech it is 1 if none is found. The ratio is the loudness of the sound above
that of the music while somebody speaks. Loudness is that of the mix there, without speech that of all of it. "In words"
is how far the gain moves within a sentence. ESTOI compares with the speech alone: the sound of the video, the mix with
the music as loud as between speech, and the ducked mix.
"""
    return "\n".join(rows) + "\n" + about


def spoken() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Sentences of three voices, (n,) float32, and the seconds [start, stop) of each."""
    audio, truth = np.zeros(round(SECONDS * RATE), np.float32), []
    for start, (voice, sentence) in zip(STARTS, SENTENCES.items(), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            try:
                subprocess.run(["espeak-ng", "-v", voice, "-w", wav, sentence], check=True, capture_output=True)
            except FileNotFoundError:
                raise InputError("espeak-ng is not installed; install the package of that name") from None
            words = media.read_audio(wav, RATE, 1)[0]
        loud = np.flatnonzero(np.abs(words) > 0.01 * np.abs(words).max())
        words = words[loud[0] : loud[-1]]
        audio[round(start * RATE) :][: len(words)] = words
        truth.append((start, start + len(words) / RATE))
    return audio, truth


def looped(path: Path, rate: int = RATE) -> np.ndarray:
    """(2, n) float32: as much music as the speech needs."""
    audio = media.read_audio(path, rate, 2)
    return np.tile(audio, (1, -(-round(SECONDS * rate) // audio.shape[1])))[:, : round(SECONDS * rate)]


def mixed(sound: np.ndarray, music: np.ndarray, settings: MixSettings) -> Mix:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = video_of(folder, np.stack([sound, sound]), RATE, SECONDS)
        clip = prepare(media.open_sound(video), music, RATE, SECONDS, settings, folder)
        (mix,) = finish([clip], settings)
        return in_memory(mix)


def in_memory(mix: Mix) -> Mix:
    whole = {part: np.asarray(wave[:, : wave.shape[1]]) for part, wave in mix.parts.items()}
    return replace(mix, **whole)


def within(spans: list[tuple[float, float]]) -> np.ndarray:
    inside = np.zeros(round(SECONDS * RATE), bool)
    for start, stop in spans:
        inside[round(start * RATE) : round(stop * RATE)] = True
    return inside


def f1(truth: list[tuple[float, float]], mix: Mix) -> float:
    """By second: one counts as speech if more than half of it is."""
    said, found = (within(spans).reshape(-1, RATE).mean(axis=1) > 0.5 for spans in (truth, mix.measured.spans))
    right = np.count_nonzero(said & found)
    return 2 * right / (said.sum() + found.sum()) if said.any() or found.any() else 1.0


# ------------------------------------------------------------------------------------------------------- length


class Repeated:
    """Music without an end, which takes no memory: a `Waveform`."""

    def __init__(self, audio: np.ndarray, samples: int):
        self._audio, self.shape = audio, (len(audio), samples)

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = where[1].indices(self.shape[1])
        return self._audio[:, np.arange(start, max(start, stop)) % self._audio.shape[1]]


def length(minutes: list[int]) -> str:
    rows = ["| minutes | peak memory, MB | seconds | CPU seconds |", "|---|---|---|---|"]
    for count in minutes:
        command = [sys.executable, "-m", "benchmarks.mix", "one", "--minutes", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        rows.append(done.stdout.strip().splitlines()[-1])
    return "\n".join(rows) + "\n\nMono sound and music at 16 kHz, from the mp4 to stems, mix and mp4.\n"


def one_length(minutes: int) -> str:
    """Mix `minutes` of speech and pauses, and write everything. Returns a row of the table."""
    from diff_v2m.mix.publishing import mix_video

    speech = spoken()[0][:: RATE // SPEECH_RATE]
    times = np.arange(20 * SPEECH_RATE) / SPEECH_RATE
    chord = 0.1 * sum(np.sin(2 * np.pi * hertz * times) for hertz in (220, 277, 330)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = video_of(folder, speech[None], SPEECH_RATE, 60.0 * minutes)
        music = Repeated(chord[None], minutes * 60 * SPEECH_RATE)
        start, cpu = time.perf_counter(), time.process_time()
        mix_video(video, music, SPEECH_RATE, MixSettings(), folder, "long", 60.0 * minutes)
        seconds, own = time.perf_counter() - start, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"| {minutes} | {memory:.0f} | {seconds:.0f} | {own:.0f} |\n"


def video_of(folder: Path, sound: np.ndarray, sample_rate: int, seconds: float) -> Path:
    """A small picture with this sound, over and over."""
    import imageio_ffmpeg

    wav, video = folder / "sound.wav", folder / "video.mkv"
    media.write_wav(wav, sound, sample_rate)
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r=5:d={seconds}"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "flac", "-t", f"{seconds}"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *picture, "-stream_loop", "-1", "-i", str(wav)]
    subprocess.run([*command, *coding, str(video)], check=True, capture_output=True)
    return video


if __name__ == "__main__":
    sys.exit(main())
