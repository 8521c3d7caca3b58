"""Where music has to go down: seconds with speech, or with any sound.

Speech is found by the Silero voice activity detector (MIT), whose weights are part of its Python package.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from tqdm import tqdm

from diff_v2m.common.errors import ignore_warnings
from diff_v2m.media.metering import POWER_HOP, gated_loudness, power_of
from diff_v2m.mix.spans import Span

RATE = 16000  # Hz, of the detector
_FRAME = 512  # samples that the detector judges at once
_LISTENING_LUFS = -23.0  # level at which sound is given to the detector, which misses speech that is very quiet
_MOST_BOOST_DB = 30.0
_SOUND_BELOW = 10.0  # LU: what counts as sound is at most this far below the sound's own loudness
_SOUND_FLOOR = -50.0  # LUFS: what is quieter is noise of a room or a microphone
_SHORTEST_SOUND = 0.2  # s


def speech_spans(blocks: Iterable[np.ndarray], sample_rate: int, loudness: float) -> list[Span]:
    """Seconds in which somebody speaks, in order and apart from each other. Singing counts; instruments do not.

    blocks: consecutive (channels, n) float32, of which each channel is one place to look for speech; the channels of
    stereo are best given as their mean. loudness: of the whole sound, in LUFS.
    """
    if loudness == -math.inf:
        return []
    gain = np.float32(10 ** (min(_LISTENING_LUFS - loudness, _MOST_BOOST_DB) / 20))
    detectors: list[_Detector] = []
    with _one_torch_thread() as thread:
        for block in tqdm(blocks, desc="finding speech", unit="block", delay=2, disable=None, leave=False):
            detectors = detectors or [thread.submit(_Detector, sample_rate).result() for _ in block]
            for detector, channel in zip(detectors, block, strict=True):
                thread.submit(detector.add, channel * gain).result()
        chances = [thread.submit(detector.finish).result() for detector in detectors]
    return _spans_of(np.max(chances, axis=0)) if chances else []


@contextmanager
def _one_torch_thread() -> Iterator[Executor]:
    """A thread in which torch computes without helpers: for operations as small as these, waiting for them is slow.

    torch keeps that number for each thread, so it stays as it is elsewhere.
    """
    import torch

    number = torch.get_num_threads()
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(torch.set_num_threads, 1).result()
            yield thread
        finally:
            thread.submit(torch.set_num_threads, number).result()  # what threads that begin later get


def sound_spans(powers: np.ndarray) -> list[Span]:
    """Seconds in which there is sound of any kind: at most 10 LU below the loudness of the whole, above −50 LUFS.

    powers: (hops,) of a loudness meter. Spans of less than 0.2 s are clicks, and left out.
    """
    threshold = max(gated_loudness(powers) - _SOUND_BELOW, _SOUND_FLOOR)
    loud = (powers >= power_of(threshold)).astype(np.int8)
    edges = np.flatnonzero(np.diff(loud, prepend=0, append=0)) * POWER_HOP
    spans = [Span(float(start), float(stop)) for start, stop in edges.reshape(-1, 2)]
    return [span for span in spans if span.stop - span.start > _SHORTEST_SOUND - POWER_HOP / 2]


class _Detector:
    """The chance of speech in each frame of one channel that arrives in blocks."""

    def __init__(self, sample_rate: int):
        import soxr

        self._resampler = soxr.ResampleStream(sample_rate, RATE, 1, dtype="float32")
        self._model = _load_model()
        self._rest = np.zeros(0, np.float32)
        self._chances: list[float] = []

    def add(self, samples: np.ndarray) -> None:
        self._judge(self._resampler.resample_chunk(samples))

    def finish(self) -> np.ndarray:
        """(frames,); the last frame is completed with silence."""
        self._judge(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if len(self._rest):
            self._judge(np.zeros(_FRAME - len(self._rest), np.float32))
        return np.array(self._chances)

    def _judge(self, samples: np.ndarray) -> None:
        import torch

        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // _FRAME * _FRAME
        self._rest = samples[whole:]
        if whole:
            with torch.inference_mode():
                frames = torch.from_numpy(samples[:whole]).split(_FRAME)
                self._chances += [self._model(frame, RATE).item() for frame in frames]


def _load_model():
    """A detector of its own for each channel, because it remembers what it has heard."""
    from silero_vad import load_silero_vad

    with ignore_warnings("`torch.jit"):
        return load_silero_vad()


def _spans_of(chances: np.ndarray) -> list[Span]:
    from silero_vad import get_speech_timestamps_from_probs

    found = get_speech_timestamps_from_probs(chances.tolist(), sampling_rate=RATE)
    return [Span(span["start"] / RATE, span["end"] / RATE) for span in found]
