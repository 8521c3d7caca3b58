"""Encoders: strict loading of weights, and embeddings of small models of the same classes."""

import numpy as np
import pytest
import torch
from helpers.eval_toys import TOY_IMAGEBIND, music, noise, save_imagebind
from helpers.videos import LEVELS, numbered, write_video

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference import fad
from inference.encoders import panns, vggish
from inference.encoders.base import read_state
from inference.encoders.clap import ClapEncoder
from inference.encoders.imagebind import RGB_MEAN, RGB_STD, ImageBind, ImageBindEncoder, crops
from inference.encoders.mel import MelEncoder
from inference.encoders.registry import load_encoder
from inference.metric import NotComputed

TOY_VGGISH = {"channels": (2, 3, 4, 5), "hidden": 6, "dims": 7}
TOY_CNN14 = {"channels": (2, 3, 4, 5, 6, 8), "classes": 9}


def save_vggish(path, seed=0):
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(vggish.Vggish(**TOY_VGGISH).state_dict(), path)
    return path


def save_cnn14(path, seed=0):
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    network = panns.Cnn14(**TOY_CNN14)
    torch.nn.init.uniform_(network.logmel_extractor.melW, 0, 0.1)
    torch.save({"iteration": 1, "model": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "larger_clap_music"
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "hidden_size": 16,
        "num_attention_heads": [1, 2],
        "window_size": 4,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "num_hidden_layers": 2,
        "projection_dim": 8,
    }
    text = {
        "vocab_size": 16,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "max_position_embeddings": 16,
        "projection_dim": 8,
    }
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8)).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=16000, max_length_s=1, hop_length=250, truncation="rand_trunc"
    ).save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------------- missing weights


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vggish", "vggish-10086976.pth"),
        ("panns", "Cnn14_16k_mAP=0.438.pth"),
        ("clap", "model.safetensors"),
        ("imagebind", "imagebind_huge.pth"),
    ],
)
def test_missing_weights_say_what_to_put_where(tmp_path, name, file):
    with pytest.raises(NotComputed, match=file) as error:
        load_encoder(name, tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_other_weights_under_the_published_name_are_refused(tmp_path):
    save_vggish(tmp_path / vggish.WEIGHTS.name)
    with pytest.raises(InputError, match="expected 10086976"):
        load_encoder("vggish", tmp_path)


def test_hashes_in_the_weights_folder_are_checked(tmp_path):
    path = save_cnn14(tmp_path / panns.WEIGHTS.name)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {panns.WEIGHTS.name}\n")
    with pytest.raises(InputError, match="expected 0000"):
        panns.WEIGHTS.at(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{content_hash(path)}  ./{panns.WEIGHTS.name}\n")
    assert panns.WEIGHTS.at(tmp_path) == path


def test_weights_of_another_shape_or_with_code_inside_are_one_line(tmp_path):
    path = save_vggish(tmp_path / "a.pth")
    with pytest.raises(InputError, match="expected the published file"):
        vggish.VggishEncoder(path)  # full size
    path = save_cnn14(tmp_path / "b.pth")
    with pytest.raises(InputError, match="weights do not fit Vggish"):
        vggish.VggishEncoder(path)
    torch.save({"model": np.random.default_rng(0)}, tmp_path / "code.pth")
    (tmp_path / "broken.pth").write_bytes(path.read_bytes()[:500])
    for name, words in (("code.pth", "could run code"), ("broken.pth", "truncated")):
        with pytest.raises(InputError, match=words):
            read_state(tmp_path / name)


# ------------------------------------------------------------------------------------------------- embeddings


def test_vggish_embeds_every_example_whatever_the_batch_size(tmp_path):
    path = save_vggish(tmp_path / "a.pth")
    one, many = (vggish.VggishEncoder(path, batch_size=size, **TOY_VGGISH) for size in (1, 8))
    found = one.embed(music(0, 4.0)).frames
    assert found.shape == (4, 7)
    np.testing.assert_allclose(found, many.embed(music(0, 4.0)).frames, atol=1e-6)
    np.testing.assert_allclose(found[1:2], one.embed(music(0, 4.0)[15360:31000]).frames, atol=1e-5)  # 0.96 s on
    assert len(one.embed(music(0, 1.0)[: int(one.shortest * 16000)]).frames) == 1
    assert one.identity != vggish.VggishEncoder(save_vggish(tmp_path / "b.pth", seed=1), **TOY_VGGISH).identity


def test_vggish_puts_a_tone_in_the_band_of_its_pitch():
    t = np.arange(16000) / 16000
    bands = [int(vggish.examples(np.sin(2 * np.pi * f * t)).mean(dim=(0, 1)).argmax()) for f in (200, 1000, 4000)]
    mel = [1127 * np.log(1 + f / 700) for f in (125, 200, 1000, 4000, 7500)]
    expected = [(m - mel[0]) / (mel[-1] - mel[0]) * 65 - 1 for m in mel[1:-1]]
    np.testing.assert_allclose(bands, expected, atol=1)
    assert float(vggish.examples(np.zeros(16000)).max()) == pytest.approx(np.log(0.01))


def test_cnn14_makes_an_embedding_and_logits_of_a_whole_clip(tmp_path):
    network = panns.Cnn14Encoder(save_cnn14(tmp_path / "a.pth"), **TOY_CNN14)
    found = network.embed(music(0, 2.0))
    assert found.frames.shape == (1, 8) and found.logits.shape == (9,)
    assert np.isfinite(network.embed(music(0, 1.0)[: int(network.shortest * 16000)]).logits).all()


def test_clap_embeds_whole_windows_and_nothing_at_random(clap_folder):
    one, many = (ClapEncoder(clap_folder, batch_size=size) for size in (1, 8))
    found = one.embed(music(0, 3.5)).frames
    assert found.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, many.embed(music(0, 3.5)).frames, atol=1e-5)
    np.testing.assert_allclose(found[3], one.embed(music(0, 3.5)[40000:]).frames[0], atol=1e-5)  # ends with the clip
    assert one.embed(music(0, 3.0)).frames.shape == (3, 8)
    assert one.embed(music(0, 0.6)).frames.shape == (1, 8)


def test_clap_with_weights_missing_is_refused_and_never_filled_at_random(clap_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in clap_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if "audio_projection" not in key},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match="weights do not fit"):
        ClapEncoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be loaded"):
        ClapEncoder(tmp_path)


