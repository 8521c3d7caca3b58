"""Score → sound: a stem for each voice, and the mix that is their sum. 44.1 kHz stereo, deterministic.

All voices of a mix send to one reverb. They are played in blocks, so memory beside the mix and what is sent does not
grow with the length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import BLOCK, TEMPORARY, Scratch, parts
from diff_v2m.config.score_autoencoder import SCORE_SAMPLE_RATE as SAMPLE_RATE
from diff_v2m.score import soundfont
from diff_v2m.score.instruments import INSTRUMENTS, KITS, SOUNDFONT, Instrument, nearest_kit, nearest_program
from diff_v2m.score.score import DRUMS, Score, Voice

PEAK = 0.89  # of the mix; a louder mix is turned down as a whole
FADE = 0.4  # s, at the end
_POLYPHONY = 192
_UPDATE = 64  # samples after which the synthesiser updates its envelopes
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
class Stems:
    """Plays the voices of a score one by one."""

    score: Score
    font: Path
    scale: np.float32
    samples: int
    scratch: Scratch

    def __call__(self) -> dict[str, np.ndarray]:
        """Voice → (2, samples) float32, in the order of the score's voices."""
        found = {}
        for voice in self.score.voices:
            stem = found[voice.name] = _mixed((voice,), self.samples, self.font, self.scratch)
            _finish(stem, self.scale)
        return found


@dataclass(frozen=True)
class Rendering:
    """The sound of a score: `mix` (2, n) float32, and what plays its voices, which add up to it."""

    mix: np.ndarray
    play_stems: Stems

    @property
    def stems(self) -> dict[str, np.ndarray]:
        return self.play_stems()


def render(score: Score, font: str | Path = SOUNDFONT, scratch: Scratch = TEMPORARY) -> Rendering:
    """Play a score: exactly round(duration · 44100) samples. The last 0.4 s fade out.

    scratch: where the sound of a long score lies. Raises InputError if the SoundFont cannot be used.
    """
    font = Path(font)
    mix = _mixed(score.voices, round(score.duration * SAMPLE_RATE), font, scratch)
    peak = max((float(np.abs(mix[:, part]).max()) for part in parts(mix.shape[1])), default=0.0)
    scale = np.float32(min(1.0, PEAK / max(peak, 1e-9)))
    _finish(mix, scale)
    return Rendering(mix, Stems(score, font, scale, mix.shape[1], scratch))


def _mixed(voices: Sequence[Voice], samples: int, font: Path, scratch: Scratch) -> np.ndarray:
    """The voices with their reverb, (2, samples)."""
    mix, send = scratch.zeros(2, samples), scratch.zeros(samples)
    for voice in voices:
        _add(voice, mix, send, font)
    _reverberate(send, mix)
    return mix


def _finish(audio: np.ndarray, scale: np.float32) -> None:
    """Scale and fade out, in place."""
    if scale < 1:
        for part in parts(audio.shape[1]):
            audio[:, part] *= scale
    fade = min(audio.shape[1], round(FADE * SAMPLE_RATE))
    audio[:, audio.shape[1] - fade :] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade, dtype=np.float32))


def _add(voice: Voice, audio: np.ndarray, send: np.ndarray, font: Path) -> None:
    """Add the dry sound of a voice to (2, n), and what it sends to the reverb to (n,)."""
    if not len(voice.notes):
        return
    channel, samples = CHANNELS[voice.name], audio.shape[1]
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
    ratio, start = np.float32(10 ** ((gain + channel.gain) / 20)), 0
    for block in dry:
        block *= ratio
        here = slice(start, start + block.shape[1])
        audio[:, here] += block
        send[here] += np.float32(channel.reverb) * block.mean(0)
        start = here.stop


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

    def play(self, voice: Voice, samples: int, places: np.ndarray, advance: float) -> Iterator[np.ndarray]:
        """Consecutive blocks (2, ≤ BLOCK) float32. Slow instruments start `advance` seconds early, if there is room."""
        notes, copies = voice.notes, places.shape[1]
        start = np.maximum(np.round((notes["start"] - advance) * SAMPLE_RATE), 0).astype(int)
        stop = np.maximum(np.round((notes["start"] + notes["duration"]) * SAMPLE_RATE).astype(int), start + 1)
        keys, velocities = np.repeat(notes["pitch"], copies), np.repeat(notes["velocity"], copies)
        start, stop, channels = np.repeat(start, copies), np.repeat(stop, copies), places.reshape(-1)
        times = np.concatenate([stop, start])
        values = np.concatenate([np.zeros_like(velocities), velocities])
        events = np.stack([times, np.tile(channels, 2), np.tile(keys, 2), values])
        order = np.argsort(times, kind="stable")  # at one sample, notes end before others start
        events = events[:, order[times[order] < samples]]
        with self.lock:
            self._silence()
            if copies == 2:
                for left, right in {tuple(pair) for pair in places.tolist()}:
                    self.synth.set_tuning(left, -_DETUNE / 2)
                    self.synth.set_tuning(right, _DETUNE / 2)
            yield from self._blocks(events.T.tolist(), samples)

    def _blocks(self, events: list[list[int]], samples: int) -> Iterator[np.ndarray]:
        """The sound of (sample, channel, key, velocity), where velocity 0 ends a note."""
        buffer = np.zeros((BLOCK, 2), np.float32)
        view, now, filled = buffer.data.cast("B"), 0, 0
        for at, channel, key, velocity in [*events, [samples, 0, 0, 0]]:
            while now < at:
                count, room = at - now, BLOCK - filled
                if count > room:
                    count = room // _UPDATE * _UPDATE
                if count:
                    self.synth.generate(count, view[8 * filled : 8 * (filled + count)])
                    now, filled = now + count, filled + count
                if filled + _UPDATE > BLOCK or now == samples:
                    yield np.ascontiguousarray(buffer[:filled].T)
                    filled = 0
            if velocity:
                self.synth.noteon(channel, key, velocity)
            elif at < samples:
                self.synth.noteoff(channel, key)

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


def _reverberate(send: np.ndarray, audio: np.ndarray) -> None:
    """Add the reverb of a concert room, to which (n,) was sent, to (2, n), by overlap and add.

    The left and right of its response differ, which gives width.
    """
    tail = np.zeros((2, _REVERB_SAMPLES - 1), np.float32)
    for part in parts(len(send)):
        spectrum, count = rfft(send[part], _TRANSFORM), part.stop - part.start
        wet = np.stack([irfft(spectrum * response, _TRANSFORM) for response in _response_spectra()])
        wet[:, : tail.shape[1]] += tail
        tail = wet[:, count : count + tail.shape[1]]
        audio[:, part] += wet[:, :count]


_REVERB_SAMPLES = round(1.8 * SAMPLE_RATE)
_TRANSFORM = next_fast_len(BLOCK + _REVERB_SAMPLES, real=True)


@lru_cache(maxsize=1)
def _response_spectra() -> tuple[np.ndarray, np.ndarray]:
    return tuple(rfft(channel, _TRANSFORM) for channel in _impulse_response())


@lru_cache(maxsize=1)
def _impulse_response() -> np.ndarray:
    """(2, n) float32: a few early reflections, then noise that decays faster the higher its band. Unit energy."""
    rng = np.random.default_rng(7)
    count = _REVERB_SAMPLES
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
