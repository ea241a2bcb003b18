"""Blocks of networks: trained, written one by one, and described by a card."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import trees
from sbjax.asymmetry.weights import fingerprint
from sbjax.common.files import FileError, plain
from sbjax.data import zoo_blocks
from sbjax.experiments.zoo import laws as laws_lib
from sbjax.experiments.zoo import program
from sbjax.experiments.zoo.arm import Arm
from sbjax.experiments.zoo.card import write_card
from sbjax.frame.plan import Plan

TOGETHER = 4
"""Networks of one call on a CPU: fewer share the cores better, more cost fewer calls."""
BESIDE = 128
"""Networks of one call on an accelerator, at most."""


def spans(start: int, stop: int, block: int) -> list[tuple[int, int]]:
    """Blocks of the networks start, .., stop - 1, cut at multiples of `block`.

    >>> spans(0, 250, 100), spans(100, 150, 100)
    ([(0, 100), (100, 200), (200, 250)], [(100, 150)])
    """
    cuts = [start, *range((start // block + 1) * block, stop, block), stop]
    return list(itertools.pairwise(cuts))


def make_zoo(path: Path, arm: Arm, plan: Plan, *, stop: Callable[[], bool]) -> int | None:
    """Train the blocks of an arm that are missing or damaged, and write its card.

    Returns:
        Examples that were trained on, 0 if all was there; None if `stop()` ended it.

    Raises:
        FileError: a block of other settings is there.
    """
    path.mkdir(parents=True, exist_ok=True)
    own = identity(arm, plan)
    key, first = jax.random.key(plan.seed), plan.first_replica
    digests, examples = {}, 0
    steps_of_epoch = len(arm.data.train_labels) // arm.plan.task.batch_size
    programs = Programs(arm, plan, key)
    for start, end in spans(first, first + plan.replicas, arm.plan.task.block):
        file = path / zoo_blocks.block_name(start, end)
        about = _whole(file, own)
        if about is None:
            hyper = laws_lib.draw(key, np.arange(start, end), arm.laws)
            arrays = train_block(programs, np.arange(start, end), hyper, stop)
            if arrays is None:
                return None
            zoo_blocks.write_block(
                file, arrays, start=start, stop=end, identity=own, fingerprint=arm.source.fingerprint
            )
            examples += int(hyper["epochs"].sum()) * steps_of_epoch * arm.plan.task.batch_size
            about = {"digest": zoo_blocks.digest(arrays)}
        digests[file.name] = about["digest"]
    _write_constants(path, arm, own)
    write_card(path, arm, plan, digests, identity=own, data=data_digest(arm.data))
    return examples


def identity(arm: Arm, plan: Plan) -> str:
    """Digest of all that decides the numbers of an arm's networks, but for how many there are."""
    source = arm.source
    content = {
        "seed": plan.seed,
        "laws": arm.laws._asdict(),
        "model": source.model,
        "asymmetry": source.asymmetry,
        "fingerprint": source.fingerprint,
        "batch_size": arm.plan.task.batch_size,
        "peak_epochs": arm.plan.task.peak_epochs,
        "data": data_digest(arm.data),
    }
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


def data_digest(data: program.Data) -> str:
    """Digest of the standardised images and labels."""
    return zoo_blocks.digest({name: np.asarray(leaf) for name, leaf in data._asdict().items()})