def test_log_mel_statistics_rank_music_before_noise_and_silence():
    encoder = MelEncoder()

    def embedded(sounds):
        return np.concatenate([encoder.embed(sound).frames for sound in sounds])

    real = embedded(music(seed) for seed in range(8))
    scores = [
        fad.fad(embedded(sounds), real)
        for sounds in (
            [music(seed) for seed in range(8, 16)],
            [noise(seed) for seed in range(8)],
            [np.zeros(64000)] * 8,
        )
    ]
    assert scores[0] * 5 < min(scores[1:])
    assert encoder.embed(music(0, 3.5)[: 16000 * 3]).frames.shape == (3, 64)
    assert encoder.embed(music(0, 1.0)[:8000]).frames.shape == (1, 64)


# ---------------------------------------------------------------------------------------------------- ImageBind


def test_imagebind_has_the_published_names_and_sizes():
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ImageBind().state_dict().items()}
    assert len(shapes) == 568 and sum(np.prod(shape) for shape in shapes.values()) == 719_065_088
    for key, shape in {
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
        "modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
        "modality_preprocessors.audio.rgbt_stem.norm_layer.bias": (768,),
        "modality_preprocessors.audio.pos_embedding_helper.pos_embed": (1, 229, 768),
        "modality_trunks.vision.pre_transformer_layer.0.weight": (1280,),
        "modality_trunks.vision.blocks.31.attn.in_proj_weight": (3840, 1280),
        "modality_trunks.audio.blocks.11.attn.bias_k": (1, 1, 768),
        "modality_trunks.audio.blocks.0.mlp.fc1.weight": (3072, 768),
        "modality_heads.vision.2.weight": (1024, 1280),
    }.items():
        assert shapes[key] == shape


