"""Weights by name, from a server that speaks the hub's protocol and fails in every way that downloads fail."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from helpers import toys
from helpers.hub_server import Repo, serve, use_hub
from huggingface_hub import constants

from diff_v2m.__main__ import main
from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import config_of
from diff_v2m.common.errors import InputError
from diff_v2m.weights.finding import find_weights
from diff_v2m.weights.known import KNOWN, File
from diff_v2m.weights.names import config_names, parse_name

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve() as server:
        use_hub(monkeypatch, server.endpoint, tmp_path / "cache")
        yield server


@pytest.fixture
def table(monkeypatch, tmp_path):
    """The table of known files, with one of a test in it and no folder of this machine."""
    entry = replace(
        KNOWN["clip"],
        repo="me/known",
        revision="main",
        folder=tmp_path / "saved_model",
        files=(File("model_a.ckpt", "model.ckpt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),),
    )
    monkeypatch.setitem(KNOWN, "released", entry)
    return entry


def error_of(name):
    with pytest.raises(InputError) as error:
        find_weights(name)
    message = str(error.value)
    assert "\n" not in message and message.startswith(name)
    return message


def test_a_repository_is_downloaded_once_and_announced(hub, tmp_path, caplog):
    hub.repos["me/mine"] = Repo({"model.safetensors": CONTENT, "model_config.json": b"{}", "other.bin": b"x"})
    with caplog.at_level("INFO", logger="diff_v2m"):
        path = find_weights("hf:me/mine")
    assert path.read_bytes() == CONTENT and (path.parent / "model_config.json").read_bytes() == b"{}"
    assert not (path.parent / "other.bin").exists() and path.is_relative_to(tmp_path / "cache")
    announced = caplog.messages[0]
    assert "downloading model.safetensors and model_config.json" in announced
    assert "10.2 kB" in announced and "licence: mit" in announced and hub.endpoint in announced
    asked = hub.asked.copy()
    assert find_weights(Path("hf:me/mine")) == path and hub.asked == asked, "the cache is used without the hub"


def test_offline_the_cache_is_used(hub, monkeypatch, tmp_path):
    hub.repos["me/mine"] = Repo({"a/model.ckpt": CONTENT})
    path = find_weights("hf:me/mine/a/model.ckpt")
    use_hub(monkeypatch, None, tmp_path / "cache")
    assert find_weights("hf:me/mine/a/model.ckpt") == find_weights("hf:me/mine") == path
    message = error_of("hf:me/other")
    assert "HF_HUB_OFFLINE is set" in message and "https://huggingface.co/me/other" in message


def test_offline_the_files_and_their_places_are_named(monkeypatch, tmp_path):
    use_hub(monkeypatch, None, tmp_path / "cache")
    monkeypatch.setitem(KNOWN, "released", replace(KNOWN["released"], folder=tmp_path / "saved_model", needs=()))
    message = error_of("released")
    assert f"model_odf.ckpt as {tmp_path}/saved_model/model.ckpt" in message
    assert f"model_config_odf.json as {tmp_path}/saved_model/model_config.json" in message
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model/model.ckpt").write_bytes(b"x")
    assert find_weights("released") == tmp_path / "saved_model/model.ckpt"


def test_no_network_at_all_is_one_line(monkeypatch, tmp_path):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert "the hub cannot be reached" in error_of("hf:me/mine")


def test_a_broken_off_download_resumes(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # instead of 10 MB
    hub.repos["me/mine"] = Repo({"model.ckpt": CONTENT}, cuts={"model.ckpt": [4000, 2000]})
    assert find_weights("hf:me/mine").read_bytes() == CONTENT
    assert hub.ranges == ["bytes=4000-", "bytes=6000-"], "from where it broke off"


def test_a_download_that_always_breaks_off_is_one_line_and_leaves_no_file(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.repos["me/mine"] = Repo({"model.ckpt": CONTENT}, cuts={"model.ckpt": [4000, *[0] * 20]})
    assert "the hub cannot be reached" in error_of("hf:me/mine")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size >= 4000]
    hub.repos["me/mine"].cuts.clear()
    assert find_weights("hf:me/mine").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["hf:me/known/model_a.ckpt", "released"])
def test_a_damaged_file_is_removed_and_named(hub, table, name):
    hub.repos["me/known"] = repo = Repo({"model_a.ckpt": CONTENT}, damaged={"model_a.ckpt"})
    message = error_of(name)
    assert "model_a.ckpt is damaged or another file" in message and hashlib.sha256(CONTENT).hexdigest() in message
    repo.damaged.clear()
    assert find_weights(name).read_bytes() == CONTENT


def test_a_file_that_is_not_the_published_one_is_refused_even_if_the_hub_agrees(hub, table):
    hub.repos["me/known"] = Repo({"model_a.ckpt": CONTENT + b"another"})
    assert "is damaged or another file" in error_of("released")
    table.folder.mkdir()
    (table.folder / "model.ckpt").write_bytes(b"by hand")
    with pytest.raises(InputError, match="model.ckpt: is not the model.ckpt of https://huggingface.co/me/known"):
        find_weights("released")
    (table.folder / "model.ckpt").rename(table.folder / "elsewhere.ckpt")
    (table.folder / "model.ckpt").symlink_to(table.folder / "elsewhere.ckpt")
    with pytest.raises(InputError, match="is not the model.ckpt"):
        find_weights("released")
    assert (table.folder / "model.ckpt").exists(), "what was put there by hand stays, and what it links to"


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ((403, "GatedRepo"), "wants its licence accepted first: open https://huggingface.co/me/mine"),
        ((401, "GatedRepo"), "wants its licence accepted first"),
        ((401, "RepoNotFound"), "or it is private: check its name"),
        ((403, ""), "status 403; log in"),
        ((503, ""), "status 503; try again later"),
    ],
)
def test_refusals_say_what_to_do(hub, refused, expected):
    hub.repos["me/mine"] = Repo({"model.ckpt": CONTENT}, refused=refused)
    assert expected in error_of("hf:me/mine")


def test_missing_renamed_and_ambiguous_files_are_listed(hub, table):
    hub.repos["me/mine"] = Repo({"a.ckpt": CONTENT, "b.safetensors": CONTENT, "README.md": b"x"})
    assert "has no c.ckpt, perhaps it was renamed; it has README.md, a.ckpt, b.safetensors" in error_of(
        "hf:me/mine/c.ckpt"
    )
    assert "holds several weights; name one: hf:me/mine/FILE, a.ckpt, b.safetensors" in error_of("hf:me/mine")
    assert "has no revision v9" in error_of("hf:me/mine@v9")
    assert "no repository me/nobody" in error_of("hf:me/nobody")
    hub.repos["me/none"] = Repo({"README.md": b"x"})
    assert "holds no .safetensors or .ckpt file; it has README.md" in error_of("hf:me/none")
    hub.repos["me/known"] = Repo({"model_b.ckpt": CONTENT})
    assert "has no model_a.ckpt, perhaps it was renamed; it has model_b.ckpt" in error_of("released")


def test_a_name_keeps_its_weights_until_get(hub, capsys):
    hub.repos["me/mine"] = repo = Repo({"model.ckpt": CONTENT}, revisions=("main", "refs/pr/1"))
    old = find_weights("hf:me/mine")
    repo.files["model.ckpt"] = CONTENT * 2
    assert find_weights("hf:me/mine") == old
    assert main(["weights", "get", "hf:me/mine"]) == 0
    new = Path(capsys.readouterr().out.strip())
    assert new.read_bytes() == CONTENT * 2 and find_weights("hf:me/mine") == new
    assert find_weights(f"hf:me/mine@{old.parent.name}") == old
    assert find_weights("hf:me/mine/model.ckpt@refs/pr/1").read_bytes() == CONTENT * 2


def test_the_command_lists_verifies_and_names_licences(hub, table, capsys):
    hub.repos["me/known"] = Repo({"model_a.ckpt": CONTENT})
    assert main(["weights", "verify", "released"]) == 1 and "not on this machine" in capsys.readouterr().out
    assert main(["weights", "get", "released"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert main(["weights", "verify", "released"]) == 0 and "model_a.ckpt: ok" in capsys.readouterr().out
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"in {path.parent}" in listed and "605 MB" in listed and "clip" in listed
    assert main(["weights", "licenses"]) == 0 and "Stability AI Community License" in capsys.readouterr().out
    path.resolve().write_bytes(CONTENT[:-1] + b"!")
    assert main(["weights", "verify", "released"]) == 1 and "damaged" in capsys.readouterr().out


def test_too_little_space_is_found_before_the_download(hub, monkeypatch):
    hub.repos["me/mine"] = Repo({"model.ckpt": CONTENT})
    nearly_full = type(shutil.disk_usage("/"))(total=10, used=1, free=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    assert "needs 10.2 kB" in error_of("hf:me/mine")
    assert not [path for path in hub.asked if path.startswith("GET") and "resolve" in path]


def test_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_name("released@abc").revision == "abc" and parse_name("released@abc").known is None
    assert parse_name("model.ckpt") is None and parse_name("released.ckpt") is None
    for wrong in ("hf:", "hf:owner", "hf:owner/", "hf:owner/repo/", "hf:owner/repo@", "hf:a/b/c@ d"):
        assert "expected hf:owner/repo" in error_of(wrong)
    assert "or a name: released, clip" in error_of("relased")
    Path("released").mkdir()
    toys.save_toy_model(Path("released/model.safetensors"))
    assert find_weights("released") == Path("released/model.safetensors"), "a folder of that name comes first"
    assert config_names("model_odf.ckpt") == ["model_config_odf.json", "model_config.json"]
    assert config_names("model.ckpt") == config_names("last.ckpt") == ["model_config.json"]


def test_the_model_json_has_the_name_of_its_weights(hub):
    raw = (ROOT / "configs/model/tiny.json").read_bytes()
    file = BytesIO()
    torch.save({"state_dict": {"diffusion.x": torch.zeros(1)}}, file)
    hub.repos["me/mine"] = Repo({"model_odf.ckpt": file.getvalue(), "model_config_odf.json": raw})
    assert config_of(read_weights("hf:me/mine")).sample_rate == 16000


def test_hf_endpoint_and_hf_home_of_a_process(tmp_path):
    with serve() as hub:
        hub.repos["me/mine"] = Repo({"model.ckpt": CONTENT})
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "diff_v2m", "weights", "get", "hf:me/mine"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and Path(done.stdout.strip()).read_bytes() == CONTENT, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/hub/") and "licence: mit" in done.stderr
