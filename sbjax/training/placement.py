"""How replicas and steps are laid on devices; every choice gives the same numbers to round-off.

Devices form one mesh with the axes `replica` and `data`. Replicas go to different devices first; devices left over
share each replica's batch. Within a device, replicas are vectorised (`vmap`: right for dense layers), trained one after
another in one program (`map`), or in one dispatch each (`sequential`). Steps run in a `fori_loop` whose trip count is
an argument, so that one program serves every interval (`scan`), or are dispatched one by one (`loop`). A GPU waits for
the host before every round of such a loop: there whole blocks of steps run in a second program, of a fixed trip count.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.asymmetry.weights import hold, release
from sbjax.common import devices, hosts
from sbjax.common.names import near
from sbjax.tasks.task import Task
from sbjax.training import placement_pmap, placement_table
from sbjax.training import step as step_lib

CHOICES = {
    "replicas": ("auto", "vmap", "map", "sequential"),
    "steps": ("auto", "scan", "loop"),
    "compile": ("jit", "pmap"),
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """How to lay replicas and steps on devices.

    Attributes:
        replicas: 'vmap', 'map' or 'sequential'; 'auto' chooses by `choose`.
        steps: 'scan' (rolled) or 'loop' (one dispatch a step); 'auto' likewise.
        compile: 'jit', or 'pmap' for data parallelism by `jax.pmap` (kept for TPU code bases that want it).
        devices: number of devices to use; 0 = all (on CPU at most one a replica).

    Raises:
        ValueError: naming the field, its value and what is possible.
    """

    replicas: str = "auto"
    steps: str = "auto"
    compile: str = "jit"
    devices: int = 0

    def __post_init__(self):
        for field, known in CHOICES.items():
            value = getattr(self, field)
            if value not in known:
                raise ValueError(f"{field}={value!r} is unknown{near(value, known)}; known: {', '.join(known)}")
        if self.devices < 0:
            raise ValueError(f"devices={self.devices} must be >= 0 (0 = all)")


MANY_ROWS = 256  # in a batch
BLOCK = 32  # steps of the program with a fixed trip count; two programs in all, however long the intervals are
CONVOLUTIONS = {"conv_general_dilated", "sbjax_conv2d"}


def choose(
    placement: Placement, *, primitives: set[str], replicas: int, rows: int = 1, dtype: str = "float32"
) -> Placement:
    """Replace 'auto' by a choice, and 0 devices by their number.

    On CPU, a convolution vmapped over its weights is a grouped one and slow, so replicas with convolutions train one
    after another: with `sbjax.models.convolution.conv2d` in one rolled program; with a convolution of `jax.lax`, which
    inside a rolled loop is slow as well, in one dispatch a replica and step. Replicas with more than `MANY_ROWS` rows
    in a batch, such as collocation points, also train one after another on each of several devices: a batched product
    gains nothing there (20 nets of width 32, two devices, a step: 2000 points 10.7 ms against 20.2 vectorised, 500
    points 2.9 against 3.7). Everything else is vectorised and rolled. The figures behind
    this rule are printed by `benchmarks/replicas.py` and `benchmarks/pinn_step.py`.

    On other devices steps are rolled, and replicas laid as `placement_table` says, by measurement; where it has no row
    they are vectorised, and the log says so.

    Args:
        primitives: names of the primitives in the loss.
        rows: the largest leading axis in a batch.
        replicas: how many there are.
        dtype: of products in the loss.

    Raises:
        ValueError: more devices than this process has; a table that cannot be read.
    """
    cpu = jax.default_backend() == "cpu"
    # Emulated devices beyond one a replica gain nothing: they share the cores.
    used = placement.devices or (
        min(jax.device_count(), max(replicas, jax.process_count())) if cpu else jax.device_count()
    )
    if used > jax.device_count():
        raise ValueError(
            f"devices={used}: this process has {jax.device_count()}; lower it, or on CPU start with "
            f"--cpu_devices={used}"
        )
    laid, steps = "vmap", "scan"
    if cpu and "conv_general_dilated" in primitives:
        laid, steps = "sequential", "loop"
    elif cpu and ("sbjax_conv2d" in primitives or (rows > MANY_ROWS and used > 1)):
        laid = "map"
    elif not cpu and placement.replicas == "auto" and (each := -(-replicas // min(used, replicas))) > 1:
        program = "convolution" if CONVOLUTIONS & primitives else "many rows" if rows > MANY_ROWS else "dense"
        case = jax.devices()[0].device_kind, program, dtype
        laid = placement_table.choice(*case, each)
        if laid is None:
            laid = "vmap"
            placement_table.tell_unmeasured(*case)
    return dataclasses.replace(
        placement,
        replicas=laid if placement.replicas == "auto" else placement.replicas,
        steps=steps if placement.steps == "auto" else placement.steps,
        devices=used,
    )


def primitives_of(fn: Callable, *args: Any) -> tuple[set[str], str]:
    """Names of the primitives in the jaxpr of `fn(*args)`, at any depth, and the dtype of most of its products."""
    names, dtypes = set(), collections.Counter(float32=0)

    def search(jaxpr):
        for equation in jaxpr.eqns:
            names.add(equation.primitive.name)
            if equation.primitive.name in {"dot_general", *CONVOLUTIONS}:
                dtypes[str(equation.invars[0].aval.dtype)] += 1
            for inner in jaxprs_in_params(equation.params):
                search(inner)

    search(jax.make_jaxpr(fn)(*args).jaxpr)
    return names, dtypes.most_common(1)[0][0]


class Program:
    """The compiled functions of one arm: `place`, `advance`, `evaluate`, `collect`.

    It holds no training state: a `carry` (list of rounds, each a stacked state) goes in and comes out. Its replicas are
    those from `first` on: each starts and trains alike whatever the others are.
    """

    def __init__(
        self, task: Task, optimizer, *, placement: Placement, replicas: int, key: Key[Array, ""], first: int = 0
    ):
        abstract = jax.eval_shape(lambda k: step_lib.init_state(task, optimizer, k, 0), key)
        batch, noise = jax.eval_shape(lambda k: step_lib.draw(task, task.data, k, 0, 0), key)
        primitives, dtype = primitives_of(task.loss, abstract.variables, batch, noise)
        rows = max((leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim), default=1)
        self.placement = placement = choose(placement, primitives=primitives, replicas=replicas, rows=rows, dtype=dtype)
        self.replicas = replicas
        self.first = first
        self._ids = first + jnp.arange(replicas, dtype=jnp.int32)
        self._task = task
        self._optimizer = optimizer
        self._key = key
        width = 1 if placement.compile == "pmap" else min(placement.devices, replicas)
        sharers = placement.devices // width  # devices that share each replica's batch
        while task.batch_size % sharers:  # a batch that does not split evenly leaves devices unused
            sharers -= 1
        self.mesh = devices.make_mesh(width, sharers)
        # All replicas train in one round; sequential ones take `width` at a time.
        self._round = width if placement.replicas == "sequential" else -(-replicas // width) * width
        self._is_whole = self._round == replicas  # one round, no copies
        # Output sharding. States restored from disk must be placed with it, or jit recompiles.
        if placement.compile == "pmap":
            self._home = placement_pmap.sharding(self.mesh.devices.ravel())
        else:
            self._home = devices.split(self.mesh) if width > 1 else devices.shared(self.mesh)
        self._data = hosts.put(task.data, devices.shared(self.mesh))
        self._advance = self._compile_advance(sharers)
        fixed = self.placement.steps == "scan" and jax.default_backend() != "cpu"
        self._advance_block = self._compile_advance(sharers, BLOCK) if fixed else None
        self._evaluate = jax.jit(
            self._shard(lambda data, variables, part: task.evaluate(data, variables, part), mapped=1)
        )
        self._init = jax.jit(
            self._shard(lambda key, replica: step_lib.init_state(task, optimizer, key, replica), mapped=1)
        )
        # A collective step that is queued behind others can deadlock on emulated CPU devices.
        self._block = sharers > 1 and jax.default_backend() == "cpu"

    def init(self) -> list[step_lib.TrainState]:
        """The carry before the first step. Replica r starts alike whatever the number of replicas and devices."""
        with jax.set_mesh(self.mesh):
            rounds = self._rounds(self._ids, devices.split(self.mesh))
            return [jax.device_put(self._init(self._key, ids), self._home) for ids in rounds]

    def adopt(self, carry: list[step_lib.TrainState]) -> list[step_lib.TrainState]:
        """The carry of another optimiser's program, with a fresh state of this program's optimiser."""

        def restart(state):
            return state._replace(opt_state=trees.strong(self._optimizer.init(state.variables["params"])))

        with jax.set_mesh(self.mesh):
            return [jax.device_put(jax.jit(self._shard(restart, mapped=0))(state), self._home) for state in carry]

    def abstract(self) -> step_lib.TrainState:
        """Shapes and dtypes of the stacked state."""
        init = jax.vmap(lambda r: step_lib.init_state(self._task, self._optimizer, self._key, r))
        return jax.eval_shape(init, self._ids)

    def laid(self, abstract: PyTree) -> PyTree:
        """`abstract` with the sharding that `place` takes as it is, where there is one."""
        home = self._home if self._is_whole else None
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home), abstract)

    def place(self, stacked: step_lib.TrainState) -> list[step_lib.TrainState]:
        """Stacked state of all replicas -> carry."""
        if self._is_whole and all(getattr(leaf, "sharding", None) == self._home for leaf in jax.tree.leaves(stacked)):
            return [stacked]
        return self._rounds(stacked if hosts.count() == 1 else jax.tree.map(hosts.rows, stacked), self._home)

    def whole(self, carry: list[step_lib.TrainState]) -> step_lib.TrainState:
        """Carry -> stacked state of global arrays; as they lie, where one round holds the replicas and no copies."""
        return carry[0] if self._is_whole else self.everywhere(self.collect(carry))

    def everywhere(self, tree: PyTree) -> PyTree:
        """Arrays that all processes have, as global ones."""
        return hosts.put(tree, devices.shared(self.mesh))

    def collect(self, carry: list[PyTree]) -> PyTree:
        """Carry (or anything mapped like it) -> numpy arrays with the replica axis first."""
        hosts.barrier()
        whole = jax.tree.map(lambda *parts: np.concatenate([hosts.rows(part) for part in parts]), *carry)
        return devices.collect(whole, self.replicas)

    def advance(self, carry: list[step_lib.TrainState], start: int, stop: int) -> list[step_lib.TrainState]:
        """Train from step `start` to `stop`; returns when done. The old carry's buffers are given up."""
        # pmap brings its own mesh.
        with contextlib.nullcontext() if self.placement.compile == "pmap" else jax.set_mesh(self.mesh):
            if self._task.stream is None:
                carry = [self._advance_round(self._data, state, start, stop) for state in carry]
            else:  # every round reads the batch of a step
                for step in range(start, stop):
                    data = self._with(self._task.stream.train(step))
                    carry = [self._advance_round(data, state, step, step + 1) for state in carry]
        return jax.block_until_ready(carry)

    def evaluate(self, carry: list[step_lib.TrainState]) -> dict[str, np.ndarray]:
        """Held-out numbers, each with the replica axis."""
        with jax.set_mesh(self.mesh):
            sums = [
                [self._evaluate(data, state.variables, jnp.int32(part)) for state in carry]
                for part, data in enumerate(self._parts())
            ]
        averages = self.collect([jax.tree.map(lambda *leaves: sum(leaves), *parts) for parts in zip(*sums)])
        return {name: average.value for name, average in averages.items()}

    def programs(self) -> int:
        """How many times the training step was compiled."""
        return sum(fn._cache_size() for fn in (self._advance, self._advance_block) if fn is not None)

    def _parts(self):
        """The data of one part of the evaluation after another."""
        stream = self._task.stream
        for part in range(self._task.parts):
            yield self._data if stream is None else self._with(stream.evaluate(part))

    def _with(self, arrays):
        return {**self._data, **hosts.put(arrays, devices.shared(self.mesh))}

    def _advance_round(self, data, state, start, stop):
        if self.placement.steps == "scan":
            blocks = 0 if self._advance_block is None else (stop - start) // BLOCK
            for first in range(start, start + blocks * BLOCK, BLOCK):
                state = self._advance_block(data, self._key, state, jnp.int32(first))
            start += blocks * BLOCK
            if blocks and start == stop:
                return state
            return self._advance(data, self._key, state, jnp.int32(start), jnp.int32(stop))
        for step in range(start, stop):
            state = self._advance(data, self._key, state, jnp.int32(step))
            if self._block:
                jax.block_until_ready(state)
        return state

    def _compile_advance(self, sharers, count=None):
        """A step, steps from `start` to `stop`, or `count` steps from `start`."""
        pmap = self.placement.compile == "pmap"
        if pmap:
            step = placement_pmap.make_step(self._task, self._optimizer, sharers)
        else:
            split = {"split": _constrain} if sharers > 1 else {}
            step = step_lib.make_step(self._task, self._optimizer, **split)
        if self.placement.steps == "scan":

            def advance(data, key, state, start, *stop):
                held = state._replace(variables=hold(state.variables))
                if stop:
                    held = jax.lax.fori_loop(start, *stop, lambda i, state: step(data, key, state, i), held)
                else:
                    bounds = np.int32(0), np.int32(count)
                    held = jax.lax.fori_loop(*bounds, lambda i, state: step(data, key, state, start + i), held)
                return held._replace(variables=release(held.variables, state.variables.get("frozen", {})))
        else:
            advance = step
        if pmap:
            mapped = _over_replicas(advance, 2, rolled=self.placement.replicas == "map")
            bounds = 2 if self.placement.steps == "scan" and count is None else 1
            return placement_pmap.PmapAdvance(mapped, self.mesh.devices.ravel(), bounds=bounds)
        return jax.jit(self._shard(advance, mapped=2), donate_argnums=2)

    def _shard(self, fn, *, mapped):
        """`fn` of one replica -> function of a round; argument `mapped` and the result have the replica axis."""
        local = _over_replicas(fn, mapped, rolled=self.placement.replicas == "map")
        return local if self.mesh.shape["replica"] == 1 else devices.per_device(local, self.mesh, mapped=mapped)

    def _rounds(self, stacked, sharding):
        """Cut the replica axis into rounds. Copies, dropped by `collect`, pad the last round."""
        index = devices.padded_rows(self.replicas, self._round).reshape(-1, self._round)
        return [hosts.put(trees.take(stacked, rows), sharding) for rows in index]


def _over_replicas(fn, mapped, *, rolled):
    """Map argument `mapped` over its leading axis, rolled or vectorised.

    A single replica is called without vmap: even a vmap of size one turns a convolution into a grouped one.
    """

    def local(*args):
        def one(replica):
            return fn(*(replica if i == mapped else arg for i, arg in enumerate(args)))

        if jax.tree.leaves(args[mapped])[0].shape[0] == 1:
            return jax.tree.map(lambda leaf: leaf[None], one(trees.take(args[mapped], 0)))
        return jax.lax.map(one, args[mapped]) if rolled else jax.vmap(one)(args[mapped])

    return local


def _constrain(batch, key):
    """Split the batch over the data axis and leave the rest to XLA."""
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(devices.DATA)), key
