"""What a network says of a colour, and what it costs: a and b themselves, or one of several classes of colour."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax.data.colour_space import AB_SCALE
from sbjax.data.colours import BIN, ColourStatistics, classes_of_colour

LOSSES = ("l2", "l1", "bins")
SPREAD = BIN / 2
"""Standard deviation of a soft target, in units of a and b."""


@runtime_checkable
class ColourLoss(Protocol):
    """How outputs of a network are read.

    Attributes:
        outputs: how many a pixel has.
    """

    @property
    def outputs(self) -> int: ...

    def loss(self, found: Float[Array, "*batch outputs"], ab: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """The loss of each pixel."""
        ...

    def ab(self, found: Float[Array, "*batch outputs"]) -> Float[Array, "*batch 2"]:
        """The predicted a and b of each pixel."""
        ...


class Distance(NamedTuple):
    """Outputs o are a and b in units of 110; the mean over both of (o - ab / 110)^2, or of |o - ab / 110|.

    Attributes:
        power: 2 or 1.

    >>> round(float(Distance(1).loss(jnp.zeros(2), jnp.array([110.0, -55.0]))), 5)
    0.75
    """

    power: int

    @property
    def outputs(self) -> int:
        return 2

    def loss(self, found, ab):
        error = found - ab / AB_SCALE
        return jnp.mean(error**2 if self.power == 2 else jnp.abs(error), axis=-1)

    def ab(self, found):
        return AB_SCALE * found


class Classes(NamedTuple):
    """Cross-entropy against soft targets over classes of colour with centres c_q, rare classes weighing more.

    Targets are softmax_q(-|ab - c_q|^2 / (2 * 5^2)). The loss of a pixel whose nearest class is q is multiplied by
    w_q ~ 1 / ((1 - mixture) p_q + mixture / Q), with p_q the share of class q among the training pixels and
    sum_q p_q w_q = 1. The prediction is the annealed mean sum_q c_q softmax_q(logits / temperature).

    Attributes:
        centres: [Q, 2].
        weights: [Q].
        temperature: 1 = the mean colour, towards 0 = the likeliest one.

    Source: Zhang, Isola and Efros, arXiv 1603.08511, eq. 2 to 5; they have targets over five classes and smooth p.
    """

    centres: np.ndarray
    weights: np.ndarray
    temperature: float

    @property
    def outputs(self) -> int:
        return len(self.centres)

    def _nearness(self, ab):
        """-|ab - c|^2 / 2 but for a term that does not depend on the class."""
        centres = jnp.asarray(self.centres, ab.dtype)
        return ab @ centres.T - (centres**2).sum(-1) / 2

    def loss(self, found, ab):
        nearness = self._nearness(ab)
        targets = jax.nn.softmax(nearness / SPREAD**2)
        weight = jnp.asarray(self.weights, found.dtype)[nearness.argmax(-1)]
        return weight * (jax.nn.logsumexp(found, axis=-1) - (targets * found).sum(-1))

    def ab(self, found):
        return jax.nn.softmax(found / self.temperature) @ jnp.asarray(self.centres, found.dtype)


def make_colour_loss(
    name: str, statistics: ColourStatistics, *, mixture: float = 0.5, temperature: float = 0.38
) -> ColourLoss:
    """A loss by name.

    Args:
        name: 'l2', 'l1' or 'bins'.
        statistics: of the training images.
        mixture: of 'bins', in (0, 1]: the share of the uniform distribution in what rare classes are told by; 1 weighs
            all alike.
        temperature: of 'bins', > 0.

    Raises:
        ValueError: another name, or numbers out of range.

    >>> stats = ColourStatistics(0.5, 0.2, np.zeros(2), np.zeros((21, 2)), np.full(261, 1 / 261))
    >>> make_colour_loss('l2', stats).outputs, make_colour_loss('bins', stats).outputs
    (2, 261)
    """
    if name not in LOSSES:
        raise ValueError(f"loss={name!r} must be one of {', '.join(LOSSES)}")
    if not 0 < mixture <= 1:
        raise ValueError(f"mixture={mixture} must lie in (0, 1]; at 0 a colour that was not met would weigh infinitely")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be > 0")
    if name != "bins":
        return Distance(2 if name == "l2" else 1)
    centres = classes_of_colour()
    weights = 1 / ((1 - mixture) * statistics.shares + mixture / len(centres))
    return Classes(centres, weights / (weights * statistics.shares).sum(), temperature)
