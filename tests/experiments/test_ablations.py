"""Ablations: variants are expanded and validated, each change has its effect, and results give a table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.data_folder import dataset_config
from helpers.toys import ROOT, toy_raw_config
from helpers.training_toys import TheSet, make_place
from safetensors.torch import save_file

from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config, load_model_config, parse_dataset_config, parse_model_config
from diff_v2m.data.loader import build_dataloader
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.losses import training_losses
from experiments.ablations import __main__ as command
from experiments.ablations import results, table, variants

TINY, FULL = (ROOT / f"configs/model/{name}.json" for name in ("tiny", "diff_v2m_corrected"))
ALL = [name for group in variants.read_variants().values() for name in group]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("ablations"))


# ---------------------------------------------------------------------------------------------------- expansion


@pytest.mark.parametrize(("model", "itself"), [(TINY, "fusion_gate"), (FULL, "fusion_film")])
def test_every_variant_of_both_bases_is_a_valid_model_and_differs_from_it(model, itself):
    names = variants.variant_names(model)
    assert names[0] == "full" and set(ALL) - set(names) == {itself, "rhythm_odf"}
    configs = [
        parse_model_config(variants.changed(json.loads(model.read_text()), variants.find_variant(name).model, name))
        for name in names
    ]
    assert all(config != configs[0] for config in configs[1:])
    assert len({repr(config) for config in configs}) == len(configs)


def test_the_film_music_variants_are_valid_models_too():
    base, table = ROOT / "configs/model/film_music.json", ROOT / "configs/ablations_film_music.json"
    names = [name for group in variants.read_variants(table).values() for name in group]
    for name in names:
        raw = variants.changed(json.loads(base.read_text()), variants.find_variant(name, table).model, name)
        assert (parse_model_config(raw) == load_model_config(base)) == (name == names[0])


def test_a_variant_is_written_as_whole_files_once(place, tmp_path):
    def expand(name: str, model: Path = TINY) -> None:
        data = str(place / "data.json")
        options = command.parse(
            [
                "expand",
                name,
                "--model-config",
                str(model),
                "--dataset-config",
                data,
                "--val-dataset-config",
                data,
                "--output",
                str(tmp_path / "variant"),
            ]
        )
        command.run(options)

    expand("rhythm_mel")
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "variant").iterdir()}
    assert set(files) == {"model.json", "dataset.json", "val_dataset.json"}
    model, base = load_model_config(tmp_path / "variant/model.json"), load_model_config(TINY)
    assert model.model.conditioning["rhythm"].config.dim == 16 != base.model.conditioning["rhythm"].config.dim
    assert model.training == base.training and model.pretransform == base.pretransform
    data, given = (load_dataset_config(path) for path in (tmp_path / "variant/dataset.json", place / "data.json"))
    assert data.rhythm_type == "mel" and data.datasets == given.datasets
    expand("rhythm_mel")  # a second seed finds its variant there
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "variant").iterdir()} == files
    with pytest.raises(InputError, match="model.json: belongs to an earlier, different table"):
        expand("rhythm_tempo")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.difusion.config.depth", 2, r"table: model\.difusion: unknown key \(did you mean diffusion\?\)"),
        ("training.joint_rythm", False, "training.joint_rythm: unknown key .did you mean joint_rhythm"),
        ("training.joint_rhythm", "no", "training.joint_rhythm: expected true or false"),
        ("model.conditioning.configs[rythm].config.dim", 2, "configs.rythm..config.dim: no list there has .*'rythm'"),
        ("model.conditioning[rhythm].config.dim", 2, "no list there has an entry"),
        ("model.conditioning.configs[rhythm]", {}, "expected a path that ends in the key of an object"),
        ("model.io_channels.depth", 2, "expected a path that ends in the key"),
        ("model.io_channels.depth.more", 2, "'depth' is looked up in a value that is not an object"),
        ("", 2, "expected a path that ends in the key"),
    ],
)
def test_a_mistake_in_the_table_is_named(path, value, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_model_config(variants.changed(toy_raw_config(), {path: value}, "table"), "table")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"x": {"titel": "X"}}}, r"a\.x\.titel: unknown key \(did you mean title\?\)"),
        ({"a": {"x": {"title": "X"}}, "b": {"x": {"title": "Y"}}}, "x: appears twice"),
        ({"a": {"x/y": {"title": "X"}}}, "'x/y': expected a name of letters"),
        ([], "expected an object"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, message):
    (tmp_path / "table.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        variants.read_variants(tmp_path / "table.json")


def test_an_unknown_variant_is_named(capsys):
    with pytest.raises(InputError, match="no variant is called no_rythm .there are: full, no_rhythm"):
        variants.find_variant("no_rythm")
    command.main(["names", "--model-config", str(TINY)])
    assert capsys.readouterr().out.split() == variants.variant_names(TINY)


# ------------------------------------------------------------------------------------------- what the variants are


def variant_config(name: str):
    return parse_model_config(variants.changed(toy_raw_config(depth=1), variants.find_variant(name).model, name), name)


@pytest.mark.parametrize("name", ALL)
def test_every_variant_learns(place, name):
    """One step on two clips: a finite loss whose gradient reaches the conditions the variant uses, and only those."""
    torch.manual_seed(0)
    module = DiffusionModule(variant_config(name)).train()
    with torch.no_grad():  # a zero hides the gradient of others
        for parameter in module.diffusion.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    kind = variants.find_variant(name).dataset.get("rhythm_type", "odf")
    data = dataset_config(TheSet(place), rhythm_type=kind)
    batch = next(iter(build_dataloader(data, module.config, batch_size=2, training=False)))
    conditions = module.diffusion.condition(batch).with_rhythm(torch.tensor([True, False]))
    latents, noise = torch.randn(2, 2, 64, 63)
    losses = training_losses(module.diffusion.model, conditions, latents, noise, torch.tensor([0.1, 0.6]))
    assert losses.total.isfinite()
    losses.mse.backward()
    moved = {
        part: max(
            (
                float(p.grad.abs().max())
                for p in module.diffusion.get_submodule(part).parameters()
                if p.grad is not None
            ),
            default=0.0,
        )
        > 0
        for part in ("conditioner.conditioners.semantic.proj_out2", "model.model.to_cond_embed")
    }
    assert all(moved.values())
    conditioners = module.diffusion.conditioner.conditioners
    for id, without in (("rhythm", ("no_rhythm",)), ("color", ("no_color",))):
        assert (id in conditioners) == (name not in without)
    reached = {
        id: any(p.grad is not None and bool(p.grad.any()) for p in conditioners[id].parameters())
        for id in ("rhythm", "color")
        if id in conditioners
    }
    unreached = {"color"} if name in ("no_color_attention", "uncorrected") else set()
    assert {id for id, any_gradient in reached.items() if not any_gradient} == unreached


def test_without_visual_rhythm_the_predictor_sees_no_cuts(place):
    config = variant_config("no_visual_rhythm")
    module = DiffusionModule(config).eval()
    batch = next(iter(build_dataloader(dataset_config(TheSet(place)), config, batch_size=2, training=False)))
    first = module.diffusion.condition(batch).predicted_rhythm
    batch.scene_cut, batch.pseudo_beats = 1 - batch.scene_cut, batch.pseudo_beats + 0.5
    assert torch.equal(module.diffusion.condition(batch).predicted_rhythm, first)
    assert not [name for name in module.state_dict() if "scene_embedding" in name or "pseudo_linear" in name]
    base = DiffusionModule(variant_config("full")).eval()
    seen = base.diffusion.condition(batch).predicted_rhythm
    batch.scene_cut = 1 - batch.scene_cut
    assert not torch.equal(base.diffusion.condition(batch).predicted_rhythm, seen)


def test_what_rhythm_the_generator_is_trained_with():
    """Always true, always predicted, or a schedule from true to predicted."""

    def shares(name: str) -> list[float]:
        module, found = DiffusionModule(variant_config(name)), []
        for epoch in (0, 15, 40):
            module._trainer = SimpleNamespace(current_epoch=epoch)
            found.append(module.probability_of_true_rhythm())
        return found

    assert shares("no_joint_training") == [1, 1, 1]
    assert shares("no_curriculum") == [0, 0, 0]
    assert shares("full") == [1, 0.75, 0]


# ----------------------------------------------------------------------------------------------- what came of it


def make_run(
    runs: Path,
    variant: str,
    seed: int,
    loss: float,
    onset_r: float | None = None,
    autoencoder: float = 1.0,
    data: str = "f",
    **settings,
) -> Path:
    folder = runs / variant / f"seed_{seed}"
    (folder / "logs/version_0").mkdir(parents=True)
    trained = {"diffusion.pretransform.bias": torch.tensor([autoencoder]), "diffusion.model.bias": torch.tensor([loss])}
    save_file(trained, folder / "model.safetensors")
    (folder / "logs/version_0/metrics.csv").write_text(
        f"step,val/loss,val/rhythm_correlation\n49,9,0.1\n99,{loss},0.25\n"
    )
    settings = dict.fromkeys(results.SAME, 1) | {"max_steps": 100, "batch_size": 4} | settings
    start = {"settings": settings, "fingerprints": {"dataset": data}}
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    if onset_r is not None:
        scores = {"onset_r": onset_r, "onset_r_wrong": 0.0, "mode": 1.0, "instrument": 0.5}
        asked = {"clips": 24, "steps": 25, "guidance_scale": 3.0, "seed": 42}
        (folder / "scores.json").write_text(json.dumps({"settings": asked, "scores": scores}))
    return folder


def drawn(runs: Path) -> str:
    groups = variants.read_variants()
    return table.table([results.read_runs(runs, groups)], groups)


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows}


def test_table_is_mean_and_spread_and_differences_within_a_seed(tmp_path):
    for seed, whole, without in ((1, 0.5, 0.6), (2, 0.7, 0.9), (3, 0.6, 0.6)):
        make_run(tmp_path, "full", seed, whole, 0.9)
        make_run(tmp_path, "no_rhythm", seed, without, 0.1 * seed)
    make_run(tmp_path, "untimed", 2, 1.0)
    (tmp_path / "untimed/seed_9").mkdir()  # has not ended
    text = drawn(tmp_path)
    rows = cells(text)
    assert rows[""][:4] == ["seeds", "validation loss", "against the whole model", "rhythm predicted, r"]
    assert rows["the whole model"][:5] == ["1, 2, 3", "0.6000 ± 0.1000", "–", "0.25 ± 0.00", "0.90 ± 0.00"]
    assert rows["no rhythm"][:5] == ["1, 2, 3", "0.7000 ± 0.1732", "+0.1000 ± 0.1000", "0.25 ± 0.00", "0.20 ± 0.10"]
    assert rows["conditions without time, as released"][:5] == ["2", "1.0000", "+0.3000", "0.25", "–"]
    assert "100 steps of 4 clips" in text and "24 held-out clips in 25 sampling steps, guidance 3" in text


def test_a_variant_that_is_the_base_is_said_to_be(place, tmp_path):
    make_run(tmp_path, "full", 1, 0.5)
    variants.expand("full", TINY, {"dataset": place / "data.json"}, tmp_path / "full")
    assert cells(drawn(tmp_path))["gate"][0] == "is the whole model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: make_run(runs, "untimed", 1, 0.5, max_steps=99), "untimed/seed_1: max_steps is 99, but 100 in"),
        (lambda runs: make_run(runs, "untimed", 1, 0.5, autoencoder=2.0), "untimed/seed_1: autoencoder is"),
        (
            lambda runs: (make_run(runs, "untimed", 1, 0.5) / "logs/version_0/metrics.csv").write_text("step\n"),
            "has no val/loss",
        ),
        (lambda runs: [path.unlink() for path in runs.rglob("model.safetensors")], "no finished run"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, change, message):
    make_run(tmp_path, "full", 1, 0.5)
    change(tmp_path)
    with pytest.raises(InputError, match=message):
        drawn(tmp_path)


def test_scores_of_other_settings_are_refused(tmp_path):
    make_run(tmp_path, "full", 1, 0.5, 0.9)
    path = make_run(tmp_path, "untimed", 1, 0.5, 0.9) / "scores.json"
    path.write_text(path.read_text().replace('"steps": 25', '"steps": 50'))
    with pytest.raises(InputError, match="other settings than the other scores"):
        drawn(tmp_path)


def test_results_are_written_and_read_again(tmp_path, capsys, caplog):
    kept = tmp_path / "results.json"
    make_run(tmp_path / "runs", "full", 1, 0.5, 0.9)
    make_run(tmp_path / "runs", "untimed", 1, 0.7)
    command.main(["table", str(tmp_path / "runs"), "--results", str(kept)])
    written = capsys.readouterr().out
    assert cells(written)["conditions without time, as released"][:3] == ["1", "0.7000", "+0.2000"]
    command.main(["table", "--results", str(kept)])
    assert capsys.readouterr().out == written
    kept.write_text('{"results": [{"runs": []}]}')
    assert command.main(["table", "--results", str(kept)]) == 1
    assert "expected results as" in caplog.text
    assert command.main(["table"]) == 1
    assert "neither RUNS nor --results" in caplog.text


def test_the_published_results_give_the_published_table(capsys):
    """They are of two sets of data; each variant is compared within its own."""
    command.main(["table", "--results", str(ROOT / "results/ablations.json")])
    written = capsys.readouterr().out
    assert written in (ROOT / "results/ablations.md").read_text()
    assert cells(written)["the whole model"][0] == "1, 2; 2, 3"


def test_the_table_is_written_between_its_markers(tmp_path):
    make_run(tmp_path / "runs", "full", 1, 0.5)
    document = tmp_path / "page.md"
    document.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        command.main(["table", str(tmp_path / "runs"), "--write", str(document)])
        content = document.read_text()
        assert content.startswith("before\n" + table.BEGIN) and content.endswith(table.END + "\nafter\n")
        assert content.count("| the whole model |") == 1 and "old" not in content
    with pytest.raises(InputError, match="expected one place between"):
        table.write_into(tmp_path / "other.md", "text")


# ---------------------------------------------------------------------------------------------------- the script


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The script and the files that it calls, with a train.sh that prints its arguments and exits."""
    root = tmp_path / "a clone"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/ablations.sh", root / "scripts")
    for name in ("diff_v2m", "experiments", "configs"):
        (root / name).symlink_to(ROOT / name)
    (root / "setup.sh").write_text(f"echo {sys.executable}\n")
    (root / "train.sh").write_text(
        'echo "train $*"; while [ $# -gt 0 ]; do case "$1" in --save-dir) d=$2;; --name) n=$2;; esac; shift; done\n'
        'mkdir -p "$d/$n"; [ "$n" != seed_13 ] || exit 3; touch "$d/$n/model.safetensors"\n'
    )
    return root


