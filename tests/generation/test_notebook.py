"""examples/score_a_video.ipynb runs from top to bottom, on a toy model."""

import nbformat
import pytest
from helpers import toys
from nbclient import NotebookClient

from diff_v2m import media


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(toys.ROOT / "examples/score_a_video.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], "kept without outputs"
    toys.save_toy_model(tmp_path / "model.safetensors", channels=2)
    toys.write_video(tmp_path / "video.mp4", 11)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for shown, here in {
        '"examples/earth.mp4"': repr(str(tmp_path / "video.mp4")),
        '"saved_model/film_music"': repr(str(tmp_path / "model.safetensors")),
        '"output/notebook"': repr(str(tmp_path / "output")),
    }.items():
        assert shown in setup.source
        setup.source = setup.source.replace(shown, here)
    monkeypatch.setenv("PYTHONPATH", str(toys.ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": toys.ROOT}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert media.probe(tmp_path / "output" / "video.mp4").has_audio
