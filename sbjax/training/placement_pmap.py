"""Data parallelism by `jax.pmap`, for TPU code bases that want it; all else goes through `jit`, see `placement`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sbjax.tasks.task import Task
from sbjax.training import step as step_lib

AXIS = "data"


def make_step(task: Task, optimizer: Any, sharers: int) -> step_lib.Step:
    """The training step of one replica on one of `sharers` devices: its rows of the batch, noise of its own."""

    def split(batch, key):
        device = jax.lax.axis_index(AXIS)
        rows = jax.tree.map(lambda leaf: leaf.reshape(sharers, -1, *leaf.shape[1:])[device], batch)
        return rows, jax.random.fold_in(key, device)

    return step_lib.make_step(task, optimizer, split=split, mean=lambda tree: jax.lax.pmean(tree, AXIS))


def sharding(devices: Sequence[Any]) -> NamedSharding:
    """Of what `PmapAdvance` returns."""
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec())


class PmapAdvance:
    """`(data, key, state, *bounds) -> state`, compiled by pmap and called like the function that `jax.jit` returns.

    The state is broadcast in and one copy comes out; it is never stacked over devices. The old state's buffers are
    given up.
    """

    def __init__(self, advance: Callable, devices: Sequence[Any], *, bounds: int):
        self._programs = 0  # pmap does not tell how many it holds

        def traced(_, *args):
            self._programs += 1
            return advance(*args)

        self._ranks = np.arange(len(devices))  # pmap wants one mapped argument; the batch is drawn inside
        self._mapped = jax.pmap(
            traced,
            axis_name=AXIS,
            in_axes=(0, None, None, None, *(None,) * bounds),
            out_axes=None,
            devices=list(devices),
            donate_argnums=3,
        )

    def __call__(self, *args: Any) -> step_lib.TrainState:
        return self._mapped(self._ranks, *args)

    def _cache_size(self) -> int:
        return self._programs
