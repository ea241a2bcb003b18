"""Weight decay about a static bias (syre, Ziyin et al., arXiv 2408.15495).

syre minimises loss(theta + theta0) + gamma theta^T D theta with a frozen theta0 and trains theta. The shift alone
removes no symmetry (Prop. 1 there); the decay of theta, and not of theta + theta0, does. `AsymmetrySpec('syre')` makes
the shift. As theta is what an optimiser sees, any weight decay of it is the right one for D = 1; this module adds D.
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
    """A positive diagonal D by leaf, with distinct entries: exp(spread N - spread^2 / 2), of mean 1.

    Needed for continuous symmetries (rotations). The law of D is ours: the source fixes its spread only.

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

    Before an optimiser's own scaling in a chain this is the penalty weight_decay / 2 theta^T D theta (the source's
    gamma is half of weight_decay); between its scaling and its learning rate it is decoupled decay, as in AdamW.

    Args:
        weight_decay: >= 0.
        spread: of D; 0 is `optax.add_decayed_weights`.
        seed: of D, so that replicas share it.
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
