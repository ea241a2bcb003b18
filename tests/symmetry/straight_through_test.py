"""Straight-through matching: what weight matching finds, and what only the loss can tell."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Move, Spec, permute
from sbjax.symmetry.straight_through import straight_through

SPEC = Spec({"h": 6}, {"h": (Move("in", 1), Move("bias", 0), Move("out", 0))}, {})
KEY = jax.random.key(0)
X = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)


def draw(rng):
    shapes = {"in": (3, 6), "bias": (6,), "out": (6, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def apply(params, x):
    return jax.nn.relu(x @ params["in"] + params["bias"][None]) @ params["out"]


def loss_fn(params, batch):
    x, y = batch
    return jnp.mean((apply(params, x) - y) ** 2)


BATCH = (X, np.float32(np.sin(X[:, :2])))
LOSS = jax.jit(lambda tree: loss_fn(tree, BATCH))


def test_planted():
    rng = np.random.default_rng(0)
    a = draw(rng)
    b = permute(SPEC, a, {"h": rng.permutation(6)})
    learned = straight_through(SPEC, a, b, loss_fn, [(X, apply(a, X))], key=KEY)
    assert learned.loss == pytest.approx(0, abs=1e-10)
    for name, leaf in permute(SPEC, b, learned.permutations).items():
        np.testing.assert_array_equal(leaf, a[name])


def test_the_loss_decides():
    """Of two unrelated networks: the first step is weight matching, and steps on the loss find better."""
    better = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        a, b = draw(rng), draw(rng)
        learned = straight_through(
            SPEC, a, b, loss_fn, [BATCH] * 40, key=KEY, optimizer=optax.sgd(0.02, momentum=0.9), validate=LOSS
        )
        weights = match_weights(SPEC, a, b, key=KEY).permutations
        middle = lambda p: jax.tree.map(lambda x, y: (x + y) / 2, a, permute(SPEC, b, p))  # noqa: E731, B023
        assert learned.history[0] == pytest.approx(float(LOSS(middle(weights))), rel=1e-5)
        assert learned.loss == pytest.approx(float(LOSS(middle(learned.permutations))), rel=1e-5)
        assert learned.loss == pytest.approx(min(learned.history), rel=1e-5)
        assert len(learned.history) == 40
        better.append(learned.loss / learned.history[0])
    assert np.mean(better) < 0.9


def test_without_validation_each_step_is_judged_by_its_own_loss():
    """The best step is neither the first nor the last; the loss of a step is that of the middle on its own batch."""
    rng = np.random.default_rng(0)
    a, b = draw(rng), draw(rng)
    batches = [(X[i::4], BATCH[1][i::4]) for i in range(4)] * 5
    learned = straight_through(SPEC, a, b, loss_fn, batches, key=KEY, optimizer=optax.sgd(0.02, momentum=0.9))
    best = int(np.argmin(learned.history))
    assert 0 < best < len(learned.history) - 1
    assert learned.loss == learned.history[best]
    middle = jax.tree.map(lambda x, y: (x + y) / 2, a, permute(SPEC, b, learned.permutations))
    assert learned.loss == pytest.approx(float(loss_fn(middle, batches[best])), rel=1e-5)


def test_errors():
    a = draw(np.random.default_rng(0))
    with pytest.raises(ValueError, match="batches is empty"):
        straight_through(SPEC, a, a, loss_fn, [], key=KEY)
    with pytest.raises(ValueError, match="the loss of step 0 is nan"):
        straight_through(SPEC, a, a, loss_fn, [(X * np.float32(np.nan), X[:, :2])], key=KEY)
