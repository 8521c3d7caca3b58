"""Who is served and what: hosts, origins, the password, files of jobs; and what the page asks for."""

import base64
import io
import json
import time
import zipfile

import pytest
from helpers import toys
from starlette.testclient import TestClient

from diff_v2m.common.errors import InputError
from diff_v2m.studio import command
from diff_v2m.studio.actions import Actions
from diff_v2m.studio.folders import Jobs
from diff_v2m.studio.server import build_app

MOST = 1000
HERE = "http://127.0.0.1:7860"


@pytest.fixture
def jobs(tmp_path):
    """A job that has been read, without a model."""
    jobs = Jobs(tmp_path / "studio")
    jobs.path.mkdir()
    job = jobs.add(toys.write_video(tmp_path / "uploaded.mp4", 4), "été & co.mp4")
    job.tasks()[0].write_state(state="done")
    timeline = {"duration": 4.0, "rhythm": [0.0, 1.0, 0.5, 0.0], "cuts": [2.0], "beats": [[1.5, 0.5]]}
    (job.path / "timeline.json").write_text(json.dumps(timeline))
    take = job.path / "takes" / "001"
    take.mkdir(parents=True)
    (take / f"{job.name}.wav").write_bytes(b"music")
    (take / ".take.json").write_text('{"task": 2, "piece": 0}')
    return jobs


@pytest.fixture
def job(jobs):
    (job,) = jobs
    return job


@pytest.fixture
def actions(jobs, job):
    actions = Actions(jobs, lambda: True)
    assert "error" not in actions.ask({"do": "predicted_cues", "id": job.id})
    return actions


def client(jobs, **options):
    options = {"host": "127.0.0.1", "password": None, "most_bytes": MOST} | options
    return TestClient(build_app(jobs, **options), base_url=HERE)


