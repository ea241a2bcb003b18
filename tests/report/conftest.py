"""A run on disk, as training leaves it, with planted effects."""

import json
from pathlib import Path

import numpy as np
import pytest

from sbjax.report.results import save_arms


@pytest.fixture
def write_run(tmp_path):
    """A function that writes a run of three arms and returns its workdir.

    'raw' is the reference; 'expanded' is `effect` better on every seed up to noise and costs four times the
    FLOPs; 'nearest' has no effect, and one of its replicas stops after the first report.
    """

    def write(
        name: str = "run", *, effect: float = 0.05, replicas: int = 8, reports: int = 4, stop: bool = True
    ) -> Path:
        workdir = tmp_path / name
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
                line = {
                    "arm": arm,
                    "step": 100 * report,
                    "epoch": report / 2,
                    "flops": 100 * report * flops,
                    "seconds": 0.5,
                }
                lines.append(line | {"train/loss": loss, "test/loss": loss, "test/accuracy": accuracy})
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
        )
        settings = {
            "config": {"task": "digits", "note": "<script>alert(1)</script>"},
            "environment": {"jax": "0.10.1", "device": "cpu"},
            "overrides": ["arms.replicas=8"],
            "config_file": "configs/digits.py:smoke",
        }
        (workdir / "config.json").write_text(json.dumps(settings))
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return workdir

    return write
