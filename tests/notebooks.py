"""Notebooks, run and stored with their outputs. `python tests/notebooks.py [NAME ..]` makes them from their scripts."""

import argparse
import ast
import base64
import hashlib
import io
import pathlib
import re
import tempfile

import jupytext

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
REMEDY = "write it again: python tests/notebooks.py"
LIMIT = 300_000  # bytes of a stored notebook
SHOWS = {"print", "show", "display"}
# An absolute path, of whatever machine, and an address in memory.
MACHINE = re.compile(r"(?<![\w./])(?:(?:/|[A-Z]:\\)[\w.-]+[/\\]|~/)[\w./\\-]+|site-packages|\b0x[0-9a-f]{6,}")


def main():
    """Run scripts and store them as notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of scripts, without .py; all by default")
    names = parser.parse_args().names
    for script in [FOLDER / f"{name}.py" for name in names] or SCRIPTS:
        store(script)


def store(script):
    """Run a script and write its notebook. Cells keep their ids as long as they keep their text."""
    notebook, target = jupytext.read(script), script.with_suffix(".ipynb")
    stored = jupytext.read(target).cells if target.exists() else []
    ids = {(cell.cell_type, cell.source): cell.id for cell in stored}
    for cell in notebook.cells:
        new = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        cell["id"] = ids.get((cell.cell_type, cell.source), new)
    with tempfile.TemporaryDirectory() as folder:
        run(notebook, pathlib.Path(folder), timeout=900)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = _small(png)
    notebook.metadata.pop("language_info", None)
    notebook.metadata["sources_as_run"] = digest(notebook)
    jupytext.write(notebook, target, fmt="ipynb")


def run(notebook, folder, *, timeout=300):
    """Run a notebook in place, in an empty folder, with the running interpreter, whatever kernels a user has."""
    import nbclient
    from ipykernel import kernelspec
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    kernels, work = folder / "kernels", folder / "work"
    work.mkdir()
    kernelspec.write_kernel_spec(kernels / "python3")
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
    )
    nbclient.NotebookClient(
        notebook,
        km=manager,
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": work}},
    ).execute(cleanup_kc=True)  # a manager that is given is else left with its kernel


def digest(notebook):
    """A digest of all code, by which outputs are known to be of the code that stands above them."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def faults(notebook):
    """What is wrong with the outputs that a notebook is stored with, a sentence each."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not run once, from top to bottom")
    if notebook.metadata.get("sources_as_run") != digest(notebook):
        found.append("outputs are of other code")
    if len({cell.id for cell in notebook.cells}) < len(notebook.cells):
        found.append("ids of cells are not unique")
    for cell in code:
        first = cell.source.partition("\n")[0]
        if shows(cell.source) and not cell.outputs:
            found.append(f"no output: {first}")
        for output in cell.outputs:
            text = words_of(output)
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"an error or a warning: {text[-200:]}")
            elif place := MACHINE.search(text):
                found.append(f"names a place on a machine: {place[0]}")
    if not any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs):
        found.append("no picture")
    return found


def shows(source):
    """Whether a cell prints or draws when it is run; calls in functions that it defines do not count."""
    calls = (
        node.func
        for statement in ast.parse(source).body
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
    )
    return any(getattr(call, "id", getattr(call, "attr", None)) in SHOWS for call in calls)


def words_of(output):
    """The text of an output."""
    return output.get("text") or output.get("data", {}).get("text/plain") or "\n".join(output.get("traceback", []))


def outline(notebook):
    """Per code cell, the kinds of its outputs, and the words in them: what does not depend on the machine."""
    return [
        [
            (
                output.output_type,
                sorted(output.get("data", {})),
                sorted(set(re.findall(r"[^\W\d_]{3,}", words_of(output)))),
            )
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _small(png):
    """A PNG with a palette, a third of the size."""
    from PIL import Image

    image, file = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
