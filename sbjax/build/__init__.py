"""From settings (plain dicts, checked by `config.check`) to the objects of an experiment."""

from sbjax.build.tasks import build_data, build_expansion, build_task
from sbjax.build.training import (
    build_finish,
    build_monitor,
    build_optimizer,
    build_placement,
    build_population,
    parse_steps,
    train_steps,
)

__all__ = [
    "build_data",
    "build_expansion",
    "build_finish",
    "build_monitor",
    "build_optimizer",
    "build_placement",
    "build_population",
    "build_task",
    "parse_steps",
    "train_steps",
]