class Programs:
    """The programs of an arm, by activation and optimiser, compiled once for `together` networks."""

    def __init__(self, arm: Arm, plan: Plan, key: jax.Array):
        self.arm, self.plan, self.key = arm, plan, key
        on_cpu = jax.default_backend() == "cpu"
        self.together = TOGETHER if on_cpu else min(BESIDE, arm.plan.task.block)
        self._made: dict[tuple[int, int], Any] = {}

    def prepare(self, groups: list[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        """Compile those of some groups, several at a time."""
        missing = [group for group in groups if group not in self._made]
        self._made.update(zip(missing, pool.map(self._compile, missing)))

    def __call__(self, group: tuple[int, int], nets: np.ndarray, hyper: Mapping[str, np.ndarray]) -> program.Trained:
        """At most `together` networks; the rest of a call is filled with networks of no epoch, which cost nothing."""
        fill = self.together - len(nets)
        padded = {name: np.pad(hyper[name], (0, fill)) for name in _numbers(hyper)}
        found = self._made[group](self.arm.data, jnp.asarray(np.pad(nets, (0, fill)), jnp.int32), padded)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(nets)], found)

    def _compile(self, group):
        laws, task = self.arm.laws, self.arm.plan.task
        made = program.make_program(
            self.arm.make(laws.activations[group[0]]),
            laws.optimizers[group[1]],
            key=self.key,
            epochs=laws.epochs[1],
            batch_size=task.batch_size,
            peak_epochs=task.peak_epochs,
        )
        drawn = laws_lib.draw(self.key, np.arange(self.together), laws)
        hyper = {name: drawn[name] for name in _numbers(drawn)}
        return made.lower(self.arm.data, jnp.zeros(self.together, jnp.int32), hyper).compile()


def train_block(
    programs: Programs, nets: np.ndarray, hyper: Mapping[str, np.ndarray], stop: Callable[[], bool]
) -> dict[str, np.ndarray] | None:
    """The arrays of a block, rows in the order of `nets`; None if `stop()` ended it."""
    calls = list(_calls(hyper, programs.together))
    with ThreadPoolExecutor(max_workers=_workers()) as pool:
        programs.prepare(sorted({group for group, _ in calls}), pool)

        def run(call):
            group, rows = call
            if stop():
                return None
            return programs(group, nets[rows], {name: values[rows] for name, values in hyper.items()})

        found = list(pool.map(run, calls))
    if any(one is None for one in found):
        return None
    order = np.argsort(np.concatenate([rows for _, rows in calls]), kind="stable")
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *found)
    arrays = {f"params/{name}": leaf for name, leaf in trees.flatten(joined.params).items()}
    arrays |= {f"batch_stats/{name}": leaf for name, leaf in trees.flatten(joined.batch_stats).items()}
    arrays |= {f"hyperparameters/{name}": values for name, values in hyper.items()}
    return arrays | {"accuracy": joined.accuracy, "loss": joined.loss, "index": nets.astype(np.int32)}


def _whole(file: Path, own: str) -> Mapping[str, Any] | None:
    """What a block says of itself; None where it is missing or damaged."""
    try:
        _, about = zoo_blocks.read_block(file)
    except (FileNotFoundError, FileError):
        return None
    if about["identity"] != own:
        raise FileError(f"{file} holds networks of other settings or data; move it away, or use another --workdir")
    return about


def _write_constants(path: Path, arm: Arm, own: str) -> None:
    """The frozen entries of all networks, with a first axis of one."""
    if not arm.source.fingerprint:
        return
    arrays = {name: np.asarray(leaf)[None] for name, leaf in trees.flatten(arm.source.frozen).items()}
    assert fingerprint({"asymmetry": arm.source.frozen}) == arm.source.fingerprint
    zoo_blocks.write_block(
        path / zoo_blocks.CONSTANTS, arrays, start=0, stop=1, identity=own, fingerprint=arm.source.fingerprint
    )


def _calls(hyper: Mapping[str, np.ndarray], together: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Groups of one program, cut into calls; those with the most epochs first, which fills the cores evenly."""
    groups = np.stack([hyper["activation"], hyper["optimizer"]], 1)
    for group in np.unique(groups, axis=0).tolist():
        rows = np.flatnonzero((groups == group).all(1))
        rows = rows[np.argsort(-hyper["epochs"][rows], kind="stable")]
        for begin in range(0, len(rows), together):
            yield tuple(group), rows[begin : begin + together]


def _numbers(hyper: Mapping[str, Any]) -> list[str]:
    return [name for name in hyper if name not in laws_lib.WORDS]


def _workers() -> int:
    """Calls at a time: cores that this process may use; on an accelerator one keeps it busy."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
