"""What a run needs at least, in memory, time and on disk, from shapes alone: refused before anything is computed.

Lower bounds, so that nothing is refused that could run: what XLA keeps besides depends on its fusions.
"""

import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax.common.devices import in_words, memory
from sbjax.frame.errors import ConfigError

MOST_YEARS = 1.0
PEAKS = {"core": 4e11, "device": 5e15}
"""FLOPs a second, generously: wide vector units in float32; matrix units in a few bits."""
NOT_SIZES = ("seed", "mask_seed", "train_steps", "reports", "steps", "order", "labels", "role")
"""Numbers of a config that make nothing larger."""


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays (or shapes) of a tree.

    >>> tree_bytes({'w': jax.ShapeDtypeStruct((10, 3), np.float32)})
    120
    """
    return sum(math.prod(leaf.shape) * _itemsize(leaf.dtype) for leaf in jax.tree.leaves(tree))


def largest_array(jaxpr: Any) -> int:
    """Bytes of the largest array that a traced program computes, those inside its loops and calls included."""
    largest = 0
    for equation in jaxpr.eqns:
        inner = [inside for value in equation.params.values() for inside in _jaxprs(value)]
        sizes = [tree_bytes(variable.aval) for variable in equation.outvars if hasattr(variable.aval, "shape")]
        largest = max([largest, *sizes, *map(largest_array, inner)])
    return largest


def check_memory(parts: Mapping[str, int], numbers: Mapping[str, Any]) -> None:
    """Refuse what cannot fit.

    Args:
        parts: bytes, by what takes them.
        numbers: sections of a config by name; its largest numbers are named.

    Raises:
        ConfigError: with the needs, what there is, and the fields to lower.
    """
    needed, there = sum(parts.values()), memory()
    if needed <= there:
        return
    told = ", ".join(f"{name} {in_words(count)}" for name, count in sorted(parts.items(), key=lambda item: -item[1]))
    raise ConfigError(
        f"{_largest(numbers)}: this needs at least {in_words(needed)} of memory ({told}), and there are "
        f"{in_words(there)}; lower them"
    )


def check_time(flops: float, steps: str, numbers: Mapping[str, Any]) -> None:
    """Refuse what takes more than `MOST_YEARS` even at the peak of this machine.

    Args:
        flops: of all steps of all arms and replicas.
        steps: the field that says how many: 'train_steps=10000'.
        numbers: sections of a config by name; its largest numbers are named.

    Raises:
        ConfigError: with the time, and the fields to lower.
    """
    years = flops / peak() / (365.25 * 86400)
    if years > MOST_YEARS:
        raise ConfigError(
            f"{steps}, {_largest(numbers)}: this takes at least {years:.3g} years here ({flops:.2g} FLOPs at "
            f"{peak():.2g} a second, more than this machine reaches); lower them"
        )


def peak() -> float:
    """FLOPs a second that this machine, or all processes of the run together, do not exceed."""
    return (
        PEAKS["core"] * (os.cpu_count() or 1) * jax.process_count()
        if jax.default_backend() == "cpu"
        else PEAKS["device"] * jax.device_count()
    )


def check_disk(needed: int, folder: pathlib.Path) -> None:
    """Refuse a run whose checkpoints do not fit on the disk of its folder.

    Raises:
        ConfigError: with the need, what there is, and what to lower.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    there = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*") if path.is_file())
    free = shutil.disk_usage(existing).free
    if needed > there + free:
        raise ConfigError(
            f"--workdir={folder}: the checkpoints need {in_words(needed)} and the disk has {in_words(free)} free; "
            "lower replicas, checkpoint.keep, checkpoint.keep_best or the model, or use another --workdir"
        )


def _largest(numbers: Mapping[str, Any]) -> str:
    """The two largest whole numbers of a config, 'model.widths=(1000000000,), replicas=10'."""
    found = []

    def look(path, value):
        if isinstance(value, Mapping):
            for name, inner in value.items():
                if name not in NOT_SIZES:
                    look([*path, name], inner)
            return
        every = value if isinstance(value, list | tuple) else [value]
        whole = [one for one in every if isinstance(one, int) and not isinstance(one, bool)]
        if whole:
            found.append((max(whole), ".".join(path), value))

    look([], numbers)
    return ", ".join(f"{name}={value!r}" for _, name, value in sorted(found, key=lambda one: -one[0])[:2])


def _itemsize(dtype: Any) -> int:
    try:
        return np.dtype(dtype).itemsize
    except TypeError:  # a key
        return 8


def _jaxprs(value: Any) -> list[Any]:
    if hasattr(value, "eqns"):
        return [value]
    if hasattr(value, "jaxpr"):
        return [value.jaxpr]
    return [inner for one in value for inner in _jaxprs(one)] if isinstance(value, list | tuple) else []
