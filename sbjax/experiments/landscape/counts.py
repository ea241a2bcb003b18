"""How many subspaces hold global minima and how many hold critical points, and paths between the former.

Counts are exact (`sbjax.landscape.counting`). Beside them, in each arm: networks of the needed widths with one spare
neuron a layer are connected to a permuted copy of themselves by a path of constant function and by a straight line.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from sbjax import rng
from sbjax.common.options import option
from sbjax.experiments.landscape import students
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.experiment import LandscapeExperiment
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.landscape import counting, paths
from sbjax.landscape import teacher_student as ts
from sbjax.landscape.layered import forward

WIDEST = 200


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("counts", "which experiment on the loss landscape")
    widths: tuple = option((4,), "neurons needed in each hidden layer")
    widest: int = option(24, "counts go up to this width of the first layer", most=WIDEST)
    activation: str = option("tanh", "of the networks", choices=tuple(ts.ACTIVATIONS))
    side: int = option(41, "of the grid of inputs on [-5, 5]^2", least=2, most=1000)
    points: int = option(21, "on a segment of a path", least=2, most=10**5)


SMOKE: dict[str, Any] = {"side": 9, "points": 3}
PRIMARY = "path/loss"


def check(plan: Plan, arm: ArmPlan) -> None:
    """Refuse what cannot be counted.

    Raises:
        ConfigError: a width out of its range, single precision.
    """
    task, widths = arm.task, arm.task.widths
    if not widths or not all(isinstance(r, int) and r >= 2 for r in widths):
        raise ConfigError(f"task.widths={widths} must be whole numbers >= 2, one for each hidden layer")
    if not widths[0] < task.widest:
        raise ConfigError(f"task.widest={task.widest} must be above {widths[0]}")
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False: losses of 1e-25 need double precision; set it to True")


def needs(plan: Plan, arm: ArmPlan) -> dict[str, int]:
    """Bytes at least, see `LandscapeExperiment`."""
    return students.least_bytes(plan.replicas, 4 * arm.task.widths[0], arm.task.side**2)


def run_arm(
    plan: Plan, arm: ArmPlan, key: Key[Array, ""], log: Callable[[str], Any], stop: Callable[[], bool]
) -> ArmResult | None:
    """Count, and walk one path for each seed."""
    task, seeds = arm.task, plan.replicas
    widths, activation = tuple(task.widths), ts.ACTIVATIONS[task.activation]
    x = ts.grid_inputs(task.side)
    extra = np.arange(task.widest - widths[0] + 1)
    minima, critical = zip(*(layer_counts(widths, [r + h for r in widths]) for h in extra.tolist()))
    along, straight, moved = [], [], []
    for seed in range(seeds):
        if stop():
            return None
        rngs = np.random.default_rng(np.asarray(jax.random.key_data(rng.replica_stream(key, "paths", seed))).tolist())
        net, orders = random_network(rngs, widths), [random_cycle(rngs, r) for r in widths]
        y = forward(net, x, activation)
        path = paths.permutation_path(net, orders)
        goal = paths.permuted(net, orders)
        along.append(paths.path_losses(path, x, y, activation, points=task.points))
        straight.append(paths.straight_losses(net, goal, x, y, activation, points=task.points))
        moved.append(paths.same(path[-1].end, goal))
    log(f"{len(path)} segments, largest loss {np.max(along):.1e}, on the straight line {np.max(straight):.1e}")
    cross = next((h for h in extra.tolist() if minima[h] >= critical[h]), None)
    summary = {
        "widths": widths,
        "widest": task.widest,
        "crossing": None if cross is None else [r + cross for r in widths],
        "ratio": {
            str(h): float(np.exp(counting.log(critical[h]) - counting.log(minima[h]))) for h in (0, 1, 2, 4, 10)
            if h < len(extra)
        },
        "segments": len(path),
        "arrived": int(sum(moved)),
        "seeds": seeds,
    }  # fmt: skip
    arrays = {
        "extra": extra,
        "minima": np.array([counting.log(count) for count in minima]),
        "critical": np.array([counting.log(count) for count in critical]),
        "path": np.stack(along),
        "straight": np.stack(straight),
    }
    metrics = {
        "path/loss": [float(np.max(losses)) for losses in along],
        "straight/loss": [float(np.max(losses)) for losses in straight],
    }
    return ArmResult(metrics, summary, arrays)


def layer_counts(r: tuple[int, ...], m: list[int]) -> tuple[int, int]:
    """Subspaces of global minima, and of critical points of all networks narrower in one hidden layer or more.

    prod_l T(r_l, m_l), and prod_l sum_{s <= r_l} G(s, m_l) - prod_l G(r_l, m_l), with one irreducible critical point at
    each tuple of narrower widths.

    >>> layer_counts((4,), [6])
    (3720, 603)
    """
    most = [sum(counting.G(s, wide) for s in range(1, narrow + 1)) for narrow, wide in zip(r, m)]
    critical = math.prod(most) - counting.layers(counting.G, r, m)
    return counting.layers(counting.T, r, m), critical


def random_network(random: np.random.Generator, widths: tuple[int, ...]) -> dict[str, dict[str, np.ndarray]]:
    """2-r_1-..-r_L-1 with biases, and one neuron more in each hidden layer that nothing reads.

    >>> net = random_network(np.random.default_rng(0), (4,))
    >>> net['dense_0']['kernel'].shape, net['dense_1']['kernel'][-1].tolist()
    ((2, 5), [0.0])
    """
    sizes = [2, *(r + 1 for r in widths), 1]
    net = {}
    for layer, (fan_in, out) in enumerate(itertools.pairwise(sizes)):
        kernel = random.normal(size=(fan_in, out)) / np.sqrt(fan_in)
        if layer:
            kernel[-1] = 0
        net[f"dense_{layer}"] = {"kernel": kernel, "bias": random.normal(size=out) / np.sqrt(fan_in)}
    return net


def random_cycle(random: np.random.Generator, r: int) -> np.ndarray:
    """A permutation of r + 1 neurons in one cycle of the first r; the spare stays. So all paths have equal length.

    >>> random_cycle(np.random.default_rng(0), 2).tolist()
    [1, 0, 2]
    """
    order, cycle = np.arange(r + 1), random.permutation(r)
    order[cycle] = np.roll(cycle, 1)
    return order


EXPERIMENT = LandscapeExperiment(Fields, primary=PRIMARY, smoke=SMOKE, check_arm=check, needs=needs, run_arm=run_arm)
