"""FiGLU, the activation of sigma-asymmetric networks (Lim et al., arXiv 2405.20231)."""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Array, Float

from sbjax.asymmetry import draws


@dataclasses.dataclass(frozen=True)
class Gate:
    """How the frozen mixing matrix of FiGLU is drawn; stands in the place of an activation's name in a model.

    Attributes:
        scale: standard deviation of its entries; None = 1 / sqrt(d), the authors' choice for convolutions (for the MLP
            they take 1: with normalised inputs the gates are then nearly binary).
        seed: with the layer's name it fixes the matrix.

    Raises:
        ValueError: naming the field.

    >>> Gate().matrix('act_0', 3).shape
    (3, 3)
    """

    scale: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.scale is not None:
            draws.check_number("gate.scale", self.scale, positive=True)
        draws.check_seed("gate.seed", self.seed)

    def matrix(self, name: str, width: int) -> Float[np.ndarray, "d d"]:
        """The matrix [in, out] of the layer `name`, float64: independent normal entries, so it has no symmetry."""
        scale = 1 / math.sqrt(width) if self.scale is None else self.scale
        return scale * draws.generator(self.seed, f"{name}/mixing").standard_normal((width, width))


def figlu(x: Float[Array, "*batch d"], mixing: Float[Array, "d d"]) -> Float[Array, "*batch d"]:
    """sigmoid(F x) x with F[i, j] = mixing[j, i]; on images that is a 1x1 convolution.

    Args:
        x: [..., d].
        mixing: [d, d], input axis first, as in a dense kernel.

    >>> import jax.numpy as jnp
    >>> figlu(jnp.array([2.0, 4.0]), jnp.zeros((2, 2))).tolist()
    [1.0, 2.0]
    """
    return jax.nn.sigmoid(x @ mixing) * x
