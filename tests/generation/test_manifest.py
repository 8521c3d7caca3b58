"""What makes an output to do again: other content of the video or of the encoder, whatever they are called."""

import json
from dataclasses import replace

import pytest

from diff_v2m.features import semantic
from diff_v2m.features.semantic import encoder_identity
from diff_v2m.generation.inputs import Clip, Output
from diff_v2m.generation.manifest import Request, Weights, is_to_do
from diff_v2m.generation.revision import Revision, is_done
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.generation.spans import Span

MIB = 1 << 20


@pytest.fixture
def clip_weights(tmp_path, monkeypatch):
    folder = tmp_path / "clip-vit-base-patch32"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    monkeypatch.setattr(semantic, "CLIP_FOLDER", folder)
    path = folder / "model.safetensors"
    path.write_bytes(b"one")
    return path


REQUEST = Request(SamplingSettings(), Weights("model.safetensors", "0"))


def write_result(output, request, out, **about):
    """What a run leaves, with empty music; `about`: further members of the json."""
    out.mkdir(exist_ok=True)
    for path in output.files(out):
        path.touch()
    about |= {
        "generator": "diff-v2m 0",
        "outputs": [path.name for path in output.files(out) if path.suffix != ".json"],
        "source": str(output.clip.video),
        "request": request.of(output),
        "features": {"encoder": encoder_identity("clip"), "from": "video"},
    }
    (out / f"{output.name}.json").write_text(json.dumps(about))


def test_other_content_of_equal_name_and_size_is_to_do(tmp_path, clip_weights):
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    content = bytearray(3 * MIB)
    video.write_bytes(content)
    output, request = Output(Clip("a", video, output_name="a")), REQUEST
    write_result(output, request, out)
    assert not is_to_do(output, request, out)

    clip_weights.write_bytes(b"two")
    assert is_to_do(output, request, out), "other CLIP weights"
    clip_weights.unlink()
    assert not is_to_do(output, request, out), "without CLIP nothing says that they differ"

    clip_weights.write_bytes(b"one")
    content[3 * MIB // 2] = 1
    video.write_bytes(content)
    assert is_to_do(output, request, out), "a change in the middle of the video"


@pytest.mark.parametrize(("before", "now"), [(8, 1), (8, 4), (1, 8)])
def test_another_number_of_takes_is_to_do(tmp_path, clip_weights, caplog, before, now):
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    video.write_bytes(b"video")
    output, request = Output(Clip("a", video, output_name="a")), replace(REQUEST, takes=before)
    write_result(output, request, out)
    assert not is_to_do(output, request, out)
    with caplog.at_level("INFO"):
        assert is_to_do(output, replace(request, takes=now), out)
    assert "has another takes; generated again" in caplog.text


@pytest.mark.parametrize("student", [None, {"steps": 8}])
def test_another_default_sampler_changes_the_music_of_no_student(tmp_path, clip_weights, student):
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    video.write_bytes(b"video")
    output, former = (
        Output(Clip("a", video, output_name="a")),
        replace(REQUEST, sampling=SamplingSettings(sampler="ddim")),
    )
    diffusion = {} if student is None else {"student": student}
    write_result(output, former, out, config={"model": {"diffusion": diffusion}})
    assert is_to_do(output, REQUEST, out) is (student is None)


@pytest.mark.parametrize("student", [None, {"steps": 8}])
def test_another_default_sampler_repeats_a_revision_of_no_student(tmp_path, clip_weights, student):
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    video.write_bytes(b"video")
    output, revision = Output(Clip("a", video, output_name="a")), Revision((Span(1.0, 2.0),))
    request = replace(REQUEST, revision=revision)
    former = replace(request, sampling=SamplingSettings(sampler="ddim"))
    config = {"model": {"diffusion": {} if student is None else {"student": student}}}
    revisions = [{"asked": revision.entry(former.of(output))}]
    kept = {"windows": [], "duration": 5.0, "revisions": revisions}
    write_result(output, former, out, config=config, **kept)
    record = json.loads((out / "a.json").read_text())
    (out / "a.json").write_text(json.dumps(record | {"outputs": [*record["outputs"], "a.latents.safetensors"]}))
    assert is_done(revision, request.of(output), output, out) is (student is not None)
    assert is_done(revision, former.of(output), output, out)
    assert not is_done(Revision((Span(1.0, 3.0),)), former.of(output), output, out)


@pytest.mark.parametrize(("own", "differs"), [(3.0, False), (4.0, True)])
def test_a_scale_that_is_given_is_not_a_students_own(tmp_path, clip_weights, own, differs):
    """A request without a scale holds the default of other models, 3, whatever the student's is."""
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    video.write_bytes(b"video")
    output, given = (
        Output(Clip("a", video, output_name="a")),
        replace(REQUEST, sampling=SamplingSettings(guidance_scale=3.0)),
    )
    config = {"model": {"diffusion": {"student": {"steps": 8, "guidance": own}}}}
    for former, now in ((REQUEST, given), (given, REQUEST)):
        write_result(output, former, out, config=config)
        assert not is_to_do(output, former, out)
        assert is_to_do(output, now, out) is differs