# ------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "", "192.168.1.5:7860"])
def test_other_hosts_are_refused(jobs, host):
    assert client(jobs).get("/studio/studio.js", headers={"host": host}).status_code == 421
    assert client(jobs).get("/studio/studio.js", headers={"host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_requests_of_other_pages_are_refused(jobs, headers):
    assert client(jobs).put("/upload?name=x.mp4", headers=headers | {"sec-fetch-mode": "navigate"}).status_code == 403
    assert client(jobs).get("/studio/studio.js", headers=headers).status_code == 403
    assert client(jobs).get("/studio/studio.js", headers={"origin": HERE}).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}  # a person followed a link
    assert client(jobs).get("/studio/studio.js", headers=link).status_code == 200


def test_beyond_this_machine_everything_needs_the_password(jobs, job):
    opened = client(jobs, host="0.0.0.0", password="correct horse")
    for path in ("/", "/studio/studio.js", f"/files/{job.id}/{job.about['file']}", f"/download/{job.id}.zip"):
        assert opened.get(path).status_code == 401
    assert opened.get("/manifest.json").status_code == 404  # of the page, which this application lacks
    for user, password, status in (
        ("studio", "correct horse", 200),
        ("studio", "wrong", 401),
        ("root", "correct horse", 401),
    ):
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        answer = opened.get(
            "/studio/studio.js", headers={"authorization": f"Basic {token}", "host": "192.168.1.5:7860"}
        )
        assert answer.status_code == status
    assert opened.get("/studio/studio.js", headers={"authorization": "Basic ?"}).status_code == 401
    assert opened.get("/studio/studio.js", headers={"host": "evil.example"}).status_code == 421


def test_another_host_needs_a_password(tmp_path, monkeypatch):
    monkeypatch.delenv("DIFF_V2M_STUDIO_PASSWORD", raising=False)
    parser = command.cli.Parser()
    command.add_arguments(parser)
    with pytest.raises(InputError, match="give a password"):
        command.run(parser.parse_args(["--host", "0.0.0.0", "--jobs", str(tmp_path)]))
    monkeypatch.setenv("DIFF_V2M_STUDIO_PASSWORD", "short")
    with pytest.raises(InputError, match="at least 8"):
        command.run(parser.parse_args(["--host", "0.0.0.0", "--jobs", str(tmp_path)]))


@pytest.mark.parametrize("port", ["70000", "65536", "-1", "http"])
def test_a_port_that_cannot_be_is_wrong_usage(port, capsys):
    with pytest.raises(SystemExit):
        command.parse(["--port", port])
    assert f"{port!r}: expected a whole number from 0 to 65535" in capsys.readouterr().err
    assert command.parse(["--port", "65535"]).port == 65535


def test_bodies_are_bounded(jobs):
    opened, form = client(jobs), MOST + (1 << 20)
    assert opened.post("/studio/studio.js", content=b"x" * (form + 1)).status_code == 413
    assert opened.post("/studio/studio.js", content=b"x" * form).status_code == 405  # nothing to post there


def test_an_upload_is_a_bounded_whole_video(jobs, tmp_path, monkeypatch):
    video = toys.write_video(tmp_path / "video.mp4", 1).read_bytes()
    opened = client(jobs, most_bytes=len(video))

    def put(content, name="film.mp4"):
        return opened.put("/upload", params={"name": name}, content=content).json()

    added = jobs[put(video, "../../<b>é.mp4")["id"]]
    assert added.name == "_b_é" and added.path.parent == jobs.path
    other = tmp_path / "other.mp4"
    other.write_bytes(video)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{other}\n#EXT-X-ENDLIST\n"
    for content in (playlist, f"ffconcat version 1.0\nfile {other}\n", "#!/bin/sh\nexit", "<svg/>", "PK\x03\x04"):
        assert "not a video" in put(content.encode())["error"]
    assert "more than 0 MB" in put(video + b"x")["error"]
    assert "more than 0 MB" in put(iter([video, b"x"]))["error"]  # without a length in its header
    monkeypatch.setattr("diff_v2m.studio.folders.MOST_PIXELS", 96 * 64 - 1)
    assert "96 × 64 pixels" in put(video)["error"]
    assert len(list(jobs)) == 2 and not any((jobs.path / ".uploads").iterdir())


def test_files_of_jobs_are_served_in_parts_and_no_others(jobs, job):
    opened, name = client(jobs), f"takes/001/{job.name}.wav"
    assert opened.get(f"/files/{job.id}/{name}").content == b"music"
    part = opened.get(f"/files/{job.id}/{name}", headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"us")
    for bad in ("job.json", "tasks/0001.json", "../x", "%2e%2e/%2e%2e/etc/passwd", "takes/001/..%2f..%2fjob.json"):
        assert opened.get(f"/files/{job.id}/{bad}").status_code == 404
    assert opened.get("/files/..%2f..%2fetc/passwd").status_code == 404
    assert opened.get("/studio/..%2factions.py").status_code == 404


def test_all_results_come_as_one_zip(jobs, job):
    answer = client(jobs).get(f"/download/{job.id}.zip")
    assert "%C3%A9t%C3%A9%20%26%20co.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read(f"{job.name}/takes/001/{job.name}.wav") == b"music"
        assert not [name for name in archive.namelist() if "video.mp4" in name or "tasks" in name]


# ------------------------------------------------------------------------------------------------------- actions


def test_cues_are_edited_and_exported_and_imported(actions, job):
    state = actions.ask({"do": "state", "id": job.id})["job"]
    rows = [*state["cues"]["rows"], {"time": 1.25, "kind": "hit", "value": 1, "name": "door", "stop": None}]
    rows.append({"time": 2.5, "kind": "mood", "value": "navy gold", "name": "", "stop": 3.5})
    saved = actions.ask({"do": "save_cues", "id": job.id, "cues": rows})
    assert saved["version"] != state["cues"]["version"]
    for form in ("sheet", "resolve", "fcpxml", "srt"):
        exported = actions.ask({"do": "export_cues", "id": job.id, "form": form})
        assert "door" in exported["text"]
        actions.ask({"do": "predicted_cues", "id": job.id})
        read = actions.ask({"do": "import_cues", "id": job.id, **exported})
        assert "error" not in read, read
        kinds = [row["kind"] for row in actions.ask({"do": "state", "id": job.id})["job"]["cues"]["rows"]]
        assert kinds.count("hit") == kinds.count("mood") == 1 and kinds.count("rhythm") == 4


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {"do": "ask"},
        {"do": "__init__"},
        {"do": "state", "nonsense": 1},
        {"do": "compose", "id": "../..", "settings": {}},
        {"do": "save_cues", "cues": [{"time": 1, "kind": "mood", "value": "/etc/x.png", "stop": 2}]},
        {"do": "save_cues", "cues": [{"time": "x", "kind": "hit"}]},
        {"do": "save_cues", "cues": [{"time": 1, "kind": "hit"}, {"time": 1.1, "kind": "hit"}]},
        {"do": "save_cues", "cues": [{"time": 77, "kind": "hit"}]},
        {"do": "save_cues", "cues": "all"},
        {"do": "import_cues", "name": "x.srt", "text": "1\n00:00:01,000 --> 00:00:02,000\nmood: /etc/x.png\n"},
        {"do": "import_cues", "name": "x.csv", "text": ""},
        {"do": "import_cues", "name": "x.csv", "text": "time,kind\n99,hit\n"},
        {"do": "import_cues", "name": "x.exe", "text": "MZ"},
        {"do": "import_cues", "name": 7, "text": 7},
        {"do": "export_cues", "form": "../x"},
        {"do": "redo", "take": 1, "spans": [[3, 9]], "settings": {}},
        {"do": "redo", "take": "1/..", "spans": [[1, 2]], "settings": {}},
        {"do": "mix", "take": 2, "settings": {}},
        {"do": "mix", "take": 1, "settings": {"gap": 20, "under": 10}},
        {"do": "save_preset", "name": "Standard", "settings": {}},
        {"do": "save_preset", "name": "mine", "settings": {"steps": "many"}},
    ],
)
def test_bad_requests_are_one_line_and_change_nothing(actions, job, request_):
    before = sorted((path, path.stat().st_mtime_ns) for path in job.path.rglob("*"))
    answer = actions.ask({"id": job.id, **request_} if request_ else request_)
    assert list(answer) == ["error"] and "\n" not in answer["error"] and str(job.path) not in answer["error"]
    assert sorted((path, path.stat().st_mtime_ns) for path in job.path.rglob("*")) == before


