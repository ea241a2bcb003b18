"""Symmetry breaking in neural-network optimisation, in JAX and Flax.

What a notebook needs: expansions, Wasserstein and replica distances, permutation symmetries, barriers, all pure
functions of arrays and pytrees; and `load`, which takes a trained network home. Names are imported when they are first
used. Training is in `sbjax.training`, experiments are in `sbjax.experiments`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
HOME: str | None = None
"""Address of the sources; badges and citation name it once it is set."""

if TYPE_CHECKING:
    from sbjax.common.options import option
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
    from sbjax.runner.load import load
    from sbjax.symmetry.matching import match_weights
    from sbjax.symmetry.permutation import permute
    from sbjax.symmetry.spec import derive_spec

_PLACES = {
    "common.options": ("option",),
    "expansion.folding": ("fold",),
    "expansion.transform": (
        *("ImageExpansion", "SequenceExpansion", "VectorExpansion"),
        *("contract", "expand", "expanded_shape", "with_expansion"),
    ),
    "metrics.connectivity": ("barrier", "barriers"),
    "metrics.matched": ("matched_distance",),
    "metrics.replica": (
        *("function_distance", "marginal_distance", "neuron_cloud_distance", "replica_outputs", "unmatched_distance"),
    ),
    "metrics.wasserstein": ("pairwise_wasserstein", "wasserstein"),
    "runner.load": ("load",),
    "symmetry.matching": ("match_weights",),
    "symmetry.permutation": ("permute",),
    "symmetry.spec": ("derive_spec",),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

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
    "load",
    "marginal_distance",
    "match_weights",
    "matched_distance",
    "neuron_cloud_distance",
    "option",
    "pairwise_wasserstein",
    "permute",
    "replica_outputs",
    "unmatched_distance",
    "wasserstein",
    "with_expansion",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sbjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sbjax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
