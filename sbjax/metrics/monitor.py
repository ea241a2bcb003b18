"""Numbers about all replicas of an arm, taken at chosen steps of a training."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from sbjax.metrics import replica
from sbjax.metrics.bootstrap import Estimate
from sbjax.names import near

KINDS = ("unmatched", "marginal", "neuron_cloud", "function")
READINGS = ("distance", "null", "excess")


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


def make_replica_monitor(
    kinds: Sequence[str],
    *,
    key: Key[Array, ""],
    outputs_fn: Callable[[PyTree], Array] | None = None,
    solver: str = "sliced",
) -> Monitor:
    """Replica distances along training.

    Reported for every kind: 'replica_distance/<kind>', '../<kind>_null', '../<kind>_excess', and the same three of the
    scale-free form as '../<kind>_scale_free', '../<kind>_scale_free_null', '../<kind>_scale_free_excess'. 'function'
    leaves out replicas whose outputs are not finite, and is NaN where fewer than two are left.

    Args:
        kinds: of 'unmatched', 'marginal', 'neuron_cloud', 'function'.
        key: for the nulls.
        outputs_fn: outputs of one replica on the probe batch, `(variables) -> array`; needed by 'function'.
        solver: of 'neuron_cloud'.

    Raises:
        ValueError: an unknown kind or solver, none or one twice, or 'function' without `outputs_fn`.

    >>> import jax.numpy as jnp
    >>> monitor = make_replica_monitor(['unmatched'], key=jax.random.key(0))
    >>> variables = {'params': {'w': jnp.array([[0.0, 1.0], [3.0, 4.0]])}}
    >>> state = monitor.update(monitor.init(variables), 10, variables)
    >>> monitor.summarise(state)['replica_distance/unmatched'].value
    3.0
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds: {kind!r} is unknown{near(kind, KINDS)}; known: {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds={list(kinds)} must name at least one kind of replica distance and none twice")
    if "function" in kinds and outputs_fn is None:
        raise ValueError("kinds: 'function' compares outputs and needs outputs_fn; leave it out for tasks without one")
    if solver not in replica.SOLVERS:
        raise ValueError(
            f"solver={solver!r} is unknown{near(solver, replica.SOLVERS)}; known: {', '.join(replica.SOLVERS)}"
        )
    names = [f"replica_distance/{kind}{suffix}" for kind in kinds for suffix in SUFFIXES]
    outputs = None if outputs_fn is None else jax.jit(lambda stacked: jax.lax.map(outputs_fn, stacked))

    def init(variables):
        return {"step": np.int32(-1), "estimates": np.full((len(names), 3), np.nan, np.float32)}

    def update(state, step, variables):
        step_key = jax.random.fold_in(key, step)
        rows = [row for kind in kinds for row in _rows(_distance(kind, variables, step_key, outputs, solver))]
        return {"step": np.int32(step), "estimates": np.array(rows, np.float32)}

    def summarise(state):
        return {name: Estimate(*map(float, row)) for name, row in zip(names, state["estimates"], strict=True)}

    return Monitor(init, update, summarise)


SUFFIXES = ("", "_null", "_excess", "_scale_free", "_scale_free_null", "_scale_free_excess")


def _distance(kind, variables, key, outputs, solver) -> replica.ReplicaDistance | None:
    params = variables["params"]
    if kind == "unmatched":
        return replica.unmatched_distance(params, key=key)
    if kind == "marginal":
        return replica.marginal_distance(params, key=key)
    if kind == "neuron_cloud":
        return replica.neuron_cloud_distance(params, solver=solver, key=key)
    null = {**variables, "params": replica.null_replicas(params, key=key)}
    found, null_found = (_finite_rows(outputs(tree)) for tree in (variables, null))
    return replica.function_distance(found, null_found) if min(len(found), len(null_found)) > 1 else None


def _finite_rows(outputs):
    """A replica on its way to divergence has finite weights and overflowing outputs; a metric must not stop the run."""
    rows = np.asarray(outputs)
    return rows[np.isfinite(rows.reshape(len(rows), -1)).all(1)]


def _rows(distance: replica.ReplicaDistance | None) -> list[tuple[float, float, float]]:
    if distance is None:
        return [(math.nan,) * 3] * len(SUFFIXES)
    totals = (distance.raw.total, distance.scale_free.total)
    return [tuple(getattr(total, reading)) for total in totals for reading in READINGS]
