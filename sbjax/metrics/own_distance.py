"""Replica distances of the user's own: functions that know nothing of this package."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng
from sbjax.metrics import replica
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.replica import Measured, Reading, ReplicaDistance
from sbjax.metrics.scales import unit_scale


def own_distance(name: str, function: Callable[..., Any]) -> Callable[[PyTree, Key[Array, ""]], ReplicaDistance]:
    """A user's function as `(variables, key) -> ReplicaDistance`, with its null, excess and scale-free form.

    Args:
        name: what it is called in reports.
        function: `(params) -> distance`, or `(variables, *, key) -> distance`. Every leaf has the replica axis first. A
            distance is one number (which gets no interval); a symmetric matrix [replica, replica], whose mean over the
            pairs is reported with an interval; or a `ReplicaDistance`, which is taken as it is. It is called on the
            replicas and on `null_replicas`, each as they are and with every layer divided by its standard deviation.

    Raises:
        ValueError: when called: the function fails or returns something else.

    >>> spread = own_distance('spread', lambda params: params['w'].std())
    >>> found = spread({'params': {'w': jnp.array([[1.0], [3.0]])}}, jax.random.key(0))
    >>> found.raw.total.distance
    Estimate(value=1.0, no interval: fewer than 4 replicas, one group alone, or values that are not known)
    """
    takes_key = "key" in inspect.signature(function).parameters

    def call(variables, key):
        try:
            return function(variables, key=rng.stream(key, name)) if takes_key else function(variables["params"])
        except Exception as error:  # the user's own code may raise anything
            raise ValueError(f"the replica distance {name!r} failed: {type(error).__name__}: {error}") from error

    def distance(variables: PyTree, key: Key[Array, ""]) -> ReplicaDistance:
        found = call(variables, key)
        if isinstance(found, ReplicaDistance):
            return found
        params = variables["params"]
        null = replica.null_replicas(params, key=key)
        replicas = len(jax.tree.leaves(params)[0])

        def checked(params):
            return _checked(name, call({**variables, "params": params}, key), replicas)

        raw = _measured(_checked(name, found, replicas), checked(null))
        scale_free = _measured(checked(unit_scale(params)), checked(unit_scale(null)))
        return ReplicaDistance(name, Reading({}, raw), Reading({}, scale_free), {}, {}, 0)

    return distance


def try_out(name: str, distance: Callable[[PyTree, Key[Array, ""]], ReplicaDistance], shapes: PyTree) -> None:
    """Call a distance on two replicas of random numbers, so that it does not fail after hours of training.

    Args:
        name: what it is called.
        distance: as `own_distance` returns.
        shapes: of one replica's variables, as from `jax.eval_shape`.

    Raises:
        ValueError: as `own_distance`, or the distance of such replicas is not finite.
    """
    generator = np.random.default_rng(0)

    def draw(leaf):
        drawn = generator.standard_normal((2, *leaf.shape)) if jnp.issubdtype(leaf.dtype, jnp.floating) else 1
        return jnp.broadcast_to(jnp.asarray(drawn, leaf.dtype), (2, *leaf.shape))

    value = distance(jax.tree.map(draw, shapes), jax.random.key(0)).raw.total.distance.value
    if not np.isfinite(value):
        raise ValueError(f"the replica distance {name!r} of two replicas of random numbers is {value}, not finite")


def _checked(name: str, found: Any, replicas: int) -> Float[np.ndarray, "..."]:
    """A number or a symmetric matrix, or a sentence about what it is."""
    try:
        array = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape not in ((), (replicas, replicas)):
        shape = "" if array is None else f" of shape {array.shape}"
        raise ValueError(
            f"the replica distance {name!r} returns a {type(found).__name__}{shape}; it must be one number, a matrix "
            f"[replica, replica] = {(replicas, replicas)}, or a ReplicaDistance"
        )
    if array.ndim and not np.allclose(array, array.T, equal_nan=True):
        raise ValueError(f"the replica distance {name!r} returns a matrix that is not symmetric")
    return array


def _measured(found: Float[np.ndarray, "..."], null: Float[np.ndarray, "..."]) -> Measured:
    if found.ndim and null.ndim:
        found, null = (np.where(np.eye(len(matrix)), 0, matrix) for matrix in (found, null))
        return replica.estimate(found, null)
    values = (float(found), float(null), float(found) - float(null))
    return Measured(*(Estimate(value, np.nan, np.nan) for value in values))
