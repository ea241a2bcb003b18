"""Losses on straight lines between the trained networks of an arm, and from where they started."""

import itertools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from sbjax import rng, trees
from sbjax.common import options as options_lib
from sbjax.common.files import plain, write_atomically
from sbjax.experiments.connectivity import neurons
from sbjax.frame.arms import Arm
from sbjax.frame.plan import Plan
from sbjax.frame.sections import Interpolation
from sbjax.frame.workdir import Workdir
from sbjax.metrics.connectivity import barriers, monotonicity, summarise
from sbjax.metrics.interpolation import over_parts
from sbjax.metrics.matched import MOST_REPLICAS, weight_spec, weights_of
from sbjax.symmetry.activation_matching import match_activations, recorded
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Permutations, permute, random_permutations
from sbjax.tasks.task import Task, Variables
from sbjax.training.fit import Fitted
from sbjax.training.progress import Progress

FOLDER = "interpolation"
DRAWS = 3  # random orders beside the best one


def measure_arm(plan: Plan, arm: Arm, fitted: Fitted, folder: Workdir, progress: Progress) -> None:
    """Measure an arm that is trained, over the replicas that did not stop, and write `interpolation/<arm>.json`."""
    progress.show(f"{arm.name}: lines between networks")
    began = time.perf_counter()
    stopped = {failure.replica for failure in fitted.failures}
    running = [replica for replica in range(plan.replicas) if replica not in stopped]
    key = jax.random.key(plan.seed)
    found = measure_lines(arm.task, fitted.variables, plan.interpolation, key=key, running=running)
    save_lines(folder.path, arm.name, found)
    folder.add_timing(arm=arm.name, interpolation_seconds=round(time.perf_counter() - began, 3))


def measure_lines(
    task: Task, variables: Variables, section: Interpolation, *, key: Key[Array, ""], running: list[int]
) -> dict[str, Any]:
    """Everything that the config section `interpolation` asks for about one arm, as plain numbers for JSON.

    - 'pairs': barriers of held-out numbers between pairs of replicas, `{'pairs', 'alphas', 'curves', 'summary'}`;
    - with 'rebase', 'rebased': the same with the second network's hidden units matched to the first's (absent where the
      network has constants: a permutation of the weights alone would be another function), and 'alignment': see
      `Alignment.between`;
    - with 'identifiability', the same word: see `neurons.identify`;
    - 'start': the training loss from each replica's start to its end, with `monotonicity`.

    Running statistics are estimated again at every point, by the mean over the batches of `section.examples` examples.

    Args:
        task: with `lines`.
        variables: of all replicas, stacked.
        section: what is measured.
        key: of the run, which the starts come from.
        running: replicas that did not stop.
    """
    stacked = variables
    variables = {name: tree for name, tree in variables.items() if name != "hyper"}
    words = options_lib.words(section.between)
    alphas = np.linspace(0.0, 1.0, section.points)
    recalibrate = task.lines.recalibrate(task.data) if "batch_stats" in variables else None
    options = {"alphas": alphas, "recalibrate": recalibrate}
    found: dict[str, Any] = {}
    if "pairs" in words and len(running) > 1:
        held_out = over_parts(task.evaluate, task.data, task.parts, unroll=task.parts if recalibrate else 1)
        pairs = choose_pairs(running, section.pairs)
        found["pairs"] = _record(barriers(held_out, variables, pairs, **options), pairs)
        if section.rebase:
            alignment = Alignment(task, variables, key, by=section.matching)
            found["alignment"] = alignment.between(running[:MOST_REPLICAS])
            if "frozen" not in variables and alignment.spec.sizes:
                count = len(pairs)
                moved = trees.stack([alignment.moved(variables, i, j) for i, j in pairs])
                first = trees.take(variables, np.array([i for i, _ in pairs]))
                both = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), first, moved)
                found["rebased"] = _record(
                    barriers(held_out, both, [(i, count + i) for i in range(count)], **options), pairs
                )
        if section.identifiability:
            found["identifiability"] = neurons.identify(task, variables, pairs, key=key)
    if "start" in words and running:
        on_train = over_parts(task.lines.evaluate, task.data, task.lines.parts)
        starts = jax.jit(jax.vmap(lambda r: task.init(rng.replica_stream(key, "init", r))))(np.array(running))
        ends = trees.take(stacked, np.array(running))
        # Constants of a replica, to the last bit: they may have been compiled otherwise.
        starts = {**ends, "params": starts["params"]}
        both = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), starts, ends)
        count = len(running)
        line = barriers(on_train, both, [(i, count + i) for i in range(count)], **options)
        shape = monotonicity(line.curves["train/loss"])
        found["start"] = {
            **_record(line, [(i, i) for i in running]),
            "monotonicity": {name: np.asarray(value).tolist() for name, value in shape._asdict().items()},
        }
    return found


def save_lines(workdir: pathlib.Path, arm: str, found: dict[str, Any]) -> None:
    """Write `interpolation/<arm>.json`."""
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_atomically(workdir / FOLDER / f"{arm}.json", json.dumps(found) + "\n")


