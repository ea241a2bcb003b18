"""Checkpoints of several processes that share a folder: each writes and reads its own part of global arrays.

No process holds what another one has. Given numpy arrays, orbax would keep those of process 0 in silence.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax.common import hosts
from sbjax.training.orbax_messages import quiet


class Parts:
    """What this process writes of a checkpoint, in the background."""

    def __init__(self) -> None:
        self._checkpointer: Any = None

    def save(self, path: pathlib.Path, items: Mapping[str, PyTree], meta: Mapping[str, Any]) -> None:
        """Start to write; called by all processes. The arrays have been copied when this returns.

        Args:
            path: the folder to be made, of a step.
            items: trees of global arrays, none empty.
        """
        import orbax.checkpoint as ocp

        if self._checkpointer is None:
            self._checkpointer = ocp.AsyncCheckpointer(
                ocp.CompositeCheckpointHandler(),
                multiprocessing_options=_of_all(),
            )
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with quiet():
            self._checkpointer.save(path, args=ocp.args.Composite(**args, meta=ocp.args.JsonSave(dict(meta))))

    def wait(self) -> None:
        """Return when all processes have written what was started."""
        if self._checkpointer is not None:
            with quiet():
                self._checkpointer.wait_until_finished()

    def close(self) -> None:
        """Release its threads."""
        if self._checkpointer is not None:
            self._checkpointer.close()
            self._checkpointer = None


def read(path: pathlib.Path, items: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Items of a checkpoint as global arrays; called by all processes.

    Args:
        items: trees of `jax.ShapeDtypeStruct`; what has no sharding is laid whole on every device.
    """
    import orbax.checkpoint as ocp

    everywhere = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()), ("all",)), jax.sharding.PartitionSpec()
    )

    def laid(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or everywhere)

    args = {name: ocp.args.StandardRestore(jax.tree.map(laid, tree)) for name, tree in items.items()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=_of_all()) as checkpointer:
        found = checkpointer.restore(path, args=ocp.args.Composite(**args))
    hosts.barrier()  # a process that compiles while another one still reads would wait in a collective operation
    return {name: found[name] for name in items}


def _of_all() -> Any:
    """Options of orbax: all processes, by barriers of the coordination service, which threads may use as well."""
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(active_processes=set(range(hosts.count())))
