"""Stacked trees over devices: one mesh for whoever has many replicas, students or runs to compute at once.

mesh = devices.mesh_for(count)
fn = jax.jit(devices.per_device(fn, mesh, mapped=1))  # fn(shared, stacked)
found = devices.collect(fn(shared, devices.place(stacked, mesh)), count)
"""

import contextlib
import math
import os
import pathlib
import re
import resource
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree

from sbjax import trees
from sbjax.common import hosts

REPLICA, DATA = "replica", "data"


def memory() -> int:
    """Bytes that this process may use: of the accelerators, or of the machine, its control group and its own limit."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        stats = devices[0].memory_stats() or {}
        return stats.get("bytes_limit", 1 << 62) * len(devices)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS)[:1] if limit != resource.RLIM_INFINITY]
    return min([*limits, *_group_limits(pathlib.Path("/proc/self/cgroup"), pathlib.Path("/sys/fs/cgroup"))])


def _group_limits(own: pathlib.Path, root: pathlib.Path) -> Iterator[int]:
    """Limits of the control groups of this process, each within those above it: a job of a cluster has its own, which
    is not the one at the root; of both versions."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # not on every system
        lines = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = base if ".." in path.split("/") else base / path.lstrip("/")  # of a group outside of what is seen here
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                continue
            with contextlib.suppress(OSError, ValueError):  # none, or 'max'
                yield int((folder / name).read_text())


