"""The arms of an experiment, built from settings and ready to train."""

import contextlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sbjax import build, trees
from sbjax.asymmetry import trainable_size
from sbjax.experiments.registry import own_program
from sbjax.frame import config as config_lib
from sbjax.metrics.monitor import Monitor
from sbjax.names import near
from sbjax.tasks.task import Task
from sbjax.training.fit import Phase
from sbjax.training.placement import Mapping


class Arm(NamedTuple):
    """One side of the comparison, ready to train."""

    name: str
    task: Task
    phases: tuple[Phase, Phase | None]
    steps: int
    parameters: int
    flops_per_step: float
    monitor: Monitor | None
    monitor_steps: tuple[int, ...]


def prepare(settings: dict[str, Any]) -> None:
    """Build all that a run with these (checked) settings needs, to see whether it can be built.

    Raises:
        ConfigError: as `run`.
    """
    check_cheaply(settings)
    with precision(settings["precision"]):
        own = own_program(settings)
        build_arms(settings) if own is None else own.check(settings)


def check_cheaply(settings: dict[str, Any]) -> Mapping:
    """Refuse devices and expansions that cannot be, before any data is read; how replicas are laid on devices."""
    mapping = build.build_mapping(settings["mapping"])
    if mapping.devices > jax.device_count():
        raise config_lib.ConfigError(
            f"mapping.devices={mapping.devices}: this process has {jax.device_count()}; lower it, or on CPU start with "
            f"--cpu_devices={mapping.devices}"
        )
    for name in settings["arms"]:
        with _named_arm(name):
            build.build_expansion(config_lib.arm_settings(settings, name)["expansion"])
    return mapping


def build_arms(settings: dict[str, Any]) -> list[Arm]:
    """All arms of checked settings, with their data loaded; arms with the same data share it."""
    arms, loaded = [], {}
    for name in settings["arms"]:
        own = config_lib.arm_settings(settings, name)
        source = json.dumps(own["task"], sort_keys=True)
        if source not in loaded:
            loaded[source] = build.build_data(own["task"])
        with _named_arm(name):
            task = build.build_task(own, loaded[source])
            task = build.build_population(own, task)
            steps = build.train_steps(own, task)
            folded = build.build_expansion(own["expansion"]) if own["task"].get("fold") else None
            optimizer = build.build_optimizer(own["optimizer"], train_steps=steps, folded=folded)
            finish = build.build_finish(own["finish"], folded=folded)
            total = steps + (finish.steps if finish else 0)
            monitor, monitor_steps = build.build_monitor(own, task, steps=total)
            phases = (Phase(optimizer, steps), finish)
            variables = jax.eval_shape(task.init, jax.random.key(0))
            build.check_phases(phases, variables["params"])
        parameters = trees.size(variables["params"])
        if "asymmetry" in variables.get("frozen", {}):  # part of the parameters is never trained
            parameters = trainable_size(jax.jit(task.init)(jax.random.key(0)))
        arms.append(Arm(name, task, phases, total, parameters, step_flops(task), monitor, monitor_steps))
    return arms


@contextlib.contextmanager
def _named_arm(name: str):
    """Say in errors which arm they are about."""
    try:
        yield
    except config_lib.ConfigError as error:
        raise config_lib.ConfigError(f"arm {name!r}: {error}") from error


def step_flops(task: Task) -> float:
    """FLOPs of loss and gradient of one replica and step, as XLA counts them in the program before optimisation."""
    key = jax.random.key(0)
    variables = jax.eval_shape(task.init, key)
    batch = jax.eval_shape(task.sample, task.data, key, jnp.int32(0))

    def gradient(params, variables, batch, key):
        return jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(params)

    cost = jax.jit(gradient).lower(variables["params"], variables, batch, key).cost_analysis()
    return float(cost["flops"])


@contextlib.contextmanager
def precision(section: dict[str, Any]):
    """Matmul precision and double precision of a run."""
    known = ("default", "high", "highest")
    if section["matmul"] not in known:
        raise config_lib.ConfigError(
            f"precision.matmul={section['matmul']!r} is unknown{near(section['matmul'], known)}; "
            f"known: {', '.join(known)}"
        )
    with jax.default_matmul_precision(section["matmul"]), jax.enable_x64(section["x64"]):
        yield
