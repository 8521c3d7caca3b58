"""Sounds for tests of the mix: speech by espeak-ng, a chord, and videos that carry them."""

from pathlib import Path

import numpy as np
import soundfile
import soxr
from helpers import videos

SPEECH = Path(__file__).parent / "speech.flac"  # espeak-ng, voice en-gb: "The harbour was quiet that morning, …"
RATE = 48000


def speech(sample_rate: int = RATE) -> np.ndarray:
    """(n,) float32: 3.7 s of speech without silence around it."""
    audio, rate = soundfile.read(SPEECH, dtype="float32")
    return soxr.resample(audio, rate, sample_rate)


def talk(seconds: float, starts: tuple[float, ...], sample_rate: int = RATE) -> np.ndarray:
    """(n,) float32: the speech at each start, silence elsewhere."""
    audio, words = np.zeros(round(seconds * sample_rate), np.float32), speech(sample_rate)
    for start in starts:
        audio[round(start * sample_rate) :][: len(words)] += words
    return audio


def chord(seconds: float, sample_rate: int, channels: int = 1) -> np.ndarray:
    """(channels, n) float32: a steady chord, a little different in each channel."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    hertz = np.array([220, 277, 330, 1100]) * (1 + np.arange(channels)[:, None] / 200)
    return 0.1 * np.sin(2 * np.pi * hertz[..., None] * times).sum(axis=1).astype(np.float32)


def write_video(path: Path, audio: np.ndarray, sample_rate: int, *options, picture: float | None = None) -> Path:
    """A video with this sound (channels, n) as PCM; `options` go to ffmpeg. picture: seconds, those of the sound."""
    wav = path.with_suffix(".source.wav")
    soundfile.write(wav, audio.T, sample_rate, subtype="FLOAT")
    seconds = audio.shape[1] / sample_rate if picture is None else picture
    source = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r=10:d={seconds:.6f}"]
    videos.ffmpeg(*source, "-i", wav, *videos.X264, *(options or ("-c:a", "pcm_f32le")), path)
    wav.unlink()
    return path


def shift_sound(video: Path, output: Path, seconds: float) -> Path:
    """The same video with its sound later, or earlier, than its picture."""
    videos.ffmpeg("-i", video, "-itsoffset", seconds, "-i", video, "-map", "0:v", "-map", "1:a", "-c", "copy", output)
    return output
