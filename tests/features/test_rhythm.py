"""Rhythm targets: an onset is in its own second for every length and sample rate of the clip."""

import pytest
import torch
from helpers.released_rhythm import released_normalize, released_odf, released_resize

from diff_v2m.common.errors import InputError
from diff_v2m.features import rhythm


def clicks(times, duration, sample_rate, noise=1e-4):
    """Short decaying clicks on faint noise: (n,) mono."""
    generator = torch.Generator().manual_seed(0)
    waveform = noise * torch.randn(round(duration * sample_rate), generator=generator)
    shape = torch.exp(-torch.arange(round(0.02 * sample_rate)) / (0.004 * sample_rate))
    for time in times:
        start = round(time * sample_rate)
        end = min(start + len(shape), len(waveform))
        waveform[start:end] += 0.8 * shape[: end - start]
    return waveform


def loud_seconds(target):
    """Seconds whose onset is far above the noise."""
    return torch.nonzero(target[:, 0] > 0.5 * target.max()).flatten().tolist()


@pytest.mark.parametrize("sample_rate", [44100, 16000])
def test_every_onset_lands_in_its_own_second(sample_rate):
    times = [0.3, 2.02, 4.5, 6.7, 9.8]  # just after a boundary, in the middle, late
    target = rhythm.odf(clicks(times, 10, sample_rate), sample_rate)
    assert target.shape == (10, 1) and target.dtype == torch.float32
    assert loud_seconds(target) == [0, 2, 4, 6, 9]


def test_onset_at_29_8_is_in_second_29_and_lost_as_released():
    waveform = clicks([7.2, 29.8], 30, 44100)
    assert loud_seconds(rhythm.odf(waveform, 44100)) == [7, 29]
    assert loud_seconds(released_odf(waveform, 44100)) == [7]


def test_clip_a_little_over_30_seconds_is_not_shifted():
    waveform = clicks([3.1, 17.1], 30.02, 44100)
    released = released_odf(waveform, 44100)
    assert len(released) == 30 and loud_seconds(released) == [2, 16]  # the published defect
    assert loud_seconds(rhythm.odf(waveform[: 30 * 44100], 44100)) == [3, 17]
    whole = rhythm.odf(waveform, 44100)
    assert len(whole) == 31 and loud_seconds(whole) == [3, 17]


def test_silence_and_the_shortest_clips_give_zeros_not_errors():
    assert torch.equal(rhythm.odf(torch.zeros(3 * 16000), 16000), torch.zeros(3, 1))
    for kind in ("odf", "mel", "tempo"):
        target = rhythm.rhythm_target(kind, torch.zeros(100), 16000)
        assert target.shape == (1, rhythm.RHYTHM_DIMS[kind]) and torch.isfinite(target).all()


def test_mono_is_the_mean_unless_the_channels_cancel():
    left, right = clicks([1.5], 3, 16000), clicks([0.5], 3, 16000, noise=0)
    assert torch.equal(rhythm.to_mono(torch.stack([left, right])), torch.stack([left, right]).mean(0))
    assert loud_seconds(rhythm.odf(rhythm.to_mono(torch.stack([left, -left])), 16000)) == [1]


@pytest.mark.parametrize("sample_rate", [44100, 16000])
def test_mel_changes_in_the_right_second(sample_rate):
    waveform = torch.zeros(round(12.3 * sample_rate))
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(sample_rate) / sample_rate)
    waveform[7 * sample_rate : 8 * sample_rate] = 0.5 * tone
    values = rhythm.rhythm_target("mel", waveform, sample_rate)
    assert values.shape == (13, 16)
    assert values.mean(dim=1).argmax() == 7
    quiet = [s for s in range(13) if s not in (6, 7, 8)]  # windows overlap the neighbours by 23 ms
    assert torch.allclose(values[quiet], torch.tensor(-100.0), atol=1e-3)


def test_tempogram_shows_the_pulse():
    steady = clicks([i * 0.25 for i in range(1, 39)], 10, 16000)
    values = rhythm.rhythm_target("tempo", steady, 16000)
    noise = rhythm.rhythm_target("tempo", clicks([], 10, 16000), 16000)
    assert values.shape == (10, 16) and values.min() > -1e-6 and values.max() <= 1 + 1e-5
    assert values[4, 3] > 100 * values[4, 1:3].max()  # 0.25 s = 87 frames of 2.9 ms = block 3 of 24 lags
    assert (noise[4].diff() < 1e-6).all()  # no pulse: nothing but the window's decay


def test_average_of_the_frames_of_each_second():
    hop, rate = 512, 44100
    frames = torch.arange(30 * rate // hop + 1, dtype=torch.float32)[:, None].expand(-1, 32) * hop / rate
    values = rhythm.average_seconds(frames, 30 * rate, rate, hop=hop)
    assert torch.allclose(values[:, 0], torch.arange(30) + 0.5, atol=0.01)


def test_last_second_without_a_frame_repeats_the_last_one():
    values = rhythm.average_seconds(torch.ones(87, 16), 44100 + 100, 44100, hop=512)  # 87 frames end at 0.9985 s
    assert torch.equal(values, torch.ones(2, 16))


def test_released_reduction_depends_on_the_batch_and_ours_does_not():
    long, short = torch.randn(2584, 128), torch.randn(1060, 128)
    alone, mask_alone = released_resize([short], 16)
    together, mask_together = released_resize([long, short], 16)
    assert mask_alone.sum() == 30 and mask_together[1].sum() == 12
    assert not torch.allclose(alone[0], together[1])
    assert torch.allclose(alone[0, 0, 0], short[:35, :8].mean())


def test_released_resize_names_the_lengths_that_crashed():
    with pytest.raises(ValueError, match="34 frames"):
        released_resize([torch.zeros(34, 1)], 1)


def test_released_normalize_counts_the_padding():
    values, mask = released_resize([torch.arange(12.0)[:, None]], 1)
    normalized = released_normalize(values)
    assert mask.sum() == 12
    assert abs(normalized.mean()) < 1e-6 and abs(normalized.std() - 1) < 1e-5
    assert normalized[0, 20, 0] == normalized[0, 29, 0] != 0


def test_beat_needs_no_audio_and_unknown_kinds_are_named():
    target = rhythm.rhythm_target("beat", None, 0, scene_cut=torch.tensor([0, 1]), pseudo_beats=torch.tensor([0.5, 0]))
    assert target.tolist() == [[0.5], [1.0]]
    with pytest.raises(InputError, match="chroma"):
        rhythm.rhythm_target("chroma", torch.zeros(10), 16000)
