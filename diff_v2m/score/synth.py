"""Score → sound: a stem for each voice, and the mix that is exactly their sum. 44.1 kHz stereo, deterministic."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from diff_v2m.common.errors import InputError
from diff_v2m.score import soundfont
from diff_v2m.score.instruments import BUNDLED, INSTRUMENTS, KITS, Instrument, nearest_kit, nearest_program
from diff_v2m.score.score import DRUMS, Score, Voice

SAMPLE_RATE = 44100
PEAK = 0.89  # of the mix; a louder mix is turned down as a whole
FADE = 0.4  # s, at the end
_POLYPHONY = 192
_DETUNE = 0.06  # semitones between the two copies of a wide instrument


@dataclass(frozen=True)
class Channel:
    """Where a voice stands in the mix: gain in dB, pan −1 (left) to 1, share of it that goes to the reverb."""

    gain: float
    pan: float
    reverb: float


CHANNELS = {
    "melody": Channel(0.0, 0.08, 0.26),
    "harmony": Channel(-7.0, -0.34, 0.28),
    "bass": Channel(-2.5, 0.0, 0.05),
    "figure": Channel(-6.5, 0.40, 0.32),
    "pad": Channel(-10.0, -0.05, 0.40),
    DRUMS: Channel(-6.0, 0.0, 0.12),
}
# Pan of drum sounds as the audience sees the kit; everything else in the middle.
_DRUM_PAN = {42: 0.3, 44: 0.3, 46: 0.3, 51: -0.35, 53: -0.35, 49: 0.4, 57: -0.45, 55: -0.4, 69: 0.35, 70: 0.35}
_DRUM_PAN |= {41: -0.4, 43: -0.3, 45: -0.1, 47: 0.1, 48: 0.25, 50: 0.4, 54: -0.3, 75: -0.3, 76: -0.3, 81: 0.4, 82: 0.35}
_PANS = np.linspace(-0.6, 0.6, 13)  # one synthesiser channel for each


@dataclass(frozen=True)
class Rendering:
    """`stems`: voice → (2, n) float32; `mix` (2, n) float32 is their sum in the order of the score's voices."""

    stems: dict[str, np.ndarray]
    mix: np.ndarray


def render(score: Score, font: str | Path = BUNDLED) -> Rendering:
    """Play a score: exactly round(duration · 44100) samples. The last 0.4 s fade out.

    Raises InputError if the SoundFont cannot be used.
    """
    samples = round(score.duration * SAMPLE_RATE)
    stems = {voice.name: _stem(voice, samples, Path(font)) for voice in score.voices}
    peak = float(np.abs(_sum(stems, samples)).max(initial=0.0))
    scale = np.full(samples, min(1.0, PEAK / max(peak, 1e-9)), np.float32)
    fade = min(samples, round(FADE * SAMPLE_RATE))
    scale[samples - fade :] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade, dtype=np.float32))
    stems = {name: stem * scale for name, stem in stems.items()}
    return Rendering(stems, _sum(stems, samples))


def _sum(stems: dict[str, np.ndarray], samples: int) -> np.ndarray:
    mix = np.zeros((2, samples), np.float32)
    for stem in stems.values():
        mix += stem
    return mix


def _stem(voice: Voice, samples: int, font: Path) -> np.ndarray:
    channel = CHANNELS[voice.name]
    if not len(voice.notes):
        return np.zeros((2, samples), np.float32)
    if voice.name == DRUMS:
        program = nearest_kit(voice.program)
        gain = KITS[program].gain
        dry = _player(font, soundfont.DRUM_BANK, program).play(voice, samples, _drum_channels(voice), 0.0)
    else:
        nearest = nearest_program(voice.program)
        program = voice.program if (0, voice.program) in _font(font).presets else nearest
        instrument = INSTRUMENTS[nearest]
        gain = instrument.gain
        places = _places(voice, instrument, channel.pan)
        dry = _player(font, 0, program).play(voice, samples, places, instrument.advance)
    dry *= np.float32(10 ** ((gain + channel.gain) / 20))
    return _reverberate(dry, channel.reverb)


def _places(voice: Voice, instrument: Instrument, pan: float) -> np.ndarray:
    """(notes, copies) synthesiser channels that a voice's notes play on; each channel has its pan."""
    count = len(voice.notes)
    if instrument.image == "keys":
        share = (voice.notes["pitch"].astype(float) - 60) / 40
        pans = np.clip(pan + 0.5 * share, -0.6, 0.6)[:, None]
    elif instrument.image == "wide":
        pans = np.tile([pan - 0.4, pan + 0.4], (count, 1))
    else:
        pans = np.full((count, 1), pan)
    return np.abs(pans[..., None] - _PANS).argmin(-1)


def _drum_channels(voice: Voice) -> np.ndarray:
    pans = np.array([_DRUM_PAN.get(int(pitch), 0.0) for pitch in voice.notes["pitch"]])
    return np.abs(pans[:, None] - _PANS).argmin(-1)[:, None]