def cpus() -> list[jax.Device]:
    """The CPU devices of this process; [] where jax was started without them, as by JAX_PLATFORMS=cuda.

    >>> [device.platform for device in cpus()][:1]
    ['cpu']
    """
    try:
        return jax.local_devices(backend="cpu")
    except RuntimeError:  # there is no such backend
        return []


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Double precision for what is computed to its limits, whatever the run's own: on the CPU where jax has one, else
    on the default device, which a GPU is good for.

    Raises:
        ValueError: the default device is a TPU, which has no float64, and jax was started without a CPU.

    >>> import jax.numpy as jnp
    >>> with double():
    ...     print(jnp.ones(2).dtype)
    float64
    """
    cpu = cpus()
    if not cpu and jax.default_backend() == "tpu":
        raise ValueError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} leaves out the CPU, where float64 is computed "
            "beside a TPU; set JAX_PLATFORMS=tpu,cpu, or leave it unset"
        )
    with jax.enable_x64(True), jax.default_device(cpu[0]) if cpu else contextlib.nullcontext():
        yield


def products(matmul: str, device: jax.Device) -> str:
    """What factors of products of float32 matrices are rounded to on a device, as `jax.lax.Precision` describes it.

    Args:
        matmul: 'default', 'high' or 'highest', as `precision.matmul`.
        device: of any kind; of NVIDIA GPUs those before the compute capability 8.0 have no TF32.

    >>> products('default', jax.devices()[0])
    'float32'
    """
    if device.platform == "tpu":
        return {"default": "bfloat16", "high": "bfloat16, 3 passes"}.get(matmul, "bfloat16, 6 passes")
    if device.platform == "cpu" or matmul == "highest":
        return "float32"
    capability = str(getattr(device, "compute_capability", ""))
    if not re.fullmatch(r"\d+\.\d+", capability):  # not of NVIDIA
        return "as the device chooses"
    return "TF32" if float(capability) >= 8 else "float32"


def in_words(count: int) -> str:
    """Bytes as people read them.

    >>> in_words(120), in_words(3 * 10**9)
    ('120 B', '3.0 GB')
    """
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.{1 if power else 0}f} {units[power]}"


def make_mesh(width: int, sharers: int = 1) -> Mesh:
    """Mesh with the axes `replica` [width] and `data` [sharers]: the devices that share each replica's batch.

    Raises:
        ValueError: width or sharers < 1, or more devices than there are.

    >>> dict(make_mesh(1).shape)
    {'replica': 1, 'data': 1}
    """
    if min(width, sharers) < 1:
        raise ValueError(f"width={width} and sharers={sharers} must be >= 1")
    if width * sharers > jax.device_count():
        raise ValueError(
            f"width={width} times sharers={sharers} devices: this process has {jax.device_count()}; ask for fewer"
        )
    if width * sharers < jax.process_count():
        raise ValueError(
            f"width={width} times sharers={sharers} devices are fewer than the {jax.process_count()} processes; start "
            "fewer, or give more replicas or a batch that they can share"
        )
    return Mesh(np.array(_spread(width * sharers)).reshape(width, sharers), (REPLICA, DATA))


def _spread(count: int) -> list[jax.Device]:
    """So many devices, as evenly over the processes as there are; those of a process stay together."""
    own: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        own.setdefault(device.process_index, []).append(device)
    taken = dict.fromkeys(own, 0)
    while sum(taken.values()) < count:
        taken[min((taken[process], process) for process in own if taken[process] < len(own[process]))[1]] += 1
    return [device for process in sorted(own) for device in own[process][: taken[process]]]


def mesh_for(count: int) -> Mesh:
    """Mesh with the one axis `replica`: all devices, or one for each of `count` replicas where these are fewer.

    >>> dict(mesh_for(1).shape)
    {'replica': 1}
    """
    return Mesh(np.array(jax.devices()[: min(jax.device_count(), count)]), (REPLICA,))


def mesh_of_cores(count: int) -> Mesh:
    """As `mesh_for`, of the CPU's devices also beside an accelerator, see `cores`.

    >>> dict(mesh_of_cores(1).shape)
    {'replica': 1}
    """
    return Mesh(np.array(cores(count)), (REPLICA,))


def cores(count: int) -> list[jax.Device]:
    """Devices for small jobs that each end after iterations of their own, at most one for each of `count`: those of the
    CPU, where jax has them, also beside an accelerator.

    Such a job asks after every iteration whether it has ended, with a few thousand numbers to work on: an accelerator
    would stand idle between the questions, and under `vmap` every job would wait for the longest one. This is an
    argument and no measurement.

    >>> len(cores(1)), cores(0)
    (1, [])
    """
    return (cpus() or jax.local_devices())[:count]


def split(mesh: Mesh) -> NamedSharding:
    """Of stacked trees: every device has its share of the leading axis."""
    return NamedSharding(mesh, PartitionSpec(REPLICA))


def shared(mesh: Mesh) -> NamedSharding:
    """Of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def padded_rows(count: int, multiple: int) -> Int[np.ndarray, " padded"]:
    """Rows 0, .., count - 1, the last one repeated until there are a multiple of `multiple`.

    >>> padded_rows(5, 3).tolist()
    [0, 1, 2, 3, 4, 4]
    """
    return np.minimum(np.arange(-(-count // multiple) * multiple), count - 1)


def place(stacked: PyTree, mesh: Mesh) -> PyTree:
    """Lay the leading axis [count] over `replica`; the last entry is repeated where devices cannot share evenly.

    >>> place({'w': np.arange(3)}, make_mesh(1))['w'].tolist()
    [0, 1, 2]
    """
    rows = padded_rows(len(jax.tree.leaves(stacked)[0]), mesh.shape[REPLICA])
    return hosts.put(trees.take(stacked, rows), split(mesh))


def per_device(fn: Callable[..., PyTree], mesh: Mesh, *, mapped: int) -> Callable[..., PyTree]:
    """`fn`, called once on every device with its share of argument `mapped`; its result is stacked likewise.

    The other arguments go to all. Loops in `fn` run on each device alone: none waits for another. An axis `data` stays
    automatic: XLA inserts the sums, and batch norm sees the whole batch.

    >>> double = per_device(lambda factor, x: factor * x, mesh_for(4), mapped=1)
    >>> jax.jit(double)(2, np.arange(4)).tolist()
    [0, 2, 4, 6]
    """

    def sharded(*args: Any) -> PyTree:
        specs = tuple(PartitionSpec(REPLICA) if i == mapped else PartitionSpec() for i in range(len(args)))
        # Loops carry constants of no device into values of one, which the check of varying types refuses.
        return jax.shard_map(
            fn,
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec(REPLICA),
            axis_names={REPLICA},
            check_vma=False,
        )(*args)

    return sharded


def collect(stacked: PyTree, count: int) -> PyTree:
    """As numpy arrays, without the repeated entries.

    >>> collect({'w': jax.numpy.arange(4)}, 3)
    {'w': array([0, 1, 2], dtype=int32)}
    """
    return jax.tree.map(lambda leaf: hosts.rows(leaf)[:count], stacked)
