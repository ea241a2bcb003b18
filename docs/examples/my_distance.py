"""A replica distance of your own: 1 - cosine of the angle between the weights of two replicas."""

import jax
import jax.numpy as jnp


def cosine(params):
    """Mean over all pairs of replicas; every leaf of `params` is [replica, ..]."""
    rows = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(params)], 1)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    i, j = jnp.triu_indices(len(rows), 1)
    return (1 - (rows @ rows.T)[i, j]).mean()
