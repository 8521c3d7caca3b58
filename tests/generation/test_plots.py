"""The png: its values and their places, from a twentieth of a second to a long video."""

import matplotlib.image
import numpy as np
import pytest

from diff_v2m import plots
from diff_v2m.media import Thumbnails
from diff_v2m.plots import analyse, draw, palette

RATE = 16000
LEFT, WIDTH = plots._LEFT * plots.WIDTH, plots._WIDTH * plots.WIDTH


def clicks(seconds: float, at: list[float]) -> np.ndarray:
    rng = np.random.default_rng(0)
    audio = 0.001 * rng.standard_normal(round(seconds * RATE))
    for time in at:
        start = round(time * RATE)
        audio[start : start + 800] += 0.5 * rng.standard_normal(len(audio[start : start + 800]))
    return audio[None].astype(np.float32)


def render(path, seconds, **changes) -> np.ndarray:
    count = max(1, int(np.ceil(seconds)))
    options = {
        "title": "clip $x_1$",
        "subtitle": "seed 42",
        "audio": clicks(seconds, [0.0]),
        "sample_rate": RATE,
        "scene_cut": np.zeros(count, int),
        "predicted_rhythm": np.linspace(0, 1, count),
        "thumbnails": None,
    }
    draw(path, **(options | changes))
    image = matplotlib.image.imread(path)[..., :3]
    assert image.shape == (plots.HEIGHT, plots.WIDTH, 3)
    return image


def row_of(panel: str, share: float = 0.5) -> int:
    bottom, height = plots._ROWS[panel]
    return round((1 - bottom - share * height) * plots.HEIGHT)


def column_of(time: float, seconds: float) -> int:
    return round(LEFT + WIDTH * time / seconds)


def frames_of(colors: list[tuple[int, int, int]], seconds: float) -> Thumbnails:
    frames = np.ones((len(colors), 36, 64, 3), np.uint8) * np.array(colors, np.uint8)[:, None, None]
    return Thumbnails(np.arange(len(colors)) * seconds / len(colors), frames)


def test_frames_and_palette_stand_over_their_time(tmp_path):
    colors = [(200, 30, 30)] * 5 + [(30, 60, 200)] * 5
    image = render(tmp_path / "a.png", 10.0, thumbnails=frames_of(colors, 10.0))
    for panel in ("frames", "palette"):
        for time, color in ((1.2, colors[0]), (8.8, colors[-1])):
            seen = image[row_of(panel), column_of(time, 10.0)] * 255
            np.testing.assert_allclose(seen, color, atol=6, err_msg=f"{panel} at {time} s")


def test_cuts_run_through_every_panel_at_their_second(tmp_path):
    cuts = np.zeros(10, int)
    cuts[6] = 1
    thumbnails = frames_of([(20, 20, 20)] * 10, 10.0)
    image = render(tmp_path / "a.png", 10.0, scene_cut=cuts, thumbnails=thumbnails)
    for panel in plots._ROWS:
        red, green, blue = image[row_of(panel, 0.9), column_of(6.0, 10.0) + 1]
        assert red > 0.8 and red > green + 0.2, panel
        assert not np.allclose(image[row_of(panel, 0.9), column_of(3.5, 10.0)], (red, green, blue), atol=0.1), panel


def test_achieved_rhythm_is_in_the_second_of_the_onset():
    achieved, spectrogram = analyse(clicks(20.0, [12.4]), RATE)
    assert achieved.shape == (20,) and achieved.argmax() == 12
    loudest = spectrogram.max(axis=0).argmax() / spectrogram.shape[1] * 20
    assert loudest == pytest.approx(12.4, abs=0.15)


def test_a_long_video_is_analysed_in_pieces_and_stays_in_step(tmp_path):
    achieved, spectrogram = analyse(clicks(95.5, [3.2, 47.5, 93.3]), RATE)
    assert achieved.shape == (96,) and [achieved[s] > 3 for s in (3, 47, 93)] == [True] * 3
    assert abs(spectrogram.shape[1] - plots.COLUMNS) <= 4
    times = np.flatnonzero(spectrogram.max(axis=0) > spectrogram.max() - 6) / spectrogram.shape[1] * 95.5
    assert {round(float(time)) for time in times} <= {3, 47, 48, 93}


@pytest.mark.parametrize("seconds", [0.05, 0.2, 1.0, pytest.param(130.0, marks=pytest.mark.slow)])
def test_any_length_silence_and_nothing_to_show(tmp_path, seconds):
    count = max(1, int(np.ceil(seconds)))
    thumbnails = frames_of([(0, 0, 0)] * min(count, 240), seconds)
    silent = np.zeros((2, round(seconds * RATE)), np.float32)
    render(
        tmp_path / "a.png",
        seconds,
        audio=silent,
        thumbnails=thumbnails,
        scene_cut=np.ones(count, int),
        title="影片 🎬 $",
        predicted_rhythm=np.zeros(count),
    )


def test_there_may_be_fewer_values_than_seconds_begun(tmp_path):
    render(tmp_path / "a.png", 3.05, predicted_rhythm=np.arange(3.0), scene_cut=np.array([0, 1, 0]))


def test_palette_finds_the_colours_and_their_shares():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:30] = (200, 20, 20)
    frame[30:] = (240, 240, 80)
    colors, shares = palette(frame, 2)
    np.testing.assert_allclose(colors, [(200, 20, 20), (240, 240, 80)], atol=3)
    np.testing.assert_allclose(shares, [0.75, 0.25], atol=0.02)
