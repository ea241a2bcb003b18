"""Deep linear networks with one product: how many components the set has, and paths within one (arXiv 2505.23681)."""

import dataclasses
import itertools

import jax
import numpy as np
import scipy.linalg

from sbjax import rng
from sbjax.common.options import option
from sbjax.experiments.exact.experiment import ExactExperiment, counted, measured, result
from sbjax.frame.errors import ConfigError
from sbjax.landscape import linear_nets as nets


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("linear_nets", "which experiment with closed forms")
    layers: int = option(3, "weight matrices", least=2, most=8)
    width: int = option(2, "of all layers", least=1, most=50)
    points: int = option(41, "on a path", least=3, most=10**4)
    skip: bool = option(False, "a skip connection over the first two of three scalar layers")
    short: float = option(1e-3, "length of the generators whose arc is compared with its curvature", above=0, most=1)


def check(plan, arm):
    """Refuse a skip connection in other networks than those of three scalar layers.

    Raises:
        ConfigError: as said.
    """
    task = arm.task
    if task.skip and (task.layers, task.width) != (3, 1):
        raise ConfigError(f"task.skip=True needs task.layers=3 (not {task.layers}) and task.width=1 (not {task.width})")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    return {"networks on a path": 8 * task.points * task.layers * task.width**2}


def run_arm(plan, arm, key, log, stop):
    """For each seed, two networks at random with one product: are they joined, and at which loss."""
    task = arm.task
    if task.skip:
        return _with_skip(plan, task, key, log, stop)
    times = np.linspace(0, 1, task.points)
    met, along, straight, arcs, moved = set(), [], [], [], []
    for seed in range(plan.replicas):
        if stop():
            return None
        random = _generator(key, seed)
        target = random.normal(size=(task.width, task.width))
        start, end = (nets.random_weights(random, task.layers, target) for _ in range(2))
        met |= {nets.component_of(start), nets.component_of(end)}
        moved.append(nets.component_of(start) == nets.component_of(end))
        goal = end if moved[-1] else _moved_into(nets.component_of(start), end)
        steps = nets.steps_between(start, goal)
        at = nets.path(start, steps)
        scale = np.sum(target**2)
        along.append(max(np.sum((nets.product(at(t)) - target) ** 2) / scale for t in times))
        lines = ([(1 - t) * a + t * b for a, b in zip(start, goal)] for t in times)
        straight.append(max(np.sum((nets.product(line) - target) ** 2) / scale for line in lines))
        arcs.append(_arc(random, start, task))
    number = nets.components(task.layers)
    log(f"{len(met)} of {number} components met, largest relative loss on a path {max(along):.1e}")
    cells = {
        "layers": task.layers,
        "width": task.width,
        "components": number,
        "met": len(met),
        "together": counted(moved),
        "path": max(along),
        "straight": measured(straight),
        "arc": measured(arcs),
    }
    metrics = {"path/loss": along, "straight/loss": straight, "path/arc_ratio": arcs}
    return result(metrics, cells, task.layers * task.width**2)


def _with_skip(plan, task, key, log, stop):
    """w_3 (w_2 w_1 + 1) = c: pairs at random, joined where they lie in one component."""
    times = np.linspace(0, 1, task.points)
    met, along, straight, moved = set(), [], [], []
    for seed in range(plan.replicas):
        if stop():
            return None
        random = _generator(key, seed)
        target, start, end = random.normal(), random.normal(size=2) * 2, random.normal(size=2) * 2
        met |= {nets.skip_component(*start), nets.skip_component(*end)}
        moved.append(nets.skip_component(*start) == nets.skip_component(*end))
        while nets.skip_component(*start) != nets.skip_component(*end):
            end = random.normal(size=2) * 2
        at = nets.skip_path(start, end)
        third = [target / (b * a + 1) for a, b in (start, end)]
        along.append(max(_skip_loss(*at(t), target / (at(t)[0] * at(t)[1] + 1), target) for t in times))
        lines = [(*((1 - t) * start + t * end), (1 - t) * third[0] + t * third[1]) for t in times]
        straight.append(max(_skip_loss(*line, target) for line in lines))
    log(f"{len(met)} of {nets.components(3, skip=True)} components met, with a skip connection")
    cells = {
        "layers": "3, skip",
        "width": 1,
        "components": nets.components(3, skip=True),
        "met": len(met),
        "together": counted(moved),
        "path": max(along),
        "straight": measured(straight),
    }
    missing = [float("nan")] * plan.replicas
    return result({"path/loss": along, "straight/loss": straight, "path/arc_ratio": missing}, cells, 3)


def _skip_loss(w1, w2, w3, target):
    return (w3 * (w2 * w1 + 1) - target) ** 2 / target**2


def _generator(key, seed):
    return np.random.default_rng(np.asarray(jax.random.key_data(rng.replica_stream(key, "nets", seed))).tolist())


def _moved_into(component, weights):
    """The weights with two neighbouring layers reflected where a sign differs, so that the product stays."""
    weights = list(weights)
    for layer, sign in enumerate(component):
        if nets.component_of(weights)[layer] != sign:
            weights[layer] = weights[layer] * np.r_[-1.0, np.ones(len(weights[layer]) - 1)][:, None]
            weights[layer + 1] = weights[layer + 1] * np.r_[-1.0, np.ones(len(weights[layer]) - 1)]
    return weights


def _arc(random, start, task):
    """Largest distance of a short curve exp(t X) . W from its chord, over curvature |chord|^2 / 8."""
    generators = [random.normal(size=start[0].shape) * task.short for _ in start[:-1]]
    one = np.eye(task.width)

    def at(t):
        moves = [one, *(scipy.linalg.expm(t * x) for x in generators), one]
        return [moves[j + 1] @ w @ scipy.linalg.inv(moves[j]) for j, w in enumerate(start)]

    points = [at(t) for t in np.linspace(0, 1, task.points)]
    chord = sum(np.sum((a - b) ** 2) for a, b in itertools.zip_longest(points[0], points[-1]))
    middle = at(0.5)
    return nets.chord_distance(points) / (nets.curvature(middle, generators) * chord / 8)


EXPERIMENT = ExactExperiment(
    Fields,
    title="Components of the weights of linear networks with one product",
    columns={
        "layers": "layers",
        "width": "width",
        "components": "components: 2^(l-1), with the skip connection 3",
        "met": "met at random",
        "together": "pairs in one component",
        "path": "largest relative loss along the group",
        "straight": "on the straight line",
        "arc": "distance from the chord over curvature |chord|^2 / 8",
    },
    note="Medians and quartiles over pairs of networks; a partner in another component is reflected into the first's.",
    primary="path/loss",
    smoke={"points": 5},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
)
