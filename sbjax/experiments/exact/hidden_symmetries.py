"""Hidden symmetries of ReLU networks at random: how often the functional dimension is as large as it can be.

An arm is an architecture and a way to look: 'line' (one input, all regions: exact), 'regions' (all regions by linear
programs: exact, for small networks), 'lines' (all regions that `budget` lines at random meet) and 'points' (the rank at
`budget` points at random for every parameter, as published). The last two miss regions, so that their deficits are too
large. Arms with one architecture see the same networks. Source: arXiv 2306.06179.
"""

import dataclasses
import math

import jax
import numpy as np

from sbjax import rng
from sbjax.common.options import one_of, option
from sbjax.experiments.exact.experiment import ExactExperiment, counted, result
from sbjax.frame.errors import ConfigError
from sbjax.landscape import functional_dimension as fd

LOOKS = ("line", "regions", "lines", "points")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("hidden_symmetries", "which experiment with closed forms")
    inputs: int = option(1, "of the networks", least=1, most=100)
    width: int = option(4, "of the hidden layers", least=1, most=100)
    depth: int = option(2, "hidden layers", least=1, most=20)
    bias: float = option(1.0, "standard deviation of the biases; weights are He's", above=0, most=1e6)
    look: str = option("line", "how regions are found", choices=LOOKS)
    budget: int = option(
        64, "lines, or points a parameter", least=1, most=10**5, only={"look": one_of("lines", "points")}
    )
    networks: int = option(0, "where an arm is to have fewer than `replicas`; 0 = as many", least=0, most=10**6)


def check(plan, arm):
    """Refuse what has no such regions.

    Raises:
        ConfigError: 'line' with more than one input, more networks than replicas, single precision.
    """
    task = arm.task
    if task.look == "line" and task.inputs != 1:
        raise ConfigError(f"task.inputs={task.inputs} must be 1 with task.look='line'; try 'lines' or 'regions'")
    if task.networks > plan.replicas:
        raise ConfigError(f"task.networks={task.networks} must lie between 0 (as many) and replicas={plan.replicas}")
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False: ranks need double precision; set it to True")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    size = fd.parameters((task.inputs, *[task.width] * task.depth, 1))
    points = {"points": task.budget * size, "lines": task.budget}.get(task.look, 1)
    return {"the triangle of a Jacobian": 8 * size**2, "points": 8 * points * task.inputs}


def run_arm(plan, arm, key, log, stop):
    """The dimension of every network."""
    task = arm.task
    sizes = (task.inputs, *[task.width] * task.depth, 1)
    name, number, found = "-".join(map(str, sizes)), task.networks or plan.replicas, []
    for seed in range(number):
        if stop():
            return None
        net = fd.random_network(_generator(key, name, seed), sizes, bias=task.bias)
        x = _points(task, net, _generator(key, f"{name} {task.look}", seed), fd.parameters(sizes))
        found.append(fd.functional_dimension(net, x, whole_regions=task.look != "points"))
    deficits = np.array([one.deficit for one in found])
    log(f"{name}: {np.mean(deficits == 0):.2f} without a hidden symmetry, mean deficit {deficits.mean():.1f}")
    cells = {
        "inputs": task.inputs,
        "width": task.width,
        "depth": task.depth,
        "look": task.look if task.look in ("line", "regions") else f"{task.budget} {task.look}",
        "bound": found[0].bound,
        "full": counted(deficits == 0),
        "dead": counted([one.dead > 0 for one in found]),
        "alive": counted([one.deficit_alive == 0 for one in found]),
        "always": counted([one.always_on > 0 for one in found]),
        "deficit": mean(deficits),
        "deficit_alive": mean([one.deficit_alive for one in found]),
        "regions": mean([one.regions for one in found]),
        "kept": min(one.kept for one in found),
        "dropped": max(one.dropped for one in found),
    }
    missing = [math.nan] * (plan.replicas - number)
    return result({"dimension/deficit": [*deficits, *missing]}, cells, fd.parameters(sizes))


def mean(values):
    """The cell of a mean over networks with its 95 % interval by Student's t.

    >>> mean([1.0, 2.0, 3.0])
    {'value': 2.0, 'low': -0.48414, 'high': 4.48414}
    """
    import scipy

    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean())
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {
        "value": float(values.mean()),
        "low": round(float(values.mean() - half), 5),
        "high": round(float(values.mean() + half), 5),
    }


def _generator(key, name, seed):
    return np.random.default_rng(np.asarray(jax.random.key_data(rng.replica_stream(key, name, seed))).tolist())


def _points(task, net, random, parameters):
    if task.look == "line":
        return fd.line_regions(net, np.zeros(1), np.ones(1))[:, None]
    if task.look == "regions":
        return fd.all_regions(net)
    if task.look == "lines":
        return fd.points_on_lines(random, net, task.budget)
    return fd.random_points(random, task.budget * parameters, task.inputs)


EXPERIMENT = ExactExperiment(
    Fields,
    title="Hidden symmetries of ReLU networks",
    columns={
        "inputs": "inputs",
        "width": "width",
        "depth": "hidden layers",
        "look": "regions found by",
        "bound": "parameters - hidden units",
        "full": "without a hidden symmetry",
        "dead": "with a dead unit",
        "alive": "without one that no dead unit makes",
        "always": "with a unit that is always active",
        "deficit": "mean deficit",
        "deficit_alive": "dead units apart",
        "regions": "mean regions seen",
        "kept": "least singular value kept",
        "dropped": "largest dropped",
    },
    note="Shares with 95 % Wilson intervals. By lines or points: lower bounds of the shares, upper ones of deficits. "
    "Singular values relative to the largest; those below 1e-9 are dropped.",
    primary="dimension/deficit",
    smoke={},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
)
