"""The page on optimisers of one's own, and its example."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.optimizers import read_optimizer
from sbjax.training.fit import fit
from sbjax.training.placement import Placement

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = f"{ROOT / 'docs/examples/my_optimizer.py'}:"
PLAIN = {"warmup_share": 0.0, "schedule": "constant"}


def build(name, **fields):
    choice, problems = read_optimizer({"name": EXAMPLE + name, **PLAIN, **fields})
    assert problems == []
    return choice.build(100)


def test_lion_is_that_of_optax():
    ours, theirs = (
        build("Lion", learning_rate=0.1, b1=0.8, weight_decay=0.3),
        optax.lion(0.1, 0.8, 0.99, weight_decay=0.3),
    )
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones((2, 2))}
    found = []
    for optimizer in (ours, theirs):
        w, state = params, optimizer.init(params)
        for step in range(5):
            grads = jax.tree.map(lambda leaf, step=step: jnp.cos(step + leaf), w)
            updates, state = optimizer.update(grads, state, w)
            w = optax.apply_updates(w, updates)
        found.append(w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *found)


def test_a_second_gradient_is_seen():
    costs = {}
    for name in ("Lion", "sharpness_aware"):
        choice, problems = read_optimizer({"name": f"docs/examples/my_optimizer.py:{name}", "learning_rate": 0.1})
        assert not problems
        costs[name] = choice.options.one_gradient
    assert costs == {"Lion": True, "sharpness_aware": False}


def test_sharpness_aware_step():
    """f = h w^2 / 2: the gradient at w (1 + radius / |w|)."""
    h, w = 3.0, jnp.array([2.0])
    optimizer = build("sharpness_aware", learning_rate=0.1, radius=0.5)
    update, _ = optimizer.update(h * w, optimizer.init(w), w, value_fn=lambda w: h * jnp.sum(w**2) / 2)
    assert float(update[0]) == pytest.approx(-0.1 * h * 2.5, rel=1e-5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["Lion", "sharpness_aware"])
def test_they_train_in_the_loop(name, toys):
    fitted = fit(
        toys.classification(), build(name, learning_rate=0.03), steps=30, replicas=2, key=jax.random.key(0), reports=3,
        placement=Placement(devices=1),
    )  # fmt: skip
    assert fitted.programs == 1
    first, *_, last = (np.array(record["train/loss"]) for record in fitted.history[1:])
    assert (last < 0.9 * first).all()


@pytest.mark.extended
def test_the_page():
    page = (ROOT / "docs/extend/optimizer.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
