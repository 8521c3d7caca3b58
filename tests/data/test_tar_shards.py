"""Tar shards: their batches equal those of the source folders, on any file system and with any number of processes."""

import json
import multiprocessing
import os
import shutil
from collections import Counter
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch
import webdataset
from helpers.data_folder import WINDOW, Folder, dataset_config, model_config
from helpers.processes import WAIT, run_to_the_end
from helpers.videos import ffmpeg
from torch import distributed

from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config, parse_dataset_config
from diff_v2m.data.crops import Crop
from diff_v2m.data.dataset import AudioVideoDataset, open_set
from diff_v2m.data.latent_store import EncodingSettings, Provenance, save_encodings
from diff_v2m.data.loader import build_dataloader
from diff_v2m.data.tar_shards import webdataset_key
from diff_v2m.preprocess.__main__ import main as preprocess
from diff_v2m.training.run_folder import fingerprint

COUNT = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    """Nine clips, some longer than the window, one with a dot in its name, one silent, one in flac, one in m4a."""
    folder = Folder(tmp_path_factory.mktemp("source"), class_label=1)
    for number in range(COUNT):
        folder.add(f"c{number}" if number else "c.0", number, seconds=6 + 2 * number, clicks=[1.5 + number % 3])
    wav = folder.root / "wav"
    soundfile.write(wav / "c1.flac", *soundfile.read(wav / "c1.wav"), subtype="PCM_16")
    ffmpeg("-i", wav / "c2.wav", "-c:a", "aac", wav / "c2.m4a")
    for stem in ("c1", "c2"):
        (wav / f"{stem}.wav").unlink()
    folder.add("quiet", 20, silent=True)
    return folder


@pytest.fixture(scope="module")
def encoded(folder, tmp_path_factory) -> Folder:
    """The same with random latents, two crops of each clip."""
    copy = object.__new__(Folder)
    vars(copy).update(vars(folder) | {"root": tmp_path_factory.mktemp("encoded") / "set"})
    shutil.copytree(folder.root, copy.root)
    (copy.root / "wav/quiet.wav").unlink()
    for clip in AudioVideoDataset(dataset_config(copy), model_config()).clips:
        provenance = Provenance(
            EncodingSettings.of("f" * 64, model_config()), clip.audio.stat().st_size, clip.audio_seconds, clip.seconds
        )
        generator, seconds = torch.Generator().manual_seed(int(clip.stem[-1])), min(clip.seconds, WINDOW)
        rhythms = {
            kind: torch.randn(2, seconds, dim, generator=generator)
            for kind, dim in (("odf", 1), ("mel", 16), ("tempo", 16))
        }
        latents = torch.randn(2, 4, 157, generator=generator).half()
        path = copy.root / "latents" / f"{clip.stem}.safetensors"
        save_encodings(path, provenance, [Crop(0, False), Crop(0, True)], latents, rhythms)
    return copy


def write(source: Folder, target: Path, *flags, model=None, **changes) -> int:
    """The command as a user runs it, from a JSON file."""
    (source.root / "model.json").write_text(json.dumps((model or model_config()).raw))
    kind = {"dataset_type": "audio_video_dir", "random_crop": True, "drop_last": False}
    data = {**kind, "datasets": [source.entry(**changes)]}
    (source.root / "data.json").write_text(json.dumps(data))
    return preprocess(
        [
            "shards",
            "--output",
            str(target),
            "--dataset-config",
            str(source.root / "data.json"),
            "--model-config",
            str(source.root / "model.json"),
            "--clips-per-shard",
            "2",
            *map(str, flags),
        ]
    )


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("shards")
    assert write(folder, target) == 0
    return target


