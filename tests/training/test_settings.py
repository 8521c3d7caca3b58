"""Training flags: the command line accepts what defaults.ini documents."""

import subprocess
import sys
from pathlib import Path

import pytest

from diff_v2m.common.errors import InputError
from diff_v2m.training.settings import parse_arguments, read_defaults

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = ROOT / "defaults.ini"
NEEDED = ["--model-config", "m.json", "--dataset-config", "d.json"]
DOCUMENTED = {
    "name",
    "project",
    "batch_size",
    "recover",
    "save_top_k",
    "num_nodes",
    "strategy",
    "precision",
    "num_workers",
    "num_gpus",
    "seed",
    "accum_batches",
    "checkpoint_every",
    "val_every",
    "ckpt_path",
    "pretrained_ckpt_path",
    "pretransform_ckpt_path",
    "model_config",
    "dataset_config",
    "val_dataset_config",
    "save_dir",
    "gradient_clip_val",
    "remove_pretransform_weight_norm",
    "logger",
}


def parse(*arguments: str):
    return parse_arguments([*NEEDED, *arguments], DEFAULTS)


def test_every_documented_flag_exists_and_has_a_meaning():
    flags = read_defaults(DEFAULTS)
    assert set(flags) >= DOCUMENTED
    assert [name for name, (_, meaning) in flags.items() if len(meaning) < 5] == []


def test_documented_defaults():
    settings = parse()
    assert (settings.checkpoint_every, settings.batch_size, settings.num_gpus, settings.num_nodes) == (10000, 8, 1, 1)
    assert settings.precision == "16" and settings.max_epochs == 50 and settings.seed == 42
    assert settings.strategy is None and settings.ckpt_path is None and settings.val_dataset_config is None
    assert settings.recover is False and settings.gradient_clip_val == 0.0


@pytest.mark.parametrize("name", read_defaults(DEFAULTS))
def test_both_spellings(name):
    default = read_defaults(DEFAULTS)[name][0]
    value = {"precision": "32", "logger": "none", "accelerator": "cpu", "remove_pretransform_weight_norm": "post_load"}
    given = [value.get(name, "3")] if default not in ("true", "false") else []
    needed = {"lora_rank": ["--pretrained-ckpt-path", "base.ckpt"], "student_steps": ["--distill", "teacher.ckpt"]}
    kebab, snake = (
        vars(parse(flag, *given, *needed.get(name, [])))[name] for flag in ("--" + name.replace("_", "-"), "--" + name)
    )
    assert kebab == snake and str(kebab) == (str(type(kebab)(given[0])) if given else "True")


def test_only_flags_are_respelled():
    settings = parse("--save_dir=my_runs", "--name", "a_b--c_d")
    assert settings.save_dir == "my_runs" and settings.name == "a_b--c_d"


def test_booleans():
    assert parse("--recover").recover is True and parse("--recover", "--no-recover").recover is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "--batch-size 0: expected at least 1"),
        (["--num_workers", "-1"], "--num-workers -1: expected at least 0"),
        (["--max-steps", "-2"], "--max-steps -2: expected at least -1"),
        (["--seed", "-1"], "--seed -1: expected at least 0"),
        (["--seed", "4294967296"], "--seed 4294967296: expected at most 4294967295"),
        (["--gradient-clip-val", "nan"], "--gradient-clip-val nan: expected at least 0"),
        (["--max-epochs", "0"], "--max-epochs 0: would train nothing"),
        (["--max-steps", "0"], "--max-steps 0: would train nothing"),
        (["--name", ""], "--name: expected a name"),
        (["--student-steps", "4"], "--student-steps: expected --distill TEACHER too"),
        (["--distill", "a.ckpt", "--student-steps", "0"], "--student-steps 0: expected at least 1"),
        (
            ["--distill", "a.ckpt", "--pretrained-ckpt-path", "b.ckpt"],
            "--distill and --pretrained-ckpt-path: a student",
        ),
        (["--lora-rank", "4"], "--lora-rank: expected --pretrained-ckpt-path FILE too"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batchsize", "4"], "unrecognized arguments: --batchsize 4; see --help"),
        (["--batch", "4"], "unrecognized arguments: --batch 4"),  # no guessing from prefixes
        (["--batch-size", "four"], "--batch-size: invalid int value: 'four'"),
        (["--precision", "8"], "--precision: invalid choice: '8'"),
        (["--name"], "--name: expected one argument"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["model", "dataset"])
def test_required_flags_are_named(missing):
    others = NEEDED[2:] if missing == "model" else NEEDED[:2]
    with pytest.raises(InputError, match=f"--{missing}-config is missing: .*configs/{missing}/.*json"):
        parse_arguments(others, DEFAULTS)


def test_the_examples_in_messages_exist():
    from diff_v2m.training.settings import _REQUIRED

    assert all((ROOT / example).is_file() for example in _REQUIRED.values())


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "train.py", *arguments], capture_output=True, text=True, cwd="/")


def test_help_shows_every_flag():
    done = train("--help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    for name, (_, meaning) in read_defaults(DEFAULTS).items():
        assert "--" + name.replace("_", "-") in shown
        assert meaning.split()[0] in shown


def test_help_imports_nothing_heavy():
    program = (
        "import sys, pathlib; sys.argv = ['train.py', '--help']; import train\n"
        "try: train.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pytorch_lightning', 'librosa'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--batchsize", "4"], 2), ([*NEEDED, "--batch-size", "-1"], 1), (NEEDED, 1)]
)
def test_train_ends_with_one_line(arguments, status):
    done = train(*arguments)
    assert done.returncode == status
    assert done.stderr.startswith("train.py: ") and done.stderr.count("\n") == 1 and done.stdout == ""
