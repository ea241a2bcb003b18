"""Barriers by closed forms, across permutations, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sbjax.metrics.connectivity import KINDS, barrier, barriers, summarise
from sbjax.metrics.interpolation import recalibrate_batch_stats
from sbjax.models import make_model
from sbjax.symmetry.permutation import Move, Spec, invert, permute


def square(variables):
    return {"loss": sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(variables["params"]))}


@pytest.mark.parametrize("double", [False, True])
def test_quadratic_loss(double):
    """|w|^2 lies |a - b|^2 / 4 below the mean of its ends in the middle."""
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        rng = np.random.default_rng(0)
        stacked = {
            "params": {"w": rng.normal(size=(3, 4, 2)).astype(dtype), "b": rng.normal(size=(3, 2)).astype(dtype)}
        }
        pairs = list(itertools.combinations(range(3), 2))
        found = barriers(square, stacked, pairs)
    rtol = 1e-12 if double else 1e-5
    flat = np.concatenate([leaf.reshape(3, -1) for leaf in stacked["params"].values()], 1).astype(np.float64)
    for n, (i, j) in enumerate(pairs):
        expected = -(np.linalg.norm(flat[i] - flat[j]) ** 2) / 4
        np.testing.assert_allclose(found.heights["loss"]["midpoint_over_mean_of_ends"][n], expected, rtol=rtol)
        line = [np.sum(((1 - t) * flat[i] + t * flat[j]) ** 2) for t in np.linspace(0, 1, 25)]
        np.testing.assert_allclose(found.curves["loss"][n], line, rtol=rtol)
    # A convex function is never above its chord.
    np.testing.assert_allclose(found.heights["loss"]["maximum_over_chord"], 0, atol=10 * rtol)
    assert found.finite_ends.tolist() == [True] * 3


def test_double_well_and_drop_of_accuracy():
    def evaluate(variables):
        well = (variables["params"] ** 2 - 1) ** 2
        return {"loss": well, "test/accuracy": 1 - well / 2, "score": -well}

    a, b = {"params": jnp.float32(-1.0)}, {"params": jnp.float32(1.0)}
    found = barrier(evaluate, a, b, alphas=np.linspace(0, 1, 5))
    assert {name: float(h) for name, h in found.heights["loss"].items()} == dict.fromkeys(KINDS, 1.0)
    assert {name: float(h) for name, h in found.heights["test/accuracy"].items()} == dict.fromkeys(KINDS, 0.5)
    assert found.heights["score"]["maximum_over_chord"] == 0
    again = barrier(evaluate, a, b, alphas=np.linspace(0, 1, 5), higher_is_better=("score",))
    assert again.heights["score"]["maximum_over_chord"] == 1
    assert found.curves["loss"].tolist() == [0, 0.5625, 1, 0.5625, 0]
    assert bool(found.finite_ends)


def tanh_net(params, x):
    return jnp.tanh(x @ params["k0"] + params["b0"][None]) @ params["k1"]


def test_two_copies_of_one_net_in_another_order():
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in {"k0": (3, 16), "b0": (16,), "k1": (16, 2)}.items()}
    params, x = jax.tree.map(lambda leaf: leaf.astype(np.float32), (params, rng.normal(size=(64, 3))))

    def net(params):
        return jnp.tanh(x @ params["k0"] + params["b0"][None]) @ params["k1"]

    y = np.asarray(net(params))

    def evaluate(variables):
        return {"loss": jnp.mean((net(variables["params"]) - y) ** 2)}

    spec = Spec({"h": 16}, {"h": (Move("k0", 1), Move("b0", 0), Move("k1", 0))}, {})
    order = {"h": rng.permutation(16)}
    other = permute(spec, params, order)
    before = barrier(evaluate, {"params": params}, {"params": other}).heights["loss"]
    after = barrier(evaluate, {"params": params}, {"params": permute(spec, other, invert(order))}).heights["loss"]
    assert before["midpoint_over_mean_of_ends"] > 0.1 * y.var()
    for kind in KINDS:
        np.testing.assert_allclose(after[kind], 0, atol=1e-10)


def test_batch_norm_is_re_estimated_at_every_point():
    module = make_model("mlp", classes=3, widths=(6,), norm="batch")
    rng = np.random.default_rng(0)
    x = rng.normal(2, 1, size=(4, 8, 5)).astype(np.float32)

    def draw(*shape):
        return rng.uniform(-1, 2, size=shape).astype(np.float32)

    def network():
        dense = {"dense_0": {"kernel": draw(5, 6), "bias": draw(6)}, "dense_1": {"kernel": draw(6, 3), "bias": draw(3)}}
        stats = {"norm_0": {"mean": draw(6), "var": abs(draw(6))}}
        return {"params": {**dense, "norm_0": {"scale": draw(6), "bias": draw(6)}}, "batch_stats": stats}

    a, b = network(), network()
    estimate = recalibrate_batch_stats(lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]), x)

    def evaluate(variables):
        return {"loss": jnp.mean(module.apply(variables, x[0]) ** 2)}

    alphas = np.array([0.0, 0.25, 0.5, 1.0])
    found = barrier(evaluate, a, b, alphas=alphas, recalibrate=estimate)
    plain = barrier(evaluate, a, b, alphas=alphas, batch_stats="interpolate")
    for n, alpha in enumerate(alphas):
        line = jax.tree.map(lambda p, q, t=alpha: (1 - t) * p + t * q, a, b)
        params = line["params"]
        hidden = x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"]
        estimated = {"mean": hidden.mean(1).mean(0), "var": hidden.var(1).mean(0)}
        for curve, stats in ((found.curves["loss"], estimated), (plain.curves["loss"], line["batch_stats"]["norm_0"])):
            z = (hidden[0] - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
            z = np.maximum(z * params["norm_0"]["scale"] + params["norm_0"]["bias"], 0)
            y = z @ params["dense_1"]["kernel"] + params["dense_1"]["bias"]
            np.testing.assert_allclose(curve[n], np.mean(y**2), rtol=1e-4)
    assert abs(plain.curves["loss"] / found.curves["loss"] - 1).min() > 0.1
    with pytest.raises(ValueError, match="variables have 'batch_stats'"):
        barrier(evaluate, a, b)
    with pytest.raises(ValueError, match="exclude one another"):
        barrier(evaluate, a, b, recalibrate=estimate, batch_stats="interpolate")


@pytest.mark.wrong_types
def test_a_treatment_of_statistics_that_is_unknown():
    network = {"params": {"w": jnp.ones(2)}}
    with pytest.raises(ValueError, match="batch_stats='average' is unknown"):
        barrier(lambda v: {"loss": jnp.sum(v["params"]["w"])}, network, network, batch_stats="average")


def test_frozen_entries_must_be_the_same_bytes():
    def masked(mask, fixed):
        return {"params": {"w": np.ones(3)}, "frozen": {"w": {"mask": np.array(mask), "fixed": np.array(fixed)}}}

    a = masked([True, False, True], [0.0, 2.0, np.nan])
    barrier(square, a, a)
    for b in (masked([True, True, True], [0.0, 2.0, np.nan]), masked([True, False, True], [-0.0, 2.0, np.nan])):
        with pytest.raises(ValueError, match=r"'frozen': leaf 'w/\w+' differs .* pair \(0, 1\).* same key of masks"):
            barrier(square, a, b)
    with pytest.raises(ValueError, match="'frozen/w/fixed' is in one tree only"):
        barrier(square, a, {"params": a["params"]})
    keys = [a | {"other": jax.random.key(seed)} for seed in (0, 0, 1)]
    barrier(square, *keys[:2])
    with pytest.raises(ValueError, match="'other': leaf '' differs"):
        barrier(square, *keys[1:])
    # Each pair is seen alone: replicas 0 and 1 share what is frozen, 2 and 3 share something else.
    stacked = {"params": np.arange(4.0), "frozen": np.array([1.0, 1.0, 5.0, 5.0])}
    found = barriers(lambda v: {"loss": v["params"] + v["frozen"]}, stacked, [(0, 1), (2, 3)])
    assert found.curves["loss"][:, [0, -1]].tolist() == [[1, 2], [7, 8]]
    with pytest.raises(ValueError, match=r"pair \(1, 2\)"):
        barriers(square, stacked, [(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="'params': leaf 'n' differs"):
        barrier(square, {"params": {"w": 1.0, "n": 1}}, {"params": {"w": 2.0, "n": 2}})


def test_ends_that_are_not_finite_are_flagged():
    stacked = {"params": {"w": np.array([0.0, 1.0, np.nan, 1e30], np.float32)}}
    found = barriers(square, stacked, [(0, 1), (0, 2), (1, 3)])
    assert found.finite_ends.tolist() == [True, False, False]
    for kind in KINDS:
        np.testing.assert_array_equal(np.isnan(found.heights["loss"][kind]), [False, True, True])
    summary = summarise(found)["loss/midpoint_over_mean_of_ends"]
    assert (summary["pairs"], summary["not_finite"], summary["median"]) == (1, 2, -0.25)
    assert np.isnan(summary["std"])


def test_summary_against_numpy():
    stacked = {"params": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)}
    found = barriers(square, stacked, list(itertools.combinations(range(4), 2)))
    summary = summarise(found)
    assert summary.keys() == {f"loss/{kind}" for kind in (*KINDS, "mean_of_ends")}
    values = found.heights["loss"]["midpoint_over_mean_of_ends"]
    got = summary["loss/midpoint_over_mean_of_ends"]
    assert got["pairs"] == 6
    expected = [np.median(values), *np.percentile(values, [25, 75]), np.mean(values), np.std(values, ddof=1)]
    np.testing.assert_allclose([got[key] for key in ("median", "q1", "q3", "mean", "std")], expected)
    ends = found.curves["loss"][:, [0, -1]].mean(1)
    np.testing.assert_allclose(summary["loss/mean_of_ends"]["median"], np.median(ends))


def test_one_compilation_for_all_pairs_and_calls_and_one_result_for_all_batch_sizes():
    traces = []

    def evaluate(data, variables):
        traces.append(1)
        return {"loss": jnp.sum(data * variables["params"] ** 2)}

    stacked = {"params": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)}
    first = barriers(jax.tree_util.Partial(evaluate, jnp.ones(2)), stacked, [(0, 1), (0, 2), (1, 3)])
    barriers(jax.tree_util.Partial(evaluate, jnp.zeros(2)), stacked, [(2, 3)])
    assert len(traces) == 1

    def closure(variables):
        return evaluate(jnp.ones(2), variables)

    for size in (1, 25):
        same = barriers(closure, stacked, [(0, 1), (0, 2), (1, 3)], batch_size=size)
        barriers(closure, stacked, [(0, 1)], batch_size=size)
        np.testing.assert_allclose(same.curves["loss"], first.curves["loss"], rtol=1e-6)
    assert len(traces) == 3
    # 25 points in batches of 10 leave a rest of 5.
    rest = barriers(closure, stacked, [(0, 1), (0, 2), (1, 3)], batch_size=10)
    np.testing.assert_allclose(rest.curves["loss"], first.curves["loss"], rtol=1e-6)


STACKED = {"params": np.ones((2, 3), np.float32)}


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"alphas": [0.0, 0.5, 1.2]}, "alphas has 1.2"),
        ({"alphas": [0.0, 1.0]}, "from 0 to 1|no 0.5"),
        ({"pairs": []}, "at least one pair"),
        ({"pairs": [(0, 2)]}, r"\(0, 2\); give two different replicas out of 0 .. 1"),
        ({"pairs": [(-1, 0)]}, r"\(-1, 0\)"),
        ({"pairs": [(1, 1)]}, r"\(1, 1\)"),
        ({"pairs": [(0.0, 1.0)]}, "replica numbers"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"stacked": {"w": np.ones((2, 3))}}, "dict without 'params'"),
        ({"stacked": nnx.Linear(2, 2, rngs=nnx.Rngs(0))}, r"Linear without 'params'; .* \{'params': nnx.state\(module"),
        ({"stacked": {"params": np.ones((1, 3))}}, "at least 2 replicas"),
        ({"stacked": {"params": {"w": np.ones((2, 3)), "b": np.ones((3,))}}}, r"sizes \[2, 3\]"),
        ({"evaluate_fn": lambda v: 1.0}, "evaluate_fn gave float"),
        ({"evaluate_fn": lambda v: {"loss": v["params"]}}, r"'loss' of shape \(3,\)"),
    ],
)
def test_refusals(change, match):
    arguments = {"evaluate_fn": square, "stacked": STACKED, "pairs": [(0, 1)]} | change
    with pytest.raises(ValueError, match=match):
        barriers(**arguments)


def test_networks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"'params' is float32\[2\] in one tree"):
        barrier(square, {"params": np.ones(2, np.float32)}, {"params": np.ones(3, np.float32)})
