"""The audio autoencoder at toy size: shapes, the bottleneck, patches and normalisation."""

import pytest
import torch
from torch.nn import functional as F

from diff_v2m.config.autoencoder import AutoencoderConfig, Bottleneck, Decoder, DecoderConfig, Encoder, EncoderConfig
from diff_v2m.model.autoencoder import OobleckDecoder, OobleckVAE, _reach, spectral_loss


def toy_vae(
    *, channels: int = 2, patch_size: int = 1, normalize_latents: bool = False, seed: int = 0, **decoder: bool
) -> OobleckVAE:
    """Downsampling by 32 · patch_size, 4 latent channels."""
    stack = {"channels": 4, "c_mults": (1, 2), "strides": (4, 8), "use_snake": True}
    width = channels * patch_size
    decoder |= {"out_channels": width, "latent_dim": 4, "final_tanh": False}
    torch.manual_seed(seed)
    return OobleckVAE(
        AutoencoderConfig(
            encoder=Encoder(type="oobleck", config=EncoderConfig(in_channels=width, latent_dim=8, **stack)),
            decoder=Decoder(type="oobleck", config=DecoderConfig(**stack, **decoder)),
            bottleneck=Bottleneck(type="vae"),
            latent_dim=4,
            downsampling_ratio=32 * patch_size,
            io_channels=channels,
            patch_size=patch_size,
            normalize_latents=normalize_latents,
        )
    )


