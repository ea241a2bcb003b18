"""Networks that read the parameters of networks, built from permutation specs."""

from sbjax.metanets.blocks import (
    Block,
    Layout,
    from_blocks,
    make_layout,
    open_ends,
    split_vector,
    to_blocks,
    vector,
)
from sbjax.metanets.equivariant import EquivariantLinear, invariants
from sbjax.metanets.functional import Functional
from sbjax.metanets.graphs import NeuralGraph, NeuralGraphTransformer
from sbjax.metanets.maps import count_invariants, count_maps
from sbjax.metanets.reading import Reading, make_reading, permuted, statistics

__all__ = [
    "Block",
    "EquivariantLinear",
    "Functional",
    "Layout",
    "NeuralGraph",
    "NeuralGraphTransformer",
    "Reading",
    "count_invariants",
    "count_maps",
    "from_blocks",
    "invariants",
    "make_layout",
    "make_reading",
    "open_ends",
    "permuted",
    "split_vector",
    "statistics",
    "to_blocks",
    "vector",
]
