"""Optimisers: each is a frozen dataclass of its own options that makes an optax transformation."""

from sbjax.optimizers.base import Optimizer, Schedule
from sbjax.optimizers.registry import OPTIMIZERS, SCHEDULES
from sbjax.optimizers.section import OptimizerChoice, field_specs, override, read_optimizer, union_fields

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "OptimizerChoice",
    "Schedule",
    "field_specs",
    "override",
    "read_optimizer",
    "union_fields",
]
