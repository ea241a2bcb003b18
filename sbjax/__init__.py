"""Symmetry breaking in neural-network optimisation, in JAX and Flax.

What a notebook needs: expansions, Wasserstein and replica distances, permutation symmetries, barriers, all pure
functions of arrays and pytrees.
Training is in `sbjax.training`, experiments in `sbjax.runner.run`.
"""

from sbjax.expansion.folding import fold
from sbjax.expansion.transform import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    contract,
    expand,
    expanded_shape,
    with_expansion,
)
from sbjax.metrics.connectivity import barrier, barriers
from sbjax.metrics.matched import matched_distance
from sbjax.metrics.replica import (
    function_distance,
    marginal_distance,
    neuron_cloud_distance,
    replica_outputs,
    unmatched_distance,
)
from sbjax.metrics.wasserstein import pairwise_wasserstein, wasserstein
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import permute
from sbjax.symmetry.spec import derive_spec

__all__ = [
    "ImageExpansion",
    "SequenceExpansion",
    "VectorExpansion",
    "barrier",
    "barriers",
    "contract",
    "derive_spec",
    "expand",
    "expanded_shape",
    "fold",
    "function_distance",
    "marginal_distance",
    "match_weights",
    "matched_distance",
    "neuron_cloud_distance",
    "pairwise_wasserstein",
    "permute",
    "replica_outputs",
    "unmatched_distance",
    "wasserstein",
    "with_expansion",
]
