"""Notebooks run as written, and are what their scripts say."""

import pathlib
import time

import jupytext
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_notebook_has_its_script():
    assert SCRIPTS
    assert sorted(path.with_suffix(".py") for path in FOLDER.glob("*.ipynb")) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_is_its_script(script):
    notebook = jupytext.read(script.with_suffix(".ipynb"))
    remedy = f"write it again: jupytext --update --to ipynb notebooks/{script.name}"
    assert cells(notebook) == cells(jupytext.read(script)), remedy
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs"), "a notebook is stored without outputs"
        assert cell.get("execution_count") is None


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_runs(script, kernel, tmp_path):
    import nbclient

    notebook = jupytext.read(script.with_suffix(".ipynb"))
    began = time.monotonic()
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name=kernel, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert time.monotonic() - began < 120
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel of the running interpreter, before any that the user has installed."""
    from ipykernel import kernelspec

    kernelspec.write_kernel_spec(tmp_path / "jupyter" / "kernels" / "python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return "python3"
