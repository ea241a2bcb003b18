"""Do two versions of this code give the same numbers? Smoke runs of every config in both, compared byte by byte.

    python benchmarks/same_numbers.py run --checkout=../before --out=/tmp/before
    python benchmarks/same_numbers.py run --out=/tmp/after
    python benchmarks/same_numbers.py compare /tmp/before /tmp/after

Each checkout is run by the Python of its own `.venv`, or else by the one that runs this script. Compared are the lines
of `metrics.jsonl` (every report of every arm), of runs that write them the arms of `landscape/` and `interpolation/`
(formerly `lines/`), and the arrays of `grids/`. Metrics that were renamed are listed in `RENAMED`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent

CASES = {
    "quickstart": "quickstart.py:smoke",
    "images_mlp": "images.py:digits,mlp,smoke",
    "images_cnn": "images.py:digits,cnn,smoke",
    "designs": "designs.py:digits,smoke",
    "functions_grid": "functions.py:sine,smoke",
    "ising": "ising.py:smoke",
    "landscape_two_layer": "landscape.py:two_layer,smoke",
    "landscape_g": "landscape.py:two_layer,g,smoke",
    "landscape_deep": "landscape.py:deep,smoke",
    "landscape_counts": "landscape.py:counts,smoke",
    "landscape_recovery": "landscape.py:recovery,smoke",
    "landscape_copy_average": "landscape.py:copy_average,smoke",
    "lmc": "lmc.py:digits,smoke",
    "mli": "mli.py:digits,smoke",
    "pdes_burgers": "pdes.py:burgers,smoke",
    "pdes_heat_quick": "pdes.py:heat,quick,smoke",
    "pdes_poisson_accurate": "pdes.py:poisson,accurate,smoke",
    "pdes_klein_gordon": "pdes.py:klein_gordon,smoke",
    "pdes_kovasznay": "pdes.py:kovasznay,smoke",
    "qcd": "qcd.py:smoke",
    "qcd_points": "qcd.py:hotqcd_points,quick,smoke",
    "landscape_mnist": "landscape.py:mnist,smoke",
    "images_fashion": "images.py:fashion_mnist,cnn,smoke",
}
NEED_DATA = ("landscape_mnist", "images_fashion")  # with --data_dir only
RENAMED = {
    "loss": "train/loss",
    "gradient": "train/gradient",
    "adam_loss": "train/adam_loss",
    "path_loss": "path/loss",
    "straight_loss": "straight/loss",
    "error": "units/error",
    "worst": "units/worst",
    "error_before": "units/error_before",
    "worst_before": "units/worst_before",
    "function": "test/function",
    "student_loss": "students/loss",
    "energy": "lattice/energy",
    "magnetisation": "lattice/magnetisation",
}
# By prefix of the case, where one word had two meanings; and arms.
EXCESS = {"landscape_recovery": "units/excess", "landscape_copy_average": "train/excess"}
ARMS = {"matched": "matched_bias"}


def main():
    """Run or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="smoke runs of one checkout")
    run.add_argument("--checkout", type=pathlib.Path, default=ROOT)
    run.add_argument("--out", type=pathlib.Path, required=True)
    run.add_argument("--data_dir", default="", help="TFDS data; without it the cases that need some are left out")
    run.add_argument("--only", default="", help="names of cases, separated by commas")
    compare = commands.add_parser("compare", help="two folders that `run` wrote")
    compare.add_argument("before", type=pathlib.Path)
    compare.add_argument("after", type=pathlib.Path)
    given = parser.parse_args()
    if given.command == "run":
        run_all(given.checkout.resolve(), given.out.resolve(), given.data_dir, given.only)
    else:
        sys.exit(compare_all(given.before, given.after))


