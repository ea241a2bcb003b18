"""Adaptive weights for the terms of a physics-informed loss."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sbjax.common.names import check_choice

BALANCES = ("fixed", "gradient_norm", "self_adaptive")
MEMORY = 0.9  # decay of the moving average in 'gradient_norm'
RATE = 1e-3  # step size of the ascent in 'self_adaptive'

Weights = dict[str, Float[Array, ""] | Float[Array, " n"]]


def check_balance(balance: str) -> None:
    """Check the name of a weighting scheme.

    Raises:
        ValueError: `balance` is not in `BALANCES`; the message suggests similar names.
    """
    check_choice(balance, BALANCES, what="balance")


def initial_weights(balance: str, sizes: Mapping[str, int], dtype: str) -> Weights:
    """Initial weights, all 1: {} for 'fixed', one scalar per term for 'gradient_norm', one per point for
    'self_adaptive'.

    Args:
        balance: a name of `BALANCES`.
        sizes: number of points of each term.
        dtype: of the weights.
    """
    if balance == "fixed":
        return {}
    return {name: jnp.ones(() if balance == "gradient_norm" else (size,), dtype) for name, size in sizes.items()}


def weighted(balance: str, weights: Weights, residuals: Mapping[str, Array]) -> dict[str, Float[Array, ""]]:
    """Weighted terms of the loss, {name: scalar}: w mean r^2, or mean (w r)^2 for 'self_adaptive'."""
    if balance == "fixed":
        return {name: jnp.mean(r**2) for name, r in residuals.items()}
    if balance == "gradient_norm":
        return {name: weights[name] * jnp.mean(r**2) for name, r in residuals.items()}
    return {name: jnp.mean((weights[name] * r) ** 2) for name, r in residuals.items()}


def by_gradient_norm(weights: Weights, terms: Callable[[PyTree], dict[str, Array]], params: PyTree) -> Weights:
    """w_i <- 0.9 w_i + 0.1 sum_j |g_j| / |g_i|, with g_i the gradient of the unweighted term i.

    A term whose gradient is zero keeps its weight. Source: Wang et al., arXiv 2308.08468, section 5.2.
    """
    gradients = jax.jacrev(terms)(params)
    norms = {
        name: jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))) for name, tree in gradients.items()
    }
    total = sum(norms.values())

    def moved(name):
        norm = norms[name]
        target = jnp.where(norm > 0, total / jnp.where(norm > 0, norm, 1), weights[name])
        return MEMORY * weights[name] + (1 - MEMORY) * target

    return {name: moved(name) for name in weights}


def by_ascent(weights: Weights, residuals: Mapping[str, Array]) -> Weights:
    """w <- w + rate w r^2 at every point: gradient ascent on sum (w r)^2 / 2.

    Source: McClenny and Braga-Neto, arXiv 2009.04544, with mask m(w) = w^2 and plain gradient ascent.
    """
    return {name: w + RATE * w * residuals[name] ** 2 for name, w in weights.items()}
