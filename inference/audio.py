"""Health of the sound itself: silence, clipping, level, bandwidth, noise, broken samples, wrong length, copies.

These say whether something is wrong, not whether the music is good.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media import loudness
from inference.metric import Figure, NotComputed, not_computed

if TYPE_CHECKING:
    from inference.encoders.registry import Embedding
    from inference.pairing import Clip
    from inference.workspace import Workspace

SILENCE_DBFS = -60.0  # RMS of a block
BLOCK = 0.1  # seconds
FULL_SCALE = 1 - 2.0**-11  # a sample at or above it …
CLIPPED_RUN = 3  # … and this many in a row are clipping
BANDWIDTH_DB = -60.0  # below the strongest part of the average spectrum
N_FFT = 4096
NOISE_BANDS = 24
RANGE_DB = 60.0  # of the spectrograms that copies are looked for in
IDENTITY = "health 1"  # of what is kept in the cache; another one where a measure changes
COPY_DB = 1.0  # two clips nearer than this are the same music


@dataclass(frozen=True)
class Health:
    """Of one sound file. None: undefined, for silence or for samples that are not numbers."""

    duration: float  # seconds
    silence: float  # share of the time
    clipping: float  # share of the samples
    true_peak: float | None  # dBTP
    lufs: float | None
    bandwidth: float | None  # Hz
    noisiness: float | None  # 0 tone … 0.56 noise
    broken: float  # share of the samples that are NaN or infinite


def health(audio: np.ndarray, sample_rate: int) -> Health:
    """(channels, n) at the file's own rate: resampling would hide clipping."""
    broken = float(1 - np.isfinite(audio).mean()) if audio.size else 0.0
    level = None if broken else audio
    return Health(
        duration=audio.shape[1] / sample_rate,
        silence=silent_share(np.nan_to_num(audio, posinf=0, neginf=0), sample_rate),
        clipping=clipped_share(audio),
        true_peak=None if level is None else _finite(loudness.true_peak(level)),
        lufs=None if level is None else _finite(loudness.integrated_loudness(level, sample_rate)),
        bandwidth=None if level is None else bandwidth(level.mean(axis=0), sample_rate),
        noisiness=None if level is None else noisiness(level.mean(axis=0), sample_rate),
        broken=broken,
    )


def silent_share(audio: np.ndarray, sample_rate: int) -> float:
    """(channels, n) → share of blocks of 0.1 s whose RMS is under −60 dBFS; 1 for an empty file."""
    length = max(1, round(BLOCK * sample_rate))
    blocks = np.pad(audio, ((0, 0), (0, -audio.shape[1] % length))).reshape(len(audio), -1, length)
    if not blocks.size:
        return 1.0
    power = np.square(blocks, dtype=np.float64).mean(axis=(0, 2))
    return float((power < 10 ** (SILENCE_DBFS / 10)).mean())


def clipped_share(audio: np.ndarray) -> float:
    """(channels, n) → share of samples in runs of 3 or more at full scale with the same sign."""
    if not audio.size:
        return 0.0
    total = 0
    for channel in audio:
        state = np.where(channel >= FULL_SCALE, 1, np.where(channel <= -FULL_SCALE, -1, 0))
        edges = np.flatnonzero(np.diff(state)) + 1
        starts, stops = np.r_[0, edges], np.r_[edges, len(state)]
        runs = (stops - starts)[state[starts] != 0] if len(state) else np.zeros(0, int)
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total / audio.size


def bandwidth(audio: np.ndarray, sample_rate: int) -> float | None:
    """Mono (n,) → the highest frequency in Hz at which the average spectrum is within 60 dB of its maximum."""
    power = _power(audio)
    if power is None:
        return None
    average = power.mean(axis=1)
    loud = np.flatnonzero(average >= average.max() * 10 ** (BANDWIDTH_DB / 10))
    return float(loud[-1] * sample_rate / N_FFT)


