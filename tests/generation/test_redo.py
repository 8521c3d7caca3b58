"""Spans composed again, videos that got longer: what stays, what changes, where they join."""

import numpy as np
import pytest
from helpers import toys

from diff_v2m.common.errors import InputError
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.generation.spans import Span, check_spans, parse_spans
from diff_v2m.generation.splicing import REACH
from diff_v2m.model.diffusion import SAMPLERS

RATE = toys.RATE


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = toys.save_toy_model(tmp_path_factory.mktemp("toy") / "model.safetensors")
    return DiffV2M.from_pretrained(path.parent, device="cpu")


@pytest.fixture(scope="module")
def video():
    return toys.toy_features(9.3)


@pytest.fixture(scope="module")
def old(model, video):
    return model.compose([video], ["video"], steps=4)[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_outside_stays_to_the_bit_and_the_span_changes(model, video, old, sampler):
    new = model.redo(old, video, "video", [(3.0, 6.0)], steps=4, sampler=sampler, seed=7)
    outside = np.r_[0 : 3 * RATE, 6 * RATE : old.audio.shape[1]]
    np.testing.assert_array_equal(new.audio[:, outside], old.audio[:, outside])
    frames = np.arange(old.latents.shape[1]) / model.config.latent_rate
    kept = (frames < 3 - 0.1) | (frames > 6)
    np.testing.assert_array_equal(new.latents[:, kept], old.latents[:, kept])
    inside = slice(round(3.5 * RATE), round(5.5 * RATE))
    assert np.abs(new.audio - old.audio)[:, inside].max() > 0.1 * np.abs(old.audio).max()
    assert len(new.joins) == 2 and 3 <= new.joins[0] <= 3 + REACH and 6 - REACH <= new.joins[1] <= 6
    again = model.redo(old, video, "video", [(3.0, 6.0)], steps=4, sampler=sampler, seed=7)
    np.testing.assert_array_equal(again.audio, new.audio)


def test_the_sampler_ends_with_the_kept_latents(model, video, old, monkeypatch):
    """Without the copy of the kept latents: the clamp alone brings them back."""
    (made,) = [model.redo(old, video, "video", [(3.0, 6.0)], steps=4)]
    decoded = []
    monkeypatch.setattr(model.model, "music", lambda latents, *rest, **options: decoded.append(latents) or made.music)
    model.redo(old, video, "video", [(3.0, 6.0)], steps=4)
    frames = np.arange(old.latents.shape[1]) / model.config.latent_rate
    kept = (frames < 3 - 0.1) | (frames > 6)
    difference = decoded[0].numpy()[:, kept] - old.latents[:, kept].astype(np.float32)
    assert np.abs(difference).max() < 1e-5 * np.abs(old.latents).max()


def test_windows_that_stay_are_not_computed(model, video, old, monkeypatch):
    network, denoise, windows = model.model.model, model.model.model.denoise, []

    def counted(x, *arguments, **options):
        windows.append(len(x))
        return denoise(x, *arguments, **options)

    monkeypatch.setattr(network, "denoise", counted)
    model.redo(old, video, "video", [(0, 1.5)], steps=4)
    assert set(windows) == {1}


def test_several_spans_up_to_both_ends(model, video, old):
    new = model.redo(old, video, "video", [(7.5, 9.3), (0, 1.2)], steps=4, seed=3)
    assert new.spans == (Span(0, 1.2), Span(7.5, 9.3)) and len(new.joins) == 2
    assert np.abs(new.audio[:, 0] - old.audio[:, 0]).max() > 0
    middle = slice(round(1.2 * RATE), round(7.5 * RATE))
    np.testing.assert_array_equal(new.audio[:, middle], old.audio[:, middle])


def test_a_video_that_got_longer_keeps_its_beginning(model, old):
    longer = toys.toy_features(14.0)
    new = model.extend(old, longer, "video", steps=4)
    assert new.audio.shape[1] == 14 * RATE and new.windows[-1].stop == 14.0
    kept = round((9.3 - 6.0) * RATE)  # up to where the earlier music may have begun to end
    np.testing.assert_array_equal(new.audio[:, :kept], old.audio[:, :kept])
    assert np.abs(new.audio[:, round(9.3 * RATE) : 13 * RATE]).max() > 0.05 * np.abs(old.audio).max()
    with pytest.raises(InputError, match="video: lasts 0:09.3, the earlier music 0:14; nothing to add"):
        model.extend(new, toys.toy_features(9.3), "video", steps=4)


def test_a_short_video_that_outgrows_its_window(model):
    first = model.compose([toys.toy_features(3.0)], ["video"], steps=3)[0]
    new = model.extend(first, toys.toy_features(8.0), "video", steps=3)
    np.testing.assert_array_equal(new.audio[:, : 2 * RATE], first.audio[:, : 2 * RATE])
    assert len(first.windows) == 1 and len(new.windows) > 1


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("12-20", [(12, 20)]),
        ("0:12-0:20.5", [(12, 20.5)]),
        ("00:12-00:20, 1:02:00-1:02:30", [(12, 20), (3720, 3750)]),
    ],
)
def test_spans_are_read(text, spans):
    assert list(parse_spans(text)) == spans
    assert [parse_spans(str(span))[0] for span in parse_spans(text)] == spans


@pytest.mark.parametrize(
    "text", ["", "12", "12-", "a-b", "1:75-2:00", "12-20-30", "-5-10", "nan-12", "1:99:00-2:00:00"]
)
def test_spans_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="expected|go up to"):
        parse_spans(text)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(3, 6), (5, 8)], "spans 0:03-0:06 and 0:05-0:08 overlap"),
        ([(12, 20)], "span 0:12-0:20 is outside the video, which lasts 0:09.3"),
        ([(3, 11)], "outside the video"),
        ([(-1, 3)], "outside"),
        ([(6, 3)], "too short"),
        ([(3, 3.5)], "too short; expected at least 1 s"),
        ([(float("nan"), 3)], "two times in seconds"),
        ([], "no span"),
    ],
)
def test_spans_that_cannot_be_composed_again(spans, message):
    with pytest.raises(InputError, match=message) as caught:
        check_spans([Span(*span) for span in spans], 9.3, "video")
    assert "\n" not in str(caught.value)


def test_latents_of_another_video_are_refused(model, old):
    with pytest.raises(InputError, match="other: latents .* compose the video again"):
        model.redo(old, toys.toy_features(20.0), "other", [(3, 6)], steps=2)
