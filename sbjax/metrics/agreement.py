"""How well predictions of numbers agree with them: the share of explained variance, and Kendall's tau."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ROWS = 256  # of the table of pairs that are looked at together


def explained(truth: Float[Array, " n"], predicted: Float[Array, " n"]) -> Float[Array, ""]:
    """R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2; negative where the mean does better.

    >>> float(explained(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 2.0])))
    0.5
    """
    return 1 - jnp.sum((truth - predicted) ** 2) / jnp.sum((truth - truth.mean()) ** 2)


def kendall_tau(truth: Float[Array, " n"], predicted: Float[Array, " n"]) -> Float[Array, ""]:
    """Kendall's tau-b: pairs in the same order minus pairs in the other order, over all, corrected for ties.

    0 where one of the two does not vary, for which tau-b is not defined. Works under `jit` and `vmap`; time n^2, memory
    n times `ROWS`. The same as `scipy.stats.kendalltau`.

    >>> round(float(kendall_tau(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([1.0, 2.0, 4.0, 3.0]))), 4)
    0.6667
    """

    def row(pair):
        a, b = jnp.sign(truth - pair[0]), jnp.sign(predicted - pair[1])
        return jnp.stack([jnp.sum(a * b), jnp.sum(a * a), jnp.sum(b * b)])

    agree, first, second = jax.lax.map(row, (truth, predicted), batch_size=ROWS).sum(0)
    varied = (first > 0) & (second > 0)
    return jnp.where(varied, agree / jnp.sqrt(jnp.where(varied, first * second, 1.0)), 0.0)
