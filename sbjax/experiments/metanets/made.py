"""A small zoo that is made on the spot: perceptrons with one hidden layer on the embedded digits, for trials and tests.

Zoos for results are made by `configs/zoo.py` and read from their folder.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax.asymmetry.options import build_asymmetric
from sbjax.common.names import check_choice
from sbjax.data import images
from sbjax.data.zoo import Zoo
from sbjax.models import make_model

W = {"kind": "w", "masks": {"dense_*/kernel": {"n_fix": 4, "kappa": 0.5}}}
KINDS = {"standard": (12, {}), "w": (12, W), "small": (11, {}), "fixed": (12, {}), "w_fixed": (12, W)}
"""Units and asymmetry, named as the arms of `configs/zoo.py`."""
STEPS, BATCH = 150, 32
NETWORKS = 96


@functools.cache
def make_zoo(kind: str = "standard", *, networks: int = NETWORKS, seed: int = 0) -> Zoo:
    """Networks that are trained in one program, each with its own step size, weight decay and number of steps.

    Args:
        kind: of `KINDS`. Network i of all of them has the same hyper-parameters and batches; those of 'fixed' and
            'w_fixed' have the same ones for all networks.
        networks: how many.
        seed: of everything.

    Raises:
        ValueError: an unknown kind.
    """
    check_choice(kind, KINDS, what="a zoo that is made on the spot")
    width, asymmetry = KINDS[kind]
    model = {"name": "mlp", "widths": (width,), "norm": "none"}
    data, key = images.load("digits"), jax.random.key(seed)
    scale = lambda x: jnp.asarray((x / 255 - data.mean) / data.std, jnp.float32)  # noqa: E731
    train, test = scale(data.train_images), scale(data.test_images)
    labels, answers = jnp.asarray(data.train_labels), jnp.asarray(data.test_labels)
    module = build_asymmetric(make_model("mlp", classes=10, widths=(width,), norm="none"), asymmetry or None)
    rng = np.random.default_rng(seed)
    drawn: Mapping[str, np.ndarray] = {
        "learning_rate": (0.03 * 10.0 ** -rng.uniform(0, 2, networks)).astype(np.float32),
        "weight_decay": (10.0 ** -rng.uniform(1, 4, networks)).astype(np.float32),
        "steps": rng.integers(STEPS // 6, STEPS + 1, networks).astype(np.float32),
    }
    if kind.endswith("fixed"):
        drawn = {name: np.full_like(values, np.median(values)) for name, values in drawn.items()}
    adam = optax.scale_by_adam()

    def loss(params, rest, x, y):
        logits = module.apply({**rest, "params": params}, x, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def trained(key, drawn):
        variables = module.init(key, train[:1], train=False)
        params = variables["params"]
        rest = {name: tree for name, tree in variables.items() if name != "params"}

        def step(carry, number):
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(labels))
            gradient = jax.grad(loss)(params, rest, train[rows], labels[rows])
            updates, state = adam.update(gradient, state)
            rate = jnp.where(number < drawn["steps"], drawn["learning_rate"], 0.0)
            decayed = lambda p, u: p - rate * (u + drawn["weight_decay"] * p)  # noqa: E731
            return (jax.tree.map(decayed, params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), jnp.arange(STEPS))
        logits = module.apply({**rest, "params": params}, test, train=False)
        cross = optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()
        return params, rest, (logits.argmax(-1) == answers).mean(dtype=jnp.float32), cross

    params, rest, accuracy, cross = jax.jit(jax.vmap(trained))(jax.random.split(key, networks), dict(drawn))
    host = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
    frozen = jax.tree.map(lambda leaf: np.asarray(leaf[0]), dict(rest).get("frozen", {})).get("asymmetry", {})
    return Zoo(
        kind=kind,
        params=host(params),
        hyperparameters=dict(drawn),
        accuracy=np.asarray(accuracy)[:, None],
        loss=np.asarray(cross)[:, None],
        model=model,
        classes=10,
        input_shape=tuple(train.shape[1:]),
        asymmetry=asymmetry,
        masks=frozen.get("trainable"),
        constants=frozen.get("fixed"),
        index=np.arange(networks),
    )
