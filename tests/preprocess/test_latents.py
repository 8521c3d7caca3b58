"""Precomputed latents: training receives the same latents as when it encodes, and opens no audio."""

import json
import logging
import shutil

import pytest
import torch
from helpers.data_folder import Folder
from helpers.toys import RATE, WINDOW, save_toy_model, toy_raw_config

from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import text_seed
from diff_v2m.config import load_dataset_config, load_model_config
from diff_v2m.data import dataset as clips
from diff_v2m.data.crops import Crop, crop_audio, planned_crops
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.data.latent_store import Encodings, Provenance, save_encodings
from diff_v2m.data.loader import build_dataloader
from diff_v2m.preprocess.__main__ import main as preprocess
from diff_v2m.training.diffusion_module import DiffusionModule

CLIPS = {"c0": WINDOW, "c1": 1.5, "c2": WINDOW + 2.5}  # as long as the window, shorter, longer


class Place:
    """A set on disk with a toy model; `data.json` names its latents, `live.json` does not."""

    def __init__(self, root):
        self.root, self.folder = root, Folder(root)
        for number, (stem, seconds) in enumerate(CLIPS.items()):
            self.folder.add(stem, number, seconds=seconds, clicks=(0.5, 1.2), rate=RATE)
        self.model = save_toy_model(root / "toy.safetensors")
        (root / "model.json").write_text(json.dumps(toy_raw_config()))
        self.write()

    def write(self, rhythm_type="odf", **changes):
        for name, latents in (("data", "latents"), ("live", None)):
            kind = {"dataset_type": "audio_video_dir", "rhythm_type": rhythm_type, "random_crop": True}
            sets = [self.folder.entry(latents=latents, **changes)]
            (self.root / f"{name}.json").write_text(json.dumps({**kind, "datasets": sets}))

    def encode(self, *flags) -> int:
        return preprocess(
            [
                "latents",
                "--dataset-config",
                str(self.root / "data.json"),
                "--model-config",
                str(self.root / "model.json"),
                "--pretransform-ckpt-path",
                str(self.model),
                "--device",
                "cpu",
                "--encodings",
                "4",
                *map(str, flags),
            ]
        )

    @property
    def latents(self):
        return self.folder.root / "latents"

    def data(self, name="data", **options) -> AudioVideoDataset:
        return AudioVideoDataset(load_dataset_config(self.root / f"{name}.json"), self.config, **options)

    @property
    def config(self):
        return load_model_config(self.root / "model.json")

    def other_autoencoder(self):
        """The same weights but for one number of the encoder."""
        model, config = load_model(self.model)
        next(model.pretransform.model["encoder"].parameters()).data.flatten()[0] += 1
        from diff_v2m.checkpoints.files import save_model

        save_model(model, config, self.model, dtype=None)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("encoded"))
    assert place.encode() == 0
    return place


@pytest.fixture
def place(encoded, tmp_path) -> Place:
    """A copy that tests may damage."""
    shutil.copytree(encoded.root, tmp_path, dirs_exist_ok=True)
    copy = object.__new__(Place)
    copy.root, copy.folder, copy.model = tmp_path, object.__new__(Folder), tmp_path / "toy.safetensors"
    vars(copy.folder).update(vars(encoded.folder) | {"root": tmp_path / "set"})
    copy.write()
    return copy


# ------------------------------------------------------------------------------------------------ what is encoded


def test_every_clip_in_different_crops_the_beginning_first(encoded):
    found = {path.stem: Encodings.open(path).crops for path in encoded.latents.glob("*.safetensors")}
    assert found["c0"] == found["c1"] == (Crop(0, False), Crop(0, True))
    assert len(set(found["c2"])) == 4 and found["c2"][0] == Crop(0, False)
    assert {crop.start for crop in found["c2"]} == {0, 1, 2} and {crop.inverted for crop in found["c2"]} == {
        True,
        False,
    }


def test_crops_are_planned_without_repetition_and_the_same_every_time(encoded):
    clip = next(clip for clip in encoded.data("live").clips if clip.stem == "c2")
    plan = {
        (count, crop, flip): planned_crops(clip, encoded.config, count, random_crop=crop, phase_flip=flip)
        for count in (1, 3, 100)
        for crop in (True, False)
        for flip in (True, False)
    }
    everything = {kind: len(crops) for (count, *kind), crops in plan.items() if count == 100 for kind in [tuple(kind)]}
    assert everything == {(True, True): 6, (True, False): 3, (False, True): 2, (False, False): 1}
    assert all(len(set(crops)) == len(crops) and crops[0] == Crop(0, False) for crops in plan.values())
    assert all(crops == plan[100, *kind][:3] for (count, *kind), crops in plan.items() if count == 3)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_latents_and_rhythm_are_those_of_encoding_on_the_fly(place, dtype):
    """Bit for bit, up to the precision on disk, for the same crop and the same noise."""
    shutil.rmtree(place.latents)
    assert place.encode("--dtype", dtype) == 0
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    module = DiffusionModule(place.config)
    module.diffusion = load_model(place.model)[0]
    for clip in place.data("live").clips:
        found, content = Encodings.open(place.latents / f"{clip.stem}.safetensors"), clip.open()
        for number, crop in enumerate(found.crops):
            audio = crop_audio(clip, crop, content, place.config)
            noise = torch.Generator().manual_seed(text_seed(clip.stem, crop.start, crop.inverted))
            live = module.diffusion.encode(audio[None], noise)[0]
            assert torch.equal(found.latents(number), live.to(half).float())
            assert found.latents(number).dtype == torch.float32


