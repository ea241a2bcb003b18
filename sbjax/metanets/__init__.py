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
from sbjax.metanets.maps import count_invariants, count_maps

__all__ = [
    "Block",
    "EquivariantLinear",
    "Layout",
    "count_invariants",
    "count_maps",
    "from_blocks",
    "invariants",
    "make_layout",
    "open_ends",
    "split_vector",
    "to_blocks",
    "vector",
]
