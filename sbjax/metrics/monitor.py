"""Numbers about all replicas of an arm, taken at chosen steps of a training."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.metrics import replica
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.matched import MOST_REPLICAS, matched_distance, weight_spec, weights_of
from sbjax.metrics.own_distance import own_distance, try_out
from sbjax.names import check_choice, import_path, is_import_path

READINGS = ("distance", "null", "excess")
SUFFIXES = ("", "_null", "_excess", "_scale_free", "_scale_free_null", "_scale_free_excess")

Distance = Callable[[PyTree, Key[Array, ""]], replica.ReplicaDistance | None]


class Monitor(NamedTuple):
    """A metric along training, as three pure functions.

    Attributes:
        init: `(variables) -> state`, a tree of arrays whose shapes never change, so that it can be checkpointed.
        update: `(state, step, variables) -> state` at each chosen step; `variables` are stacked over the replicas that
            are still running, at least two.
        summarise: `(state) -> {'group/name': Estimate}`, what is reported; NaN where nothing is known yet.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, int, PyTree], PyTree]
    summarise: Callable[[PyTree], dict[str, Estimate]]


class Around(NamedTuple):
    """What a distance may need beside the replicas' variables, see `make_replica_monitor`."""

    outputs_fn: Callable[[PyTree], Array] | None = None
    solver: str = "sliced"
    apply_fn: Callable[[PyTree, Any], Array] | None = None
    inputs: PyTree = None


def make_replica_monitor(
    kinds: Sequence[str | Callable[..., Any]],
    *,
    key: Key[Array, ""],
    outputs_fn: Callable[[PyTree], Array] | None = None,
    solver: str = "sliced",
    apply_fn: Callable[[PyTree, Any], Array] | None = None,
    inputs: PyTree = None,
    shapes: PyTree | None = None,
) -> Monitor:
    """Replica distances along training.

    Reported for every kind: 'replica_distance/<kind>', '../<kind>_null', '../<kind>_excess', and the same three of the
    scale-free form as '../<kind>_scale_free', '../<kind>_scale_free_null', '../<kind>_scale_free_excess'. 'function'
    leaves out replicas whose outputs are not finite, and is NaN where fewer than two are left. 'matched' takes four
    matchings for each pair and therefore looks at the first `MOST_REPLICAS` running replicas; of a network with frozen
    constants it matches the weights that it computes with, without moving the constants, see `weight_spec`.

    Args:
        kinds: names of `DISTANCES`, import paths of functions of your own ('my_metrics:cosine'), or such functions; one
            of your own is called by its name, see `sbjax.metrics.own_distance`.
        key: for the nulls.
        outputs_fn: outputs of one replica on the probe batch, `(variables) -> array`; needed by 'function'.
        solver: of 'neuron_cloud'.
        apply_fn, inputs: `(variables, inputs) -> outputs` of one replica in evaluation, and a few inputs; needed by
            'matched', which finds from them which hidden units can be permuted.
        shapes: of one replica's variables, as from `jax.eval_shape`: distances of your own are then tried out now.

    Raises:
        ValueError: an unknown kind or solver, none or one twice, 'function' without `outputs_fn`, 'matched' without
            `apply_fn`, or as `own_distance`.

    >>> import jax.numpy as jnp
    >>> monitor = make_replica_monitor(['unmatched'], key=jax.random.key(0))
    >>> variables = {'params': {'w': jnp.array([[0.0, 1.0], [3.0, 4.0]])}}
    >>> state = monitor.update(monitor.init(variables), 10, variables)
    >>> monitor.summarise(state)['replica_distance/unmatched'].value
    3.0
    """
    around = Around(outputs_fn, solver, apply_fn, inputs)
    found = [_find(kind, around, shapes) for kind in kinds]
    names = [f"replica_distance/{kind}{suffix}" for kind, _ in found for suffix in SUFFIXES]
    if not names or len(set(names)) < len(names):
        listed = ", ".join(kind for kind, _ in found) or "none"
        raise ValueError(f"kinds={listed} must name at least one replica distance and none twice")

    def init(variables):
        return {"step": np.int32(-1), "estimates": np.full((len(names), 3), np.nan, np.float32)}

    def update(state, step, variables):
        step_key = jax.random.fold_in(key, step)
        rows = [row for _, distance in found for row in _rows(distance(variables, step_key))]
        return {"step": np.int32(step), "estimates": np.array(rows, np.float32)}

    def summarise(state):
        return {name: Estimate(*map(float, row)) for name, row in zip(names, state["estimates"], strict=True)}

    return Monitor(init, update, summarise)


