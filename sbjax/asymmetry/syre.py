"""Weighted weight decay for syre (Ziyin et al., arXiv 2408.15495).

syre minimises loss(theta + theta0) + gamma theta^T D theta over theta with a frozen theta0. The shift alone removes no
symmetry (Prop. 1); decay of theta instead of theta + theta0 does. `AsymmetrySpec('syre')` implements the shift. Since
the optimiser sees theta, its own weight decay covers D = 1; this module provides a general diagonal D.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from sbjax.asymmetry import draws


class WeightedDecayState(NamedTuple):
    """The diagonal D, a tree like the parameters."""

    weights: PyTree


def decay_weights(params: PyTree, spread: float, seed: int = 0) -> PyTree:
    """A random positive diagonal D with mean 1, by leaf: exp(spread N - spread^2 / 2).

    Distinct entries are needed to break continuous symmetries (rotations). The log-normal distribution is our choice;
    the source specifies its spread only.

    >>> decay_weights({'w': jnp.ones(2)}, 0.0)['w'].tolist()
    [1.0, 1.0]
    """

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        noise = draws.generator(seed, f"{name}/decay").standard_normal(leaf.shape)
        return jnp.asarray(np.exp(spread * noise - spread**2 / 2).astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, params)


def weighted_decay(
    weight_decay: float, *, spread: float = 0.0, seed: int = 0, mask: PyTree | None = None
) -> optax.GradientTransformation:
    """Add weight_decay * D * theta to the updates, D = `decay_weights(params, spread, seed)`.

    Placed before the optimiser's scaling in a chain, this is the penalty weight_decay / 2 theta^T D theta (the source's
    gamma is weight_decay / 2); between scaling and learning rate it is decoupled decay, as in AdamW.

    Args:
        weight_decay: coefficient, >= 0.
        spread: spread of D; 0 gives `optax.add_decayed_weights`.
        seed: seed of D, shared by replicas.
        mask: as in `optax.masked`; None = all parameters.

    Raises:
        ValueError: a negative or infinite weight_decay or spread.

    >>> optimizer = optax.chain(weighted_decay(0.5), optax.sgd(1.0))
    >>> theta = {'w': jnp.array([2.0])}
    >>> optimizer.update({'w': jnp.zeros(1)}, optimizer.init(theta), theta)[0]['w'].tolist()
    [-1.0]
    """
    draws.check_number("weight_decay", weight_decay)
    draws.check_number("spread", spread)
    draws.check_seed("seed", seed)
    if spread == 0:
        return optax.add_decayed_weights(weight_decay, mask)

    def init(params):
        return WeightedDecayState(decay_weights(params, spread, seed))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weighted_decay needs the parameters: call update(updates, state, params)")
        decayed = jax.tree.map(lambda g, d, w: g + weight_decay * d * w, updates, state.weights, params)
        return decayed, state

    transformation = optax.GradientTransformation(init, update)
    return transformation if mask is None else optax.masked(transformation, mask)
