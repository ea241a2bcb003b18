"""Against scipy, ott-jax, POT and closed forms; derivatives; what is refused."""

import functools
import itertools
from typing import NamedTuple

import equinox
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx
from flax.training import train_state
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from sbjax import trees
from sbjax.metrics.wasserstein import pairwise_1d, pairwise_lp, pairwise_wasserstein, wasserstein, wasserstein_1d

NONE, ONE, BOTH = (False, False), (True, False), (True, True)  # sides with masses
CASES = [(n, m, NONE) for n, m in [(1, 1), (1, 7), (5, 5), (6, 4), (13, 8), (100, 100), (257, 64), (999, 1000)]]
CASES += [(1, 7, ONE), (13, 8, ONE), (13, 8, BOTH), (300, 300, BOTH)]


def samples(n, m, weighted=NONE, dtype=np.float64, seed=0):
    """Two samples with ties, and their masses or None."""
    rng = np.random.default_rng([seed, n, m])
    values = rng.normal(size=n).round(2), rng.normal(0.3, 2.0, size=m).round(2)
    masses = (rng.uniform(0.1, 1, size) if use else None for size, use in zip((n, m), weighted))
    return [None if x is None else jnp.asarray(x, dtype) for x in (*values, *masses)]


def by_quantiles(a, b, p, weights_a=None, weights_b=None):
    """W_p of the definition, from the quantile functions at the middle of every interval of constancy."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    masses = [np.ones(len(x)) if w is None else np.asarray(w, np.float64) for x, w in ((a, weights_a), (b, weights_b))]
    cdfs = [np.cumsum(w[np.argsort(x)]) / w.sum() for x, w in zip((a, b), masses)]
    edges = np.unique(np.concatenate([[0], *cdfs]))
    middles = (edges[1:] + edges[:-1]) / 2
    f, g = (np.sort(x)[np.minimum(np.searchsorted(cdf, middles), len(x) - 1)] for x, cdf in zip((a, b), cdfs))
    return np.sum(np.diff(edges) * np.abs(f - g) ** p) ** (1 / p)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("n", "m", "weighted"), CASES)
def test_scipy(x64, n, m, weighted):
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-5)):
        a, b, u, v = samples(n, m, weighted, dtype)
        expected = scipy.stats.wasserstein_distance(a, b, u, v)
        ours = wasserstein_1d(a, b, 1.0, u, v)
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, rtol=tolerance)


@pytest.mark.parametrize("p", [2, 3.5])
@pytest.mark.parametrize(("n", "m", "weighted"), [(5, 5, NONE), (13, 8, NONE), (13, 8, BOTH)])
def test_definition(x64, n, m, weighted, p):
    a, b, u, v = samples(n, m, weighted)
    expected = by_quantiles(a, b, p, u, v)
    np.testing.assert_allclose(wasserstein_1d(a, b, p, u, v), expected, rtol=1e-10)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("solver", ["uniform_solver", "quantile_solver", "north_west_solver"])
@pytest.mark.parametrize("p", [1, 2])
def test_ott(x64, solver, p):
    from ott.geometry import costs, pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import univariate

    equal = solver == "uniform_solver"
    a, b, u, v = samples(20, 20 if equal else 15, (not equal, not equal))
    normed = [None if w is None else w / w.sum() for w in (u, v)]
    geometry = pointcloud.PointCloud(a[:, None], b[:, None], cost_fn=costs.PNormP(p))
    problem = linear_problem.LinearProblem(geometry, *normed)
    cost = getattr(univariate, solver)(problem).ot_costs[0] * p  # of |x - y|^p / p
    np.testing.assert_allclose(wasserstein_1d(a, b, p, u, v) ** p, cost, rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m", "weighted"), [*CASES[1:6], CASES[10]])
def test_pot(x64, n, m, p, weighted):
    ot = pytest.importorskip("ot")
    a, b, u, v = samples(n, m, weighted)
    x, y = np.asarray(a), np.asarray(b)
    masses = [np.full(len(s), 1 / len(s)) if w is None else np.asarray(w / w.sum()) for s, w in ((x, u), (y, v))]
    ours = float(wasserstein_1d(a, b, p, u, v)) ** p
    np.testing.assert_allclose(ours, ot.wasserstein_1d(x, y, *masses, p=p), rtol=1e-6)
    np.testing.assert_allclose(ours, ot.emd2_1d(x, y, *masses, metric="minkowski", p=p), rtol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("n", "m", "weighted", "p"),
    [*((6, m, NONE, p) for m in (6, 4) for p in (1, 2, 3)), (5, 4, BOTH, 2)],
)
def test_gradients_against_finite_differences(x64, n, m, weighted, p):
    rng = np.random.default_rng(n + m)
    arguments = [jnp.asarray(rng.normal(size=size)) for size in (n, m)]
    arguments += [jnp.asarray(rng.uniform(0.2, 1, size)) for size, use in zip((n, m), weighted) if use]
    check_grads(lambda a, b, *w: wasserstein_1d(a, b, p, *w), arguments, order=1, modes=("fwd", "rev"))


def test_gradient_of_equal_sizes_is_a_sign():
    """W_1: the sign of the gap to the partner, over n."""
    gradient = jax.grad(wasserstein_1d)(jnp.array([5.0, 0.0, 2.0]), jnp.array([1.0, 3.0, 4.0]))
    np.testing.assert_allclose(gradient, np.array([1, -1, -1]) / 3, rtol=1e-6)


@pytest.mark.parametrize(("p", "weighted"), [(1.0, False), (1.5, False), (2.0, False), (1.0, True), (2.0, True)])
def test_gradient_at_distance_zero_is_zero(p, weighted):
    x = jnp.array([1.0, 3.0, 2.0])
    value, gradient = jax.value_and_grad(wasserstein_1d)(x, x[::-1], p, *([jnp.ones(3)] * 2 if weighted else []))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.mark.parametrize(("n", "m", "weighted"), [(9, 9, NONE), (9, 6, BOTH)])
def test_transformations_commute(n, m, weighted):
    """jit, vmap, grad in any order give what a loop of single calls gives."""
    rows = [samples(n, m, weighted, np.float32, seed) for seed in range(2)]
    a, b, *weights = (None if x[0] is None else jnp.stack(x) for x in zip(*rows, strict=True))

    def function(a, b, u, v):
        return wasserstein_1d(a, b, 2.0, u, v)

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

    close(jax.vmap(function)(a, b, *weights), [function(*row) for row in rows])
    gradients = [jax.grad(function)(*row) for row in rows]
    close(jax.jit(jax.vmap(jax.grad(function)))(a, b, *weights), gradients)


def test_vmap_over_one_side():
    a = jnp.asarray(normal(0, (3, 5)))
    np.testing.assert_allclose(jax.vmap(lambda x: wasserstein_1d(x, a[0]))(a), pairwise_1d(a)[0], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_sharded_over_two_devices(axis):
    """Split by replica or by entry."""
    x, y = (jax.random.normal(key, (2, 4, 50)) for key in jax.random.split(jax.random.key(0)))
    spec = PartitionSpec(*[None] * axis, "d")
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("d",)), spec)
    a, b = jax.device_put(x[0], sharding), jax.device_put(y[0], sharding)
    assert len(a.devices()) == 2
    for function in (jax.vmap(wasserstein_1d), jax.vmap(jax.grad(wasserstein_1d)), lambda a, b: pairwise_1d(a)):
        np.testing.assert_allclose(jax.jit(function)(a, b), function(x[0], y[0]), rtol=1e-5)
    np.testing.assert_allclose(pairwise_wasserstein({"w": a}).pooled, pairwise_1d(x[0]), rtol=1e-6)


def test_inside_shard_map():
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 50))
    mesh, spec = Mesh(np.array(jax.devices()), ("d",)), PartitionSpec("d")
    local = jax.shard_map(jax.vmap(wasserstein_1d), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(local)(x, y), jax.vmap(wasserstein_1d)(x, y), rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (8, 5)])
def test_a_metric_in_units_of_the_entries(x64, n, m, p):
    a, b, *_ = samples(n, m)
    c = samples(m, n, seed=1)[0]
    w = functools.partial(wasserstein_1d, p=p)
    np.testing.assert_allclose(w(a, a + 0.7), 0.7, rtol=1e-12)
    np.testing.assert_allclose(w(a + 0.7, b + 0.7), w(a, b), rtol=1e-12)
    np.testing.assert_allclose(w(-3 * a, -3 * b), 3 * w(a, b), rtol=1e-12)
    np.testing.assert_allclose(w(a, b), w(b, a), rtol=1e-12)
    assert w(a, b) > 0
    assert w(a, np.random.default_rng(0).permutation(a)) == 0
    assert w(a, b) <= w(a, c) + w(c, b) + 1e-12
    assert w(a, b) >= wasserstein_1d(a, b, 1.0) - 1e-12
    np.testing.assert_allclose(w(jnp.tile(a, 3), b), w(a, b), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn])
def test_low_precision_is_summed_in_float32(dtype):
    a, b = jax.random.normal(jax.random.key(0), (2, 3000)).astype(dtype)
    wide = [x.astype(jnp.float32) for x in (a, b)]
    for size in (3000, 2000):
        half, exact = (wasserstein_1d(x, y[:size], 2.0) for x, y in ((a, b), wide))
        assert half.dtype == jnp.float32
        assert half == exact
    assert pairwise_1d(jnp.stack([a, b]))[0, 1] == pairwise_1d(jnp.stack(wide))[0, 1]
    assert wasserstein({"x": a, "y": wide[0]}, {"x": b, "y": wide[1]}).pooled.dtype == jnp.float32


class Pair(NamedTuple):
    kernel: np.ndarray
    bias: np.ndarray


def linen(seed):
    return nn.Dense(3).init(jax.random.key(seed), jnp.ones((1, 4)))["params"]


def nnx_state(seed):
    return nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(seed)))


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def haiku(seed):
    return {"mlp/~/linear_0": {"w": normal(seed, (4, 3)), "b": normal(seed, 3)}}


def nested(seed):
    return [Pair(normal(seed, (2, 3)), normal(seed, 3)), (float(seed), 2.0), {"half": jnp.bfloat16(seed)}]


@pytest.mark.parametrize("make", [linen, nnx_state, haiku, nested, lambda seed: normal(seed, 5), float])
def test_trees(make):
    ours = wasserstein(make(0), make(1))
    a, b = (trees.flatten(make(seed)) for seed in (0, 1))
    assert list(ours.leaves) == list(a)
    every = [[np.ravel(np.asarray(x, np.float64)) for x in side.values()] for side in (a, b)]
    for distance, x, y in zip(ours.leaves.values(), *every, strict=True):
        np.testing.assert_allclose(distance, scipy.stats.wasserstein_distance(x, y), rtol=1e-5)
    expected = scipy.stats.wasserstein_distance(*(np.concatenate(side) for side in every))
    np.testing.assert_allclose(ours.pooled, expected, rtol=1e-5)


def test_leaves_that_are_no_weights_are_passed_over():
    a = {"w": jnp.ones(2), "step": 3, "flag": np.array(True), "key": jax.random.key(0), "count": jnp.arange(3)}
    b = a | {"w": jnp.zeros(2), "step": 5, "count": jnp.arange(7)}
    assert wasserstein(a, b).leaves.keys() == {"w"}


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("*/w", ["a/w", "b/w"]),
        (["a/*", "b/b"], ["a/b", "a/w", "b/b"]),
        (lambda name: name.endswith("b"), ["a/b", "b/b"]),
    ],
)
def test_where_and_pooled(where, names):
    a, b = ({k: {"w": normal([seed, ord(k)], (4, 3)), "b": normal([seed, ord(k)], 2)} for k in "ab"} for seed in (0, 1))
    ours = wasserstein(a, b, where=where)
    assert list(ours.leaves) == names
    x, y = (np.concatenate([trees.flatten(side)[name].ravel() for name in names]) for side in (a, b))
    np.testing.assert_allclose(ours.pooled, scipy.stats.wasserstein_distance(x, y), rtol=1e-5)
    assert wasserstein(a, b, where=where, pooled=False).pooled is None


def test_weights_of_trees():
    """Normalised leaf by leaf, and over all leaves where they are one sample; masses of leaves left out do no harm."""
    a, b = ({"x": normal(seed, 6), "y": normal(seed + 2, (2, 2))} for seed in (0, 1))
    u = {"x": np.linspace(1, 9, 6), "y": np.array([[1.0, 0.0], [2.0, 3.0]])}
    ours = wasserstein(a, b, weights_a=u)
    for name in a:
        expected = scipy.stats.wasserstein_distance(a[name].ravel(), b[name].ravel(), u[name].ravel())
        np.testing.assert_allclose(ours.leaves[name], expected, rtol=1e-5)
    flat = [np.concatenate([side["x"], side["y"].ravel()]) for side in (a, b, u)]
    np.testing.assert_allclose(ours.pooled, scipy.stats.wasserstein_distance(*flat), rtol=1e-5)
    np.testing.assert_allclose(wasserstein(a, b, where="y", weights_a=u).pooled, ours.leaves["y"], rtol=1e-6)
    inside = jax.jit(lambda a: wasserstein(a, b, where="y", weights_a=u))(a)
    np.testing.assert_allclose(inside.pooled, ours.leaves["y"], rtol=1e-6)


@pytest.mark.extended
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
def test_counts_are_masses(dtype):
    """What was counted, and what is masked out, is cast to float."""
    a, b = ({"x": normal(seed, 6), "y": normal(seed + 2, 3)} for seed in (0, 1))
    counts = {"x": np.array([3, 0, 1, 1, 2, 0]), "y": np.array([0, 2, 1])}
    counts = {name: count.astype(dtype) for name, count in counts.items()}
    floats = {name: count.astype(np.float32) for name, count in counts.items()}
    for call in (wasserstein, jax.jit(wasserstein)):
        ours = call(a, b, weights_a=counts)
        jax.tree.map(np.testing.assert_array_equal, ours, call(a, b, weights_a=floats))
    for name in a:
        expected = scipy.stats.wasserstein_distance(a[name], b[name], floats[name])
        np.testing.assert_allclose(ours.leaves[name], expected, rtol=1e-5)


def test_trees_under_transformations():
    a, b = nested(1), nested(2)
    jitted = jax.jit(wasserstein)(a, b)
    for one, other in zip(jax.tree.leaves(jitted), jax.tree.leaves(wasserstein(a, b)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    a, b = haiku(1), haiku(2)
    gradient = jax.jit(jax.grad(lambda a: wasserstein(a, b, 2.0).pooled))(a)
    assert jax.tree.structure(gradient) == jax.tree.structure(a)
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_pairwise_is_pair_by_pair(p):
    stacked = {"w": normal(0, (4, 5, 3)), "half": jnp.asarray(normal(1, (4, 7)), jnp.bfloat16), "n": np.arange(4)}
    ours = pairwise_wasserstein(stacked, p)
    assert list(ours.leaves) == ["half", "w"]
    for r, s in itertools.product(range(4), repeat=2):
        one = wasserstein(trees.take(stacked, r), trees.take(stacked, s), p)
        for name, matrix in ours.leaves.items():
            np.testing.assert_allclose(matrix[r, s], one.leaves[name], rtol=1e-5)
        np.testing.assert_allclose(ours.pooled[r, s], one.pooled, rtol=1e-5)
    assert not np.diag(ours.pooled).any()
    alone = pairwise_wasserstein(stacked, p, where="w")
    np.testing.assert_array_equal(alone.pooled, ours.leaves["w"])
    assert pairwise_wasserstein(stacked, p, pooled=False).pooled is None


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_pairwise_lp(p):
    rows = normal(0, (4, 30))
    expected = (np.abs(rows[:, None] - rows[None]) ** p).mean(-1) ** (1 / p)
    np.testing.assert_allclose(pairwise_lp(jnp.asarray(rows), p), expected, rtol=1e-5)


JITTED = jax.jit(wasserstein_1d, static_argnums=2)
JITTED_PAIRS = {function: jax.jit(function, static_argnums=1) for function in (pairwise_1d, pairwise_lp)}
JITTED_GRADIENT = jax.jit(jax.grad(wasserstein_1d), static_argnums=2)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e20, 1e30])
@pytest.mark.parametrize("p", [2.0, 30.0])
def test_scale_and_order_without_overflow(p, scale):
    """On the host and in compiled programs, of equal and other sizes, with masses of any size."""
    a, b = (normal(seed, n) * np.float32(scale) for seed, n in ((0, 12), (1, 12)))
    masses = np.linspace(1, 5, 12).astype(np.float32) * np.float32(scale)
    for x, y, u in ((a, b, None), (a, b[:7], masses)):
        whole = [np.asarray(z, np.float64) / scale for z in (x, y)]
        expected = by_quantiles(*whole, p, None if u is None else u.astype(np.float64)) * scale
        for call in (wasserstein_1d, JITTED):
            np.testing.assert_allclose(call(jnp.asarray(x), jnp.asarray(y), p, u), expected, rtol=2e-5)
    rows = jnp.stack([a, b])
    for function, jitted in JITTED_PAIRS.items():
        host, traced = function(rows, p), jitted(rows, p)
        np.testing.assert_allclose(host, traced, rtol=1e-5)
        assert 0.1 * scale < host[0, 1] < 10 * scale
    gradient = JITTED_GRADIENT(jnp.asarray(a), jnp.asarray(b), p)
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_an_outlier_of_scipy_19712():
    """Of [1, 2, 3, 54] and [1, 2, 3, 4] the gaps are 0, 0, 0, 50: 50 / 4^(1/p)."""
    a, b = ({"w": np.array([1, 2, 3, last], np.float32)} for last in (54, 4))
    for p in (1.0, 23.0, 538.0, 1e5):
        np.testing.assert_allclose(wasserstein(a, b, p).pooled, 50 / 4 ** (1 / p), rtol=1e-6)


def test_float64_of_numpy_stays():
    """An offset of 1e4 leaves float32 three digits of a spread of 1e-3; 1e200 and 1e-60 have none."""
    a, b = (np.random.default_rng(seed).normal(size=n) for seed, n in ((0, 300), (1, 300)))
    for offset, spread in ((1e4, 1e-3), (0.0, 1e200), (0.0, 1e-60)):
        x, y = offset + spread * a, offset + 2 * spread * b
        for other in (y, y[:200]):
            ours = wasserstein({"w": x, "v": x}, {"w": other, "v": other}, 1.0)
            expected = scipy.stats.wasserstein_distance(x, other)
            np.testing.assert_allclose([ours.leaves["w"], ours.pooled], expected, rtol=1e-9)
        np.testing.assert_allclose(
            pairwise_wasserstein({"w": np.stack([x, y])}).pooled[0, 1],
            scipy.stats.wasserstein_distance(x, y),
            rtol=1e-9,
        )


def test_numbers_of_python_stay():
    found = wasserstein({"w": [1e4 + 1e-6, 2.0]}, {"w": [1e4, 2.0]})
    np.testing.assert_allclose([found.leaves["w/0"], found.pooled], [1e-6, 0.5e-6], rtol=1e-5)


class WithStatistics(nnx.Module):
    def __init__(self, seed):
        self.dense, self.bn = nnx.Linear(4, 3, rngs=nnx.Rngs(seed)), nnx.BatchNorm(3, rngs=nnx.Rngs(seed))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))


def test_running_statistics_are_no_weights():
    names = {"dense/kernel", "dense/bias", "bn/scale", "bn/bias"}
    for whole in (WithStatistics, lambda seed: nnx.state(WithStatistics(seed))):
        assert wasserstein(whole(0), whole(1)).leaves.keys() == names
    statistics = [nnx.state(WithStatistics(seed), nnx.BatchStat) for seed in (0, 1)]
    assert wasserstein(*statistics).leaves.keys() == {"bn/mean", "bn/var"}
    flax = {"params": {"w": np.ones(2)}, "batch_stats": {"m": np.ones(2)}}
    assert wasserstein(flax, flax).leaves.keys() == {"params/w"}
    assert wasserstein(flax, flax, where="batch_stats/*").leaves.keys() == {"batch_stats/m"}
    two = {"a": flax, "b": [flax, {"batch_stats": {"m": np.ones(2)}}]}
    assert wasserstein(two, two).leaves.keys() == {"a/params/w", "b/0/params/w", "b/1/batch_stats/m"}
    state = train_state.TrainState.create(apply_fn=None, params=flax["params"], tx=optax.adam(1.0))
    assert wasserstein(state, state).leaves.keys() == {"params/w"}


def test_running_statistics_of_equinox_are_no_weights():
    norm = equinox.nn.BatchNorm(3, "batch", mode="ema")
    assert trees.floating({"norm": norm}).keys() == {"norm/weight", "norm/bias"}
    beside = equinox.nn.make_with_state(equinox.nn.BatchNorm)(3, "batch", mode="ema")
    assert trees.floating(beside).keys() == {"0/weight", "0/bias"}


def test_second_call_compiles_nothing(caplog):
    def call(seed):
        a, b = ({"w": jnp.asarray(normal(seed + i, (6, 3))), "b": jnp.asarray(normal(seed + i, 4 + i))} for i in (0, 1))
        wasserstein(a, b, 2.0)
        wasserstein(a, b, weights_a=jax.tree.map(jnp.abs, a))
        pairwise_wasserstein({"w": a["w"]})
        jitted(a, b)

    jitted = jax.jit(wasserstein)
    call(0)
    with jax.log_compiles():
        call(10)
        assert not [record for record in caplog.records if "ompil" in record.message]
        jax.jit(lambda x: x + 1)(1.0)
    assert [record for record in caplog.records if "ompil" in record.message]


TREE = {"w": np.ones(3, np.float32)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(p=0.5), "p=0.5 must be a finite number >= 1"),
        (dict(p=True), "p=True must be a finite number >= 1"),
        (dict(p=float("inf")), "p=inf must"),
        (dict(p=float("nan")), "p=nan must"),
        pytest.param(dict(p="2"), "p='2' must be a finite number >= 1", marks=pytest.mark.wrong_types),
        pytest.param(dict(p=None), "p=None must", marks=pytest.mark.wrong_types),
        pytest.param(dict(p=[1, 2]), r"p=\[1, 2\] must", marks=pytest.mark.wrong_types),
        (dict(tree_a={"w": np.arange(3)}), "tree_a has .*leaf 'w' holds int64, .*cast it, as by .astype"),
        (dict(tree_b=TREE | {"v": np.ones(3)}, tree_a=TREE | {"v": np.arange(3)}), "tree_a: leaf 'v' holds int64"),
        (dict(where="kernel"), "tree_a has no floating leaf that where='kernel' selects; its leaves: 'w'"),
        (dict(tree_b={"v": np.ones(3)}), "tree_b has a leaf 'v' that tree_a lacks.*common leaves with `where`"),
        (dict(tree_b=TREE | {"v": np.ones(3)}), "tree_b has a leaf 'v' that tree_a lacks"),
        (dict(tree_a=TREE | {"a": np.ones(3)}), "tree_a has a leaf 'a' that tree_b lacks"),
        (dict(tree_b={"w": np.ones(3, np.complex64)}), "tree_b: leaf 'w' is complex"),
        (dict(tree_b={"w": np.ones(0)}), r"tree_b: leaf 'w' of shape \(0,\) is empty"),
        (dict(tree_b={"w": np.array(["x"])}), "tree_b: leaf 'w' holds no numbers"),
        (dict(tree_a={"w": np.array([0, np.nan, 1])}), "tree_a: leaf 'w' has 1 entries that are NaN or infinite"),
        (dict(tree_b={"w": np.array([0, np.inf, -np.inf])}), "tree_b: leaf 'w' has 2 entries"),
        (dict(weights_a={"w": np.ones(2)}), r"weights_a: 'w' has shape \(2,\), its leaf \(3,\)"),
        (dict(weights_b={"w": np.array([1.0, -1, 1])}), "weights_b: 'w' must be >= 0 and not all zero"),
        (dict(weights_b={"w": np.array([1, -1, 1])}), "weights_b: 'w' must be >= 0 and not all zero"),
        (dict(weights_b={"w": np.zeros(3)}), "weights_b: 'w' must be >= 0 and not all zero"),
        (dict(weights_b={"w": np.array([1, np.nan, 1])}), "weights_b: leaf 'w' has 1 entries that are NaN"),
        (dict(weights_a={"v": np.ones(3)}), "the tree has a leaf 'w' that weights_a lacks"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        wasserstein(**{"tree_a": TREE, "tree_b": TREE} | arguments)


@pytest.mark.parametrize(
    ("stacked", "arguments", "words"),
    [
        ({"w": np.ones((1, 3))}, {}, "at least 2 replicas"),
        ({"w": np.ones((2, 3)), "v": np.ones((3, 3))}, {}, r"got sizes \[2, 3\]"),
        ({"w": np.array([[1.0, np.nan], [1, 1]])}, {}, "stacked: leaf 'w' has 1 entries"),
        ({"w": np.ones((2, 3))}, {"p": 0}, "p=0 must"),
        ({"w": np.ones((2, 3))}, {"where": "v"}, "stacked has no floating leaf"),
    ],
)
def test_pairwise_refusals(stacked, arguments, words):
    with pytest.raises(ValueError, match=words):
        pairwise_wasserstein(stacked, **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [3, 4])
def test_inside_jit_nonfinite_entries_give_nonfinite_distances(value, size):
    bad = {"w": jnp.ones(size).at[0].set(value), "v": jnp.ones(2)}
    ours = jax.jit(wasserstein)(bad, {"w": jnp.ones(3), "v": jnp.zeros(2)})
    assert not np.isfinite(ours.leaves["w"])
    assert not np.isfinite(ours.pooled)
    assert ours.leaves["v"] == 1