def _find(kind: Any, around: Around, shapes: PyTree | None) -> tuple[str, Distance]:
    """A kind's name in reports, and its function."""
    if not callable(kind) and not is_import_path(kind):
        check_choice(kind, DISTANCES, what="kinds")
        return kind, DISTANCES[kind](around)
    try:
        function = kind if callable(kind) else import_path(kind)
        if not callable(function):
            raise ValueError(f"it is a {type(function).__name__}, not a function")
        name = kind.__name__ if callable(kind) else kind.rpartition(":")[2]
        distance = own_distance(name, function)
        if shapes is not None:
            try_out(name, distance, shapes)
    except ValueError as error:
        raise ValueError(f"kinds={kind!r}: {error}") from error
    return name, distance


def _of_params(measure: Callable[..., replica.ReplicaDistance]) -> Callable[[Around], Distance]:
    """A distance of parameters that needs nothing else."""
    return lambda around: lambda variables, key: measure(variables["params"], key=key)


def _neuron_cloud(around: Around) -> Distance:
    check_choice(around.solver, replica.SOLVERS, what="solver")
    return _of_params(functools.partial(replica.neuron_cloud_distance, solver=around.solver))(around)


def _function(around: Around) -> Distance:
    if around.outputs_fn is None:
        raise ValueError("kinds='function' compares outputs and needs outputs_fn; leave it out for tasks without one")
    outputs = jax.jit(lambda stacked: jax.lax.map(around.outputs_fn, stacked))

    def distance(variables, key):
        null = {**variables, "params": replica.null_replicas(variables["params"], key=key)}
        found, null_found = (_finite_rows(outputs(tree)) for tree in (variables, null))
        return replica.function_distance(found, null_found) if min(len(found), len(null_found)) > 1 else None

    return distance


def _matched(around: Around) -> Distance:
    if around.apply_fn is None:
        raise ValueError(
            "kinds='matched' permutes hidden units and needs apply_fn and inputs to find them; leave it out for tasks "
            "without"
        )

    specs = {}  # by shapes: found once

    def distance(variables, key):
        one = trees.take(variables, 0)
        shapes = str(jax.tree.map(np.shape, one))
        if shapes not in specs:
            specs[shapes] = weight_spec(around.apply_fn, one, around.inputs)
        stacked = weights_of(trees.take(variables, slice(MOST_REPLICAS)))
        return matched_distance(stacked, specs[shapes], key=key, where="params/*")

    return distance


DISTANCES: dict[str, Callable[[Around], Distance]] = {
    "unmatched": _of_params(replica.unmatched_distance),
    "marginal": _of_params(replica.marginal_distance),
    "neuron_cloud": _neuron_cloud,
    "function": _function,
    "matched": _matched,
}


def _finite_rows(outputs):
    """A replica on its way to divergence has finite weights and overflowing outputs; a metric must not stop the run."""
    rows = np.asarray(outputs)
    return rows[np.isfinite(rows.reshape(len(rows), -1)).all(1)]


def _rows(distance: replica.ReplicaDistance | None) -> list[tuple[float, float, float]]:
    missing = (math.nan,) * 3
    if distance is None:
        return [missing] * len(SUFFIXES)
    totals = (distance.raw.total, distance.scale_free.total)
    readings = [getattr(total, reading) for total in totals for reading in READINGS]
    return [missing if reading is None else tuple(reading) for reading in readings]
