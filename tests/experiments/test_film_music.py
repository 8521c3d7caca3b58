"""The composer: the same every time, on the cuts, in range, in key, with an ending."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression

from diff_v2m.common.errors import InputError
from diff_v2m.features.imagenet import family_of, family_scores
from diff_v2m.features.semantic import build_encoder
from diff_v2m.score.instruments import INSTRUMENTS, KITS
from diff_v2m.score.midi import read_midi, write_midi
from diff_v2m.score.score import DRUMS, MODES, VOICES
from experiments.film_music.__main__ import main, seed_range
from experiments.film_music.composer import compose
from experiments.film_music.ensembles import ENSEMBLES, family_written
from experiments.film_music.harmony import HARMONY, chord, phrase_chords, voice_leading
from experiments.film_music.imitation import imitate
from experiments.film_music.listen import listen
from experiments.film_music.measures import score_measures
from experiments.film_music.melody import draw_motif
from experiments.film_music.patterns import BASS, CHORDS, FIGURES, GROOVES
from experiments.film_music.reconstruction import Tally
from experiments.film_music.scene import FAMILIES, draw_scene

ROOT = Path(__file__).parents[2]
SEEDS = range(1000, 1048)


@pytest.fixture(scope="module")
def pieces():
    return [(scene := draw_scene(seed), compose(scene)) for seed in SEEDS]


def test_a_seed_gives_the_same_scene_and_score(pieces):
    scene, score = pieces[3]
    np.random.seed(0)  # a global generator has no influence
    again = compose(draw_scene(scene.seed))
    for voice in score.voices:
        assert again[voice.name].program == voice.program
        np.testing.assert_array_equal(again[voice.name].notes, voice.notes)
    np.testing.assert_array_equal(again.grid.beats, score.grid.beats)
    other = compose(draw_scene(scene.seed + 1))
    assert other.note_count != score.note_count or other.key != score.key


@pytest.mark.slow
def test_another_process_with_other_hashes_gives_the_same_sound():
    code = (
        "import hashlib; from experiments.film_music.composer import compose; from diff_v2m.score.synth import render;"
        "from experiments.film_music.scene import draw_scene; h = hashlib.sha256();"
        "[h.update(v.notes.tobytes()) for s in range(12) for v in compose(draw_scene(s)).voices];"
        "h.update(render(compose(draw_scene(1, 4.0))).mix.tobytes()); print(h.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and digests != {b""}


def test_cuts_have_an_onset(pieces):
    hits = [np.abs(score.onsets() - cut).min() <= 0.05 for scene, score in pieces for cut in scene.cuts]
    assert len(hits) > 150 and np.mean(hits) >= 0.9


def test_the_metre_is_steady_and_the_grid_covers_the_video(pieces):
    for scene, score in pieces:
        lengths = np.diff(score.grid.bars)
        assert np.abs(lengths / np.median(lengths) - 1).max() < 0.09
        assert score.grid.beats[0] <= 0 and score.grid.beats[-1] >= scene.duration - 1e-9


def test_notes_are_inside_the_video_and_the_range_and_never_overlap(pieces):
    for scene, score in pieces:
        for voice in score.voices:
            notes = voice.notes
            ends = notes["start"] + notes["duration"]
            assert notes["start"].min() >= 0 and ends.max() <= scene.duration + 1e-6
            assert notes["velocity"].min() >= 1 and notes["velocity"].max() <= 127
            if voice.name == DRUMS:
                assert voice.program in KITS
                continue
            instrument = INSTRUMENTS[voice.program]
            assert instrument.low <= notes["pitch"].min() and notes["pitch"].max() <= instrument.high
            for pitch in np.unique(notes["pitch"]):
                same = notes["pitch"] == pitch
                assert (notes["start"][same][1:] >= ends[same][:-1] - 1e-9).all()


def test_the_melody_is_sung_one_note_at_a_time(pieces):
    for _, score in pieces:
        notes = np.sort(score["melody"].notes, order="start")
        assert (notes["start"][1:] >= (notes["start"] + notes["duration"])[:-1] - 0.03).all()


def test_the_first_onset_comes_at_once_and_there_is_no_hole(pieces):
    for scene, score in pieces:
        onsets = score.onsets()
        assert onsets[0] < 0.1
        times = np.arange(0, scene.duration, 0.1)
        sounding = np.zeros(len(times), bool)
        for voice in score.voices:
            for note in voice.notes:
                sounding |= (times >= note["start"]) & (times <= note["start"] + note["duration"] + 0.3)
        assert sounding.mean() > 0.97


def test_an_ending_is_the_tonic_chord_with_the_tonic_on_top(pieces):
    ended = [(scene, score) for scene, score in pieces if scene.ends and score.grid.tempo > 64]
    assert len(ended) > 25
    for _, score in ended:
        bass, melody = score["bass"].notes[-1], np.sort(score["melody"].notes, order="start")[-1]
        assert int(bass["pitch"]) % 12 == score.key.tonic
        assert int(melody["pitch"]) % 12 == score.key.tonic
        assert melody["start"] + melody["duration"] > score.duration - 0.5  # it rings to the end
        assert 1.5 < score.duration - melody["start"] < 7


def test_music_theory_in_numbers(pieces):
    rows = [score_measures(score, scene.cuts) for scene, score in pieces]
    mean = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    assert mean["tonic"] > 0.85 and mean["mode"] > 0.9, mean
    assert 0.5 < mean["steps"] < 0.68 and 0.12 < mean["thirds"] < 0.28, mean
    assert 0.03 < mean["leaps"] < 0.15 and mean["wide"] < 0.02, mean
    assert mean["stable ends"] >= 0.9, mean
    assert mean["motif"] > 0.6 and mean["clash"] < 0.03 and mean["parallels"] < 0.15, mean


def test_keys_tempi_and_metres_are_spread():
    scores = [compose(draw_scene(seed, 8.0)) for seed in range(120)]
    assert {score.key.tonic for score in scores} == set(range(12))
    assert {score.key.mode for score in scores} == set(MODES)
    assert {score.grid.beats_per_bar for score in scores} == {3, 4}
    tempi = np.array([score.grid.tempo for score in scores])
    assert tempi.min() < 72 and tempi.max() > 140 and 85 < np.median(tempi) < 115


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_its_own_sound(family):
    own = {tuple(vars(ensemble).items())[1:6] for ensemble in ENSEMBLES[family]}
    assert len(own) == len(ENSEMBLES[family]) >= 2
    for other in FAMILIES:
        if other != family:
            assert not own & {tuple(vars(ensemble).items())[1:6] for ensemble in ENSEMBLES[other]}
    score = compose(draw_scene(5, 12.0, family))
    assert {voice.name for voice in score.voices} >= {"melody", "bass"}


@pytest.mark.parametrize("duration", [1.0, 2.5, 4.0, 11.3, 75.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_any_duration(duration, seed):
    score = compose(draw_scene(seed, duration))
    assert score.duration == duration and score.note_count > 0
    assert [voice.name for voice in score.voices] == [name for name in VOICES if len(score[name].notes)]


def test_midi_round_trip_of_a_piece(tmp_path, pieces):
    _, score = pieces[0]
    write_midi(tmp_path / "piece.mid", score)
    again = read_midi(tmp_path / "piece.mid", score.duration)
    for voice in score.voices:
        assert len(again[voice.name].notes) == len(voice.notes)
        np.testing.assert_allclose(again[voice.name].notes["start"], voice.notes["start"], atol=0.001)
    assert again.key == score.key


def test_motion_makes_it_louder_and_busier():
    calm, busy = [], []
    for seed in range(30):
        scene = draw_scene(seed, 16.0)
        for level, into in ((0.1, calm), (0.9, busy)):
            score = compose(type(scene)(**vars(scene) | {"motion": np.full_like(scene.motion, level)}))
            velocities = np.concatenate([voice.notes["velocity"] for voice in score.voices])
            into.append((score.note_count, velocities.mean()))
    calm, busy = np.mean(calm, 0), np.mean(busy, 0)
    assert busy[0] > 2 * calm[0] and busy[1] > calm[1] + 20


@pytest.mark.parametrize("mode", MODES)
def test_progressions_are_made_of_the_modes_chords(mode):
    rng = np.random.default_rng(0)
    table = HARMONY[mode]
    assert set(table.moves) <= set(table.chords)
    for slots in range(1, 10):
        for cadence in ("full", "half", "open"):
            names = phrase_chords(mode, slots, rng, cadence=cadence)
            assert len(names) == slots and set(names) <= set(table.chords)
            if cadence == "full":
                assert names[-1] == table.tonic
            assert slots < 3 or names[0] == table.tonic


def test_voices_move_little_and_without_parallel_fifths():
    chords = [chord("major", name, sevenths=False) for name in ("I", "IV", "V", "I", "vi", "ii", "V", "I")]
    basses = [48, 41, 43, 48, 45, 38, 43, 48]
    voicings = np.array(voice_leading(chords, basses, 0, 52, 72))
    assert np.abs(np.diff(voicings, axis=0)).sum(1).max() <= 7
    for (low, before), (under, after) in zip(
        zip(basses, voicings, strict=True), list(zip(basses, voicings, strict=True))[1:], strict=False
    ):
        old, new = np.array([low, *before]), np.array([under, *after])
        for i in range(4):
            for j in range(i):
                parallel = (old[i] - old[j]) % 12 == (new[i] - new[j]) % 12 and (new[i] - new[j]) % 12 in (0, 7)
                assert not (parallel and old[i] != new[i] and old[j] != new[j])


def test_motif_forms_keep_their_length():
    rng = np.random.default_rng(0)
    for metre in (3, 4):
        for density in range(3):
            for _ in range(30):
                motif = draw_motif(metre, density, rng)
                for form in (motif, motif.inverted(), motif.ornamented(metre), motif.thinned()):
                    assert len(form.steps) == len(form.onsets) - 1
                    assert sorted(set(form.onsets)) == list(form.onsets) and form.onsets[-1] < metre
                assert sum(motif.ornamented(metre).steps) == sum(motif.steps)


def test_patterns_fill_their_bars():
    for patterns in (BASS, CHORDS):
        for name, pattern in patterns.items():
            for beats in (3, 4):
                ends = [event[0] + event[1] for event in pattern.bar(beats)]
                assert max(ends) <= beats + 1e-9, name
    for name, groove in GROOVES.items():
        for beats in (3, 4):
            assert all(len(hits) == 4 * beats for variant in groove.bar(beats) for hits in variant.values()), name
    styles = [ensemble.style for family in FAMILIES for ensemble in ENSEMBLES[family]]
    for style in styles:
        assert set(style.bass) <= set(BASS) and set(style.chords) <= {*CHORDS, None}
        assert set(style.figure) <= {*FIGURES, None}


@pytest.mark.slow
def test_listen_writes_files_and_a_table(tmp_path):
    table = listen(range(2), tmp_path, duration=6.0, family="city", sound=True)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mid", ".mid", ".txt", ".wav", ".wav"]
    assert (tmp_path / "table.txt").read_text() == table and "beat F1" in table
    with pytest.raises(InputError, match="jungle"):
        listen(range(1), tmp_path, duration=6.0, family="jungle", sound=False)


def test_command_line(tmp_path, capsys):
    assert main(["listen", "--seeds", "0:2", "--output", str(tmp_path), "--notes-only", "--duration", "8"]) == 0
    assert "mean" in capsys.readouterr().out
    assert seed_range("3:5") == range(3, 5)
    for text in ("3", "5:3", "a:b"):
        with pytest.raises(Exception, match="FIRST:STOP"):
            seed_range(text)


def test_the_reconstruction_of_an_untrained_autoencoder_is_measured(tmp_path, capsys):
    from helpers.toy_scores import save_toy_score_model

    model = save_toy_score_model(tmp_path / "model.safetensors")
    assert main(["reconstruct", "--ckpt-path", str(model), "--seeds", "900000:900002"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "melody" in header and len(rows) == 4
    assert all(row.count("|") == header.count("|") for row in rows)


def test_the_same_score_is_reconstructed_fully(pieces):
    tally = Tally()
    for _, score in pieces[:4]:
        tally.add(score, score)
    assert tally.row() == ["1.000"] * 6 + ["1.000"] * 3 + ["0.0"] * 3


def test_the_instruments_of_a_score_tell_its_family(pieces):
    assert [family_written(score) for _, score in pieces] == [scene.family for scene, _ in pieces]


@pytest.mark.parametrize("family", FAMILIES)
def test_imitated_features_show_their_family_second_by_second(family):
    rows = imitate(family, np.random.default_rng(5), 30, (4.0, 12.5))
    assert rows.shape == (30, 512) and rows.dtype == np.float32
    assert family_of(rows) == family
    assert (family_scores(rows).argmax(axis=1) == FAMILIES.index(family)).mean() > 0.6
    np.testing.assert_array_equal(rows, imitate(family, np.random.default_rng(5), 30, (4.0, 12.5)))


def test_a_classifier_of_imitated_features_is_right_on_photographs():
    """Training needs no footage: what is learned from class vectors holds for frames."""
    rows = {family: [imitate(family, np.random.default_rng([seed, 4]), 8) for seed in range(12)] for family in FAMILIES}
    clips = np.array([clip.mean(axis=0) for family in FAMILIES for clip in rows[family]])
    classifier = LogisticRegression(max_iter=2000).fit(clips, np.repeat(FAMILIES, 12))
    encoder = build_encoder("imagenet")
    photographs = np.concatenate([encoder(load_sample_image(name)[None]) for name in ("china.jpg", "flower.jpg")])
    assert classifier.predict(photographs).tolist() == ["city", "landscape"]
