"""What cannot fit is refused by its fields, before anything is computed or written."""

import math
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.common import devices
from sbjax.frame import estimate
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner


def make_config(kind="images", **changes):
    config = config_lib.shrink(config_lib.base_config(*kind.split("/")))
    config.monitor.kinds, config.arms = "", {"raw": {}}
    with config.unlocked():
        for path, value in changes.items():
            config.update_from_flattened_dict({path.replace("__", "."): value})
    return config.to_dict()


WIDE = {"name": "cnn", "channels": (512, 512, 512)}
X64 = {"precision__x64": True}
TOO_LARGE = [
    ("images", {"reports": 99_999_999_999}, "reports=99999999999 must be >= 1, <= 100000"),
    ("images", {"seed": 2**32}, "seed=4294967296 must be >= 0, <= 4294967295"),
    ("images", {"seed": 10**20}, "seed=1"),
    ("images", {"train_steps": 10**12}, "train_steps=1000000000000 must be <= 2147483647"),
    ("images", {"train_steps": 0, "train_epochs": 1e9}, "train_epochs=1000000000.0 are .* steps, and 2147483647"),
    ("images", {"checkpoint__keep": 10**12}, "checkpoint.keep=1000000000000 must be <="),
    ("images", {"replicas": 10**6}, "replicas=1000000, .*needs at least .* GB of memory .parameters and optimiser"),
    ("images", {"model": {"name": "mlp", "widths": (10**9,)}}, r"model.widths=\(1000000000,\).* at least .* TB of mem"),
    ("images", {"model": {"name": "mlp", "widths": (10**9, 10**9)}}, r"model.widths=\(1000000000, 1000000000\)"),
    ("images", {"model": {"name": "mlp", "widths": (2,) * 5000}}, r"model.widths=.* holds 5000 entries, more than 300"),
    ("images", {"model": {"name": "resnet20", "depth": 1e6}}, "model.depth=1000000.0 must be > 0, <= 50"),
    ("qcd", {"model": {"name": "quasi_parton", "blocks": 10**6}}, "model.blocks=1000000 must be >= 0, <= 100"),
    ("images", {"task__image_size": 10_000}, "image_size=10000: .* images of this size take .* GB of memory"),
    ("pinn", {"task__points": 10**11}, "task.points=100000000000 must be >= 1, <= 10000000"),
    ("pinn", {"expansion": {"kind": "vector", "before": 10**8}}, "expansion.before=100000000 must be >= 0, <= 10000"),
    ("pinn", {"model": {"name": "field", "widths": (10**9,)}}, r"model.widths=\(1000000000,\)"),
    ("ising", {"task__size": 10_000, "replicas": 10**6}, "replicas=1000000, task.size=10000: .*TB of memory"),
    ("exact/involution", X64 | {"task__width": 1000, "replicas": 10**5}, "replicas=100000, .*TB of memory .weights"),
    (
        "exact/duality",
        {"task__width": 10**5, "task__inputs": 100, "task__networks": 10**6},
        "task.networks=1000000, ta",
    ),
    ("exact/lattice_collision", X64 | {"replicas": 10**6, "task__nodes": 1000}, "replicas=1000000, .*vortices 72.0 TB"),
    ("exact/attention", X64 | {"task__width": 512, "task__depth": 12}, "task.width=512, .*TB of memory .a Jacobian"),
    ("landscape/deep", X64 | {"task__width": 1000, "replicas": 10**5}, "replicas=100000, .*students and their mom"),
    (
        "zoo",
        {"replicas": 10**6, "task__block": 10**5, "model": WIDE},
        "task.block=100000, .*TB of memory .networks of",
    ),
    ("qcd", {"model": {"name": "quasi_parton", "width": 10**8}}, "model.width=100000000, .* of memory"),
]


@pytest.mark.parametrize(("kind", "changes", "words"), TOO_LARGE)
def test_too_large_is_refused_by_its_field_and_writes_nothing(tmp_path, kind, changes, words):
    began = time.process_time()
    with pytest.raises(ConfigError, match=words):
        runner.run(make_config(kind, **changes), tmp_path / "run")
    assert time.process_time() - began < 20
    assert not (tmp_path / "run").exists()


def test_bytes_are_those_of_the_arrays():
    tree = {"a": np.zeros((3, 5), np.float32), "b": jnp.zeros(7, jnp.bfloat16), "c": np.zeros((), np.int64)}
    assert estimate.tree_bytes(tree) == 60 + 14 + 8
    assert estimate.tree_bytes(jax.eval_shape(lambda: {"k": jax.random.key(0)})) == 8

    def fn(x):
        inner = jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=3)[0]
        return (inner[:, None, :] * x[None]).sum()

    traced = jax.jit(fn).trace(jax.ShapeDtypeStruct((20, 20), np.float32))
    assert estimate.largest_array(traced.jaxpr.jaxpr) == 20**3 * 4


def test_the_estimate_is_below_what_training_holds(tmp_path):
    """Of a run that is trained: the checkpoint on disk holds the arrays that were counted."""
    plan = config_lib.read(make_config(model={"name": "mlp", "widths": (64,)}))
    arm = runner.prepare(plan).built.arms[0]
    params = 64 * 64 + 64 + 64 * 10 + 10
    momentum = params
    assert arm.checkpoint_bytes == pytest.approx(2 * 4 * (params + momentum), rel=0.01)


def test_a_limit_of_the_process_counts(monkeypatch):
    whole = devices.memory()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (whole // 2, whole))
    assert devices.memory() == whole // 2


def test_the_limit_of_a_job_counts(tmp_path):
    """Of a control group below the root, of either version, and of those above it."""
    job = tmp_path / "sys" / "slurm" / "job_7" / "step_0"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("max\n")
    (job.parent / "memory.max").write_text("2000\n")
    (tmp_path / "sys" / "memory.max").write_text("9000\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job_7/step_0\n")
    assert list(devices._group_limits(own, tmp_path / "sys")) == [2000, 9000]
    own.write_text("0::/slurm/job_7/step_0/../../../..\n")
    assert list(devices._group_limits(own, tmp_path / "sys")) == [9000]
    first = tmp_path / "sys" / "memory" / "job"
    first.mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text("5000")
    own.write_text("4:cpu:/x\n3:memory:/job\n")
    assert list(devices._group_limits(own, tmp_path / "sys")) == [5000]
    assert list(devices._group_limits(tmp_path / "none", tmp_path)) == []


def test_what_takes_years_is_refused_by_its_steps(tmp_path, monkeypatch):
    """On a slow machine that is to train them; they can be planned there, and pass on a fast one."""
    config = make_config(train_steps=2 * 10**9, model={"name": "mlp", "widths": (64,)})
    monkeypatch.setattr(estimate, "peak", lambda: 1e6)
    with pytest.raises(ConfigError, match=r"train_steps=2000000000, model.widths=\[64\].*at least .* years here"):
        runner.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    cost = runner.prepare(config_lib.read(config)).built.arms[0].flops_per_step
    monkeypatch.undo()
    assert estimate.peak() * estimate.MOST_YEARS * 3e7 > 2 * 2e9 * cost


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(
        ConfigError, match=r"--workdir=.*the checkpoints need .* MB and the disk has 10.0 kB free; lower"
    ):
        runner.run(make_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    estimate.check_disk(10_000, tmp_path)
    assert math.isfinite(devices.memory())
