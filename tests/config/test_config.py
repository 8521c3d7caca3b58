"""Model and dataset JSON: loading, derived lengths, and the messages of errors."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config, load_model_config, parse_model_config

CONFIGS = Path(__file__).parents[2] / "configs"
RELEASED = CONFIGS / "model" / "diff_v2m.json"


@pytest.fixture
def raw() -> dict:
    return json.loads(RELEASED.read_text())


def put(raw: dict, path: str, value: object) -> dict:
    """A copy with the value at a dotted path ("a.b.0.c") set; `...` deletes it."""
    changed = copy.deepcopy(raw)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = changed
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


def test_released_file():
    config = load_model_config(RELEASED)
    assert config.model.diffusion.config.embed_dim == 1536
    assert config.model.diffusion.config.attention_weight_type == "FiLM_choose"
    assert config.model.conditioning["color"].config.dim == 3072
    assert config.model.conditioning["prompt"].config == {"t5_model_name": "t5-base", "max_length": 128}
    assert "chroma" not in config.model.conditioning
    assert config.training.optimizer_configs["diffusion"].optimizer.config.betas == (0.9, 0.999)
    assert config.training.optimizer_configs["diffusion"].scheduler.config.inv_gamma == 1e6
    assert config.raw == json.loads(RELEASED.read_text())


def test_absent_keys_mean_as_released():
    config = load_model_config(RELEASED)
    transformer, conditioning = config.model.diffusion.config, config.model.conditioning
    assert not any(
        (transformer.color_attention, transformer.time_aligned_attention, transformer.aligned_input)
        + (transformer.pre_norm, conditioning.mask_padding, conditioning.restandardize_rhythm)
        + (conditioning.rhythm_gradient, conditioning["color"].config.hellinger)
    )
    assert conditioning.unused_projections
    assert transformer.rhythm_t_max == 0.2
    extractor = conditioning["semantic"].config.extractor
    assert (extractor.dim, extractor.depth, extractor.num_heads) == (512, 12, 8)
    assert conditioning["semantic"].config.encoder == "clip-vit-base-patch32"
    assert [conditioning[id].config.hidden_dim for id in ("semantic", "rhythm", "color")] == [512, 512, 1024]
    assert (config.training.cfg_dropout_prob, config.training.joint_dropout_prob) == (0.1, 0.0)
    assert config.training.rhythm_curriculum.start_epoch == 10 and config.training.rhythm_curriculum.end_epoch == 30


def test_corrected_file_sets_every_correction_but_normalize_context():
    released, corrected = load_model_config(RELEASED), load_model_config(CONFIGS / "model" / "diff_v2m_corrected.json")
    transformer, conditioning = corrected.model.diffusion.config, corrected.model.conditioning
    assert transformer.color_attention and transformer.time_aligned_attention and transformer.pre_norm
    assert transformer.aligned_input and not transformer.normalize_context
    assert conditioning.mask_padding and conditioning.restandardize_rhythm and conditioning.rhythm_gradient
    assert conditioning["color"].config.hellinger and not conditioning.unused_projections
    assert transformer.attention_weight_type == "FiLM"  # rhythm acts at every t
    assert transformer.embed_dim == released.model.diffusion.config.embed_dim
    assert corrected.pretransform == released.pretransform


@pytest.mark.parametrize("path", sorted((CONFIGS / "model").glob("*.json")), ids=lambda path: path.name)
def test_every_shipped_model_file_loads(path):
    load_model_config(path)


def test_lengths():
    config = load_model_config(RELEASED)
    assert config.window_seconds == 30
    assert config.latent_length() == 646  # covers the window; the release has 645
    assert config.latent_length(2048) == 1 and config.latent_length(2049) == 2
    assert config.latent_rate == pytest.approx(44100 / 2048)
    assert config.latent_channels == 64


def test_unused_keys_of_the_released_schema_are_accepted(raw):
    raw["training"]["demo"]["demo_cond"] = [{"prompt": "a drum loop", "seconds_start": 0, "seconds_total": 12}]
    assert parse_model_config(raw).training.demo.demo_cond[0]["seconds_total"] == 12


def test_training_may_be_absent(raw):
    assert parse_model_config(put(raw, "training", ...)).training is None


def test_autoencoder_file(raw):
    optimizer = {"type": "AdamW", "config": {"lr": 1.5e-3}}
    scheduler = {"type": "CosineLR", "config": {"warmup_steps": 10}}
    config = parse_model_config(
        {
            "model_type": "autoencoder",
            "sample_rate": 16000,
            "sample_size": 16384,
            "audio_channels": 2,
            "model": raw["model"]["pretransform"]["config"],
            "training": {
                "loss_weights": {"kl": 0.5},
                "residual_init": 0.1,
                "optimizer_configs": {"autoencoder": {"optimizer": optimizer, "scheduler": scheduler}},
            },
        }
    )
    assert config.pretransform.config == parse_model_config(raw).pretransform.config
    assert config.latent_length() == 8
    assert (config.training.loss_weights.kl, config.training.loss_weights.spectral) == (0.5, 1.0)
    assert config.training.optimizer_configs["autoencoder"].scheduler.config.warmup_steps == 10


def test_configs_are_frozen_and_can_be_copied_and_pickled(raw):
    config = parse_model_config(raw)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.model.diffusion.config.depth = 1


def test_raw_is_a_copy(raw):
    config = parse_model_config(raw)
    raw["model"]["diffusion"]["config"]["depth"] = 1
    assert config.raw["model"]["diffusion"]["config"]["depth"] == 24


DIT = "model.diffusion.config"
CONDITIONERS = "model.conditioning.configs"
OPTIMIZER = "training.optimizer_configs.diffusion"
REFUSED = [
    (f"{DIT}.embed_dmi", 8, f"m.json: {DIT}.embed_dmi: unknown key (did you mean embed_dim?)"),
    ("raw", {}, "m.json: raw: unknown key"),
    ("sample_rate", ..., "m.json: sample_rate: missing key"),
    ("model.conditioning.configs.1.id", ..., "m.json: model.conditioning.configs[1].id: missing key"),
    (f"{DIT}.depth", "24", f'm.json: {DIT}.depth: expected a whole number, got "24"'),
    (f"{DIT}.depth", 24.0, "expected a whole number"),
    (f"{DIT}.depth", True, "expected a whole number"),
    (f"{DIT}.depth", 0, "expected a number of at least 1"),
    (f"{DIT}.pre_norm", 1, "expected true or false"),
    (f"{DIT}.rhythm_t_max", 1.5, "expected a number of at most 1, got 1.5"),
    (f"{DIT}.rhythm_t_max", float("nan"), "expected a finite number"),
    (f"{DIT}.attention_weight_type", "FiLM_gate", "expected one of 'FiLM_choose', 'FiLM', 'choose'"),
    (f"{DIT}.attention_weight_type", "film", "expected one of"),
    (f"{DIT}.global_cond_type", "adaLN", "expected one of 'prepend'"),
    (f"{DIT}.num_heads", 7, "num_heads: does not divide embed_dim"),
    (f"{DIT}.num_heads", 3, "cond_token_dim: expected embed_dim / n"),
    (f"{DIT}.cond_token_dim", 512, "expected conditioning.cond_dim = 768"),
    (f"{DIT}.global_cond_dim", 768, "expected cond_dim × number of global_cond_ids = 2304"),
    (f"{DIT}.io_channels", 32, "expected latent_dim = 64"),
    ("model.io_channels", 32, "m.json: model.io_channels: expected latent_dim = 64"),
    ("model.diffusion.global_cond_ids", ["seconds_strat"], "no conditioner has the id 'seconds_strat'"),
    ("model.diffusion.cross_attention_cond_ids", ["prompt", "semantic"], "is a text prompt"),
    ("model.diffusion.global_cond_ids", ["rhythm"], "global_cond_ids[0]: 'rhythm' is rhythm; a global condition"),
    ("model.diffusion.cross_attention_cond_ids", ["rhythm"], "expected 'semantic' among the ids"),
    ("model.diffusion.cross_attention_cond_ids", ["semantic", "color"], "expected 'rhythm' or a number"),
    ("model.diffusion.cross_attention_cond_ids", "semantic", "expected a list"),
    ("model.diffusion.cross_attention_cond_ids", [1], "cross_attention_cond_ids[0]: expected a string"),
    (f"{CONDITIONERS}.1.type", "color", "unknown key"),
    (f"{CONDITIONERS}.1.type", "clap", f"{CONDITIONERS}[1].type: expected one of 'semantic', 'rhythm'"),
    (f"{CONDITIONERS}.1.config.rhythm_type", "chroma", "expected one of 'odf', 'mel', 'tempo' or 'beat'"),
    (f"{CONDITIONERS}.1.config.rhythm_type", "mel", f"{CONDITIONERS}[2].config.dim: rhythm_type mel has 16 values"),
    (f"{CONDITIONERS}.1.config.dim", 768, f"{CONDITIONERS}[1].config.dim: expected one of 512, got 768"),
    (f"{CONDITIONERS}.3.config.dim", 1024, f"{CONDITIONERS}[3].config.dim: expected one of 3072, got 1024"),
    (f"{CONDITIONERS}.1.config.encoder", "resnet", "expected one of 'clip-vit-base-patch32', 'hog' or 'efficientnet"),
    (f"{CONDITIONERS}.1.config.extractor", {"dim": 100, "num_heads": 3}, "num_heads: does not divide dim = 100"),
    (f"{CONDITIONERS}.1.config.max_length", 31, "expected a number of at most 30, got 31"),
    (f"{CONDITIONERS}.1.id", "\ud800", r"(there are: prompt, \ud800, rhythm"),
    (f"{CONDITIONERS}.1", {"id": "semantic", "typ": "x"}, "configs[1].type: missing key (misspelt as typ?)"),
    (f"{CONDITIONERS}.6.id", "seconds_start", "configs[6].id: 'seconds_start' appears twice"),
    (f"{CONDITIONERS}.3.id", "semantic", "configs[3].type: expected semantic for the id 'semantic', got color"),
    (f"{CONDITIONERS}.4.type", "number", "expected int for the id 'class', got number"),
    (f"{CONDITIONERS}.5.config.max_val", 0, "expected a number above min_val"),
    ("model.pretransform.config.downsampling_ratio", 1024, "strides × patch_size make 2048"),
    ("model.pretransform.config.encoder.config.latent_dim", 64, "encoder.config.latent_dim: expected 128"),
    ("model.pretransform.config.encoder.config.c_mults", [1, 2], "expected one value per stride"),
    ("model.pretransform.config.patch_size", 2, "in_channels: expected io_channels × patch_size = 4, got 2"),
    ("model.pretransform.config.io_channels", 1, "expected io_channels × patch_size = 1, got 2"),
    ("audio_channels", 1, "config.io_channels: expected audio_channels = 1, got 2"),
    ("model.pretransform", None, "model.pretransform: expected an object"),
    ("model_type", "diffusion_uncond", "model_type: expected one of 'diffusion_cond', 'autoencoder'"),
    ("sample_size", 44100 * 31, "sample_size: a window of 31 s, but video features cover at most 30 s"),
    ("training.optimizer_configs.diffusion.optimizer.config.betas", [0.9], "config.betas[1]: missing value"),
    (f"{OPTIMIZER}.optimizer.config.betas", [0.9, 1.0], "config.betas[1]: expected a number below 1, got 1.0"),
    (f"{OPTIMIZER}.scheduler.config.inv_gamma", 0, "config.inv_gamma: expected a number above 0, got 0"),
    (f"{OPTIMIZER}.scheduler.config.warmup", 1.0, "config.warmup: expected a number below 1, got 1.0"),
    ("training.optimizer_configs.diffusion.scheduler.config.gamma", 1, "scheduler.config.gamma: unknown key"),
    ("training.optimizer_configs.diffusion.optimizer.type", "AdamX", "expected one of 'AdamW'"),
    (
        "training.rhythm_curriculum",
        {"start_epoch": 9, "end_epoch": 8},
        "expected an epoch of at least start_epoch = 9, got 8",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=lambda part: str(part)[-40:])
def test_refused(raw, path, value, message):
    with pytest.raises(InputError) as caught:
        parse_model_config(put(raw, path, value), "m.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("m.json: ") and "\n" not in str(caught.value)


def test_an_autoencoder_of_an_unknown_type():
    raw = {
        "model_type": "autoencoder",
        "sample_rate": 8,
        "sample_size": 8,
        "audio_channels": 1,
        "model": {"type": "vae"},
    }
    with pytest.raises(InputError, match="m.json: model.type: expected one of 'autoencoder', 'score', got .vae."):
        parse_model_config(raw, "m.json")


def test_condition_without_data_is_refused_only_if_used(raw):
    raw["model"]["conditioning"]["configs"].append({"id": "mood", "type": "int", "config": {"max_val": 2}})
    parse_model_config(raw)
    raw["model"]["diffusion"]["cross_attention_cond_ids"].append("mood")
    with pytest.raises(InputError, match="'mood' has no data; expected one of semantic, rhythm, color, class"):
        parse_model_config(raw)


@pytest.mark.parametrize("raw", [None, [], "text", 3], ids=str)
def test_not_an_object(raw):
    with pytest.raises(InputError, match="^m.json: expected an object"):
        parse_model_config(raw, "m.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b" 2}', "line 2, column 6: not valid JSON"),
        (b"", "line 1, column 1"),
        (b"\xff\xfe\x00\x01", "not a JSON file"),
        (b'{"sample_rate": 1, "sample_rate": 2}', "key 'sample_rate' appears twice"),
        (b"[" * 100_000, "not a JSON file"),
    ],
    ids=["syntax", "empty", "binary", "duplicate", "deep"],
)
def test_not_json(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_model_config(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            load_model_config(path)


def test_byte_order_mark_is_fine(tmp_path):
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + RELEASED.read_bytes())
    load_model_config(tmp_path / "bom.json")


# -- dataset ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> dict:
    """A released-format dataset JSON; clip/ exists beside it, info.json in the working directory, wav/ nowhere."""
    (tmp_path / "data" / "clip").mkdir(parents=True)
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "info.json").touch()
    monkeypatch.chdir(tmp_path / "cwd")
    entry = {"id": "A", "path": "wav/", "video_feat": "clip/", "video_info": "info.json", "class_label": 2}
    return {"dataset_type": "audio_video_dir", "rhythm_type": "mel", "datasets": [entry]}


def write(folder: Path, raw: dict) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "dataset").glob("*.json")), ids=lambda path: path.name)
def test_every_shipped_dataset_file_loads(path):
    assert load_dataset_config(path).datasets[0].class_label == 2


def test_dataset_paths(tmp_path, dataset):
    (entry,) = load_dataset_config(write(tmp_path / "data", dataset)).datasets
    assert entry.video_feat == tmp_path / "data" / "clip"
    assert entry.video_info == Path("info.json")  # found from the working directory
    assert entry.path == Path("wav")  # found nowhere: whoever reads it says so
    assert entry.video_color is None and entry.video is None and entry.latents is None


def test_dataset_beside_the_file_wins_over_the_working_directory(tmp_path, dataset):
    (tmp_path / "cwd" / "clip").mkdir()
    (entry,) = load_dataset_config(write(tmp_path / "data", dataset)).datasets
    assert entry.video_feat == tmp_path / "data" / "clip"


def test_missing_latents_folder_is_located_beside_the_sound(tmp_path, dataset):
    dataset["datasets"][0]["latents"] = "latents/"
    file = write(tmp_path / "data", dataset)
    assert load_dataset_config(file).datasets[0].latents == Path("latents")
    (tmp_path / "data" / "wav").mkdir()
    assert load_dataset_config(file).datasets[0].latents == tmp_path / "data" / "latents"


def test_shards_are_a_folder_beside_the_file_or_a_url(tmp_path):
    (tmp_path / "packed").mkdir()
    sets = [{"id": "a", "shards": "packed"}, {"id": "b", "shards": "s3://bucket/x"}]
    file = write(tmp_path, {"dataset_type": "audio_video_shards", "datasets": sets})
    assert [entry.shards for entry in load_dataset_config(file).datasets] == [str(tmp_path / "packed"), "s3://bucket/x"]


@pytest.mark.parametrize("key", ["path", "video_feat", "class_label"])
def test_keys_of_folders_are_refused_for_shards(tmp_path, key):
    file = write(tmp_path, {"dataset_type": "audio_video_shards", "datasets": [{"id": "a", "shards": "x", key: "y"}]})
    with pytest.raises(InputError, match=rf"datasets\[0\]\.{key}: unknown key"):
        load_dataset_config(file)


def test_dataset_without_audio(tmp_path, dataset):
    del dataset["datasets"][0]["path"]
    (entry,) = load_dataset_config(write(tmp_path / "data", dataset)).datasets
    assert entry.path is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("datasets.0.class_label", 3, "datasets[0].class_label: expected a number of at most 2, got 3"),
        ("datasets.0.video_feet", "x/", "datasets[0].video_feet: unknown key (did you mean video_feat?)"),
        ("datasets.0.video_feat", "", "datasets[0].video_feat: expected a path"),
        ("datasets.0.video_info", ..., "datasets[0].video_info: missing key"),
        ("datasets", [], "datasets: expected a list of at least 1, got []"),
        ("dataset_type", "audio_dir", "dataset_type: expected one of 'audio_video_dir'"),
        ("rhythm_type", "chroma", "expected one of 'odf', 'mel', 'tempo' or 'beat'"),
        ("random_crop", "true", "expected true or false"),
    ],
)
def test_dataset_refused(tmp_path, dataset, path, value, message):
    file = write(tmp_path, put(dataset, path, value))
    with pytest.raises(InputError) as caught:
        load_dataset_config(file)
    assert str(caught.value).startswith(f"{file}: ") and message in str(caught.value)


def test_dataset_ids_are_unique(tmp_path, dataset):
    dataset["datasets"] *= 2
    with pytest.raises(InputError, match=r"datasets\[1\].id: 'A' appears twice"):
        load_dataset_config(write(tmp_path, dataset))


def test_imports_nothing_heavy():
    code = "import sys, diff_v2m, diff_v2m.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "transformers"} & set(done.stdout.split())
