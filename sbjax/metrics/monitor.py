"""Numbers about the replicas of an arm, taken at chosen steps of a training.

Of all of them together: replica distances, `DISTANCES`. Of each one: `NUMBERS`, which are reported as a task's metrics
are, a number a replica.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import trees
from sbjax.common.names import check_choice, import_path, is_import_path
from sbjax.metrics import breaking, replica, sharpness
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.matched import MOST_REPLICAS, matched_distance, weight_spec, weights_of
from sbjax.metrics.own_distance import own_distance, try_out

READINGS = ("distance", "null", "excess")
SUFFIXES = ("", "_null", "_excess", "_scale_free", "_scale_free_null", "_scale_free_excess")

Distance = Callable[[PyTree, Key[Array, ""]], replica.ReplicaDistance | None]
Numbers = Callable[[PyTree], dict[str, Float[np.ndarray, "replica"]]]


class Monitor(NamedTuple):
    """A metric along training, as three pure functions.

    Attributes:
        init: `(variables) -> state`, a tree of arrays whose shapes never change, so that it can be checkpointed.
        update: `(state, step, variables) -> state` at each chosen step; `variables` are stacked over the replicas that
            are still running, at least two.
        summarise: `(state) -> {'group/name': Estimate}`, what is reported; NaN where nothing is known yet.
        numbers: `(variables) -> {'group/name': [replica]}`, of each replica by itself; None where there are none.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, int, PyTree], PyTree]
    summarise: Callable[[PyTree], dict[str, Estimate]]
    numbers: Numbers | None = None


class Loss(NamedTuple):
    """The training loss, for 'sharpness'.

    Attributes:
        function: `(variables, batch) -> mean loss` of one replica.
        batches: called once, when first needed: batches of equal size.
        products: Hessian products of all of them for each replica.
    """

    function: Callable[[PyTree, Any], Array]
    batches: Callable[[], Sequence[Any]]
    products: int = 16


class Around(NamedTuple):
    """What a kind may need beside the replicas' variables, see `make_replica_monitor`."""

    outputs_fn: Callable[[PyTree], Array] | None = None
    solver: str = "sliced"
    apply_fn: Callable[[PyTree, Any], Array] | None = None
    inputs: PyTree = None
    shapes: PyTree | None = None
    loss: Loss | None = None
    key: Key[Array, ""] | None = None


def make_replica_monitor(
    kinds: Sequence[str | Callable[..., Any]],
    *,
    key: Key[Array, ""],
    outputs_fn: Callable[[PyTree], Array] | None = None,
    solver: str = "sliced",
    apply_fn: Callable[[PyTree, Any], Array] | None = None,
    inputs: PyTree = None,
    shapes: PyTree | None = None,
    loss: Loss | None = None,
) -> Monitor:
    """Replica distances along training, and numbers of each replica.

    Reported for every distance: 'replica_distance/<kind>', '../<kind>_null', '../<kind>_excess', and the same three of
    the scale-free form as '../<kind>_scale_free', '../<kind>_scale_free_null', '../<kind>_scale_free_excess'.
    'function' leaves out replicas whose outputs are not finite, and is NaN where fewer than two are left. 'matched'
    takes four matchings for each pair and therefore looks at the first `MOST_REPLICAS` running replicas; of a network
    with frozen constants it matches the weights that it computes with, without moving the constants, see `weight_spec`.

    Of each replica, 'sharpness' gives 'train/sharpness' (`sbjax.metrics.sharpness`) and 'breaking' the
    symmetry-breaking distances 'symmetry/permutation', '../permutation_share', '../pair' and '../unit'
    (`sbjax.metrics.breaking`) of its parameters, of a network with frozen constants likewise of the weights that it
    computes with.

    Args:
        kinds: names of `DISTANCES` and `NUMBERS`, import paths of distances of your own ('my_metrics:cosine'), or such
            functions; one of your own is called by its name, see `sbjax.metrics.own_distance`.
        key: for the nulls.
        outputs_fn: outputs of one replica on the probe batch, `(variables) -> array`; needed by 'function'.
        solver: of 'neuron_cloud'.
        apply_fn, inputs: `(variables, inputs) -> outputs` of one replica in evaluation, and a few inputs; needed by
            'matched' and 'breaking', which find from them which hidden units can be permuted.
        shapes: of one replica's variables, as from `jax.eval_shape`: distances of your own are then tried out now;
            needed by 'sharpness' and 'breaking'.
        loss: the training loss; needed by 'sharpness'.

    Raises:
        ValueError: an unknown kind or solver, none or one twice, 'function' without `outputs_fn`, 'matched' or
            'breaking' without `apply_fn` or without units to permute, 'sharpness' without `loss` or of a loss that
            cannot be differentiated twice, or as `own_distance`.

    >>> import jax.numpy as jnp
    >>> monitor = make_replica_monitor(['unmatched'], key=jax.random.key(0))
    >>> variables = {'params': {'w': jnp.array([[0.0, 1.0], [3.0, 4.0]])}}
    >>> state = monitor.update(monitor.init(variables), 10, variables)
    >>> monitor.summarise(state)['replica_distance/unmatched'].value
    3.0
    """
    around = Around(outputs_fn, solver, apply_fn, inputs, shapes, loss, key)
    every = [_find(kind, around, shapes) for kind in kinds]
    listed = [kind for kind, _ in every]
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"kinds={', '.join(listed) or 'none'} must name at least one replica distance and none twice")
    of_each = [measure for given, (_, measure) in zip(kinds, every) if given in NUMBERS]
    found = [one for given, one in zip(kinds, every) if given not in NUMBERS]
    names = [f"replica_distance/{kind}{suffix}" for kind, _ in found for suffix in SUFFIXES]

    def init(variables):
        return {"step": np.int32(-1), **_state(np.full((len(names), 3), np.nan, np.float32))}

    def update(state, step, variables):
        step_key = jax.random.fold_in(key, step)
        rows = [row for _, distance in found for row in _rows(distance(variables, step_key))]
        return {"step": np.int32(step), **_state(np.array(rows, np.float32))}

    def summarise(state):
        rows = state.get("estimates", ())
        return {name: Estimate(*map(float, row)) for name, row in zip(names, rows, strict=True)}

    def numbers(variables):
        return {name: values for measure in of_each for name, values in measure(variables).items()}

    return Monitor(init, update, summarise, numbers if of_each else None)


