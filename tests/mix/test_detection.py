"""Speech is found by what it is, not by how loud it is."""

import numpy as np
import pytest
import torch
from helpers import sounds

from diff_v2m.media.metering import measured
from diff_v2m.mix.detection import sound_spans, speech_spans

RATE = 16000
TRUTH = [(2.0, 5.6), (8.0, 11.6)]


def talk():
    return sounds.talk(14, (2.0, 8.0), RATE)


def found(audio):
    """Spans whose pauses of less than a second count as speech."""
    loudness = measured(audio, RATE).loudness()
    pieces = [audio[:, start : start + 50_000] for start in range(0, audio.shape[1], 50_000)]
    joined = []
    for span in speech_spans(pieces, RATE, loudness):
        if joined and span.start - joined[-1][1] < 1:
            joined[-1] = (joined[-1][0], span.stop)
        else:
            joined.append(tuple(span))
    return joined


@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_speech_is_found_quiet_and_in_noise(gain, noise):
    audio = talk()
    rng = np.random.default_rng(0)
    audio = audio + noise * audio.std() * rng.standard_normal(len(audio)).astype(np.float32)
    np.testing.assert_allclose(found(gain * audio[None]), TRUTH, atol=0.25)


def test_speech_in_one_of_two_places():
    audio = np.stack([talk() * 0, talk()])
    np.testing.assert_allclose(found(audio), TRUTH, atol=0.25)


def test_music_noise_and_silence_are_no_speech():
    rng = np.random.default_rng(0)
    assert found(sounds.chord(6, RATE)) == []
    assert found(0.1 * rng.standard_normal((1, 6 * RATE)).astype(np.float32)) == []
    assert speech_spans([np.zeros((1, RATE), np.float32)], RATE, -np.inf) == []


def test_the_number_of_threads_of_torch_stays():
    before = torch.get_num_threads()
    speech_spans([talk()[None, : 2 * RATE]], RATE, -23.0)
    assert torch.get_num_threads() == before


def test_sound_of_any_kind():
    audio = 1e-4 * np.random.default_rng(0).standard_normal((1, 10 * RATE)).astype(np.float32)
    audio[:, 3 * RATE : 5 * RATE] += sounds.chord(2, RATE)
    audio[:, 8 * RATE : 8 * RATE + 800] += 0.5  # a click
    (span,) = sound_spans(measured(audio, RATE).powers)
    assert span == pytest.approx((3, 5), abs=0.11)
    assert sound_spans(measured(audio[:, : 2 * RATE], RATE).powers) == []