@pytest.fixture(scope="module")
def encoded_shards(encoded, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("encoded_shards")
    assert write(encoded, target, latents="latents") == 0
    return target


def config_of(url, **changes):
    raw = {"dataset_type": "audio_video_shards", "datasets": [{"id": "set", "shards": str(url)}], "random_crop": True}
    return parse_dataset_config(raw | changes)


def same(ours, theirs) -> bool:
    """Two batches, field by field."""
    values = [(getattr(ours, field.name), getattr(theirs, field.name)) for field in fields(ours)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in values)


# ------------------------------------------------------------------------------------------------ the same batches


def test_layout(shards, caplog):
    assert {path.name for path in (shards / "set").iterdir()} == {
        "index.json",
        *(f"{n:05d}.{suffix}" for n in range(5) for suffix in ("tar", "json")),
    }
    data = load_dataset_config(shards / "dataset.json")
    assert (
        data.dataset_type == "audio_video_shards"
        and data.random_crop
        and data.datasets[0].shards == str(shards / "set")
    )
    assert len(AudioVideoDataset(data, model_config())) == COUNT


@pytest.mark.parametrize("training", [True, False])
def test_batches_of_sound_are_those_of_the_folder(folder, shards, training):
    """All but one clip bit for bit: m4a goes through flac of 24 bits."""
    loaders = [
        build_dataloader(data, model_config(), batch_size=1, training=training, seed=5)
        for data in (dataset_config(folder, random_crop=True), config_of(shards / "set"))
    ]
    pairs = list(zip(*loaders, strict=True))
    assert len(pairs) == COUNT and all(ours.names == theirs.names for ours, theirs in pairs)
    assert all(same(ours, theirs) for ours, theirs in pairs if ours.names != ["c2"])
    for ours, theirs in pairs:
        assert torch.allclose(ours.audio, theirs.audio, atol=1e-6) and theirs.class_label.tolist() == [1]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_surround_sound_is_mixed_as_in_the_folder(tmp_path, channels):
    """Quad in a wav names its channels FL FR BL BR; four channels without names are taken for FL FR FC BC."""
    source, config = Folder(tmp_path).add("quad").add("surround"), model_config(channels=channels)
    wav = source.root / "wav"
    ffmpeg("-y", "-f", "lavfi", "-i", "aevalsrc=0|0|0|0.5*sin(2*PI*440*t):c=quad:d=10:s=16000", wav / "quad.wav")
    ffmpeg("-f", "lavfi", "-i", "aevalsrc=0|0.5*sin(2*PI*440*t)|0|0:c=4.0:d=10:s=16000", wav / "surround.m4a")
    (wav / "surround.wav").unlink()
    assert write(source, tmp_path / "shards", model=config) == 0
    folder, shards = dataset_config(source), config_of(tmp_path / "shards/set", random_crop=False)
    theirs, ours = (list(AudioVideoDataset(data, config, phase_flip=False)) for data in (folder, shards))
    assert len(ours) == 2
    for there, here in zip(theirs, ours, strict=True):
        assert there.audio.any() and torch.allclose(here.audio, there.audio, atol=1e-6), here.name


def test_batches_of_latents_are_those_of_the_folder(encoded, encoded_shards):
    loaders = [
        build_dataloader(data, model_config(), batch_size=3, seed=5, num_workers=workers)
        for data, workers in (
            (dataset_config(encoded, random_crop=True, latents="latents"), 0),
            (config_of(encoded_shards / "set"), 2),
        )
    ]
    for _ in range(2):
        pairs = list(zip(*loaders, strict=True))
        assert len(pairs) == 3 and all(same(ours, theirs) and ours.latents is not None for ours, theirs in pairs)


def test_any_url_that_fsspec_reads(shards, tmp_path):
    """In memory, and through a cache on this disk: remote storage behaves alike."""
    memory = fsspec.filesystem("memory")
    memory.put(str(shards / "set"), "/bucket", recursive=True)
    found = next(path for path in memory.find("/bucket") if path.endswith("index.json")).rpartition("/")[0]
    plain = AudioVideoDataset(config_of(shards / "set", random_crop=False, phase_flip=False), model_config())
    for url in (f"memory:/{found}", f"filecache::memory:/{found}", f"file://{shards / 'set'}"):
        other = AudioVideoDataset(config_of(url, random_crop=False, phase_flip=False), model_config())
        assert torch.equal(other[4].audio, plain[4].audio) and other[4].name == plain[4].name


def test_webdataset_reads_them(shards, encoded_shards):
    tars = sorted(map(str, (shards / "set").glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["c%2E0", *(f"c{n}" for n in range(1, COUNT))]
    for number, sample in enumerate(samples):
        assert sample["semantic.npy"][0, 0] == number and sample["color.npy"].shape == (6 + 2 * number, 3072)
        assert set(sample["json"]) == {"scene_cut", "pseudo_beats", "duration"}
    tars = sorted(map(str, (encoded_shards / "set").glob("*.tar")))
    sample = next(iter(webdataset.WebDataset(tars, shardshuffle=False)))
    assert {"latents.safetensors", "semantic.npy", "color.npy", "json"} <= set(sample) and "wav" not in sample


def test_a_name_that_is_not_utf8_is_a_clip_like_any_other(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    source = Folder(tmp_path).add(name, 3)
    for _ in range(2):  # the second run finds it done
        assert write(source, tmp_path / "shards") == 0
    data = AudioVideoDataset(config_of(tmp_path / "shards" / "set"), model_config())
    assert [item.name for item in data] == [name]


def test_demos_find_features_and_label(shards):
    data = config_of(shards / "set")
    found = open_set(data.datasets[0], data, model_config())
    assert found.stems[0] == "c.0" and found.class_label("c3") == 1 and found.video_path("c3") is None
    assert len(found.read("c3")) == 12


# ---------------------------------------------------------------------------------------------- who reads what


def _rank(rank, data, rendezvous, results):
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    training = build_dataloader(data, model_config(), batch_size=2, num_workers=2, seed=4)
    epochs = [[(batch.names, batch.seconds_start.tolist()) for batch in training] for _ in range(2)]
    validation = build_dataloader(data, model_config(), batch_size=2, num_workers=2, training=False)
    results.put((rank, epochs, [name for batch in validation if not batch.padding for name in batch.names]))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_two_workers_each_share_the_clips(encoded_shards, tmp_path):
    """No clip twice in an epoch; as many batches in either process; the same again, and alone, under the same seed."""
    data, context = config_of(encoded_shards / "set"), multiprocessing.get_context("fork")

    def run(name):
        results = context.Queue()
        ranks = [context.Process(target=_rank, args=(r, data, tmp_path / name, results)) for r in range(2)]
        with run_to_the_end(ranks):
            return sorted(results.get(timeout=WAIT) for _ in ranks)

    first = run("a")
    (_, one, seen), (_, two, others) = first
    for ours, theirs in zip(one, two, strict=True):
        names = Counter(name for batch, _ in ours + theirs for name in batch)
        assert len(ours) == len(theirs) == 2 and len(names) == COUNT - 1 and set(names.values()) == {1}
    assert one[0] != one[1]
    assert sorted(seen + others) == sorted(["c.0", *(f"c{n}" for n in range(1, COUNT))])
    assert run("b") == first


def test_a_loader_resumes_within_an_epoch(shards):
    def loader(workers):
        return build_dataloader(config_of(shards / "set"), model_config(), batch_size=2, num_workers=workers, seed=9)

    whole = list(loader(0))
    resumed = loader(2)
    resumed.load_state_dict({"given": 2})
    rest = list(resumed)
    assert len(rest) == len(whole) - 2 and all(same(a, b) for a, b in zip(rest, whole[2:], strict=True))


# -------------------------------------------------------------------------------------------------- writing them


def test_parts_are_shared_skipped_and_renewed(folder, shards, tmp_path, caplog):
    target = tmp_path / "out"
    assert write(folder, target, "--shard", "0/2") == 0
    assert not (target / "set/index.json").exists() and "2 of 5 tar files are missing" in caplog.text
    assert write(folder, target, "--shard", "1/2") == 0
    assert {p.name: p.read_bytes() for p in (target / "set").glob("*.tar")} == {
        p.name: p.read_bytes() for p in (shards / "set").glob("*.tar")
    }
    assert (target / "set/index.json").read_bytes() == (shards / "set/index.json").read_bytes()
    assert "holds 9 clips in 5 tar files; 1 silent and skipped, 0 not done" in caplog.text

    times = {path.name: path.stat().st_mtime_ns for path in (target / "set").glob("*.tar")}
    features = folder.root / "clip/c3.npy"
    before = features.read_bytes()
    folder.save("clip", "c3", np.full((12, 512), 7, np.float32))
    try:
        assert write(folder, target) == 0
    finally:
        features.write_bytes(before)
    now = {path.name: path.stat().st_mtime_ns for path in (target / "set").glob("*.tar")}
    assert {name for name in now if now[name] != times[name]} == {"00001.tar"}


def test_a_broken_clip_is_skipped_and_named(folder, tmp_path, caplog):
    bad = object.__new__(Folder)
    vars(bad).update(vars(folder) | {"root": tmp_path / "set", "info": dict(folder.info)})
    shutil.copytree(folder.root, bad.root)
    (bad.root / "wav/c4.wav").write_bytes(b"RIFF no")
    (bad.root / "clip/c5.npy").write_bytes(b"junk")
    assert write(bad, tmp_path / "out") == 1
    assert "c4.wav" in caplog.text and "clip c5" in caplog.text
    names = {clip.stem for clip in AudioVideoDataset(config_of(tmp_path / "out/set"), model_config()).clips}
    assert names == {"c.0", *(f"c{n}" for n in (1, 2, 3, 6, 7, 8))}


def test_shards_keep_the_version_of_their_features(tmp_path, caplog):
    older = Folder(tmp_path, "older").add("x", 1)
    older.write_provenance(1, "hog")
    assert write(older, tmp_path / "out") == 0
    index = tmp_path / "out/older/index.json"
    assert json.loads(index.read_text())["feature_version"] == 1
    caplog.clear()
    assert len(AudioVideoDataset(config_of(index.parent), model_config())) == 1
    assert f"{index}: features of version 1; extract them again if" in caplog.text

    unknown = Folder(tmp_path, "unknown").add("x", 1)
    (unknown.root / "features.json").unlink()
    assert write(unknown, tmp_path / "out") == 0
    index = tmp_path / "out/unknown/index.json"
    assert json.loads(index.read_text())["feature_version"] is None
    assert len(AudioVideoDataset(config_of(index.parent), model_config())) == 1


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.fixture
def copy(shards, tmp_path) -> Path:
    return shutil.copytree(shards / "set", tmp_path / "set")


def test_a_damaged_or_missing_tar_file_is_named(copy):
    dataset = AudioVideoDataset(config_of(copy), model_config())
    tar = copy / "00004.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:20000])
    with pytest.raises(InputError, match=r"00004\.tar: ends after byte 20000"):
        dataset[8]
    tar.write_bytes(bytes(len(content)))
    with pytest.raises(InputError, match=r"clip c8 of 00004\.tar: "):
        dataset[8]
    place = dataset.clips[8].place
    other = (copy / "00000.tar").read_bytes()[: dataset.clips[0].place.size]  # another clip, whole, in its place
    tar.write_bytes(bytes(place.offset) + other.ljust(place.size, b"\0"))
    with pytest.raises(InputError, match="not the one that the index was made for"):
        dataset[8]
    tar.write_bytes(b"x" * len(content))
    with pytest.raises(InputError, match=r"clip c8 of 00004\.tar: .* is damaged"):
        dataset[8]
    tar.unlink()
    with pytest.raises(InputError, match=r"00004\.tar: cannot be read"):
        dataset[8]
    assert dataset[0].name == "c.0"


def test_an_index_that_does_not_fit(copy, encoded_shards):
    def refused(match, place=copy, **model):
        with pytest.raises(InputError, match=match) as caught:
            AudioVideoDataset(config_of(place), model_config(**model))
        assert "\n" not in str(caught.value)

    refused("semantics made by hog, the model expects clip-vit-base-patch32", encoder="clip-vit-base-patch32")
    refused("encoded with sample_size 160000, now 144000", encoded_shards / "set", seconds=9)
    refused("cannot be read", copy / "nowhere")
    refused("nowhere", "s9://nowhere/at/all")
    index = copy / "index.json"
    raw = json.loads(index.read_text())
    index.write_text(json.dumps(raw | {"feature_version": 0}))
    refused("features of version 0")
    index.write_text(json.dumps(raw | {"clips": [["c1", 2]]}))
    refused("not an index of shards")
    index.write_text("{")
    refused("not an index of shards")


def test_colour_and_latents_are_all_or_none(tmp_path, shards, encoded_shards):
    blind = Folder(tmp_path, "blind", color=False).add("x", 1)
    assert write(blind, tmp_path / "out") == 0
    sets = [{"id": "set", "shards": str(shards / "set")}, {"id": "blind", "shards": str(tmp_path / "out/blind")}]
    with pytest.raises(InputError, match="blind: no colour, but other data sets"):
        AudioVideoDataset(config_of("", datasets=sets), model_config())
    sets[1] = {"id": "encoded", "shards": str(encoded_shards / "set")}
    with pytest.raises(InputError, match="has audio, others have latents|has latents, others have audio"):
        AudioVideoDataset(config_of("", datasets=sets), model_config())


def test_what_works_on_folders_alone_says_so(shards, caplog):
    from diff_v2m.generation.inputs import collect

    data = load_dataset_config(shards / "dataset.json")
    with pytest.raises(InputError, match="set: tar shards, which only training"):
        collect([], data, shards)
    assert (
        preprocess(
            [
                "latents",
                "--dataset-config",
                str(shards / "dataset.json"),
                "--pretransform-ckpt-path",
                "none",
                "--model-config",
                str(Path(__file__).resolve().parents[2] / "configs/model/tiny.json"),
            ]
        )
        == 1
    )
    assert "set: tar shards" in caplog.text


def test_a_run_notices_other_shards(copy):
    before = fingerprint(config_of(copy))
    raw = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(raw | {"clips": raw["clips"][:-1]}))
    assert fingerprint(config_of(copy)) != before


def test_a_run_notices_other_scores(tmp_path):
    folder, scores = Folder(tmp_path).add("x", 1), tmp_path / "set/scores"
    scores.mkdir()
    (scores / "x.mid").write_bytes(b"one")
    before = fingerprint(dataset_config(folder, scores="scores"))
    assert fingerprint(dataset_config(folder, scores="scores")) == before
    (scores / "x.mid").write_bytes(b"three")
    assert fingerprint(dataset_config(folder, scores="scores")) != before


def test_keys_are_what_webdataset_groups_by():
    buffer = BytesIO()
    with webdataset.TarWriter(buffer) as writer:
        writer.write({"__key__": webdataset_key("a.b%c"), "json": {}})
    assert b"a%2Eb%25c.json" in buffer.getvalue()