def test_a_sheet_that_somebody_else_changed_is_not_overwritten(actions, job):
    seen = actions.ask({"do": "state", "id": job.id})["job"]["cues"]
    first, second = ([*seen["rows"], {"time": time, "kind": "hit", "value": 1}] for time in (1.0, 2.0))
    saved = actions.ask({"do": "save_cues", "id": job.id, "cues": first, "seen": seen["version"]})
    refused = actions.ask({"do": "save_cues", "id": job.id, "cues": second, "seen": seen["version"]})
    assert (saved["stale"], refused["stale"]) == (False, True)
    assert refused["rows"] == saved["rows"] and refused["version"] == saved["version"]


def test_a_page_gets_only_what_it_lacks(actions, job):
    first = actions.ask({"do": "state", "id": job.id})["job"]
    again = actions.ask({"do": "state", "id": job.id, "timeline": False, "seen": first["cues"]["version"]})["job"]
    assert first["timeline"] and first["cues"]["rows"]
    assert again["timeline"] is None and again["cues"] == {"version": first["cues"]["version"], "rows": None}


def test_tasks_keep_the_sheet_as_it_was(actions, job):
    before = job.sheet.read_text()
    assert actions.ask({"do": "compose", "id": job.id, "settings": {"takes": 2}}) == {"task": 2}
    actions.ask({"do": "save_cues", "id": job.id, "cues": []})
    assert job.tasks()[1].sheet.read_text() == before != job.sheet.read_text()
    actions.ask({"do": "cancel", "id": job.id, "task": 2})
    assert job.tasks()[1].is_cancelled


def test_presets_are_kept(actions, jobs):
    saved = actions.ask({"do": "save_preset", "name": " quiet  ones ", "settings": {"steps": 12, "takes": 3}})
    assert saved["presets"]["quiet ones"]["steps"] == 12
    assert Actions(jobs, lambda: False).ask({"do": "state"})["presets"]["quiet ones"]["takes"] == 3
    assert "belongs to the studio" in actions.ask({"do": "remove_preset", "name": "Standard"})["error"]
    (jobs.path / "model.json").write_text('{"is_student": true}')
    names = set(actions.ask({"do": "state"})["presets"])
    assert "quiet ones" in names and "Standard" in names and "Draft" not in names  # a student has its own steps
    assert "quiet ones" not in actions.ask({"do": "remove_preset", "name": "quiet ones"})["presets"]


def test_a_job_is_removed_unless_it_is_worked_on(actions, jobs, job):
    job.add_task({"kind": "compose"}).write_state(state="running", started=time.time())
    assert "cancel that first" in actions.ask({"do": "remove", "id": job.id})["error"]
    job.tasks()[1].write_state(state="cancelled")
    assert actions.ask({"do": "remove", "id": job.id}) == {}
    assert list(jobs) == [] and not any(path.is_dir() for path in jobs.path.iterdir())
