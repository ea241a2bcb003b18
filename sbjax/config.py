"""What a config file needs: `base_config`, `parse_words`, `shrink` and `ConfigError`.

from sbjax import config as config_lib

def get_config(argument=None):
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config("images")
    config.train_epochs = 30.0
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    return config_lib.shrink(config) if words["smoke"] else config
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sbjax.experiments import registry
from sbjax.frame import config as frame
from sbjax.frame.config import parse_words
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import Plan

__all__ = ["ConfigError", "base_config", "check", "parse_words", "read", "shrink"]


def base_config(kind: str = "images", experiment: str = "") -> ConfigDict:
    """Every field with its default, for a kind of experiment; see `sbjax.frame.config.base_config`.

    Args:
        kind: a name of `sbjax.experiments.registry.KINDS`, or 'module:EXPERIMENT' of yours.
        experiment: of kinds 'landscape' and 'exact', which one.

    >>> base_config("pinn").task.equation
    'burgers'
    """
    task = {"kind": kind, **({"experiment": experiment} if experiment else {})}
    return frame.base_config(registry.find(task), task)


def shrink(config: ConfigDict) -> ConfigDict:
    """What the word `smoke` does: two replicas, a few steps, little data; everything else as it was."""
    return frame.shrink(config, registry.find(config.task.to_dict()))


def read(config: ConfigDict | Mapping[str, Any]) -> Plan:
    """The checked and typed plan of a configuration.

    Raises:
        ConfigError: naming every unknown field, wrong type, impossible value, and field without effect.
    """
    return frame.read(config, registry.find)


def check(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration as plain nested dicts: what `config.json` of a run holds."""
    return read(config).settings
