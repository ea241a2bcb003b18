"""From settings (plain dicts, checked by `config.check`) to the objects of an experiment."""

from sbjax.build.tasks import build_data, build_expansion, build_task, parse_fill
from sbjax.build.training import (
    build_finish,
    build_mapping,
    build_monitor,
    build_optimizer,
    build_population,
    check_phases,
    parse_steps,
    read_optimizer,
    train_steps,
)

__all__ = [
    "build_data",
    "build_expansion",
    "build_finish",
    "build_mapping",
    "build_monitor",
    "build_optimizer",
    "build_population",
    "build_task",
    "check_phases",
    "parse_fill",
    "parse_steps",
    "read_optimizer",
    "train_steps",
]
