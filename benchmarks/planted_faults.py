"""How many small faults do the default tests catch? Plants them one at a time, in a copy of this checkout.

    python benchmarks/planted_faults.py                     # all of them, about a minute each
    python benchmarks/planted_faults.py --only augment.py   # those whose file, new text or test contains it
    python benchmarks/planted_faults.py --round siblings

Each fault is a text that stands once in a file of the package, and what is put in its place. Its tests are run in
turn until one fails: its own test file with the examples of its docstrings, then what lies further away; by default
the tests without `extended`, as everybody runs them. The modules of a round are drawn at random, one of each room that
computes numbers; the faults were written before the tests were read.

A JSON line a fault says whether it was caught and by which test; the last line counts, and names the tests set aside,
which fail without the fault, or not again with it. `siblings` are faults of the kinds that were not caught at first,
planted to see that the tests written since catch more than one line.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
    """A text of a file of the package, what stands in its place, and the tests that are to notice, in turn."""

    round: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "first", "metrics/hessian.py", "(np.arange(parts * chunk) < count)", "(np.arange(parts * chunk) <= count)",
        ("metrics/curvature_test.py", "metrics", "experiments/landscape"),
    ),
    Fault(
        "first", "expansion/folding.py", "jnp.zeros(kernel.shape[1:], kernel.dtype)",
        "jnp.zeros(kernel.shape[:1], kernel.dtype)",
        ("expansion/folding_test.py", "expansion", "models/field_test.py tasks"),
    ),
    Fault(
        "first", "physics/ising/exact.py", "b=[1, 1, 1, math.copysign(1, gamma[0])]", "b=[1, 1, 1, 1]",
        ("physics/ising_exact_test.py", "physics/ising_sampling_test.py", "experiments/ising"),
    ),
    Fault(
        "first", "optimizers/base.py", "math.sqrt(1 + sum(c**2 for c in constants))",
        "math.sqrt(1 + sum(abs(c) for c in constants))",
        ("optimizers/section_test.py", "optimizers", "frame/arms_test.py expansion", "tasks/pinn_test.py"),
    ),
    Fault(
        "first", "symmetry/activation_matching.py", "(b**2).sum(0) + share * gap_b**2",
        "(b**2).sum(0) + share * gap_a**2",
        ("symmetry/activation_matching_test.py", "symmetry"),
    ),
    Fault(
        "first", "landscape/unit_clusters.py", "middle = np.median(sums, 0)", "middle = np.median(sums)",
        ("landscape/expand_and_cluster_test.py", "landscape", "experiments/landscape"),
    ),
    Fault(
        "first", "tasks/equation_of_state.py", "jnp.abs(m) * T**3", "jnp.abs(m) * T**2",
        ("tasks/equation_of_state_test.py", "experiments/qcd", "experiments/golden_test.py"),
    ),
    Fault(
        "first", "training/placement.py", "rows = max((leaf.shape[0] for", "rows = max((leaf.shape[-1] for",
        ("training/placement_test.py", "training", "tasks/pinn_test.py wiring_test.py resume_test.py"),
    ),
    Fault(
        "first", "models/quasi_parton.py", "nn.initializers.uniform(2 * bound)", "nn.initializers.uniform(bound)",
        ("tasks/equation_of_state_test.py", "models", "experiments/qcd", "experiments/golden_test.py"),
    ),
    Fault(
        "first", "asymmetry/weights.py", "jnp.where(mask, chosen, other)", "jnp.where(mask, other, chosen)",
        ("asymmetry/weights_test.py", "asymmetry", "metrics/matched_test.py training/fit_test.py"),
    ),
    Fault(
        "first", "report/ranking.py", "(draws, [(1 - confidence) / 2,", "(draws, [1 - confidence,",
        ("report/ranking_test.py", "report", "runner/ranking_test.py"),
    ),
    Fault(
        "first", "data/augment.py", "-padding, padding + 1)", "-padding, padding)",
        ("data/augment_test.py", "data", "tasks/images_test.py experiments/golden_test.py"),
    ),
    Fault(
        "second", "metrics/connectivity.py", "kept.std(ddof=1)", "kept.std()",
        ("metrics/connectivity_test.py", "metrics", "experiments/connectivity"),
    ),
    Fault(
        "second", "expansion/transform.py", "images.astype(jnp.float32) / 255", "images.astype(jnp.float32) / 256",
        ("expansion/transform_test.py", "expansion", "tasks/images_test.py"),
    ),
    Fault(
        "second", "physics/collocation_rows.py", "k**2 * s[k] if k", "k * s[k] if k",
        ("physics/collocation_rows_test.py physics/collocation_test.py", "physics/pdes_test.py", "tasks/pinn_test.py"),
    ),
    Fault(
        "second", "optimizers/lbfgs_many.py", "minimum(-(-i // every), records)", "minimum(i // every, records)",
        ("optimizers/lbfgs_many_test.py", "experiments/functions"),
    ),
    Fault(
        "second", "symmetry/straight_through.py", "judged = history[-1] if", "judged = history[0] if",
        ("symmetry/straight_through_test.py", "symmetry"),
    ),
    Fault(
        "second", "landscape/copy_average.py", "math.asin(1 / (2 * q))", "math.asin(1 / q)",
        ("landscape/copy_average_test.py", "landscape", "experiments/landscape"),
    ),
    Fault(
        "second", "tasks/classification.py", "test[0][: counts[1]]", "test[0][-counts[1] :]",
        ("tasks/images_test.py", "tasks", "data/own_sets_test.py experiments/golden_test.py"),
    ),
    Fault(
        "second", "training/params_buffers.py", "corner[1] <= -1e4", "corner[1] < -1e4",
        ("training/params_files_test.py", "runner/ranking_test.py metrics/own_distance_test.py"),
    ),
    Fault(
        "second", "models/field.py", "@ weight[:before] + constants[before:]", "@ weight[:before] - constants[before:]",
        ("models/field_test.py", "models", "physics/trial_test.py tasks/pinn_test.py"),
    ),
    Fault(
        "second", "asymmetry/network.py", "draws.fan_in(masked[layer])", "draws.fan_in(leaf.shape)",
        ("asymmetry/network_test.py", "asymmetry", "experiments/golden_test.py"),
    ),
    Fault(
        "second", "report/against.py", "values[a.primary][:least]", "values[a.primary][-least:]",
        ("report/against_test.py", "report", "runner/suite_test.py"),
    ),
    Fault(
        "second", "data/strata.py", "(rank < size - 1)", "(rank <= size - 1)",
        ("data/strata_test.py", "data"),
    ),
    Fault(
        "siblings", "training/placement.py", "rows = max((leaf.shape[0] for", "rows = min((leaf.shape[0] for",
        ("training/placement_test.py",),
    ),
    Fault(
        "siblings", "training/placement.py", "min(jax.device_count(), max(replicas, jax.process_count())) if cpu",
        "jax.device_count() if cpu",
        ("training/placement_test.py",),
    ),
    Fault(
        "siblings", "models/quasi_parton.py", "bound = fan_in**-0.5", "bound = 1 / fan_in",
        ("models/models_test.py",),
    ),
    Fault(
        "siblings", "models/mlp.py", "nn.initializers.he_normal()", "nn.initializers.lecun_normal()",
        ("models/models_test.py",),
    ),
    Fault(
        "siblings", "tasks/classification.py", "validation[1][: counts[0]]", "validation[1][-counts[0] :]",
        ("tasks/images_test.py",),
    ),
    Fault(
        "siblings", "tasks/images.py", "data.validation_images[:probe_size]", "data.validation_images[-probe_size:]",
        ("tasks/images_test.py",),
    ),
    Fault(
        "siblings", "training/step.py", "value_fn=lambda p: loss_fn(keep(p, held))[0]",
        "value_fn=lambda p: loss_fn(keep(p))[0]", ("training/step_test.py",),
    ),
    Fault(
        "siblings", "training/step.py", '"params": keep(params, held)}', '"params": keep(params)}',
        ("training/step_test.py",),
    ),
    Fault(
        "siblings", "training/step.py", "grads, params = keep(grads), keep(held)", "grads, params = keep(grads), held",
        ("training/step_test.py",),
    ),
    Fault(
        "siblings", "report/ranking.py", "(1 + confidence) / 2])", "confidence])",
        ("report/ranking_test.py",),
    ),
    Fault(
        "siblings", "report/ranking.py", ">= abs(value) - 1e-12)", "> abs(value) + 1e-12)",
        ("report/ranking_test.py",),
    ),
    Fault(
        "siblings", "symmetry/straight_through.py", "judged = history[-1] if", "judged = max(history) if",
        ("symmetry/straight_through_test.py",),
    ),
    Fault(
        "siblings", "symmetry/straight_through.py", "if validate is None or new:", "if new:",
        ("symmetry/straight_through_test.py",),
    ),
    Fault(
        "siblings", "training/params_buffers.py", "corner[1] <= -1e4", "corner[1] <= -1e3",
        ("training/params_files_test.py",),
    ),
    Fault(
        "siblings", "training/params_buffers.py", "np.tri(shape[-1], dtype", "np.tri(shape[-1], k=-1, dtype",
        ("training/params_files_test.py",),
    ),
)  # fmt: skip


def main():
    """Print a line a fault, then the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts of a file's name, the new text or a test's name, with commas")
    parser.add_argument("--round", default="", help="'first', 'second' or 'siblings'; all by default")
    given = parser.parse_args()
    chosen = [
        fault
        for fault in FAULTS
        if given.round in fault.round
        and any(part in " ".join((fault.file, fault.new, *fault.tests)) for part in given.only.split(","))
    ]
    check(chosen)
    caught, broken = 0, []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "copy"
        copy(root)
        for fault in chosen:
            found = plant(root, fault, broken)
            caught += found["caught"]
            print(json.dumps(found), flush=True)
    print(json.dumps({"planted": len(chosen), "caught": caught, "set_aside": broken}))