def choose_pairs(replicas: list[int], most: int) -> list[tuple[int, int]]:
    """At most so many pairs of replicas: first disjoint ones, which are independent, then the others.

    >>> choose_pairs([0, 1, 2, 3], 3)
    [(0, 1), (2, 3), (0, 2)]
    """
    disjoint = list(zip(replicas[::2], replicas[1::2], strict=False))
    others = [pair for pair in itertools.combinations(replicas, 2) if pair not in disjoint]
    return [*disjoint, *others][:most]


class Alignment:
    """Weight or activation matching between the replicas of an arm, each pair at most once.

    Permutations are those of the network as it computes, with effective weights; constants, which permutations would
    have to move too, are left out, so that for an asymmetric network it says how far its replicas are from being each
    other's permutations, and not how to connect them.

    Attributes:
        spec: which units can be permuted.
        by: 'weights', or the kind of activation matching: 'pearson' or 'dot', on the training examples of `Lines`.
    """

    def __init__(self, task: Task, variables: Variables, key: Key[Array, ""], *, by: str = "weights"):
        self.spec = weight_spec(task.lines.apply, trees.take(variables, 0), task.lines.inputs(task.data))
        self.by = by
        self._task, self._variables = task, variables
        self._weights = weights_of(variables)
        self._key, self._known = rng.stream(key, "matching"), {}

    def permutations(self, i: int, j: int) -> Permutations:
        """Of replica j, to lie on replica i."""
        if (i, j) not in self._known:
            if self.by == "weights":
                a, b = trees.take(self._weights, i), trees.take(self._weights, j)
                key = jax.random.fold_in(jax.random.fold_in(self._key, i), j)
                found = match_weights(self.spec, a, b, key=key, where="params/*").permutations
            else:
                a, b = trees.take(self._variables, i), trees.take(self._variables, j)
                batches = ((self._task.data, part) for part in range(self._task.lines.parts))
                found = match_activations(self.spec, self._record, a, b, batches, kind=self.by)
            self._known[i, j] = found
        return self._known[i, j]

    def _record(self, variables, batch):
        return recorded(self.spec, variables, neurons.outputs(self._task, batch[0], variables, batch[1]))

    def moved(self, variables: Variables, i: int, j: int) -> Variables:
        """Replica j in the order of replica i."""
        return jax.tree.map(np.asarray, permute(self.spec, trees.take(variables, j), self.permutations(i, j)))

    def between(self, replicas: list[int]) -> dict[str, Any]:
        """Root mean square distances of weights between replicas (D0), after matching (D3), and for every kernel the
        cosine between two replicas as they are, matched, and in random orders: means over the pairs.
        """
        count = len(replicas)
        d0, d3 = np.zeros((count, count)), np.zeros((count, count))
        cosines: dict[str, dict[str, list[float]]] = {}
        for x, y in itertools.combinations(range(count), 2 if self.spec.sizes else count + 1):
            i, j = replicas[x], replicas[y]
            a = trees.take(self._weights, i)["params"]
            key = jax.random.fold_in(jax.random.fold_in(rng.stream(self._key, "random"), i), j)
            orders = {"identity": {}, "optimal": self.permutations(i, j)}
            orders |= {f"random_{n}": random_permutations(jax.random.fold_in(key, n), self.spec) for n in range(DRAWS)}
            for order, permutations in orders.items():
                b = permute(self.spec, trees.take(self._weights, j), permutations)["params"]
                if order == "identity":
                    d0[x, y] = d0[y, x] = _rms(a, b)
                if order == "optimal":
                    d3[x, y] = d3[y, x] = _rms(a, b)
                for name, cosine in _cosines(a, b).items():
                    cosines.setdefault(name, {}).setdefault(order, []).append(cosine)
        return {
            "replicas": replicas,
            "d0": d0.tolist(),
            "d3": d3.tolist(),
            "cosines": {
                name: {order: float(np.mean(x)) for order, x in orders.items()} for name, orders in cosines.items()
            },
            "permutations": dict(self.spec.sizes),
            "fixed": dict(self.spec.fixed),
        }


def _rms(a, b) -> float:
    squares = jax.tree.map(lambda x, y: float(np.sum((np.asarray(x, np.float64) - np.asarray(y)) ** 2)), a, b)
    return float(np.sqrt(sum(jax.tree.leaves(squares)) / trees.size(a)))


def _cosines(a, b) -> dict[str, float]:
    def cosine(x, y):
        x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
        return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), np.finfo(np.float64).tiny))

    b = trees.flatten(b)
    return {name: cosine(leaf, b[name]) for name, leaf in trees.flatten(a).items() if np.ndim(leaf) >= 2}


def _record(found, pairs):
    return plain(
        {
            "pairs": pairs,
            "alphas": found.alphas,
            "curves": {name: np.atleast_2d(curve) for name, curve in found.curves.items()},
            "heights": {
                name: {kind: np.ravel(values) for kind, values in kinds.items()}
                for name, kinds in found.heights.items()
            },
            "summary": summarise(found),
        }
    )
