"""FiGLU, the activation of sigma-asymmetric networks (Lim et al., arXiv 2405.20231)."""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Array, Float

from sbjax.asymmetry import draws


@dataclasses.dataclass(frozen=True)
class Gate:
    """Specification of FiGLU's frozen mixing matrix; models accept it in place of the name of an activation.

    Attributes:
        scale: standard deviation of the entries; None = 1 / sqrt(d), the authors' choice for convolutions. (For the MLP
            they use 1, which makes gates nearly binary for normalised inputs.)
        seed: together with the name of the layer it determines the matrix.

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
        """The matrix [in, out] of layer `name`, float64, with i.i.d. normal entries: it has no permutation symmetry."""
        scale = 1 / math.sqrt(width) if self.scale is None else self.scale
        return scale * draws.generator(self.seed, f"{name}/mixing").standard_normal((width, width))


def figlu(x: Float[Array, "*batch d"], mixing: Float[Array, "d d"]) -> Float[Array, "*batch d"]:
    """sigmoid(F x) x with F[i, j] = mixing[j, i]; on images F is a 1x1 convolution.

    Args:
        x: [..., d].
        mixing: [d, d], input axis first, as in a dense kernel.

    >>> import jax.numpy as jnp
    >>> figlu(jnp.array([2.0, 4.0]), jnp.zeros((2, 2))).tolist()
    [1.0, 2.0]
    """
    return jax.nn.sigmoid(x @ mixing) * x
