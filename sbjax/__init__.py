"""Symmetry breaking in neural-network optimisation, in JAX and Flax.

What a notebook needs: expansions and replica distances, all pure functions of arrays and pytrees. Training is
in `sbjax.training`, experiments in `sbjax.experiment`.
"""

from sbjax.expansion import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    contract,
    expand,
    expanded_shape,
    with_expansion,
)
from sbjax.folding import fold
from sbjax.metrics.replica import marginal_distance

__all__ = [
    "ImageExpansion",
    "SequenceExpansion",
    "VectorExpansion",
    "contract",
    "expand",
    "expanded_shape",
    "fold",
    "marginal_distance",
    "with_expansion",
]