def test_imagebind_computes_what_the_published_code_computes(tmp_path):
    """Expected: ImageBind's own code, these weights and inputs, before its scale of 20 for sounds."""
    network = ImageBindEncoder(save_imagebind(tmp_path / "a.pth"), **TOY_IMAGEBIND).network

    def wave(*shape):
        return torch.sin(torch.arange(np.prod(shape)).double() * 0.37).float().reshape(shape)

    with torch.inference_mode():
        video, audio = network.embed_video(wave(2, 3, 2, 224, 224)), network.embed_audio(wave(2, 1, 128, 204))
    np.testing.assert_allclose(video[0], [0.070848, 0.610920, 0.177192, -0.538979, -0.396023, 0.378190], atol=2e-5)
    np.testing.assert_allclose(audio[1], [-0.245105, -0.322642, 0.580194, -0.279934, -0.289461, 0.580561], atol=2e-5)


def test_imagebind_embeds_three_pieces_of_audio_and_five_of_video_with_three_crops(tmp_path):
    network = ImageBindEncoder(save_imagebind(tmp_path / "a.pth"), **TOY_IMAGEBIND)
    found = network.embed(music(0, 7.0))
    assert found.frames.shape == (3, 6)
    np.testing.assert_allclose(found.frames[1], network.embed(music(0, 7.0)[40000:72000]).frames[0], atol=1e-5)
    assert network.embed(music(0, 1.0)[: int(network.shortest * 16000)]).frames.shape == (3, 6)
    video = write_video(tmp_path / "wide.mp4", numbered(60, 192, 96))
    np.testing.assert_allclose(np.linalg.norm(network.embed_video(video).frames, axis=1), np.ones(15), atol=1e-5)
    with pytest.raises(InputError, match="broken.mp4"):
        (tmp_path / "broken.mp4").write_bytes(b"no video")
        network.embed_video(tmp_path / "broken.mp4")


def test_imagebind_takes_the_first_and_last_frame_of_each_piece(tmp_path):
    video = write_video(tmp_path / "long.mp4", numbered(60), fps=10)  # 6 s, a frame's grey is 4 x its number
    seen = crops(video)[:, 1].mean(dim=(-2, -1)) * RGB_STD[1] + RGB_MEAN[1]
    first = np.array([0, 10, 20, 30, 40])
    np.testing.assert_allclose(seen[::3] * 255 / LEVELS, np.stack([first, first + 19], axis=1), atol=0.6)

    halves = np.zeros((30, 100, 300, 3), np.uint8)
    halves[:, :, 200:] = 255
    for frames in (halves, halves.transpose(0, 2, 1, 3)):  # lying, standing
        pieces = crops(write_video(tmp_path / "side.mp4", frames, fps=10))
        left, middle, right = pieces[:3].mean(dim=(1, 2, 3, 4)) * RGB_STD[1] + RGB_MEAN[1]
        assert pieces.shape == (15, 3, 2, 224, 224) and left < 0.05 and 0 <= middle < 0.3 and right > 0.95


@pytest.mark.parametrize("side", [380, 440, 690])
def test_imagebind_crops_a_square_video_to_whole_patches(tmp_path, side):
    """side · (224 / side) is less than 224 in floating point."""
    assert int(side * (224 / side)) == 223
    video = write_video(tmp_path / "square.mp4", np.zeros((3, side, side, 3), np.uint8))
    assert crops(video).shape == (15, 3, 2, 224, 224)


def test_imagebind_reads_a_file_of_all_six_branches_and_refuses_another(tmp_path):
    path = save_imagebind(tmp_path / "a.pth")
    state = torch.load(path, weights_only=True)
    assert any(".text." in key for key in state)
    del state["modality_heads.audio.2.weight"]
    torch.save(state, path)
    with pytest.raises(InputError, match="modality_heads.audio.2.weight; expected the published file"):
        ImageBindEncoder(path, **TOY_IMAGEBIND)
