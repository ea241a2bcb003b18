"""Straight-through matching: learn permutations that minimise the loss at the midpoint of two networks."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Permutations, Spec, permute


class Learned(NamedTuple):
    """Learned permutations.

    Attributes:
        permutations: the ones with the smallest loss.
        loss: midpoint loss with these permutations.
        history: midpoint loss of every step on its own batch.
    """

    permutations: Permutations
    loss: float
    history: tuple[float, ...]


def straight_through(
    spec: Spec,
    reference: PyTree,
    model: PyTree,
    loss_fn: Callable[[PyTree, Any], Float[Array, ""]],
    batches: Iterable[Any],
    *,
    key: Key[Array, ""],
    optimizer: optax.GradientTransformation | None = None,
    validate: Callable[[PyTree], float] | None = None,
) -> Learned:
    """Permutations pi of `model` that minimise the loss at the midpoint (A + pi(B)) / 2.

    Auxiliary parameters T start at A. Each step matches B to T, pi = argmax <T, pi(B)>, starting from the previous
    permutations, and updates T with the gradient of the loss at (A + S) / 2, where S has the value pi(B) and the
    gradient of T. The permutations with the smallest loss are returned, according to `validate` or else to the batch of
    their step; losses on different small batches are not comparable, so give `validate` or use large batches.

    Args:
        spec: permutation spec.
        reference: A, trained parameters, all floating.
        model: B, trained parameters, all floating.
        loss_fn: `(tree, batch) -> loss`, differentiable; jitted here.
        batches: one batch per step, at least one.
        key: for the order of updates within a matching.
        optimizer: for T; None = SGD with learning rate 0.01 and momentum 0.9.
        validate: `(tree) -> loss` on held-out data, called whenever the permutations change.

    Raises:
        ValueError: no batch, a loss that is not finite, or as `match_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move, Spec
        >>> spec = Spec({'h': 2}, {'h': (Move('w', 0),)}, {})
        >>> a, b = {'w': jnp.array([1.0, 2.0])}, {'w': jnp.array([2.0, 1.0])}
        >>> loss = lambda tree, batch: jnp.sum((tree['w'] - a['w']) ** 2)
        >>> straight_through(spec, a, b, loss, [None], key=jax.random.key(0)).permutations['h'].tolist()
        [1, 0]

    Source: Git Re-Basin, arXiv 2209.04836, section 3.3.
    """
    optimizer = optax.sgd(0.01, momentum=0.9) if optimizer is None else optimizer

    def midpoint(a, b):
        return jax.tree.map(lambda x, y: (x + y) / 2, a, b)

    @jax.jit
    def step(free, state, permuted, batch):
        def loss(free):
            through = jax.tree.map(lambda t, b: t + jax.lax.stop_gradient(b - t), free, permuted)
            return loss_fn(midpoint(reference, through), batch)

        value, gradient = jax.value_and_grad(loss)(free)
        updates, state = optimizer.update(gradient, state, free)
        return optax.apply_updates(free, updates), state, value

    free, state = reference, optimizer.init(reference)
    permutations, best, history = None, (np.inf, None), []
    for number, batch in enumerate(batches):
        matched = match_weights(spec, free, model, key=jax.random.fold_in(key, number), start=permutations)
        new = permutations is None or any(
            not np.array_equal(permutations[name], matched.permutations[name]) for name in permutations
        )
        permutations = matched.permutations
        permuted = permute(spec, model, permutations)
        free, state, value = step(free, state, permuted, batch)
        history.append(float(value))
        if not np.isfinite(history[-1]):
            raise ValueError(f"the loss of step {number} is {history[-1]}; lower the learning rate of `optimizer`")
        if validate is None or new:
            judged = history[-1] if validate is None else float(validate(midpoint(reference, permuted)))
            best = min(best, (judged, permutations), key=lambda item: item[0])
    if not history:
        raise ValueError("batches is empty; give one batch per step")
    return Learned(best[1], best[0], tuple(history))