@pytest.mark.parametrize("kind", ["odf", "mel", "tempo", "beat"])
def test_latent_items_equal_audio_items(encoded, monkeypatch, kind):
    """Everything but the sound is equal, for every rhythm type, from one and the same file."""
    monkeypatch.setattr(clips, "_check_rhythm_type", lambda *_: None)
    encoded.write(rhythm_type=kind)
    try:
        cached, live = encoded.data(), encoded.data("live")
    finally:
        encoded.write()
    seen = set()
    for number in range(3):
        for seed in range(6):
            torch.manual_seed(seed)
            item = cached[number]
            crop = Crop(item.seconds_start, False)
            monkeypatch.setattr(clips, "draw_crop", lambda *_, crop=crop, **__: crop)
            other = live[number]
            seen.add((item.name, crop.start))
            assert torch.equal(item.rhythm, other.rhythm) and (item.features.semantic == other.features.semantic).all()
            assert (item.name, item.class_label, item.seconds_total) == (other.name, 2, other.seconds_total)
            assert item.audio is None and item.latents.shape == (64, 63)
    assert {start for name, start in seen if name == "c2"} == {0, 1, 2}


def test_only_crops_that_the_settings_allow_are_drawn(encoded):
    torch.manual_seed(0)
    still = encoded.data(random_crop=False, phase_flip=False)
    first = [Encodings.open(encoded.latents / f"c{n}.safetensors").latents(0) for n in range(3)]
    assert all(torch.equal(still[n].latents, first[n]) for n in range(3) for _ in range(4))
    upright = encoded.data(phase_flip=False)
    crops = Encodings.open(encoded.latents / "c2.safetensors").crops
    allowed = {crop.start for crop in crops if not crop.inverted}
    assert {upright[2].seconds_start for _ in range(20)} == allowed


def test_workers_open_no_sound_and_compute_no_rhythm(place, monkeypatch):
    """Soundtracks and rhythm extraction are removed, so any use of them fails."""
    shutil.rmtree(place.folder.root / "wav")
    place.write(path=None)
    monkeypatch.setattr(clips, "rhythm_target", lambda *_, **__: pytest.fail("a rhythm target was computed"))
    data = load_dataset_config(place.root / "data.json")

    def epochs(workers):
        loader = build_dataloader(data, place.config, batch_size=3, num_workers=workers, seed=3)
        return [batch for _ in range(3) for batch in loader]

    alone, shared = epochs(0), epochs(2)
    for ours, theirs in zip(alone, shared, strict=True):
        assert ours.names == theirs.names and torch.equal(ours.latents, theirs.latents)
        assert ours.rhythm is not None and ours.autoencoder == theirs.autoencoder


# ------------------------------------------------------------------------------------------------------ running it


def test_finished_clips_are_kept_and_all_parts_make_the_whole(encoded, place, caplog):
    files = sorted(place.latents.iterdir())
    content, times = [path.read_bytes() for path in files], [path.stat().st_mtime_ns for path in files]
    assert place.encode() == 0
    assert [path.stat().st_mtime_ns for path in files] == times
    files[0].unlink()
    files[1].write_bytes(b"damaged")
    caplog.clear()
    for part in ("0/2", "1/2"):
        assert place.encode("--part", part) == 0
    assert [path.read_bytes() for path in files] == content
    assert caplog.text.count("1 clips encoded") == 2


def test_a_broken_and_a_silent_clip_do_not_stop_the_others(tmp_path, caplog):
    place = Place(tmp_path)
    place.folder.add("broken", 5, seconds=2, rate=RATE).add("silent", 6, seconds=2, rate=RATE, silent=True)
    place.folder.add("no_picture", 7, seconds=2, rate=RATE)
    (tmp_path / "set/wav/broken.wav").write_bytes(b"RIFF no")
    (tmp_path / "set/clip/no_picture.npy").unlink()
    place.write()
    with caplog.at_level(logging.INFO):
        assert place.encode() == 1
    assert {path.stem for path in place.latents.glob("*")} == set(CLIPS)
    assert "3 clips encoded in this run, 0 there already, 1 silent and skipped, 2 not done" in caplog.text
    assert "broken.wav" in caplog.text and "clip no_picture" in caplog.text

    (tmp_path / "set/wav/no_picture.wav").unlink()  # its missing features are an error of training too
    data = place.data()
    assert len(data) == 3 and set(data.excluded) == {"set: clip broken", "set: clip silent"}


