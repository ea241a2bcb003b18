"""One training step of every kind that the loop trains, to the digits at which round-off differs between machines.

Update a number only where the training was changed on purpose (initialisation, order of batches, loss, model) and say
so in CHANGELOG.md: every result of ours depends on them.
"""

import functools
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import optax
import pytest

from sbjax import config as config_lib
from sbjax.experiments import registry
from sbjax.frame.arms import precision
from sbjax.frame.training import TrainingExperiment

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())


def one_step(config):
    """Norms before and after one step of the arm's own optimiser, one replica, from the key of seed 0."""
    if config.task.kind == "text":  # the texts of its sets are in packages that may not be installed
        config.task.dataset = f"{CONFIGS.parent / 'tests' / 'toy_texts.py'}:load"
        config.model.update(width=128, filters=100)  # a smoke run's are smaller
    if config.task.kind == "colour":
        config.task.dataset = f"{CONFIGS.parent / 'tests' / 'toy_colours.py'}:load"
    if config.task.kind == "bayes":
        config.model.widths = (32, 32)  # eight layers take long to compile
    if "program" in config.task:
        config.task.program = "loop"
    plan = config_lib.read(config)
    with precision(plan.precision):
        arm = plan.experiment.prepare(plan).arms[1]  # the first treatment
        task, optimizer = arm.task, arm.phases[0].optimizer
        key = jax.random.key(0)
        variables = jax.jit(task.init)(key)
        batch = task.sample(task.data, key, jnp.int32(0))

        def loss(params):
            return task.loss({**variables, "params": params}, batch, key)

        params = variables["params"]
        (value, _), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        optimizer = optax.with_extra_args_support(optimizer)
        extra = {"value": value, "grad": gradient, "value_fn": lambda params: loss(params)[0]}
        updates, _ = jax.jit(functools.partial(optimizer.update, **extra))(gradient, optimizer.init(params), params)
        moved = optax.apply_updates(params, updates)
        norms = {"gradient": gradient, "parameters": params, "update": jax.tree.map(jnp.subtract, moved, params)}
        return {"loss": float(value)} | {name: float(optax.tree.norm(tree)) for name, tree in norms.items()}


@pytest.mark.parametrize("words", sorted(GOLDEN))
def test_golden_step(words):
    file, _, argument = words.partition(":")
    found = one_step(runpy.run_path(str(CONFIGS / file))["get_config"](argument))
    assert found == pytest.approx(GOLDEN[words], rel=1e-3)  # Adam's first update divides by gradients near zero


def test_every_kind_that_trains_has_a_golden_step():
    kinds = {
        config_lib.read(runpy.run_path(str(CONFIGS / file))["get_config"](argument)).experiment.name
        for file, _, argument in (words.partition(":") for words in GOLDEN)
    }
    assert kinds == {kind for kind in registry.KINDS if isinstance(registry.find({"kind": kind}), TrainingExperiment)}
