"""The score autoencoder at toy size: shapes, losses, decoding in chunks, interface, refused configs."""

import numpy as np
import pytest
import torch
from helpers.toy_scores import score_autoencoder_json, toy_score, toy_score_config

from diff_v2m.common.errors import InputError
from diff_v2m.config import ScoreAutoencoderConfig, parse_model_config
from diff_v2m.model.pretransform import build_pretransform
from diff_v2m.model.score_autoencoder import ScoreMusic, ScoreVAE, score_losses
from diff_v2m.score.frames import LAYOUT, from_frames, to_frames


def toy_vae(**changes) -> ScoreVAE:
    torch.manual_seed(0)
    return ScoreVAE(ScoreAutoencoderConfig(**score_autoencoder_json(**changes))).eval()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.from_numpy(np.stack([to_frames(toy_score(seed=seed), 15, 90) for seed in range(4)]))


def test_shapes_and_rates(frames):
    vae = toy_vae()
    latents = vae.encode(frames, torch.Generator().manual_seed(0))
    assert latents.shape == (4, 64, 90) and vae.rate == 15
    values = vae.decode_frames(latents)
    assert values.shape == frames.shape and values.min() >= 0 and values.max() <= 1
    assert vae.decode(latents[:1]).shape == (1, 2, 6 * 44100)
    config = parse_model_config(toy_score_config())
    assert config.latent_rate == 15 and config.latent_length() == 60 and config.frames_of(30) == 450


def test_chunks_give_the_same_values(frames):
    vae = toy_vae(kernel_size=7, decoder_depth=2)
    latents = vae.encode(frames[:1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(vae.decode_frames(latents, 17), vae.decode_frames(latents), atol=1e-5, rtol=0)


def test_losses_vanish_at_perfect_logits_and_the_network_learns(frames):
    sure = torch.logit(frames.clamp(1e-4, 1 - 1e-4))
    for rows in (LAYOUT.onset, LAYOUT.beat):
        sure[:, rows] = 20 * (2 * frames[:, rows] - 1)
    sure[:, LAYOUT.program] = 20 * frames[:, LAYOUT.program]
    perfect = score_losses(sure, frames)
    assert all(value < 0.01 for name, value in perfect.items() if name != "sustain")
    vae = toy_vae(width=96)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=0.01)
    history = []
    for _ in range(120):
        losses = vae.losses(frames)
        total = sum(
            (10 if name in ("offset", "velocity") else 1) * value for name, value in losses.items() if name != "kl"
        )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    assert all(history[-1][name] < 0.6 * history[0][name] for name in perfect), history[-1]
    again = vae.score(vae.encode(frames[:1])[0].detach())
    assert {voice.name for voice in again.voices} == {"melody", "harmony", "bass", "drums"}
    assert again["melody"].program == 73


def test_normalised_latents_are_undone_before_decoding(frames):
    plain, normal = toy_vae(normalize_latents=False), toy_vae()
    normal.latent_mean.fill_(0.5)
    normal.latent_std.fill_(2.0)
    latents = normal.encode(frames[:1], torch.Generator().manual_seed(1))
    raw = plain.encode(frames[:1], torch.Generator().manual_seed(1))
    torch.testing.assert_close(latents * 2 + 0.5, raw)
    torch.testing.assert_close(normal.decode_frames(latents), plain.decode_frames(raw))


def test_the_fingerprint_follows_encoder_and_statistics_alone():
    vae = toy_vae()
    before = vae.fingerprint()
    with torch.no_grad():
        vae.model["decoder"][0].bias.add_(1)
    assert vae.fingerprint() == before
    vae.latent_std.mul_(2)
    assert vae.fingerprint() != before


def test_music_of_latents_and_its_stems_add_up():
    vae, latents = toy_vae(), torch.randn(64, 90, generator=torch.Generator().manual_seed(0))
    vae.model["decoder"][-1].bias.data[: LAYOUT.onset.stop] = -0.5
    music = vae.music(latents, 5.5, 44100)
    assert music.audio.shape == (2, round(5.5 * 44100)) and music.score.duration == 5.5 and music.score.note_count
    assert set(music.stems()) == {voice.name for voice in music.score.voices}
    np.testing.assert_allclose(sum(music.stems().values()), music.audio, atol=2.5e-7)
    half = vae.music(latents.half().float(), 5.5, 44100)
    np.testing.assert_array_equal(half.audio, music.audio)
    ended = vae.music(latents, 5.5, 44100, ending=2.0)
    assert np.abs(ended.audio[:, -1]).max() < 1e-7
    np.testing.assert_array_equal(ended.audio[:, : 3 * 44100], music.audio[:, : 3 * 44100])
    np.testing.assert_allclose(sum(ended.stems().values()), ended.audio, atol=1e-6)


def test_a_rendered_score_says_what_it_is():
    music = ScoreMusic(toy_score(4.0))
    about = music.about()["score"]
    assert about["key"].startswith("C") and about["beats_per_bar"] == 3 and about["tempo_map"][0][0] <= 0
    assert music.caption()[1] == "100 BPM"


def test_nan_latents_are_refused():
    with pytest.raises(FloatingPointError):
        toy_vae().music(torch.full((64, 30), torch.nan), 2.0, 44100)


def test_the_type_chooses_the_pretransform():
    config = parse_model_config(toy_score_config())
    assert isinstance(build_pretransform(config.pretransform), ScoreVAE)
    alone = {"model_type": "autoencoder", "sample_rate": 44100, "sample_size": 88200, "audio_channels": 2}
    config = parse_model_config(alone | {"model": score_autoencoder_json()})
    assert isinstance(build_pretransform(config.pretransform), ScoreVAE) and config.latent_length() == 30


REFUSED = (
    ({"sample_rate": 48000}, {}, "sample_rate: expected 44100"),
    ({"audio_channels": 1}, {}, "expected audio_channels = 1, got 2"),
    ({}, {"io_channels": 1}, "io_channels: expected 2"),
    ({}, {"downsampling_ratio": 2048}, "downsampling_ratio: expected a divisor of 44100"),
    ({}, {"kernel_size": 4}, "kernel_size: expected an odd number"),
    ({}, {"latent_dim": 32}, "expected latent_dim = 32, got 64"),
    ({}, {"widht": 8}, "unknown key .did you mean width"),
)


@pytest.mark.parametrize(("top", "inner", "message"), REFUSED)
def test_refused(top, inner, message):
    raw = toy_score_config() | top
    raw["model"]["pretransform"]["config"] |= inner
    with pytest.raises(InputError, match=message):
        parse_model_config(raw)


def test_values_of_a_score_survive_its_own_frames(frames):
    score = from_frames(frames[0].numpy(), 15, 6.0)
    np.testing.assert_allclose(score["bass"].notes["start"], toy_score()["bass"].notes["start"], atol=1e-3)