def test_a_clip_that_was_never_encoded_is_an_error(place):
    place.folder.add("new", 9, seconds=2, rate=RATE)
    place.write()
    with pytest.raises(InputError, match="clip new: no latents file for it"):
        place.data()


@pytest.mark.parametrize("key", ["latents", "path"])
def test_both_folders_must_be_named(place, key, caplog):
    place.write(path=None) if key == "path" else (place.root / "data.json").write_text(
        (place.root / "live.json").read_text()
    )
    assert place.encode() == 1
    assert "set: expected `path` (wav or mid files) and `latents`" in caplog.text


def test_a_folder_that_is_not_there(place, caplog):
    place.write(path="nowhere")
    assert place.encode() == 1
    assert "nowhere" in caplog.text and "\n" not in caplog.records[-1].getMessage()


def test_a_full_disk_ends_the_run_in_one_line(place, caplog):
    shutil.rmtree(place.latents)
    place.latents.write_text("in the way")
    assert place.encode() == 1
    assert "cannot be written" in caplog.text and "not done" not in caplog.text


# ------------------------------------------------------------------------------------------- what no longer fits


def test_latents_of_another_autoencoder_are_replaced_only_with_overwrite(place, caplog):
    before = [path.read_bytes() for path in sorted(place.latents.iterdir())]
    place.other_autoencoder()
    assert place.encode() == 1
    assert "made by autoencoder" in caplog.text and "--overwrite" in caplog.text
    assert [path.read_bytes() for path in sorted(place.latents.iterdir())] == before
    assert place.encode("--overwrite") == 0
    after = [path.read_bytes() for path in sorted(place.latents.iterdir())]
    assert all(old != new for old, new in zip(before, after, strict=True))
    times = [path.stat().st_mtime_ns for path in sorted(place.latents.iterdir())]
    assert place.encode("--overwrite") == 0  # files that fit are kept, so this run can be resumed too
    assert times == [path.stat().st_mtime_ns for path in sorted(place.latents.iterdir())]


def test_two_autoencoders_are_never_mixed(place):
    kept = (place.latents / "c0.safetensors").read_bytes()
    place.other_autoencoder()
    place.encode("--overwrite")
    (place.latents / "c0.safetensors").write_bytes(kept)
    with pytest.raises(InputError, match=r"clip c0: .*c0\.safetensors: latents of autoencoder"):
        place.data()


def test_training_refuses_latents_of_another_autoencoder(encoded):
    module = DiffusionModule(encoded.config)
    batch = next(iter(build_dataloader(load_dataset_config(encoded.root / "data.json"), encoded.config, batch_size=3)))
    with pytest.raises(InputError, match="made by autoencoder .* this run has .* --pretransform-ckpt-path"):
        module.latents_of(batch, torch.Generator())
    module = DiffusionModule(encoded.config)
    module.diffusion = load_model(encoded.model)[0]
    assert torch.equal(module.latents_of(batch, torch.Generator()), batch.latents)


STALE = {
    "another sound": (lambda p: p.folder.add("c1", 8, seconds=1.4, rate=RATE), "is not the file that was encoded"),
    "another picture": (
        lambda p: p.folder.add("c1", 1, seconds=3, rate=RATE),
        "encoded with 2 seconds of features, now 3",
    ),
    "damaged": (lambda p: (p.latents / "c1.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    "of another kind": (lambda p: shutil.copy(p.model, p.latents / "c1.safetensors"), "not latents of this version"),
}


@pytest.mark.parametrize("case", STALE)
def test_stale_latents_are_refused_and_encoded_again(place, case):
    spoil, message = STALE[case]
    spoil(place)
    place.write()
    with pytest.raises(InputError, match=f"c1.*{message}") as caught:
        place.data()
    assert "\n" not in str(caught.value)
    assert place.encode() == 0 and len(place.data()) == 3


def test_latents_of_other_windows_are_refused(place):
    raw = toy_raw_config() | {"sample_size": 3 * RATE}
    (place.root / "model.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="encoded with sample_size 64000, now 48000"):
        place.data()


def test_numbers_that_half_precision_cannot_hold(place, caplog):
    shutil.rmtree(place.latents)
    model, config = load_model(place.model)
    from diff_v2m.checkpoints.files import save_model

    model.pretransform.model["encoder"].layers[-1].weight_g.data.mul_(1e8)
    save_model(model, config, place.model, dtype=None)
    assert place.encode() == 1
    assert "do not fit into torch.float16; try --dtype bf16" in caplog.text
    assert place.encode("--dtype", "bf16") == 0


def test_a_file_appears_whole_or_not_at_all(place):
    path = place.latents / "c0.safetensors"
    provenance, found = Provenance.read(path), Encodings.open(path)
    before = path.read_bytes()
    save_encodings(
        path,
        provenance,
        found.crops,
        torch.stack([found.latents(n).half() for n in range(2)]),
        {kind: torch.stack([found.rhythm(kind, n) for n in range(2)]) for kind in ("odf", "mel", "tempo")},
    )
    assert path.read_bytes() == before and len(list(place.latents.iterdir())) == 3
