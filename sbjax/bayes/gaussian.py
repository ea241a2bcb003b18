"""Gaussians whose covariance is a diagonal plus a matrix of low rank, over the entries of a tree.

Mean mu, diagonal D and K factors V_k: covariance diag(D) + 1/K sum_k V_k V_k^T (Tomczak et al., "Efficient low rank
Gaussian variational inference for neural networks", NeurIPS 2020). Entries outside of a mask have no noise and are no
part of the Gaussian.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from sbjax import trees


def kl(
    mean: PyTree,
    variance: PyTree,
    factors: PyTree,
    *,
    prior_variance: float,
    mask: PyTree = None,
) -> Float[Array, ""]:
    """Divergence KL(q | p) of q = N(mu, diag(D) + V^T V / K) from p = N(0, s^2 I), in closed form.

    1/2 [sum D / s^2 - sum log D + |V|^2 / (K s^2) - log det(I + V D^-1 V^T / K) + |mu|^2 / s^2 + d (log s^2 - 1)]

    with the sums over the d entries of all leaves that have noise; the determinant is of K x K matrices. An entry
    without noise has an infinite divergence, whatever its mean; it is left out here, so that what is trained sees the
    finite rest.

    Args:
        mean: mu, a tree of arrays.
        variance: D, a tree of arrays or numbers of the same structure, > 0 where there is noise.
        factors: V, the same structure, leaves [K, *leaf]; K = 0 is a diagonal Gaussian.
        prior_variance: s^2.
        mask: True where an entry has noise, the same structure; leaves or the whole may be None, which is True.

    Raises:
        ValueError: prior_variance <= 0, or factors of different K.

    >>> leaf = {'w': jnp.zeros(3)}
    >>> float(kl(leaf, {'w': 1.0}, {'w': jnp.zeros((2, 3))}, prior_variance=1.0))
    0.0
    """
    if prior_variance <= 0:
        raise ValueError(f"prior_variance={prior_variance} must be > 0")
    names = jax.tree.structure(mean)
    means, spreads, columns = (names.flatten_up_to(tree) for tree in (mean, variance, factors))
    masks = [None] * len(means) if mask is None else names.flatten_up_to(mask)
    ranks = {len(column) for column in columns}
    if len(ranks) != 1:
        raise ValueError(f"factors have {sorted(ranks)} rows; give as many in all leaves")
    rank = ranks.pop()
    total, gram = 0.0, jnp.eye(rank, dtype=trees.promoted(jnp.result_type(float), *means, *spreads, *columns))
    for mu, spread, v, kept in zip(means, spreads, columns, masks, strict=True):
        kept = jnp.ones_like(mu) if kept is None else kept.astype(mu.dtype)
        spread = jnp.broadcast_to(spread, mu.shape)
        v = v * kept[None]
        logs = jnp.log(spread / prior_variance)
        total += jnp.sum(kept * (spread / prior_variance - logs - 1 + mu**2 / prior_variance))
        if rank:
            total += jnp.sum(v**2) / (rank * prior_variance)
            rows = v.reshape(rank, -1)
            part = (rows / spread.reshape(1, -1)) @ rows.T / rank
            gram = gram + part.astype(gram.dtype)
    # By Cholesky: positive definite, and its gradient is cheaper than that of a general determinant.
    return 0.5 * (total - (2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(gram))).sum() if rank else 0.0))


def draw(variance: PyTree, factors: PyTree, *, like: PyTree, mask: PyTree = None, key: Key[Array, ""]) -> PyTree:
    """One draw of N(0, diag(D) + V^T V / K), zero outside of the mask.

    Args:
        variance, factors, mask: as in `kl`.
        like: a tree of arrays that gives shapes and dtypes.
        key: random key.

    >>> draw({'w': 0.0}, {'w': jnp.zeros((1, 2))}, like={'w': jnp.ones(2)}, key=jax.random.key(0))['w'].tolist()
    [0.0, 0.0]
    """
    names = jax.tree.structure(like)
    leaves, spreads, columns = (names.flatten_up_to(tree) for tree in (like, variance, factors))
    masks = [None] * len(leaves) if mask is None else names.flatten_up_to(mask)
    rank = len(columns[0])
    shared_key, *keys = jax.random.split(key, len(leaves) + 1)
    shared = jax.random.normal(shared_key, (rank,), leaves[0].dtype)
    drawn = []
    for leaf, spread, v, kept, one in zip(leaves, spreads, columns, masks, keys, strict=True):
        noise = jnp.sqrt(spread) * jax.random.normal(one, leaf.shape, leaf.dtype)
        if rank:
            noise = noise + jnp.tensordot(shared, v, 1) / rank**0.5
        drawn.append(noise if kept is None else noise * kept.astype(noise.dtype))
    return names.unflatten(drawn)


def covariance(
    variance: Float[Array, " d"], factors: Float[Array, "rank d"], *, mask: Bool[Array, " d"] | None = None
) -> Float[Array, "d d"]:
    """diag(D) + V^T V / K as a matrix, for tests and small models; rows and columns outside of the mask are zero.

    >>> covariance(jnp.ones(2), jnp.array([[1.0, 2.0]])).tolist()
    [[2.0, 2.0], [2.0, 5.0]]
    """
    kept = jnp.ones_like(variance) if mask is None else mask.astype(variance.dtype)
    v = factors * kept[None]
    return jnp.diag(variance * kept) + v.T @ v / max(1, len(factors))
