"""What optimisers see of an asymmetric network: its trained entries, and the function with the frozen ones in place."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.asymmetry import effective
from sbjax.asymmetry.weights import hold, release
from sbjax.optimizers import GaussNewton, Lbfgs, Sgd
from sbjax.tasks.full_batch import full_batch_task
from sbjax.tasks.task import Aux
from sbjax.training import step as step_lib

KEY = jax.random.key(0)
MASK = np.array([[True, False, True], [False, True, True]])
FIXED = np.where(MASK, 0.0, [[0.0, 0.7, 0.0], [-1.2, 0.0, 0.0]])
START = {"w": MASK * np.arange(1.0, 7.0).reshape(2, 3) / 5, "b": np.array([0.3, -0.2])}


def residuals(params):
    """[6], of eight numbers of which two are frozen; not linear."""
    x = jnp.linspace(0.1, 1.0, 6)[:, None] ** jnp.arange(1, 4)
    return jnp.tanh(x @ params["w"].T) @ params["b"] + params["b"][0] ** 2 - jnp.cos(3 * x[:, 0])


@pytest.mark.parametrize(
    "optimizer",
    [
        Sgd(weight_decay=0.1).make(0.05),
        # Looks at the norm of each array of parameters.
        optax.with_extra_args_support(optax.chain(optax.scale_by_trust_ratio(), optax.scale(-0.05))),
        Lbfgs().make(),
        GaussNewton().make(),
    ],
    ids=["sgd", "trust_ratio", "lbfgs", "gauss_newton"],
)
def test_steps_are_those_of_the_trained_entries_alone(optimizer, x64):
    """The same optimiser on the trained entries as a tree of their own goes the same way, whether F + D * W is made at
    every step or held."""
    made = {"fixed": {"w": jnp.asarray(FIXED)}, "trainable": {"w": jnp.asarray(MASK)}}
    variables = {"params": jax.tree.map(jnp.asarray, START), "frozen": {"asymmetry": made}}
    task = full_batch_task(
        data={},
        init=lambda key: variables,
        sample=lambda data, key, step: {},
        loss=lambda variables, batch, key: (jnp.sum(residuals(effective(variables)) ** 2), Aux({}, {})),
        residuals=lambda variables, batch, key: residuals(effective(variables)),
        evaluate=None,
        primary="test/loss",
        selection="test/loss",
    )
    state = step_lib.init_state(task, optimizer, KEY, 0)
    states = [state, state._replace(variables=hold(state.variables))]
    step = step_lib.make_step(task, optimizer)

    def whole(free):
        """With the trained entries of w in a column, which weight decay knows as a kernel."""
        return {"w": jnp.asarray(FIXED).at[np.nonzero(MASK)].set(free["w"][:, 0]), "b": free["b"]}

    def reference(free, state):
        def loss(free):
            return jnp.sum(residuals(whole(free)) ** 2)

        value, grads = jax.value_and_grad(loss)(free)
        extra = {"value": value, "grad": grads, "value_fn": loss, "residual_fn": lambda free: residuals(whole(free))}
        updates, state = optimizer.update(grads, state, free, **extra)
        return optax.apply_updates(free, updates), state

    free = {"w": jnp.asarray(START["w"][MASK])[:, None], "b": jnp.asarray(START["b"])}
    memory = optimizer.init(free)
    all_three = jax.jit(lambda states, own, i: ([step({}, KEY, state, i) for state in states], reference(*own)))
    for i in range(4):
        states, (free, memory) = all_three(states, (free, memory), i)
        for state in states:
            now = release(state.variables, variables["frozen"])
            np.testing.assert_allclose(effective(now)["w"], whole(free)["w"], rtol=1e-8)
            np.testing.assert_allclose(now["params"]["b"], free["b"], rtol=1e-8)
            assert not np.asarray(now["params"]["w"])[~MASK].any()
            assert int(state.failed_step) == -1
    assert np.abs(free["b"] - START["b"]).max() > 0.01
