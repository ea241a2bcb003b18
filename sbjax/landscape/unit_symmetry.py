"""What mirroring or scaling the incoming vector of one unit does, by the symmetry of its activation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Loaded by its first use.
import scipy
from jaxtyping import Float

from sbjax.landscape.layered import Activation, activation_symmetry


class Form(NamedTuple):
    """s(-z) = flip s(z) + offset - slope z, and s(c z) = c s(z) for c > 0 if `scales`.

    So a s(-w.x) is a unit at w with the outgoing vector flip a, a constant offset a and a linear function -slope a w.x.

    Attributes:
        symmetry: its name, see `layered.activation_symmetry`.
        flip: 1 or -1; 0 where units at w and -w are not equivalent.
        offset, slope: of the difference of the two.
        scales: whether only the direction of w matters.
    """

    symmetry: str | None
    flip: int
    offset: float
    slope: float
    scales: bool

    def folded(self, cosines: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Cosines of directions, without sign where units at w and -w are equivalent."""
        return np.abs(cosines) if self.flip else cosines

    def distances(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " pair"]:
        """|v - w|, or the smaller of |v - w| and |v + w|, for all pairs in scipy's order."""
        apart = scipy.spatial.distance.pdist(rows)
        if self.flip:
            mirrored = scipy.spatial.distance.cdist(rows, -rows)[np.triu_indices(len(rows), 1)]
            apart = np.minimum(apart, mirrored)
        return apart

    def signs(self, rows: Float[np.ndarray, "n d"], reference: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """-1 for rows that are to be mirrored to point as `reference` does, else 1."""
        return np.where((rows @ reference < 0) & bool(self.flip), -1.0, 1.0)

    def normalised(self, rows, outgoing):
        """Rows of norm 1 and outgoing vectors times the norm where the activation scales; else both as they are."""
        if not self.scales:
            return rows, outgoing
        norms = np.linalg.norm(rows, axis=-1, keepdims=True)
        return rows / np.maximum(norms, np.finfo(float).tiny), outgoing * norms

    def mirrored(self, outgoing: Float[np.ndarray, "n out"], signs: Float[np.ndarray, " n"]):
        """Outgoing vectors of units after mirroring those of sign -1."""
        return np.where(signs[:, None] < 0, self.flip, 1) * outgoing

    def constant(self, outgoing: Float[np.ndarray, "n out"], signs: Float[np.ndarray, " n"]):
        """What mirroring them leaves as a constant."""
        return np.where(signs[:, None] < 0, self.offset, 0.0) * outgoing


def form_of(activation: Activation) -> Form:
    """The form of an activation.

    Raises:
        ValueError: an affine one, with which units have no vectors of their own.

    >>> form_of(jnp.tanh)
    Form(symmetry='odd', flip=-1, offset=0.0, slope=0.0, scales=False)
    >>> form_of(jax.nn.relu)
    Form(symmetry='positively homogeneous', flip=1, offset=0.0, slope=1.0, scales=True)
    >>> form_of(jax.nn.sigmoid)[1:3], form_of(jax.nn.softplus)[1:4], form_of(jnp.exp).flip
    ((-1, 1.0), (1, 0.0, 1.0), 0)
    """
    symmetry = activation_symmetry(activation)
    if symmetry == "affine":
        raise ValueError("activation is affine: the units of such a network cannot be told apart; use another")
    with jax.enable_x64(True):
        minus, zero, plus = np.asarray(activation(jnp.asarray([-1.0, 0.0, 1.0])), float).tolist()
    flip = {None: 0, "odd": -1, "odd up to a constant": -1}.get(symmetry, 1)
    sloped = symmetry in ("even up to a linear function", "positively homogeneous")
    return Form(
        symmetry,
        flip,
        offset=2 * zero if symmetry == "odd up to a constant" else 0.0,
        slope=round(plus - minus, 12) if sloped else 0.0,
        scales=symmetry == "positively homogeneous",
    )
