"""Matrix-free products with the Hessian and the Gauss-Newton matrix of a loss, for networks of any size.

A matrix is a function v -> A v of flat vectors in the order of `jax.flatten_util.ravel_pytree`. Batches are processed
one at a time, so memory is about twice that of a gradient on one batch. `sbjax.metrics.spectrum` computes eigenvalues,
traces and spectral densities from products; `sbjax.metrics.hessian` has dense matrices for small networks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from sbjax import trees

Product = Callable[[Float[Array, " n"]], Float[Array, " n"]]


def in_batches(data: PyTree, size: int) -> list[PyTree]:
    """Split a tree of arrays along the leading (example) axis into batches of `size`; the last may be smaller.

    Raises:
        ValueError: `size` < 1, or leaves that do not share the first axis.

    >>> import jax.numpy as jnp
    >>> [len(batch['x']) for batch in in_batches({'x': jnp.zeros((5, 2)), 'y': jnp.zeros(5)}, 2)]
    [2, 2, 1]
    """
    counts = {len(leaf) for leaf in jax.tree.leaves(data)}
    if size < 1 or len(counts) != 1:
        raise ValueError(f"size={size} must be >= 1, and the leaves of data must have one length, not {sorted(counts)}")
    return [trees.take(data, slice(first, first + size)) for first in range(0, counts.pop(), size)]


def task_loss(task: Any, variables: dict[str, PyTree], *, key: Key[Array, ""]) -> Callable[[PyTree, PyTree], Array]:
    """The training loss of a task as a function (params, batch) -> scalar, for the products of this module.

    `key` fixes dropout and other noise. Batch normalisation uses the statistics of each batch, as in training, so the
    mean over batches depends on the batch size.

    Args:
        task: an `sbjax.tasks.task.Task`, or any object with `loss(variables, batch, key) -> (value, aux)`.
        variables: collections other than 'params' are treated as constants.
        key: random key of the loss.
    """
    return lambda params, batch: task.loss({**variables, "params": params}, batch, key)[0]


def hessian_product(
    loss_fn: Callable[[PyTree, PyTree], Float[Array, ""]], params: PyTree, batches: Sequence[PyTree]
) -> Product:
    """v -> H v with H the Hessian of the mean loss over all examples, forward over reverse.

    Args:
        loss_fn: (params, batch) -> mean loss of the batch.
        params: tree of floats, n in all.
        batches: trees of arrays with a leading example axis; weighted by their number of examples.

    Returns:
        A function of vectors [n], compiled once per batch shape.

    Raises:
        ValueError: no batches, or a batch without examples.

    >>> import jax.numpy as jnp
    >>> product = hessian_product(lambda w, x: jnp.mean((x @ w) ** 2), jnp.zeros(2), [jnp.eye(2), jnp.ones((2, 2))])
    >>> product(jnp.array([1.0, 0.0])).tolist()
    [1.5, 1.0]

    Source: Pearlmutter 1994, Neural Computation 6(1).
    """
    return _over_batches(compiled_hessian_product(loss_fn, params), ravel_pytree(params)[0], batches)


def compiled_hessian_product(
    loss_fn: Callable[[PyTree, PyTree], Float[Array, ""]], like: PyTree
) -> Callable[[Float[Array, " n"], Float[Array, " n"], PyTree], Float[Array, " n"]]:
    """(w, v, batch) -> H(w) v of one batch, compiled once for all parameters w of a kind.

    Args:
        loss_fn: as in `hessian_product`; a batch may be any tree.
        like: parameters of this kind; w and v are flat, in their order.

    >>> import jax.numpy as jnp
    >>> product = compiled_hessian_product(lambda w, scale: scale * jnp.sum(w**4), jnp.zeros(2))
    >>> product(jnp.array([1.0, 2.0]), jnp.ones(2), 0.5).tolist()
    [6.0, 24.0]
    """
    unravel = ravel_pytree(like)[1]

    @jax.jit
    def product(w, v, batch):
        return jax.jvp(jax.grad(lambda w: loss_fn(unravel(w), batch)), (w,), (v,))[1]

    return product


def gauss_newton_product(
    outputs_fn: Callable[[PyTree, PyTree], Array],
    loss_fn: Callable[[Array, PyTree], Float[Array, ""]],
    params: PyTree,
    batches: Sequence[PyTree],
) -> Product:
    """v -> G v with the Gauss-Newton matrix G = mean J^T L'' J, J = d outputs / dw.

    Positive semidefinite for losses that are convex in the outputs; equal to the Fisher matrix for cross-entropy.

    Args:
        outputs_fn: (params, batch) -> outputs of any shape.
        loss_fn: (outputs, batch) -> mean loss of the batch.
        params: tree of floats, n in all.
        batches: as in `hessian_product`.

    Returns:
        A function of vectors [n], compiled once per batch shape.

    Raises:
        ValueError: as `hessian_product`.

    >>> import jax.numpy as jnp
    >>> product = gauss_newton_product(lambda w, x: x * w[0] * w[1], lambda f, x: jnp.mean(f**2), jnp.array([1.0, 2.0]),
    ...                                [jnp.ones(3)])
    >>> product(jnp.array([1.0, 0.0])).tolist()
    [8.0, 4.0]

    Source: Schraudolph 2002, Neural Computation 14(7).
    """
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def product(w, v, batch):
        outputs, push = jax.linearize(lambda w: outputs_fn(unravel(w), batch), w)
        bent = jax.jvp(jax.grad(lambda f: loss_fn(f, batch)), (outputs,), (push(v),))[1]
        return jax.linear_transpose(push, w)(bent)[0]

    return _over_batches(product, flat, batches)


def _over_batches(product, flat, batches) -> Product:
    counts = [len(jax.tree.leaves(batch)[0]) for batch in batches]
    if not counts or not min(counts):
        raise ValueError(f"batches have {counts} examples: give at least one batch, and none without examples")
    shares = [count / sum(counts) for count in counts]

    def multiply(v):
        total = shares[0] * product(flat, v, batches[0])
        for share, batch in zip(shares[1:], batches[1:]):
            total = total + share * product(flat, v, batch)
        return total

    return multiply