@pytest.mark.parametrize("patch_size", [1, 4])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [256, 257, 383, 384, 5])
def test_any_length_is_padded_up_to_whole_frames(channels, patch_size, length):
    vae = toy_vae(channels=channels, patch_size=patch_size)
    frames = -(-length // (32 * patch_size))
    latents = vae.encode(torch.randn(3, channels, length))
    assert latents.shape == (3, 4, frames)
    assert vae.decode(latents).shape == (3, channels, frames * 32 * patch_size)


@pytest.mark.parametrize("patch_size", [1, 4])
@pytest.mark.parametrize("chunk", [5, 16, 59, 60])
def test_decoding_in_chunks_equals_decoding_at_once(patch_size, chunk):
    vae = toy_vae(patch_size=patch_size, normalize_latents=True)
    latents = torch.randn(2, 4, 60, generator=torch.Generator().manual_seed(0))
    whole = vae.decode(latents)
    assert whole.abs().max() > 1e-2
    assert torch.allclose(vae.decode(latents, chunk), whole, atol=1e-4 * whole.abs().max().item(), rtol=0)


def test_folded_weights_make_the_same_audio_and_go_where_the_decoder_goes():
    vae, latents = toy_vae(), torch.randn(1, 4, 30)
    audio = vae.decode(latents)
    vae.prepare_for_inference()
    assert torch.allclose(vae.decode(latents), audio, atol=1e-6)
    held = [value for module in vae.to("meta").model["decoder"].modules() for value in vars(module).values()]
    assert not any(isinstance(value, torch.Tensor) for value in held)  # a plain attribute would stay behind


@pytest.mark.parametrize("decoder", [{}, {"use_nearest_upsample": True}, {"antialias_activation": True}], ids=str)
def test_a_chunk_sees_all_neighbours_that_reach_it_and_hardly_more(decoder):
    """The receptive field, found by a gradient: the latent frames that a frame of audio depends on."""
    vae = toy_vae(**decoder)
    latents = torch.randn(1, 4, 80, requires_grad=True)
    vae.decode(latents)[..., 40 * 32 : 41 * 32].square().sum().backward()
    felt = latents.grad.abs().sum(1)[0].nonzero().flatten()
    assert vae.reach - 3 <= max(40 - felt.min().item(), felt.max().item() - 40) <= vae.reach


def test_released_decoder_reaches_a_dozen_frames():
    stack = {"channels": 128, "c_mults": (1, 2, 4, 8, 16), "strides": (2, 4, 4, 8, 8), "use_snake": True}
    with torch.device("meta"):
        config = DecoderConfig(out_channels=2, latent_dim=64, final_tanh=False, **stack)
        assert 10 <= _reach(OobleckDecoder(**config.model_dump(mode="json"))) <= 13


def test_padding_is_silence_at_the_end():
    vae, audio = toy_vae(), torch.randn(1, 2, 500)
    whole = vae.posterior(F.pad(audio, (0, 12)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(vae.posterior(audio), whole, strict=True))


def test_patches_keep_samples_in_order_and_channels_apart():
    """Networks that pass patches through unchanged: decoding must undo the folding that encoding did."""
    vae, seen = toy_vae(patch_size=4), []
    audio = torch.arange(2 * 128.0).reshape(1, 2, 128)

    class Remember(torch.nn.Module):
        def forward(self, patches):
            seen.append(patches)
            return torch.zeros(1, 8, 1)

    vae.model["encoder"] = Remember()
    vae.posterior(audio)
    assert seen[0].shape == (1, 8, 32) and seen[0][0, :, 1].tolist() == [4, 5, 6, 7, 132, 133, 134, 135]
    vae.model["decoder"] = torch.nn.Identity()
    assert torch.equal(vae.decode(seen[0]), audio)


def test_noise_follows_from_the_generator():
    vae, audio = toy_vae(), torch.randn(2, 2, 256)
    first, again = (vae.encode(audio, torch.Generator().manual_seed(1)) for _ in range(2))
    other = vae.encode(audio, torch.Generator().manual_seed(2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_latents_are_drawn_from_the_posterior():
    vae, audio = toy_vae(), torch.randn(1, 2, 32)
    mean, std = vae.posterior(audio)
    raw = vae.model["encoder"](audio)
    assert torch.allclose(mean, raw[:, :4]) and torch.allclose(std, F.softplus(raw[:, 4:]) + 1e-4)
    drawn = vae.encode(audio.expand(4000, -1, -1), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.1) and torch.allclose(drawn.std(0), std[0], rtol=0.1)


def test_normalised_latents_decode_to_the_same_audio():
    plain, normal = toy_vae(), toy_vae(normalize_latents=True)
    normal.load_state_dict(plain.state_dict(), strict=False)
    normal.latent_mean.copy_(torch.arange(4.0)[:, None])
    normal.latent_std.copy_(torch.tensor([0.5, 1, 2, 4])[:, None])
    audio = torch.randn(2, 2, 320)
    raw, scaled = (vae.encode(audio, torch.Generator().manual_seed(3)) for vae in (plain, normal))
    assert torch.allclose(scaled, (raw - torch.arange(4.0)[:, None]) / torch.tensor([0.5, 1, 2, 4])[:, None])
    assert torch.allclose(normal.decode(scaled), plain.decode(raw), atol=1e-5)
    assert torch.equal(normal.decode_raw(raw), plain.decode(raw))


def test_names_are_the_released_ones_and_statistics_are_kept():
    plain, normal = toy_vae().state_dict(), toy_vae(normalize_latents=True).state_dict()
    assert {name.rsplit(".", 1)[0].split(".layers")[0] for name in plain} == {"model.encoder", "model.decoder"}
    assert "model.encoder.layers.0.weight_g" in plain and "model.encoder.layers.0.weight_v" in plain
    assert normal.keys() - plain.keys() == {"latent_mean", "latent_std"}


def test_never_in_training_mode():
    """Oobleck's residual units checkpoint their activations there, which doubles a step's cost."""
    vae = toy_vae()
    assert not any(module.training for module in vae.modules())
    torch.nn.Sequential(vae).train()
    assert not any(module.training for module in vae.modules())


def test_residual_branches_can_be_damped():
    vae = toy_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    vae.scale_residual_branches(0.1)
    changed = {name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.endswith("weight_g") for name in changed)
    for name in changed:
        assert torch.allclose(vae.state_dict()[name], 0.1 * before[name])


def test_spectral_loss_is_zero_for_equals_and_grows_with_the_error():
    loss, audio = spectral_loss((512, 128)), torch.randn(2, 1, 4096)
    small, large = (loss(audio + scale * torch.randn_like(audio), audio) for scale in (0.01, 0.5))
    assert loss(audio, audio) < 1e-4 < small < large
    assert torch.isfinite(loss(torch.zeros_like(audio), torch.zeros_like(audio)))


def test_a_weighted_the_middle_counts_more_than_the_bass():
    t = torch.arange(16384) / 16000
    bass, middle = (torch.sin(2 * torch.pi * hertz * t).expand(1, 1, -1) for hertz in (60, 2000))
    audio, less_bass, less_middle = 0.5 * bass + 0.1 * middle, 0.4 * bass + 0.1 * middle, 0.5 * bass + 0.08 * middle
    plain, weighted = spectral_loss((2048, 128)), spectral_loss((2048, 128), a_weighting_at=16000)
    assert plain(less_bass, audio) > 2 * plain(less_middle, audio)
    assert weighted(less_middle, audio) > 2 * weighted(less_bass, audio)
