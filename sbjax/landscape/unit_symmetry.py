"""Effect of flipping or rescaling the incoming vector of a unit, for each symmetry of the activation."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy  # subpackages are imported lazily
from jaxtyping import Float

from sbjax.common import devices
from sbjax.landscape.layered import Activation, activation_symmetry


class Form(NamedTuple):
    """Symmetry s(-z) = flip s(z) + offset - slope z of an activation; s(c z) = c s(z) for c > 0 if `scales`.

    Hence a s(-w.x) equals a unit at w with outgoing vector flip a, plus the constant offset a and the linear function
    -slope a w.x.

    Attributes:
        symmetry: name of the symmetry, see `layered.activation_symmetry`.
        flip: 1 or -1; 0 if units at w and -w are not equivalent.
        offset, slope: see the formula.
        scales: whether the activation is positively homogeneous, so that only the direction of w matters.
    """

    symmetry: str | None
    flip: int
    offset: float
    slope: float
    scales: bool

    def folded(self, cosines: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Cosines between directions; absolute values if units at w and -w are equivalent."""
        return np.abs(cosines) if self.flip else cosines

    def distances(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " pair"]:
        """Distances |v - w| of all pairs in scipy's condensed order; min(|v - w|, |v + w|) if signs are equivalent."""
        apart = scipy.spatial.distance.pdist(rows)
        if self.flip:
            mirrored = scipy.spatial.distance.cdist(rows, -rows)[np.triu_indices(len(rows), 1)]
            apart = np.minimum(apart, mirrored)
        return apart

    def signs(self, rows: Float[np.ndarray, "n d"], reference: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """-1 for rows that must be flipped to point in the direction of `reference`, otherwise 1."""
        return np.where((rows @ reference < 0) & bool(self.flip), -1.0, 1.0)

    def normalised(self, rows, outgoing):
        """Normalise rows and multiply outgoing vectors by the norm if `scales`; otherwise return both unchanged."""
        if not self.scales:
            return rows, outgoing
        norms = np.linalg.norm(rows, axis=-1, keepdims=True)
        return rows / np.maximum(norms, np.finfo(float).tiny), outgoing * norms

    def mirrored(self, outgoing: Float[np.ndarray, "n out"], signs: Float[np.ndarray, " n"]):
        """Outgoing vectors after flipping the units with sign -1."""
        return np.where(signs[:, None] < 0, self.flip, 1) * outgoing

    def constant(self, outgoing: Float[np.ndarray, "n out"], signs: Float[np.ndarray, " n"]):
        """Constant that results from flipping the units with sign -1."""
        return np.where(signs[:, None] < 0, self.offset, 0.0) * outgoing


def form_of(activation: Activation) -> Form:
    """Symmetry of an activation.

    Raises:
        ValueError: an affine activation, whose units cannot be identified.

    >>> import jax
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
    with devices.double():
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
