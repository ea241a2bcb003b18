"""Asymmetric networks: frozen constants in weights (F + D * W) or activations remove permutation symmetries."""

from sbjax.asymmetry.controls import StartedFrom
from sbjax.asymmetry.figlu import Gate, figlu
from sbjax.asymmetry.masks import MaskSpec, make_mask
from sbjax.asymmetry.network import Asymmetric, make_asymmetric
from sbjax.asymmetry.presets import gnn_arxiv, mlp_mnist, resnet8, resnet20
from sbjax.asymmetry.spec import AsymmetrySpec
from sbjax.asymmetry.syre import decay_weights, weighted_decay
from sbjax.asymmetry.weights import (
    check_same_constants,
    constants,
    effective,
    fingerprint,
    standard_from,
    trainable_size,
)

__all__ = [
    "Asymmetric",
    "AsymmetrySpec",
    "Gate",
    "MaskSpec",
    "StartedFrom",
    "check_same_constants",
    "constants",
    "decay_weights",
    "effective",
    "figlu",
    "fingerprint",
    "gnn_arxiv",
    "make_asymmetric",
    "make_mask",
    "mlp_mnist",
    "resnet8",
    "resnet20",
    "standard_from",
    "trainable_size",
    "weighted_decay",
]