class _Player:
    """One preset, loaded once; plays one voice at a time."""

    def __init__(self, font: Path, bank: int, program: int) -> None:
        try:
            import tinysoundfont
        except ImportError:
            raise InputError("the package tinysoundfont is missing; run: bash setup.sh") from None

        content = soundfont.build([(_font(font), bank, program)], "one preset", "")
        self.synth, self.lock = tinysoundfont.Synth(samplerate=SAMPLE_RATE), Lock()
        try:
            loaded = self.synth.sfload(content, max_voices=_POLYPHONY)
        except RuntimeError as error:
            raise InputError(f"{font}: the synthesiser cannot read program {program} ({error})") from None
        for channel, pan in enumerate(_PANS):
            self.synth.program_select(channel, loaded, bank, program, bank == soundfont.DRUM_BANK)
            self.synth.control_change(channel, 10, round(64 + 63 * pan))
            self.synth.set_tuning(channel, 0.0)

    def play(self, voice: Voice, samples: int, places: np.ndarray, advance: float) -> np.ndarray:
        """(2, samples) float32. Slow instruments start `advance` seconds early, where there is room."""
        notes, copies = voice.notes, places.shape[1]
        start = np.maximum(np.round((notes["start"] - advance) * SAMPLE_RATE), 0).astype(int)
        stop = np.maximum(np.round((notes["start"] + notes["duration"]) * SAMPLE_RATE).astype(int), start + 1)
        keys, velocities = np.repeat(notes["pitch"], copies), np.repeat(notes["velocity"], copies)
        start, stop, channels = np.repeat(start, copies), np.repeat(stop, copies), places.reshape(-1)
        times = np.concatenate([stop, start])
        values = np.concatenate([np.zeros_like(velocities), velocities])
        events = np.stack([times, np.tile(channels, 2), np.tile(keys, 2), values])
        order = np.argsort(times, kind="stable")  # at one sample, notes end before others start
        buffer = np.zeros((samples, 2), np.float32)
        view = buffer.data.cast("B")
        with self.lock:
            self._silence()
            if copies == 2:
                for left, right in {tuple(pair) for pair in places.tolist()}:
                    self.synth.set_tuning(left, -_DETUNE / 2)
                    self.synth.set_tuning(right, _DETUNE / 2)
            now = 0
            for at, channel, key, velocity in events[:, order].T.tolist():
                if at >= samples:
                    break
                if at > now:
                    self.synth.generate(at - now, view[8 * now : 8 * at])
                    now = at
                if velocity:
                    self.synth.noteon(channel, key, velocity)
                else:
                    self.synth.noteoff(channel, key)
            if now < samples:
                self.synth.generate(samples - now, view[8 * now :])
        return np.ascontiguousarray(buffer.T)

    def _silence(self) -> None:
        """End what still sounds, so that a voice does not depend on what was played before it."""
        self.synth.sounds_off()
        self.synth.generate(SAMPLE_RATE // 20)
        for channel in range(len(_PANS)):
            self.synth.set_tuning(channel, 0.0)


@lru_cache(maxsize=4)
def _font(path: Path) -> soundfont.SoundFontFile:
    return soundfont.read(path)


@lru_cache(maxsize=128)
def _player(font: Path, bank: int, program: int) -> _Player:
    return _Player(font, bank, program)


def _reverberate(dry: np.ndarray, share: float) -> np.ndarray:
    """Add the reverb of a concert room to (2, n); the left and right of its response differ, which gives width."""
    samples = dry.shape[1]
    length = next_fast_len(samples + round(_REVERB_LENGTH * SAMPLE_RATE), real=True)
    send = rfft(dry.mean(0), length)
    for side, response in enumerate(_response_spectra(length)):
        dry[side] += np.float32(share) * irfft(send * response, length)[:samples]
    return dry


_REVERB_LENGTH = 1.8  # s


@lru_cache(maxsize=4)
def _response_spectra(length: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(rfft(channel, length) for channel in _impulse_response())


@lru_cache(maxsize=1)
def _impulse_response() -> np.ndarray:
    """(2, n) float32: a few early reflections, then noise that decays faster the higher its band. Unit energy."""
    rng = np.random.default_rng(7)
    count = round(_REVERB_LENGTH * SAMPLE_RATE)
    seconds = np.arange(count) / SAMPLE_RATE
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    response = np.zeros((2, count))
    bands = ((120, 0.9), (400, 1.7), (1200, 1.6), (3500, 1.2), (8000, 0.7))  # upper edge follows from the next; RT60 s
    edges = [low for low, _ in bands] + [16000]
    for (low, decay), high in zip(bands, edges[1:], strict=True):
        spectrum = np.fft.rfft(rng.standard_normal((2, count)))
        slope = 1 / (1 + (low / np.maximum(frequencies, 1)) ** 6) / (1 + (frequencies / high) ** 6)
        response += np.fft.irfft(spectrum * slope, count) * 10 ** (-3 * seconds / decay)
    onset = np.clip((seconds - 0.022) / 0.03, 0, 1)  # pre-delay, then the reflections become dense
    response *= onset
    response /= np.sqrt((response**2).sum(1, keepdims=True))
    for delay, level in ((0.011, 0.25), (0.017, 0.22), (0.023, 0.18), (0.031, 0.15), (0.043, 0.12)):
        for side in range(2):
            response[side, round((delay + 0.0017 * side) * SAMPLE_RATE)] += level * rng.choice((-1, 1))
    return (response / np.sqrt((response**2).sum(1, keepdims=True))).astype(np.float32)
