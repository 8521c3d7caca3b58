"""`main` of every command line, the parser, and the types of flag values."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.processes import swallow_a_stop

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.common.stopping import check_not_stopped


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (cli.whole_number(1), "1", 1),
        (cli.whole_number(0), "007", 7),
        (cli.whole_number(0, 9), "9", 9),
        (cli.number(), "-2.5e1", -25.0),
        (cli.number(0, 1), "0", 0.0),
        (cli.number(0, 1), "1", 1.0),
        (cli.number(above=0), "1e-9", 1e-9),
        (cli.part, "1/4", cli.Part(1, 4)),
    ],
)
def test_right_values(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        (cli.whole_number(1), ("0", "-1", "1.5", "²", "1_0", "", "abc"), "a whole number from 1 up"),
        (cli.whole_number(0, 9), ("10", "-1", "x"), "a whole number from 0 to 9"),
        (cli.number(), ("nan", "-inf", "abc", ""), "a finite number"),
        (cli.number(0, 1), ("-0.1", "1.1", "nan", "half"), "a finite number from 0 up to 1"),
        (cli.number(above=0), ("0", "-1", "inf", "1 GB"), "a finite number above 0"),
        (cli.part, ("4/4", "-1/2", "1", "a/b", "0/0", "1/2/3", ""), "i/n"),
    ],
)
def test_wrong_values(kind, texts, expected):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{text!r}: expected {expected}"):
            kind(text)


def test_parts_split_the_work():
    work = list(range(10))
    assert sorted(sum((cli.Part(i, 3).of(work) for i in range(3)), [])) == work


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="tool", allow_abbrev=False)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--batch-size", type=cli.whole_number(1), default=1)
    parser.add_argument("--name")
    cli.add_part(parser, of="file")
    return parser.parse_intermixed_args(arguments)


def test_flags_may_be_spelt_either_way_and_values_stay():
    options = parse(["--batch_size=4", "--name=a_b--c_d", "x_y", "--shard", "0/2", "--", "--my_file"])
    assert (options.batch_size, options.name, options.files) == (4, "a_b--c_d", ["x_y", "--my_file"])
    assert options.part == parse(["--part", "0/2"]).part == cli.Part(0, 2)


def test_wrong_usage_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(parse, lambda options: 0, ["--batch_size", "0"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "tool: argument --batch-size: '0': expected a whole number from 1 up; see --help\n"
    )


def refuse(options):
    raise InputError("a.mp4: is no video")


def interrupt(options):
    raise KeyboardInterrupt


def terminate(options):
    os.kill(os.getpid(), signal.SIGTERM)


def exit_of_a_stop(options):
    """As Lightning does."""
    try:
        terminate(options)
    except KeyboardInterrupt:
        sys.exit(1)


def fail_of_a_stop(options):
    """A clip fails."""
    try:
        swallow_a_stop()
    except ValueError:
        return 1


def test_a_stop_signal_during_an_import_takes_effect_after_it(tmp_path, monkeypatch, caplog):
    """Libraries catch exceptions of their imports, and compiled modules turn them into ImportError."""
    (tmp_path / "swallows.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reached = []

    def run(options):
        import swallows  # noqa: F401

        reached.append("after the import")
        time.sleep(20)
        reached.append("too late")

    assert cli.main(parse, run, []) == 130
    assert reached == ["after the import"]


@pytest.mark.parametrize(
    ("run", "status", "message"),
    [
        (lambda options: None, 0, None),
        (lambda options: 1, 1, None),
        (refuse, 1, "error: a.mp4: is no video"),
        (interrupt, 130, cli.STOPPED),
        (terminate, 130, cli.STOPPED),
        (swallow_a_stop, 130, cli.STOPPED),
        (fail_of_a_stop, 130, cli.STOPPED),
        (exit_of_a_stop, 130, cli.STOPPED),
    ],
)
def test_exit_status_and_message(run, status, message, caplog):
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(parse, run, []) == status
    assert [record.getMessage() for record in caplog.records] == ([message] if message else [])
    assert signal.getsignal(signal.SIGTERM) is before
    check_not_stopped()  # nothing of it is left


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        "import sys, time; from diff_v2m.common import cli\n"
        "def run(options): time.sleep(0.5); sys.stdout.write('line\\n')\n"
        "sys.exit(cli.main(list, run, []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0 and errors == b""
