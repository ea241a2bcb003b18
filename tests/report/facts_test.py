"""What the page says of a run besides its result."""

import json

from sbjax.report import facts as lib
from sbjax.report.results import load_results


def test_what_was_trained_on_what_and_when(write_member):
    workdir = write_member("heat")
    settings = {
        "config": {
            "task": {"kind": "pinn", "equation": "heat", "batch_size": 0},
            "model": {"name": "mlp", "widths": [20, 20]},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "constant"},
            "seed": 3,
        },
        "environment": {
            "processor": "Some CPU", "cores": 2, "device": "cpu", "devices": 1, "versions": {"jax": "0.10.1"},
            "commit": "0123456789abcdef", "products": "TF32", "precision": {"matmul": "default", "x64": False},
        },
        "overrides": [],
        "started": "2026-01-02 03:04 UTC",
    }  # fmt: skip
    (workdir / "config.json").write_text(json.dumps(settings))
    arms = json.loads((workdir / "arms.json").read_text())
    arms["about"]["expanded"] = {"labels": {"claim": "smaller errors (arXiv 2409.06402)"}}
    (workdir / "arms.json").write_text(json.dumps(arms))
    section = lib.section(load_results(workdir), workdir)
    rows, table, claim = section.parts
    assert dict(rows.rows) == {
        "task": "pinn, heat",
        "model": "mlp, widths 20-20, 10 trained parameters in every arm",
        "optimizer": "adam, learning rate 0.001, constant schedule",
        "training": "30 steps",
        "seeds": "6 independently initialised replicas an arm, the same seeds for all arms; seed 3",
        "hardware": "Some CPU, 2 cores; JAX on 1 x cpu",
        "precision": "factors of float32 matrix products were rounded to TF32 (precision.matmul=default): other "
        "numbers than on a CPU",
        "date": "2026-01-02 03:04 UTC",
        "wall time": "50 s, of which training steps 40 s",
        "software": "jax 0.10.1, commit 0123456789",
    }
    assert ("matched_bias", "control of starting bias and step", "m.") in table.rows
    assert claim.text == "Published: smaller errors (arXiv 2409.06402)"
