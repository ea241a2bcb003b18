"""Symmetry breaking in neural-network optimisation, in JAX and Flax.

What a notebook needs: expansions, Wasserstein and replica distances, all pure functions of arrays and pytrees.
Training is in `sbjax.training`, experiments in `sbjax.experiment`.
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
from sbjax.metrics.replica import (
    function_distance,
    marginal_distance,
    neuron_cloud_distance,
    replica_outputs,
    unmatched_distance,
)
from sbjax.metrics.wasserstein import pairwise_wasserstein, wasserstein

__all__ = [
    "ImageExpansion",
    "SequenceExpansion",
    "VectorExpansion",
    "contract",
    "expand",
    "expanded_shape",
    "fold",
    "function_distance",
    "marginal_distance",
    "neuron_cloud_distance",
    "pairwise_wasserstein",
    "replica_outputs",
    "unmatched_distance",
    "wasserstein",
    "with_expansion",
]
