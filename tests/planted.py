"""Runs on disk, as training leaves them, with planted effects."""

import json
from pathlib import Path

import numpy as np

from sbjax.common.files import plain
from sbjax.report.results import save_arms

# Arms of a differential equation, and what their errors are multiplied by.
ARMS = {"raw": 1.0, "expanded": 0.1, "ones": 1.0, "matched_bias": 0.1, "widened": 1.0}
ABOUT = {
    "matched_bias": {"role": "control of starting bias and step", "labels": {"treatment": "expanded", "about": "m."}},
    "widened": {"role": "control of first-layer size", "labels": {"treatment": "expanded"}},
}


def write_run(
    folder: Path, name: str = "run", *, effect: float = 0.05, replicas: int = 8, reports: int = 4, stop: bool = True
) -> Path:
    """Writes a run of three arms and returns its workdir.

    'raw' is the reference; 'expanded' is `effect` better on every seed up to noise and costs four times the
    FLOPs; 'nearest' has no effect, and one of its replicas stops after the first report.
    """
    workdir = folder / name
    rng = np.random.default_rng(1)
    seeds = 0.8 + 0.02 * rng.normal(size=replicas)
    arms = {"raw": (0.0, 1e6), "expanded": (effect, 4e6), "nearest": (0.0, 1e6)}
    lines = []
    for arm, (shift, flops) in arms.items():
        noise = 0.002 * rng.normal(size=replicas)
        for report in range(1, reports + 1):
            final = report == reports
            accuracy = (seeds + shift + noise) * (1 if final else report / reports)
            loss = np.exp(-report) * (1.5 - accuracy)
            accuracy, loss = accuracy.tolist(), loss.tolist()
            if stop and arm == "nearest" and report > 1:
                accuracy[2] = loss[2] = None
            line = {"arm": arm, "step": 100 * report, "epoch": report / 2, "flops": 100 * report * flops}
            lines.append(line | {"seconds": 0.5, "train/loss": loss, "test/loss": loss, "test/accuracy": accuracy})
    failures = [{"arm": "nearest", "replica": 2, "step": 137, "what": "loss is nan <at step 137>"}] if stop else []
    save_arms(
        workdir,
        arms=tuple(arms),
        reference="raw",
        primary="test/accuracy",
        parameters={"raw": 1234, "expanded": 1300, "nearest": 1300},
        flops_per_step={arm: flops for arm, (_, flops) in arms.items()},
        steps=dict.fromkeys(arms, 100 * reports),
        failures=failures,
        metrics={
            arm: {
                "replica_distance/marginal": 0.01 * (i + 1),
                "replica_distance/matched": {"value": 0.5, "low": 0.4, "high": 0.6},
            }
            for i, arm in enumerate(arms)
        },
        about={"nearest": {"role": "control of resolution"}},
    )
    settings = {
        "config": {"task": {"kind": "images", "dataset": "digits"}, "note": "<script>alert(1)</script>"},
        "environment": {"jax": "0.10.1", "device": "cpu"},
        "overrides": ["arms.replicas=8"],
        "config_file": "configs/digits.py:smoke",
    }
    (workdir / "config.json").write_text(json.dumps(settings))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def write_member(
    folder: Path,
    path: str,
    *,
    equation: str = "heat",
    factors=ARMS,
    replicas: int = 6,
    reports: int = 3,
    kind: str = "pinn",
    seconds: float = 8.0,
    shape=None,
    unknowns: str = "u",
) -> Path:
    """Writes the run of one differential equation below `folder` and returns its workdir.

    The last 'test/l2' of seed r is 1e-3 * spread[r] times the arm's factor (a number or one a seed); ten times that at
    each report before. 'train/loss' is its square. NaN in a factor is a replica that stopped.
    """
    spread = 10 ** (0.3 * np.random.default_rng(2).normal(size=30))
    workdir = folder / path
    workdir.mkdir(parents=True, exist_ok=True)
    lines, failures = [], []
    for arm, factor in factors.items():
        last = 1e-3 * spread[:replicas] * factor
        failures += [
            {"arm": arm, "replica": int(r), "step": 7, "what": "loss is nan"} for r in np.flatnonzero(np.isnan(last))
        ]
        for report in range(reports + 1):
            error = last * 10.0 ** (reports - report)
            loss = error**2 if report else np.full(replicas, np.nan)
            numbers = {"test/l2": error, "train/loss": loss, "train/loss_equation": 0.7 * loss}
            numbers |= {"train/loss_initial_u": 0.3 * loss, "train/loss_u_on_x": 1e-3 * loss}
            lines.append({"arm": arm, "step": 10 * report, "flops": 10.0 * report, **plain(numbers)})
    numbers = dict.fromkeys(factors, 10)
    steps = dict.fromkeys(factors, 10 * reports)
    save_arms(
        workdir, arms=tuple(factors), reference=next(iter(factors)), primary="test/l2", goal="min",
        parameters=numbers, flops_per_step=numbers, steps=steps, failures=failures,
        about={arm: about for arm, about in ABOUT.items() if arm in factors},
    )  # fmt: skip
    config = {"config": {"task": {"kind": kind, "equation": equation}}, "environment": {}, "overrides": []}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    half = 5 * reports
    (workdir / "timings.jsonl").write_text(
        "".join(
            json.dumps({"arm": arm, "steps": part, "train_seconds": seconds / 2, "compile_seconds": 1.0}) + "\n"
            for arm in factors
            for part in ([0, half], [half, 10 * reports])
        )
    )
    if shape:
        write_grids(workdir, factors, shape, unknowns, replicas)
    return workdir


def write_grids(workdir, arms, shape, unknowns, replicas):
    """sin(pi x) exp(-t) and, in replica r of arm i, an error of 10^-(i + 1) (r + 1) cos(pi x)."""
    axes = [np.linspace(-1.0, 1.0, n) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    x, t = points[..., 0], points[..., 1] if len(shape) > 1 else 0.0
    reference = np.stack([(i + 1) * np.sin(np.pi * x) * np.exp(-t) for i in range(len(unknowns))], -1)
    wave = np.cos(np.pi * x)[..., None] * np.ones(len(unknowns))
    (workdir / "grids").mkdir()
    for i, arm in enumerate(arms):
        predicted = np.stack([reference + 10.0 ** -(i + 1) * (r + 1) * wave for r in range(replicas)])
        names = {
            "coordinates": np.array([*"xyvw"[: len(shape) - 1], "t"] if len(shape) > 1 else ["x"]),
            "unknowns": np.array(list(unknowns)),
        }
        np.savez(workdir / "grids" / f"{arm}.npz", points=points, reference=reference, predicted=predicted, **names)