def noisiness(audio: np.ndarray, sample_rate: int) -> float | None:
    """Mono (n,) → spectral flatness in narrow bands, averaged by energy; None for silence.

    Geometric over arithmetic mean of the power in each of 24 bands from 100 Hz to 8 kHz: about 0.5 for noise of any
    colour and any envelope, near 0 for tones. Noise that is faded in the rhythm of a film has all the rhythm of music
    and is found out here.
    """
    power = _power(audio)
    if power is None:
        return None
    edges = np.geomspace(100, min(8000, sample_rate / 2), NOISE_BANDS + 1) * N_FFT / sample_rate
    flat, weight = [], []
    for low, high in zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True):
        band = power[low : max(high, low + 8)]
        mean = band.mean(axis=0)
        flat.append(np.exp(np.log(band + 1e-20).mean(axis=0)) / (mean + 1e-20))
        weight.append(mean * len(band))
    weight = np.array(weight)
    return float((np.array(flat) * weight).sum() / weight.sum()) if weight.sum() > 0 else None


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Log-mel levels (S, bands) in dB of two clips → RMS difference in dB over their common seconds, each at its own
    mean level, so that gain does not hide a copy. It finds the same recording, not the same tune."""
    n = min(len(a), len(b))
    a, b = (np.maximum(x[:n], x[:n].max() - RANGE_DB) for x in (a, b))
    return float(np.sqrt(np.square((a - a.mean()) - (b - b.mean())).mean()))


def nearest(levels: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """For each clip the nearest of `others` and its `distance`; a clip of the same name is not its own neighbour."""
    found = {}
    for name, level in levels.items():
        distances = {other: distance(level, theirs) for other, theirs in others.items() if other != name}
        if distances:
            found[name] = min(distances.items(), key=lambda item: item[1])
    return found


def _power(audio: np.ndarray) -> np.ndarray | None:
    """(n,) → (bins, frames); None for silence."""
    from scipy.signal import stft

    audio = np.pad(audio, (0, max(0, N_FFT - len(audio)))).astype(np.float64)
    if not audio.any():
        return None
    return np.square(np.abs(stft(audio, nperseg=N_FFT, noverlap=N_FFT // 2, boundary=None, padded=False)[2]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------------------------------------------- of files


@dataclass(frozen=True)
class _Row:
    part: str
    name: str
    unit: str = ""
    better: str = ""


ROWS = (
    _Row("silence", "Silence, share of the time"),
    _Row("clipping", "Clipping, share of the samples", better="lower"),
    _Row("true_peak", "True peak", "dBTP"),
    _Row("lufs", "Loudness", "LUFS"),
    _Row("bandwidth", "Bandwidth", "Hz"),
    _Row("noisiness", "Noisiness (0 tones, 0.5 noise)"),
    _Row("broken", "NaN or infinite samples", better="lower"),
)


def figures(workspace: Workspace) -> list[Figure]:
    made = _health_of(workspace, workspace.generated)
    if not made:
        return [not_computed("health", "Health of the sound", "no generated clip could be read")]
    real = _health_of(workspace, workspace.reference)
    for clip, found in made.items():
        workspace.note(clip, **vars(found))
    found = []
    for row in ROWS:
        theirs = [value for h in real.values() if (value := getattr(h, row.part)) is not None]
        found.append(
            workspace.mean_figure(
                row.part,
                row.name,
                {clip.name: getattr(h, row.part) for clip, h in made.items()},
                unit=row.unit,
                better=row.better,
                real=float(np.mean(theirs)) if theirs else None,
                real_is="the reference",
            )
        )
    return [*found, _duration_error(workspace, made, real), *_copies(workspace), *_aesthetics(workspace)]


def _health_of(workspace: Workspace, clips: Sequence[Clip]) -> dict[Clip, Health]:
    from tqdm import tqdm

    def compute(clip: Clip) -> dict[str, np.ndarray]:
        audio = media.read_audio(clip.path, *media.audio_format(clip.path))
        if not audio.size:
            raise InputError(f"{clip.path}: holds no sample of sound")
        found = vars(health(audio, media.audio_format(clip.path)[0]))
        return {part: np.array(math.nan if value is None else value) for part, value in found.items()}

    def read(clip: Clip) -> Health:
        stored = workspace.cache.get(clip.path, IDENTITY, lambda: compute(clip))
        return Health(**{part: _finite(float(value)) for part, value in stored.items()})

    bar = tqdm(clips, desc="health", unit="clip", disable=None, leave=False)
    found = {clip: workspace.attempt(clip, lambda clip=clip: read(clip)) for clip in bar}
    return {clip: h for clip, h in found.items() if h is not None}


def _duration_error(workspace: Workspace, made: Mapping[Clip, Health], real: Mapping[Clip, Health]) -> Figure:
    """Against the video where there is one, else against the real music."""
    id, name = "duration_error", "Difference in length"
    wanted: dict[Clip, float] = {}
    for clip, film in workspace.films.pairs:
        info = workspace.attempt(film, lambda film=film: media.probe(film.path))
        if info is not None:
            wanted[clip] = info.duration
    partners = workspace.pairs.pairs if not wanted else ()
    wanted |= {clip: real[partner].duration for clip, partner in partners if partner in real}
    errors = {clip.name: abs(made[clip].duration - seconds) for clip, seconds in wanted.items() if clip in made}
    if not errors:
        return not_computed(id, name, workspace.why_no_films())
    against = "reference" if partners else "video"
    return workspace.mean_figure(id, name, errors, unit="s", better="lower", settings={"against": against})


def _copies(workspace: Workspace) -> list[Figure]:
    """How near the nearest other clip is, and the nearest clip that was trained on."""
    sides = [("nearest_other", "Nearest other generated clip", workspace.generated, "")]
    sides.append(
        (
            "nearest_training",
            "Nearest training clip",
            workspace.training,
            "needs the music that was trained on: name its folder with --training",
        )
    )
    found = []
    for id, name, others, why_none in sides:
        try:
            if not others:
                raise NotComputed(why_none)
            levels = _levels(workspace.embeddings("mel", workspace.generated))
            neighbours = nearest(
                levels,
                levels
                if others is workspace.generated
                else {
                    f"training/{clip}": level for clip, level in _levels(workspace.embeddings("mel", others)).items()
                },
            )
            if not neighbours:
                raise NotComputed("there is one clip only")
        except NotComputed as error:
            found.append(not_computed(id, name, error))
            continue
        copies = {clip: other for clip, (other, apart) in neighbours.items() if apart < COPY_DB}
        for clip in workspace.generated:
            if clip.name in neighbours:
                other, apart = neighbours[clip.name]
                workspace.note(clip, **{id: {"clip": other, "distance_db": apart}})
        settings = {"copies": copies, "copy_below_db": COPY_DB}
        apart = {clip: apart for clip, (_, apart) in neighbours.items()}
        found.append(workspace.mean_figure(id, name, apart, unit="dB", settings=settings))
        shares = {clip: float(clip in copies) for clip in neighbours}
        label = "the same as another generated clip" if id == "nearest_other" else "the same as a training clip"
        found.append(
            workspace.mean_figure(
                id.replace("nearest", "copies_of"), f"Share of clips {label}", shares, better="lower", settings=settings
            )
        )
    return found


def _aesthetics(workspace: Workspace) -> list[Figure]:
    """Four scores, 1 to 10, of a network that was fitted to what people said of sounds."""
    from inference.encoders.optional import AXES

    names = {axis: f"Audiobox aesthetics, {words}" for axis, words in AXES.items()}
    try:
        made = workspace.embeddings("aesthetics", workspace.generated)
    except NotComputed as error:
        return [not_computed(f"aesthetics_{axis.lower()}", name, error) for axis, name in names.items()]
    real = workspace.embeddings("aesthetics", workspace.reference) if workspace.reference else {}
    theirs = np.mean([e.frames[0] for e in real.values()], axis=0).tolist() if real else [None] * len(AXES)
    return [
        workspace.mean_figure(
            f"aesthetics_{axis.lower()}",
            name,
            {clip: float(e.frames[0, i]) for clip, e in made.items()},
            better="" if axis == "PC" else "higher",
            real=theirs[i],
            real_is="the reference",
        )
        for i, (axis, name) in enumerate(names.items())
    ]


def _levels(embeddings: Mapping[str, Embedding]) -> dict[str, np.ndarray]:
    """The band levels of the log-mel embedding, without their spread."""
    return {clip: e.frames[:, : e.frames.shape[1] // 2] for clip, e in embeddings.items()}


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="audio"))
