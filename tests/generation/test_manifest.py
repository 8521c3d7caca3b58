"""What makes an output to do again: other content of the video or of the encoder, whatever they are called."""

import json

import pytest

from diff_v2m.features import semantic
from diff_v2m.features.semantic import encoder_identity
from diff_v2m.generation.inputs import Clip, Output
from diff_v2m.generation.manifest import Request, Weights, is_to_do
from diff_v2m.generation.settings import SamplingSettings

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


def test_other_content_of_equal_name_and_size_is_to_do(tmp_path, clip_weights):
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    content = bytearray(3 * MIB)
    video.write_bytes(content)
    output = Output(Clip("a", video, output_name="a"))
    request = Request(SamplingSettings(), Weights("model.safetensors", "0"))
    out.mkdir()
    for path in output.files(out):
        path.touch()
    about = {
        "generator": "diff-v2m 0",
        "outputs": ["a.mp4", "a.wav", "a.png"],
        "source": str(video),
        "request": request.of(output),
        "features": {"encoder": encoder_identity("clip"), "from": "video"},
    }
    (out / "a.json").write_text(json.dumps(about))
    assert not is_to_do(output, request, out)

    clip_weights.write_bytes(b"two")
    assert is_to_do(output, request, out), "other CLIP weights"
    clip_weights.unlink()
    assert not is_to_do(output, request, out), "without CLIP nothing says that they differ"

    clip_weights.write_bytes(b"one")
    content[3 * MIB // 2] = 1
    video.write_bytes(content)
    assert is_to_do(output, request, out), "a change in the middle of the video"
