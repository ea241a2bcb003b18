"""A trained network as a safetensors file with a model card, for programs that know nothing of this one."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from sbjax import trees
from sbjax.common.files import plain, write_atomically
from sbjax.common.names import expanded
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.runner.load import Loaded, load
from sbjax.tasks.task import Task


class Exported(NamedTuple):
    """The files written."""

    weights: pathlib.Path
    card: pathlib.Path


def export(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    *,
    arm: str | None = None,
    replica: int | None = None,
    step: int | None = None,
    trust: bool = False,
) -> Exported:
    """Write `<out>` (safetensors, names such as 'params/dense_0/kernel') and `<out without suffix>.md`, its card.

    Args:
        out: a file that ends in .safetensors; it must not exist.
        workdir, arm, replica, step, trust: as `sbjax.load`.

    Raises:
        ConfigError: as `sbjax.load`, or a file that is there already or has another ending.
    """
    from safetensors.numpy import save

    with told_of_files("--out: "):
        path = expanded(out)
    card = path.with_suffix(".md")
    if path.suffix != ".safetensors":
        raise ConfigError(f"--out={out!r} must end in .safetensors")
    for existing in (path, card):
        if existing.exists():
            raise ConfigError(f"--out={out!r}: {existing} exists; choose another name, or move it away")
    net = load(workdir, arm=arm, replica=replica, step=step, trust=trust)
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in trees.flatten(net.variables).items()}
    metadata = {"arm": net.arm, "step": str(net.step), "replica": "all" if replica is None else str(replica)}
    metadata["config"] = json.dumps(net.config)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(arrays, metadata=metadata))
    write_atomically(card, model_card(net, replica, arrays, path.name))
    return Exported(path, card)


def model_card(net: Loaded, replica: int | None, arrays: dict[str, np.ndarray], file: str) -> str:
    """The card as Markdown: what was trained, on what, how well, and how to read it."""
    own = net.config["arms"][net.arm]
    task = {name: value for name, value in net.config["task"].items() if not name.endswith("_dir")}
    which = "all replicas, stacked along the first axis" if replica is None else f"replica {replica}"
    lines = [
        f"# {net.arm} of {task['kind']}",
        "",
        f"- weights: `{file}`, {which}, after step {net.step}",
        f"- parameters: {_size(arrays, replica):,} in {len(arrays)} arrays",
        f"- role in its run: {own['role']}",
        f"- task: {_listed(task)}",
        *(f"- {name}: {text}" for name, text in about(net.task)),
        *(
            f"- {name}: {_listed(net.config[name])}"
            for name in ("model", "expansion", "optimizer")
            if name in net.config
        ),
        *([f"- this arm differs in: {_listed(_differs(own))}"] if _differs(own) else []),
        f"- seed: {net.config['seed']}",
        "",
        "## Numbers at that step",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {name} | {_number(value)} |" for name, value in sorted(net.metrics.items())),
        "",
        "Those of the split `test` were not used for any choice.",
        "",
        "## How to read it",
        "",
        "    from safetensors.numpy import load_file",
        f"    arrays = load_file({file!r})  # {{'params/..': array}}",
        "",
        "The metadata of the file hold the resolved config as JSON.",
    ]
    return "\n".join(lines) + "\n"


def about(task: Task) -> tuple[tuple[str, str], ...]:
    """What the network takes and gives, pairs (name, text): what the task says, or what its grid of points shows."""
    grid = task.grid
    if task.about or grid is None:
        return task.about
    coordinates, unknowns = ", ".join(grid.coordinates), ", ".join(grid.unknowns)
    taken = f"points [n, {len(grid.coordinates)}]: {coordinates}"
    return ("input", taken), ("output", f"[n, {len(grid.unknowns)}]: {unknowns}")


def _differs(own: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if name not in ("order", "role", "labels")}


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(plain(value))}" for name, value in fields.items())


def _number(value: Any) -> str:
    values = [x for x in (value if isinstance(value, list) else [value]) if x is not None]
    if not values:
        return "none"
    return f"{values[0]:.6g}" if len(values) == 1 else f"median {np.median(values):.6g} of {len(values)}"


def _size(arrays: dict[str, np.ndarray], replica: int | None) -> int:
    own = [leaf for name, leaf in arrays.items() if name.startswith("params/")]
    return sum(leaf.size // (leaf.shape[0] if replica is None else 1) for leaf in own)