def ablations(root: Path, place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "DIFF_V2M_"))}
    given = ["--dataset-config", str(place / "data.json"), "--val-dataset-config", str(place / "data.json")]
    return subprocess.run(
        ["bash", str(root / "scripts/ablations.sh"), "full", *given, *arguments],
        cwd="/",
        env=kept | environment,
        text=True,
        capture_output=True,
    )


@pytest.mark.slow
def test_the_script_trains_what_is_not_finished(repository, place):
    asked = ["--seeds", "4 5", "--variants", "full rhythm_mel", "--batch-size", "2"]
    done = ablations(repository, place, *asked)
    assert done.returncode == 0, done.stderr
    calls = [line for line in done.stdout.splitlines() if line.startswith("train ")]
    folder = "runs/ablations/full/rhythm_mel"
    assert len(calls) == 4 and calls[1] == (
        f"train --model-config {folder}/model.json --dataset-config {folder}/dataset.json --val-dataset-config "
        f"{folder}/val_dataset.json --save-dir {folder} --name seed_4 --seed 4 --recover --batch-size 2"
    )
    assert load_dataset_config(repository / folder / "val_dataset.json").rhythm_type == "mel"
    (repository / folder / "seed_5/model.safetensors").unlink()
    again = ablations(repository, place, *asked)
    assert [line for line in again.stdout.splitlines() if line[:2] == "=="] == ["== rhythm_mel 5"]


