"""Optimisers: each is a frozen dataclass of its own options that makes an optax transformation.

>>> Adam(b2=0.99).make(1e-3).init(0.0)[0][0].count.dtype
dtype('int32')
"""

from sbjax.optimizers.adam import Adam, AdamW
from sbjax.optimizers.base import Optimizer, Schedule
from sbjax.optimizers.gauss_newton import GaussNewton
from sbjax.optimizers.lbfgs import Lbfgs
from sbjax.optimizers.look_ahead import LookAheadSgd
from sbjax.optimizers.quasi_newton import SelfScaledBfgs, SelfScaledBroyden
from sbjax.optimizers.registry import OPTIMIZERS, SCHEDULES
from sbjax.optimizers.schedules import Constant, Cosine, Step, Triangle
from sbjax.optimizers.section import OptimizerChoice, field_specs, override, read_optimizer, union_fields
from sbjax.optimizers.sgd import Sgd
from sbjax.optimizers.soap import Soap

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "GaussNewton",
    "Lbfgs",
    "LookAheadSgd",
    "Optimizer",
    "OptimizerChoice",
    "Schedule",
    "SelfScaledBfgs",
    "SelfScaledBroyden",
    "Sgd",
    "Soap",
    "Step",
    "Triangle",
    "field_specs",
    "override",
    "read_optimizer",
    "union_fields",
]
