"""The synthesiser: exact length, stems that add up, the same every time."""

import numpy as np
import pytest
from helpers.scores import note_array, small_score

from diff_v2m.common.errors import InputError
from diff_v2m.score import synth
from diff_v2m.score.instruments import INSTRUMENTS
from diff_v2m.score.score import VOICES, Score, Voice


@pytest.fixture(scope="module")
def rendered():
    return synth.render(small_score())


def test_stems_sum_to_the_mix(rendered):
    assert list(rendered.stems) == list(VOICES)
    assert rendered.mix.shape == (2, 6 * synth.SAMPLE_RATE) and rendered.mix.dtype == np.float32
    total = np.zeros_like(rendered.mix)
    for stem in rendered.stems.values():
        assert stem.shape == rendered.mix.shape and stem.dtype == np.float32
        assert np.abs(stem).max() > 0.001
        total += stem
    np.testing.assert_allclose(total, rendered.mix, atol=2.5e-7)


def test_level_width_and_end(rendered):
    mix = rendered.mix
    assert 0.05 < np.abs(mix).max() <= synth.PEAK + 1e-4
    side, mid = mix[0] - mix[1], mix[0] + mix[1]
    assert (side**2).mean() > 0.02 * (mid**2).mean()
    assert np.abs(mix[:, -20:]).max() < 1e-4
    assert np.abs(mix[:, -2 * round(synth.FADE * synth.SAMPLE_RATE) :]).max() > 0.01


def test_same_samples_again_whatever_was_played_between(rendered):
    synth.render(small_score().transpose(5))
    np.testing.assert_array_equal(synth.render(small_score()).mix, rendered.mix)


def test_notes_start_where_they_are_written():
    base = small_score()
    notes = note_array([(0.5, 0.3, 60, 100), (1.5, 0.3, 67, 100)])
    score = Score((Voice("figure", 12, notes),), base.grid, base.key, 2.5)
    audio = np.abs(synth.render(score).mix).max(0)
    for start in (0.5, 1.5):
        at = round(start * synth.SAMPLE_RATE)
        before, after = audio[at - 2400 : at - 400].max(), audio[at : at + 2000].max()
        assert after > 4 * before


def test_odd_lengths_and_silence():
    base = small_score()
    empty = synth.render(Score((Voice("melody"),), base.grid, base.key, 1.2345))
    assert empty.mix.shape == (2, round(1.2345 * synth.SAMPLE_RATE)) and not empty.mix.any()
    assert synth.render(Score((), base.grid, base.key, 1.0)).stems == {}


@pytest.mark.slow
def test_programs_are_about_equally_loud():
    from diff_v2m.media.metering import integrated_loudness

    base, levels = small_score(), {}
    for program, instrument in INSTRUMENTS.items():
        middle = (instrument.low + instrument.high) // 2
        notes = note_array((i * 0.4, 0.35, middle + (0, 4, 7)[i], 96) for i in range(3))
        mix = synth.render(Score((Voice("melody", program, notes),), base.grid, base.key, 1.3)).mix
        levels[program] = integrated_loudness(mix, synth.SAMPLE_RATE)
    middle = np.median(list(levels.values()))
    assert max(abs(level - middle) for level in levels.values()) < 8, levels


def test_a_broken_soundfont_is_refused(tmp_path):
    (tmp_path / "bad.sf3").write_bytes(b"RIFF\x04\x00\x00\x00sfbk")
    with pytest.raises(InputError, match=r"bad\.sf3"):
        synth.render(small_score(), tmp_path / "bad.sf3")
    with pytest.raises(InputError, match=r"none\.sf3"):
        synth.render(small_score(), tmp_path / "none.sf3")