def run_all(checkout, out, data_dir, only):
    """Every case as a process of its own."""
    python = checkout / ".venv" / "bin" / "python"
    python = str(python) if python.exists() else sys.executable
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    for name, config in CASES.items():
        if (only and name not in only.split(",")) or (name in NEED_DATA and not data_dir):
            continue
        command = [python, "runs/train.py", f"--config=configs/{config}", f"--workdir={out / name}", "--cpu_devices=2"]
        command += [f"--config.task.data_dir={data_dir}"] if name in NEED_DATA else []
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        print(f"{name}: exit {done.returncode}", flush=True)
        if done.returncode:
            print(done.stderr[-2000:], flush=True)


def compare_all(before, after):
    """Print a line a case; the number of cases that differ."""
    different = 0
    for name in CASES:
        if not (before / name).exists() and not (after / name).exists():
            continue
        found = differences(before / name, after / name)
        different += bool(found)
        print(f"{name}: {'the same' if not found else '; '.join(found[:5])}")
    return int(different > 0)


def differences(before, after):
    """What differs between two workdirs, in words."""
    found = []
    ours, theirs = (_numbers(folder) for folder in (before, after))
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in ours or key not in theirs:
            found.append(f"{key} only {'before' if key in ours else 'after'}")
        elif isinstance(ours[key], np.ndarray):
            a, b = ours[key], theirs[key]
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                found.append(f"{key}: {a.dtype}{a.shape} / {b.dtype}{b.shape}")
            elif a.tobytes() != b.tobytes():
                found.append(f"{key}: arrays differ{_by(a, b)}")
        elif ours[key] != theirs[key]:
            found.append(f"{key}: {ours[key]!r:.60} / {theirs[key]!r:.60}")
    return found if ours else ["no numbers"]


def _by(a, b):
    """' by at most 1e-9, relative', of numbers."""
    if not np.issubdtype(a.dtype, np.floating):
        return ""
    scale = max(float(np.nanmax(np.abs(a), initial=0.0)), 1e-300)
    return f" by at most {np.nanmax(np.abs(a - b), initial=0.0) / scale:.1e} of the largest"


def _numbers(folder):
    """{name of a number: its text or array} of one workdir."""
    numbers = {}
    path = folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        for name, value in record.items():
            if name == "arm":
                continue
            numbers[f"{arm(record['arm'])}@{record['step']}/{renamed(folder, name)}"] = json.dumps(value)
    for kind, place in (("lines", "lines"), ("interpolation", "lines"), ("landscape", "landscape")):
        for file in sorted((folder / kind).glob("*.json")):
            for name, value in _leaves(json.loads(file.read_text())).items():
                name = renamed_path(folder, name)
                numbers[f"{place}/{arm(file.stem)}/{name}"] = value
    for file in sorted([*folder.glob("grids/*.npz"), *folder.glob("landscape/*.npz")]):
        with np.load(file) as arrays:
            numbers |= {f"{file.parent.name}/{arm(file.stem)}/{name}": array for name, array in arrays.items()}
    return numbers


def arm(name):
    """The name that an arm has now."""
    return ARMS.get(name, name)


def renamed(folder, name):
    """The name that a metric has now; a run of this version has it already."""
    if "format" in json.loads((folder / "config.json").read_text()):
        return name
    if name == "excess":
        return EXCESS.get(folder.name, name)
    return RENAMED.get(name, name)


def renamed_path(folder, path):
    """The same of 'metrics/NAME' and 'history/STEP/NAME' in the arms of `landscape/`."""
    first, *rest = path.split("/")
    known = {"metrics": 0, "history": 1}.get(first)
    if known is None or len(rest) <= known:
        return path
    return "/".join([first, *rest[:known], renamed(folder, "/".join(rest[known:]))])


def _leaves(tree, prefix=""):
    if isinstance(tree, dict):
        return {k: v for name, value in tree.items() for k, v in _leaves(value, f"{prefix}{name}/").items()}
    return {prefix[:-1]: json.dumps(tree)}


if __name__ == "__main__":
    main()
