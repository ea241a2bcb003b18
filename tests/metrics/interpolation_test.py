"""Points on a line, and batch statistics against moments taken by numpy."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax.metrics.interpolation import interpolate, over_parts, recalibrate_batch_stats
from sbjax.models.batch_norm import BatchNorm
from sbjax.tasks.task import Average

LINEAR = equinox.nn.Lambda(jnp.tanh)


def test_points():
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(3, 2)).astype(np.float32), "n": np.arange(2)} for _ in range(2))
    alphas = np.array([0.0, 0.3, 1.0])
    got = interpolate(a, b, alphas)
    np.testing.assert_array_equal(got["w"][jnp.array([0, 2])], [a["w"], b["w"]])
    np.testing.assert_allclose(got["w"], [(1 - t) * a["w"] + t * b["w"] for t in alphas], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(got["n"], [[0, 1]] * 3)


def test_dtypes_are_kept(x64):
    a = {"half": jnp.ones(2, jnp.bfloat16), "double": jnp.ones(2), "on": jnp.array(True), "key": jax.random.key(0)}
    b = a | {"half": jnp.full(2, 1.0625, jnp.bfloat16), "double": jnp.full(2, 1 + 1e-12)}
    got = interpolate(a, b, [0.25, 0.5])
    assert {name: leaf.dtype for name, leaf in got.items()} == {name: leaf.dtype for name, leaf in a.items()}
    np.testing.assert_allclose(got["double"][:, 0] - 1, [0.25e-12, 0.5e-12], rtol=1e-3)
    # Summed in float32: 1 + 1/64 and 1 + 1/32, rounded once to the grid of 1/128.
    assert got["half"].astype(jnp.float32)[:, 0].tolist() == [1.015625, 1.03125]


@pytest.mark.parametrize(
    ("a", "b", "alphas", "match"),
    [
        ({"w": np.ones(2)}, {"w": np.ones(2)}, [0.0, 1.5], "alphas has 1.5"),
        ({"w": np.ones(2)}, {"w": np.ones(2)}, [-0.1], "alphas has -0.1"),
        ({"w": np.ones(2)}, {"w": np.ones(2)}, [np.nan], "alphas has nan"),
        pytest.param({"w": np.ones(2)}, {"w": np.ones(2)}, 0.5, "give a vector", marks=pytest.mark.wrong_types),
        ({"w": np.ones(2)}, {"w": np.ones(3)}, [0.5], r"'w' is float32\[2\] in one tree and float32\[3\]"),
        ({"w": np.ones(2, np.float16)}, {"w": np.ones(2, np.float32)}, [0.5], "'w' is float16"),
        ({"w": np.ones(2)}, {"v": np.ones(2)}, [0.5], "in one tree only"),
        ({"w": np.ones(2), "n": 1}, {"w": np.ones(2), "n": 2}, [0.5], "leaf 'n' is not floating and differs"),
        (LINEAR, LINEAR, [0.5], r"functions or settings, .*give its arrays, equinox.filter\(tree, equinox.is_array\)"),
        (jax.random.key(0), jax.random.key(1), [0.5], "is not floating and differs"),
    ],
)
def test_refusals(a, b, alphas, match):
    with pytest.raises(ValueError, match=match):
        interpolate(a, b, alphas)


def moments(x):
    return {"mean": x.mean(0), "var": x.var(0)}


@pytest.mark.parametrize("kind", ["ours", "flax"])
def test_batch_statistics_are_the_mean_of_the_moments_of_batches(kind):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(5, name="dense")(x)
            if kind == "ours":
                norm = functools.partial(BatchNorm, train=True)
            else:
                norm = functools.partial(nn.BatchNorm, use_running_average=False)
            return norm(momentum=0.9, name="b")(jnp.tanh(norm(momentum=0.99, name="a")(x)))

    module, batches = Net(), np.random.default_rng(0).normal(3, 2, size=(4, 16, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), batches[0])
    variables["batch_stats"]["a"]["mean"] += 100.0  # what stands there has no say
    estimate = recalibrate_batch_stats(lambda v, x: module.apply(v, x, mutable=["batch_stats"]), batches)
    got = jax.jit(estimate)(variables)
    assert jax.tree.structure(got) == jax.tree.structure(variables)
    dense = {name: np.asarray(leaf, np.float64) for name, leaf in variables["params"]["dense"].items()}
    first = [batch @ dense["kernel"] + dense["bias"] for batch in batches]
    second = [np.tanh((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)) for x in first]
    for name, inputs in (("a", first), ("b", second)):
        for moment in ("mean", "var"):
            expected = np.mean([moments(x)[moment] for x in inputs], 0)
            np.testing.assert_allclose(got["batch_stats"][name][moment], expected, rtol=1e-4, atol=1e-5)


def test_batch_statistics_refused():
    with pytest.raises(ValueError, match="leading axis of at least one batch"):
        recalibrate_batch_stats(lambda v, x: (x, v), {"a": np.ones((2, 3)), "b": np.ones((3, 3))})
    estimate = recalibrate_batch_stats(lambda v, x: (x, v), np.ones((2, 3)))
    with pytest.raises(ValueError, match="no 'batch_stats'"):
        estimate({"params": 1.0})
    with pytest.raises(ValueError, match="'count' is int32"):
        estimate({"batch_stats": {"count": jnp.int32(1)}})


def test_parts_of_different_weight_make_an_exact_mean():
    data = {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "on": np.array([[1, 1], [1, 1], [1, 0]], np.float32)}

    def evaluate(data, variables, part):
        x, on = data["x"][part], data["on"][part]
        return {"test/x": Average((variables * x * on).sum(), on.sum()), "test/on": Average(on.sum(), jnp.float32(2))}

    mean = over_parts(evaluate, jax.tree.map(jnp.asarray, data), 3)
    got = jax.jit(lambda mean, variables: mean(variables))(mean, 10.0)
    assert {name: float(x) for name, x in got.items()} == {"test/x": 20.0, "test/on": pytest.approx(5 / 6)}
    with pytest.raises(ValueError, match="parts=0"):
        over_parts(evaluate, data, 0)


def test_constants_of_asymmetric_networks_are_repeated_and_must_be_equal():
    """Also where they are floating numbers, as those of syre and of gates are."""
    frozen = {"asymmetry": {"fixed": {"w": np.float32([0.1, 0.7])}}}
    a, b = ({"params": {"w": np.full(2, x, np.float32)}, "frozen": frozen} for x in (0, 1))
    got = interpolate(a, b, [0.0, 0.3, 1.0])
    np.testing.assert_allclose(got["params"]["w"][:, 0], [0, 0.3, 1])
    np.testing.assert_array_equal(got["frozen"]["asymmetry"]["fixed"]["w"], [frozen["asymmetry"]["fixed"]["w"]] * 3)
    other = {"asymmetry": {"fixed": {"w": np.float32([0.1, 0.71])}}}
    with pytest.raises(ValueError, match=r"'frozen/asymmetry/fixed/w' differs .* with the same mask_seed"):
        interpolate(a, {**b, "frozen": other}, [0.5])
