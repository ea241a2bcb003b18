"""Notebooks run as written, are what their scripts say, and are stored with what they print and draw."""

import time

import jupytext
import nbformat
import pytest

from tests import notebooks
from tests.notebooks import REMEDY, SCRIPTS

by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_notebook_has_its_script():
    assert SCRIPTS
    assert sorted(path.with_suffix(".py") for path in notebooks.FOLDER.glob("*.ipynb")) == SCRIPTS


@by_name
def test_notebook_is_its_script_and_is_stored_with_its_outputs(script):
    path = script.with_suffix(".ipynb")
    notebook = jupytext.read(path)
    assert cells(notebook) == cells(jupytext.read(script)), f"{REMEDY} {script.stem}"
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"jupytext", "kernelspec", "sources_as_run"}
    assert notebooks.faults(notebook) == [], f"{REMEDY} {script.stem}"
    assert path.stat().st_size < notebooks.LIMIT


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
PICTURE = nbformat.v4.new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": "<Figure>"})


@pytest.mark.parametrize(
    ("source", "count", "outputs", "fault"),
    [
        ("print(1)", 1, [stream("kernel/bias 1/2 http://a.b/c/d.e\n"), PICTURE], None),
        ("def f():\n    print(1)", 1, [PICTURE], None),
        ("print(1)", None, [PICTURE], "not run once"),
        ("print(1)", 2, [PICTURE], "not run once"),
        ("for i in x:\n    plt.show()", 1, [], "no output"),
        ("a = show(1)", 1, [], "no output"),
        ("1", 1, [stream("1")], "no picture"),
        ("1", 1, [PICTURE, ERROR], "an error or a warning: ValueError"),
        ("1", 1, [PICTURE, stream("UserWarning: a", "stderr")], "an error or a warning: UserWarning"),
        ("1", 1, [PICTURE, stream("saved '/home/someone/a.npz'")], "/home/someone/a.npz"),
        ("1", 1, [PICTURE, stream("in /tmp/x1/copy.npz")], "/tmp/x1/copy.npz"),
        ("1", 1, [PICTURE, stream("~/runs/a")], "~/runs/a"),
        ("1", 1, [PICTURE, stream("C:\\Users\\someone")], "Users"),
        ("1", 1, [PICTURE, stream("<function f at 0x7f3702488b80>")], "0x7f3702488b80"),
    ],
)
def test_what_a_notebook_must_not_be_stored_with(source, count, outputs, fault):
    cell = nbformat.v4.new_code_cell(source, execution_count=count, outputs=outputs)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["sources_as_run"] = notebooks.digest(notebook)
    found = notebooks.faults(notebook)
    assert any(fault in sentence for sentence in found) if fault else found == []
    cell.source += "\n"
    assert "outputs are of other code" in notebooks.faults(notebook)


@pytest.mark.extended
@pytest.mark.slow
@by_name
def test_notebook_runs(script, tmp_path):
    """As stored: the same kinds of outputs with the same words, whatever their numbers."""
    notebook = jupytext.read(script.with_suffix(".ipynb"))
    stored = notebooks.outline(notebook)
    began = time.monotonic()
    notebooks.run(notebook, tmp_path)
    assert time.monotonic() - began < 300  # a minute on a free machine
    assert notebooks.faults(notebook) == []
    assert notebooks.outline(notebook) == stored
