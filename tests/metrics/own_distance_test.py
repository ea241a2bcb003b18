"""Replica distances of a user's own: null, excess, interval, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metrics import replica
from sbjax.metrics.monitor import SUFFIXES, make_replica_monitor
from sbjax.metrics.own_distance import own_distance, try_out

KEY = jax.random.key(0)
PARAMS = {"a": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 4)), jnp.float32)}
SHAPES = {"params": {"a": jax.ShapeDtypeStruct((3, 4), jnp.float32)}}


def matrix(params):
    """Root mean square differences: D0 by another way."""
    rows = params["a"].reshape(len(params["a"]), -1)
    return jnp.sqrt(((rows[:, None] - rows[None]) ** 2).mean(-1))


def test_a_matrix_is_treated_as_the_distances_of_this_package():
    ours = own_distance("mine", matrix)({"params": PARAMS}, KEY)
    theirs = replica.unmatched_distance(PARAMS, key=KEY)
    for one, other in zip([*ours.raw.total, *ours.scale_free.total], [*theirs.raw.total, *theirs.scale_free.total]):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert np.isfinite(ours.raw.total.excess.low)


def test_a_number_has_a_null_and_no_interval():
    i, j = np.triu_indices(5, 1)
    number = own_distance("mine", lambda params: matrix(params)[i, j].mean())({"params": PARAMS}, KEY)
    theirs = replica.unmatched_distance(PARAMS, key=KEY)
    for form in ("raw", "scale_free"):
        for reading, other in zip(getattr(number, form).total, getattr(theirs, form).total):
            np.testing.assert_allclose(reading.value, other.value, rtol=1e-4, atol=1e-6)
            assert np.isnan([reading.low, reading.high]).all()


def test_a_function_of_variables_and_key():
    """It is given a key of its own, the same at each call, and everything but the parameters as it is."""
    seen = []

    def distance(variables, *, key):
        seen.append((jax.random.key_data(key).tolist(), float(variables["other"][0])))
        return replica.unmatched_distance(variables["params"])  # without a null

    monitor = make_replica_monitor([distance, "unmatched"], key=KEY)
    variables = {"params": PARAMS, "other": jnp.arange(5.0) + 7}
    found = monitor.summarise(monitor.update(monitor.init(variables), 3, variables))
    assert [key for key, _ in seen] == [seen[0][0]]
    assert seen[0][1] == 7
    assert found["replica_distance/distance"] == found["replica_distance/unmatched"]
    assert np.isnan(found["replica_distance/distance_null"]).all()
    assert list(found) == [f"replica_distance/{kind}{s}" for kind in ("distance", "unmatched") for s in SUFFIXES]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda params: params["b"], "the replica distance 'mine' failed: KeyError: 'b'"),
        (lambda params: params["a"], r"returns a .* of shape \(2, 3, 4\); it must be one number, a matrix"),
        (lambda params: "far", "returns a str; it must be one number"),
        (lambda params: jnp.triu(jnp.ones((2, 2))), "a matrix that is not symmetric"),
        (lambda params: jnp.nan, "is nan, not finite"),
    ],
)
def test_tried_out_before_training(function, message):
    with pytest.raises(ValueError, match=message):
        try_out("mine", own_distance("mine", function), SHAPES)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["marginal", "statistics:mean", "statistics:mean"], "kinds=marginal, mean, mean must name .* none twice"),
        (["no_metrics:cosine"], "kinds='no_metrics:cosine': there is no module 'no_metrics'"),
        (["statistics:meen"], "kinds='statistics:meen': 'statistics' has no 'meen', did you mean 'mean"),
        (["math:pi"], "kinds='math:pi': it is a float, not a function"),
        (["statistics:mean"], "kinds='statistics:mean': the replica distance 'mean' failed"),
    ],
)
def test_refused_kinds(kinds, message):
    with pytest.raises(ValueError, match=message):
        make_replica_monitor(kinds, key=KEY, shapes=SHAPES if len(kinds) == 1 else None)