def _state(estimates):
    """The estimates, if there are any: an array without entries cannot be checkpointed."""
    return {"estimates": estimates} if len(estimates) else {}


def _find(kind: Any, around: Around, shapes: PyTree | None) -> tuple[str, Distance | Numbers]:
    """A kind's name in reports, and its function."""
    if not callable(kind) and not is_import_path(kind):
        check_choice(kind, [*DISTANCES, *NUMBERS], what="kinds")
        return kind, (DISTANCES | NUMBERS)[kind](around)
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


def _sharpness(around: Around) -> Numbers:
    if around.loss is None or around.shapes is None:
        raise ValueError("kinds='sharpness' needs loss and shapes; leave it out for tasks without a training loss")
    try:
        measure = sharpness.make_sharpness(
            around.loss.function, around.loss.batches, around.shapes, key=around.key, products=around.loss.products
        )
    except ValueError as error:
        raise ValueError(f"kinds='sharpness': {error}") from error
    return lambda variables: {"train/sharpness": measure(variables)}


def _breaking(around: Around) -> Numbers:
    if around.apply_fn is None or around.shapes is None:
        raise ValueError(
            "kinds='breaking' looks at hidden units and needs apply_fn, inputs and shapes to find them; leave it out "
            "for tasks without"
        )
    try:
        spec = weight_spec(around.apply_fn, around.shapes, around.inputs)
        layout = breaking.make_layout(spec, {"params": around.shapes["params"]})
    except ValueError as error:
        raise ValueError(f"kinds='breaking': {error}; leave it out") from error

    def measure(variables):
        stacked = {"params": weights_of(variables)["params"]}
        each = [
            breaking.symmetry_breaking(layout, trees.take(stacked, i)) for i in range(len(jax.tree.leaves(stacked)[0]))
        ]
        names = {"permutation": "permutation", "share": "permutation_share", "pair": "pair", "unit": "unit"}
        return {f"symmetry/{name}": np.array([getattr(one, of) for one in each]) for of, name in names.items()}

    return measure


DISTANCES: dict[str, Callable[[Around], Distance]] = {
    "unmatched": _of_params(replica.unmatched_distance),
    "marginal": _of_params(replica.marginal_distance),
    "neuron_cloud": _neuron_cloud,
    "function": _function,
    "matched": _matched,
}

NUMBERS: dict[str, Callable[[Around], Numbers]] = {"sharpness": _sharpness, "breaking": _breaking}


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
