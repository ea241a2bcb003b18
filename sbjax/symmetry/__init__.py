"""Permutation symmetries of hidden units: derive them from a network, apply them, match networks up to them.

`sbjax.symmetry.straight_through` is imported on demand, since it needs optax.

Continuous symmetries of transformers: `attention_layout`, `attention`, `attention_fold`, `attention_matching`,
`attention_dimension`; of neural differential equations: `flows`.
"""

from sbjax.symmetry.activation_matching import match_activations, recorded
from sbjax.symmetry.matching import Frame, Matched, match_many, match_weights
from sbjax.symmetry.permutation import (
    Move,
    Permutations,
    Spec,
    check_permutations,
    check_spec,
    compose,
    identity,
    invert,
    permute,
    random_permutations,
)
from sbjax.symmetry.rescaling import canonical_scale, canonical_sign
from sbjax.symmetry.spec import derive_spec, spec_from_axes
from sbjax.symmetry.verification import verify

__all__ = [
    "Frame",
    "Matched",
    "Move",
    "Permutations",
    "Spec",
    "canonical_scale",
    "canonical_sign",
    "check_permutations",
    "check_spec",
    "compose",
    "derive_spec",
    "identity",
    "invert",
    "match_activations",
    "match_many",
    "match_weights",
    "permute",
    "random_permutations",
    "recorded",
    "spec_from_axes",
    "verify",
]