def check(faults):
    """Each old text stands once in its file, else the fault is another one than was meant."""
    for fault in faults:
        count = (ROOT / "sbjax" / fault.file).read_text().count(fault.old)
        if count != 1:
            sys.exit(f"sbjax/{fault.file} holds {fault.old!r} {count} times; it must stand there once: mend the list")


def copy(root):
    """The files of this checkout that git knows or does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)


def plant(root, fault, broken):
    """Run the tests of one fault in turn until one fails; the copy is left as it was.

    Args:
        broken: tests that fail without the fault, or not again with it, which catch nothing; more are added.
    """
    path = root / "sbjax" / fault.file
    text = path.read_text()
    began, by = time.monotonic(), None
    stages = [[f"tests/{name}" for name in names.split()] for names in fault.tests]
    stages[0].append("tests/docs_test.py")

    def run(tests, deselected, *, planted=True):
        path.write_text(text.replace(fault.old, fault.new) if planted else text)
        try:
            return failing(root, tests, fault.file, deselected)
        finally:
            path.write_text(text)

    while stages and not by:
        by = run(stages[0], broken)
        if not by:
            stages.pop(0)
        # Alone it must fail with the fault and pass without, else it is broken or depends on the load of the machine.
        elif "::" in by and (run([by], [], planted=False) or not run([by], [])):
            broken.append(by)
            by = None
    seconds = round(time.monotonic() - began, 1)
    return {
        "round": fault.round,
        "file": fault.file,
        "new": fault.new,
        "caught": bool(by),
        "by": by,
        "seconds": seconds,
    }


def failing(root, tests, file, broken):
    """Name of the first default test that fails, or None. A fault that hangs is caught as well."""
    module = "sbjax." + file.removesuffix(".py").replace("/", ".")
    # By -k and not by its id, so that a module whose examples are extended stays so.
    command = [sys.executable, "-m", "pytest", *tests, "-k", f"not docs_test or (test_docstring_examples and {module})"]
    command += ["-x", "-q", "--tb=no", "-rfE", "-m", "not extended", "-o", "addopts=", "--import-mode=importlib"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", *(f"--deselect={name}" for name in broken)]
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".xla_cache" / "planted"))
    try:
        run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=1200)
    except subprocess.TimeoutExpired:
        return "time ran out"
    if run.returncode == 0:
        return None
    if "::" in tests[0] and run.returncode in (4, 5):  # a name that pytest does not find again
        return None
    if run.returncode not in (1, 2):  # no tests, wrong usage, an internal error
        sys.exit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    found = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", run.stdout, re.MULTILINE)
    return found[1] if found else run.stdout[-300:]


if __name__ == "__main__":
    main()
