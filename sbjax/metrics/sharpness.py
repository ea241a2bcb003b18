"""Sharpness, the largest eigenvalue of the Hessian of a training loss, within a fixed number of Hessian products.

Lanczos' method from one start: its largest Ritz value is a lower bound of the eigenvalue, grows with the number of
products, and is exact once they are as many as there are parameters. The same start and the same batches for all
networks make numbers comparable. Steps run on the host around one compiled product, see `sbjax.metrics.spectrum`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng, trees
from sbjax.metrics import spectrum
from sbjax.metrics.curvature import compiled_hessian_product
from sbjax.metrics.hessian import MAX_BYTES


def make_sharpness(
    loss_fn: Callable[[PyTree, Any], Float[Array, ""]],
    batches: Callable[[], Sequence[Any]],
    shapes: PyTree,
    *,
    key: Key[Array, ""],
    products: int = 16,
) -> Callable[[PyTree], Float[np.ndarray, "replica"]]:
    """A function of stacked variables that gives the sharpness of every replica.

    Args:
        loss_fn: `(variables, batch) -> mean loss`, a function of a network's {'params': .., ..}.
        batches: called once, when first needed: batches of equal size, whose mean loss is looked at.
        shapes: of one replica's variables, as from `jax.eval_shape`.
        key: of the start vector.
        products: Hessian products of all batches for each replica.

    Returns:
        Stacked variables -> sharpness [replica], float64; NaN where a product is not finite.

    Raises:
        ValueError: products < 2, no parameters, a loss that cannot be differentiated twice, or vectors that take more
            than 2 GiB; when called, no batches, or variables that are not of these shapes with a replica axis.

    >>> variables = {'params': {'w': jnp.zeros((), jnp.float32), 'b': jnp.zeros(2, jnp.float32)}}
    >>> loss = lambda variables, x: x * variables['params']['w'] ** 2 + jnp.sum(variables['params']['b'] ** 2)
    >>> measure = make_sharpness(loss, lambda: [1.0, 5.0], variables, key=jax.random.key(0))
    >>> measure(trees.stack([variables, variables])).round(4).tolist()  # twice the mean of 1 and 5
    [6.0, 6.0]
    """
    if products < 2 or products != int(products):
        raise ValueError(f"products={products} must be >= 2 and a whole number")
    if "params" not in shapes:
        raise ValueError(f"shapes have {', '.join(shapes) or 'nothing'} and no 'params': give those of variables")
    like = jax.eval_shape(lambda params: ravel_pytree(params)[0], shapes["params"])
    if not like.size:
        raise ValueError("there are no parameters, and so no Hessian of a loss")
    products = min(products, like.size)
    if (need := products * like.size * like.dtype.itemsize) > MAX_BYTES:
        raise ValueError(
            f"products={products} keep as many vectors of {like.size:,} parameters, {need / 2**30:.1f} GiB, more than "
            f"{MAX_BYTES / 2**30:.1f} GiB; lower products"
        )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["params"])
    product = compiled_hessian_product(
        lambda params, around: loss_fn({**around[0], "params": params}, around[1]), zeros
    )
    start = jax.random.normal(rng.stream(key, "sharpness"), like.shape, like.dtype)
    found: list[Any] = []  # the batches, once they were asked for

    def of_one(variables):
        flat = ravel_pytree(variables["params"])[0]
        rest = {name: tree for name, tree in variables.items() if name != "params"}

        def multiply(v):
            return sum(product(flat, v, (rest, batch)) for batch in found) / len(found)

        try:
            diagonal, off_diagonal = spectrum.tridiagonalise(multiply, start, products)
        except ValueError:  # a network on its way to divergence must not stop a run
            return np.nan
        return scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal, eigvals_only=True)[-1]

    def measure(stacked):
        if not found:
            found.extend(batches())
        if not found:
            raise ValueError("batches() gives none: there is no loss to look at")
        for name, one in trees.flatten(shapes).items():
            shape = np.shape(trees.flatten(stacked).get(name))
            if not shape or shape[1:] != np.shape(one):
                raise ValueError(f"leaf {name!r} has shape {shape}: give replicas of {np.shape(one)} each")
        return np.array([of_one(trees.take(stacked, i)) for i in range(len(jax.tree.leaves(stacked)[0]))], np.float64)

    return measure


def check_twice_differentiable(
    loss_fn: Callable[[PyTree, Any], Float[Array, ""]], shapes: PyTree, batch: PyTree
) -> None:
    """Trace a Hessian product without computing it.

    Args:
        loss_fn: as in `make_sharpness`.
        shapes: of one replica's variables.
        batch: arrays or shapes.

    Raises:
        ValueError: it cannot be traced.
    """

    def product(variables, batch):
        def loss(params):
            return loss_fn({**variables, "params": params}, batch)

        params = variables["params"]
        return jax.jvp(jax.grad(loss), (params,), (params,))[1]

    try:
        jax.eval_shape(product, shapes, batch)
    except Exception as error:  # whatever a user's loss may raise
        raise ValueError(f"the loss cannot be differentiated twice ({type(error).__name__}: {error})") from error