@pytest.mark.slow
def test_a_variant_that_fails_does_not_stop_the_others(repository, place):
    done = ablations(repository, place, "--seeds", "13 14", "--variants", "full untimed")
    assert done.returncode == 1 and done.stdout.count("train ") == 4
    assert "not finished: full 13 (status 3)" in done.stderr and "untimed 13" in done.stderr
    unknown = ablations(repository, place, "--seeds", "1", "--variants", "nobody")
    assert unknown.returncode == 1 and "no variant is called nobody" in unknown.stderr and "train" not in unknown.stdout


@pytest.mark.slow
def test_a_task_of_an_array_is_one_variant_and_seed(repository, place):
    def task(number: int) -> str:
        job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number)}
        done = ablations(repository, place, "--seeds", "1 2", "--variants", "full untimed", **job)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "untimed --name seed_1" in task(1) and "full --name seed_2" in task(2)
    assert task(1) == "" and "task 4: nothing to do" in task(4)


def test_a_job_finds_its_repository(repository, place, tmp_path):
    """sbatch runs a copy of the script from its spool folder."""
    spool = tmp_path / "spool/job7/slurm_script"
    spool.parent.mkdir(parents=True)
    shutil.copy(repository / "scripts/ablations.sh", spool)
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho '   Command={repository}/scripts/ablations.sh full'\n")
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "9", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    data = str(place / "data.json")
    arguments = ["full", "--dataset-config", data, "--val-dataset-config", data, "--variants", "full"]
    done = subprocess.run(["bash", str(spool), *arguments], env=os.environ | job, text=True, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, "task 9: nothing to do, there are 3 tasks"), done


def test_the_header_has_a_task_for_each_variant_and_seed():
    text = (ROOT / "scripts/ablations.sh").read_text()
    assert f"#SBATCH --array=0-{3 * len(variants.variant_names(FULL)) - 1}\n" in text and 'seeds="1 2 3"' in text
    lines = text.splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first_command:] if line.startswith("#SBATCH")]


def test_the_script_says_what_is_missing(repository):
    def say(*arguments: str) -> str:
        done = subprocess.run(
            ["bash", str(repository / "scripts/ablations.sh"), *arguments], text=True, capture_output=True
        )
        assert done.returncode == 1
        return done.stderr

    assert "tiny or full (given: none)" in say() and "(given: huge)" in say("huge")
    assert "full needs --dataset-config" in say("full") and "--seeds needs numbers" in say("full", "--seeds")


def test_the_data_of_the_tiny_variants_parses():
    for name in ("ablations", "ablations_held_out"):
        raw = json.loads((ROOT / f"configs/dataset/{name}.json").read_text())
        (entry,) = parse_dataset_config(raw).datasets
        assert entry.latents is not None and str(entry.path).startswith("runs/ablations/data/")
