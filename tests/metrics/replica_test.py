"""The kinds of replica distance: what each sees, what it cannot see, its null and its units."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from flax import nnx

from sbjax import trees
from sbjax.metrics.replica import (
    function_distance,
    marginal_distance,
    neuron_cloud_distance,
    null_replicas,
    replica_outputs,
    unmatched_distance,
)

KEY = jax.random.key(0)
PROBE = np.random.default_rng(9).normal(size=(20, 5)).astype(np.float32)
ASSIGNMENT = functools.partial(neuron_cloud_distance, solver="assignment")
OF_PARAMETERS = [marginal_distance, unmatched_distance, neuron_cloud_distance, ASSIGNMENT]


def network(seed=0):
    """One ReLU network 5 -> 7 -> 3 with weights of no particular law."""
    rng = np.random.default_rng(seed)
    shapes = {"dense_0": {"kernel": (5, 7), "bias": (7,)}, "dense_1": {"kernel": (7, 3), "bias": (3,)}}
    draw = lambda shape: (rng.standard_t(4, size=shape) * rng.uniform(0.2, 2)).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def apply(params, x):
    hidden = jax.nn.relu(x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"][None])
    return hidden @ params["dense_1"]["kernel"] + params["dense_1"]["bias"][None]


def permute(params, order):
    """The same function with its hidden units in another order."""
    first, second = params["dense_0"], params["dense_1"]
    first = {"kernel": first["kernel"][:, order], "bias": first["bias"][order]}
    return {"dense_0": first, "dense_1": {**second, "kernel": second["kernel"][order]}}


def rescale(params, c):
    """The same function with its first layer c times as large."""
    first, second = params["dense_0"], params["dense_1"]
    first = {"kernel": first["kernel"] * c, "bias": first["bias"] * c}
    return {"dense_0": first, "dense_1": {**second, "kernel": second["kernel"] / c}}


def two_and_two(a, b):
    """Four replicas of two networks. Shapes are few in this file, since each is compiled for."""
    return trees.stack([a, b, a, b])


def trained(seed, replicas=4):
    """Replicas that share something: a network in some order of its units, plus noise."""
    rng, base = np.random.default_rng(seed), network(seed)
    noisy = lambda x: (x + rng.normal(size=x.shape) * rng.uniform(0, 1)).astype(np.float32)  # noqa: E731
    return trees.stack([jax.tree.map(noisy, permute(base, rng.permutation(7))) for _ in range(replicas)])


def value(distance, form="raw"):
    return getattr(distance, form).total.distance.value


def functions(stacked):
    return function_distance(replica_outputs(apply, stacked, PROBE))


def total_of_pairs(distance, stacked, p):
    """Power mean over layers by their entries; a layer is a leaf or, named by the parent, several."""
    sizes = {name: leaf[0].size for name, leaf in trees.flatten(stacked).items()}
    sizes = {layer: sum(n for name, n in sizes.items() if name.startswith(layer)) for layer in distance.pairs}
    assert sum(sizes.values()) == sum(leaf[0].size for leaf in jax.tree.leaves(stacked))
    whole = sum(n * np.float64(distance.pairs[layer]) ** p for layer, n in sizes.items())
    return (whole / sum(sizes.values())) ** (1 / p)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(3))
def test_hierarchy(seed):
    """Each kind is a minimum over fewer rearrangements than the one before, pair by pair."""
    stacked = trained(seed)
    every = [
        total_of_pairs(marginal_distance(stacked), stacked, 1),
        total_of_pairs(marginal_distance(stacked, p=2), stacked, 2),
        total_of_pairs(ASSIGNMENT(stacked), stacked, 2),
        total_of_pairs(unmatched_distance(stacked), stacked, 2),
    ]
    for lower, higher in itertools.pairwise(every):
        assert (lower <= higher * (1 + 1e-5)).all()
        assert (lower < higher - 1e-3).any()
    sliced, exact = neuron_cloud_distance(stacked), ASSIGNMENT(stacked)
    for layer, matrix in sliced.pairs.items():
        # In the mean over all directions; 128 of them miss it by a few per cent.
        assert (matrix <= 1.05 * exact.pairs[layer]).all()
    assert value(sliced) < value(exact)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_marginal_against_scipy(p):
    stacked = trained(0)
    distance = marginal_distance(stacked, p=p)
    for name, leaf in trees.flatten(stacked).items():
        rows = np.sort(leaf.reshape(4, -1), 1)
        pairs = [np.mean(np.abs(x - y) ** p) ** (1 / p) for x, y in itertools.combinations(rows, 2)]
        if p == 1:
            pairs = list(itertools.starmap(scipy.stats.wasserstein_distance, itertools.combinations(rows, 2)))
        assert distance.raw.layers[name].distance.value == pytest.approx(np.mean(pairs), rel=1e-5)
        std = np.asarray(leaf).std()
        assert distance.scales[name] == pytest.approx(std, rel=1e-5)
        assert distance.scale_free.layers[name].distance.value == pytest.approx(np.mean(pairs) / std, rel=1e-5)


@pytest.mark.parametrize(("measure", "p"), [(marginal_distance, 1), (unmatched_distance, 2), (ASSIGNMENT, 2)])
def test_totals_are_power_means_of_layers(measure, p):
    stacked = trained(1)
    distance = measure(stacked)
    upper = np.triu_indices(4, 1)
    assert value(distance) == pytest.approx(total_of_pairs(distance, stacked, p)[upper].mean(), rel=1e-5)
    divided = distance._replace(pairs={k: m / distance.scales[k] for k, m in distance.pairs.items()})
    assert value(distance, "scale_free") == pytest.approx(total_of_pairs(divided, stacked, p)[upper].mean(), rel=1e-5)


def test_hidden_units_in_another_order():
    """What the docstrings say each kind cannot see, on a network that is the same function in two orders."""
    net = network()
    same = two_and_two(net, permute(net, np.array([3, 1, 6, 0, 2, 5, 4])))
    assert value(functions(same)) < 1e-6
    assert value(marginal_distance(same)) == 0
    for solver in ("sliced", "assignment", "sinkhorn"):
        assert value(neuron_cloud_distance(same, solver=solver, where="dense_0/*")) < 1e-6
    # The next layer reads the units in their order.
    assert value(neuron_cloud_distance(same, where="dense_1/*")) > 0.1
    assert value(unmatched_distance(same)) > 0.1


def test_the_marginal_cannot_see_structure():
    """Entries anywhere else in the same array: another function, other neurons, the same law."""
    net = network()
    rng = np.random.default_rng(0)
    other = two_and_two(net, jax.tree.map(lambda x: rng.permutation(x.ravel()).reshape(x.shape), net))
    assert value(marginal_distance(other)) == 0
    assert all(value(measure(other)) > 0.1 for measure in (unmatched_distance, ASSIGNMENT, functions))


def test_the_unmatched_cannot_tell_a_symmetry_from_another_function():
    net, far = network(), permute(network(), np.array([1, 2, 3, 4, 5, 6, 0]))
    gap = jax.tree.map(lambda x, y: np.abs(x - y), net, far)
    same, other = (two_and_two(net, x) for x in (far, jax.tree.map(np.add, net, gap)))
    assert value(unmatched_distance(same)) == pytest.approx(value(unmatched_distance(other)), rel=1e-5)
    assert value(functions(same)) < 1e-6
    assert value(functions(other)) > 1


def test_the_unmatched_counts_a_shared_initialisation():
    rng = np.random.default_rng(0)
    start = rng.normal(size=2000)
    distance = unmatched_distance({"w": jnp.asarray(start + 0.1 * rng.normal(size=(6, 2000)))}, key=KEY)
    assert value(distance, "scale_free") < 0.2
    assert distance.scale_free.total.excess.high < -1


def test_the_function_distance_cannot_see_beyond_the_probe():
    net, other = network(), jax.tree.map(np.copy, network())
    for params, weight in ((net, 1.0), (other, -1.0)):  # unit 0 fires only where the first input is above 100
        params["dense_0"]["kernel"][:, 0] = np.eye(5)[0]
        params["dense_0"]["bias"][0] = -100
        params["dense_1"]["kernel"][0] = weight
    stacked = two_and_two(net, other)
    assert value(functions(stacked)) == 0
    far = 200 * np.ones((1, 5), np.float32)
    assert value(function_distance(replica_outputs(apply, stacked, far))) > 1


def test_only_the_function_distance_is_blind_to_rescaling():
    """W_1 c, W_2 / c is the same ReLU network."""
    nets = [network(seed) for seed in range(4)]
    stacked, scaled = trees.stack(nets), trees.stack([rescale(net, 4.0) for net in nets])
    assert value(functions(scaled)) == pytest.approx(value(functions(stacked)), rel=1e-5)
    for measure in OF_PARAMETERS:
        assert value(measure(scaled)) > 1.2 * value(measure(stacked))


@pytest.mark.parametrize("factor", [4.0, 0.03])
def test_units(factor):
    """Raw forms are in units of one weight (output); scale-free ones move with no common factor."""
    stacked, outputs = trained(2), replica_outputs(apply, trained(2), PROBE)
    cases = [(measure, stacked) for measure in OF_PARAMETERS] + [(function_distance, outputs)]
    for measure, tree in cases:
        once, scaled = measure(tree), measure(jax.tree.map(lambda x: factor * x, tree))
        assert value(scaled) == pytest.approx(factor * value(once), rel=1e-5)
        assert value(scaled, "scale_free") == pytest.approx(value(once, "scale_free"), rel=1e-5)


def test_independent_normal_replicas_are_sqrt_two_apart():
    stacked = {
        name: scale * jax.random.normal(jax.random.key(scale), (6, 2000)) for name, scale in (("a", 3), ("b", 7))
    }
    distance = unmatched_distance(stacked, key=KEY)
    for reading in (distance.scale_free.total, *distance.scale_free.layers.values()):
        assert reading.distance.value == pytest.approx(math.sqrt(2), rel=0.03)
        assert reading.null.value == pytest.approx(math.sqrt(2), rel=0.03)
        assert abs(reading.excess.value) < 0.05
    assert distance.raw.layers["a"].distance.value == pytest.approx(3 * math.sqrt(2), rel=0.03)


def test_marginal_null_law():
    """E W_1 = int E|F - G| with binomial counts F, G: about 1.8 sigma / sqrt(n)."""
    n, x = 200, np.linspace(-6, 6, 601)
    counts = [scipy.stats.binom.pmf(np.arange(n + 1), n, scipy.stats.norm.cdf(at)) for at in x]
    gaps = [np.abs(np.arange(-n, n + 1)) @ np.convolve(count, count[::-1]) / n for count in counts]
    expected = 3 * scipy.integrate.trapezoid(gaps, x)
    assert expected == pytest.approx(1.8 * 3 / math.sqrt(n), rel=0.02)
    distance = marginal_distance({"w": 3 * jax.random.normal(jax.random.key(3), (100, n))}, key=KEY)
    assert value(distance) == pytest.approx(expected, rel=0.1)
    assert distance.raw.total.null.value == pytest.approx(expected, rel=0.1)


def planted(clustered):
    """Eight replicas: independent normal ones, or noise around one network."""
    rng = np.random.default_rng(0)
    centre, noise = rng.normal(size=(12, 10)), rng.normal(size=(8, 12, 10))
    return {"dense": {"kernel": jnp.asarray(centre + 0.3 * noise if clustered else noise, jnp.float32)}}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("measure", OF_PARAMETERS)
def test_excess_over_the_null(measure):
    """Zero lies in its interval where replicas are what the null says, and outside where they cluster."""
    for form in ("raw", "scale_free"):
        low, high = getattr(measure(planted(False), key=KEY), form).total.excess[1:]
        assert low < 0 < high
        low, high = getattr(measure(planted(True), key=KEY), form).total.excess[1:]
        assert high < 0


def test_excess_is_the_difference_of_distance_and_null():
    distance = unmatched_distance(planted(True), key=KEY)
    for reading in (distance.raw.total, distance.scale_free.total, *distance.raw.layers.values()):
        assert reading.excess.value == pytest.approx(reading.distance.value - reading.null.value, rel=1e-9)
        assert all(low <= x <= high for x, low, high in reading)
    without = unmatched_distance(planted(True))
    assert without.raw.total == (distance.raw.total.distance, None, None)


def test_null_replicas_keep_everything_but_the_draws():
    drawn = np.random.default_rng(0).normal(size=(2, 4, 30, 40)).astype(np.float32)
    stacked = {
        "dense": {"kernel": 5 + 2 * drawn[0], "bias": jnp.full((4, 9), 0.1)},
        "half": jnp.asarray(3 * drawn[1], jnp.bfloat16),
        "step": jnp.arange(4),
        "key": jax.random.split(KEY, 4),
    }
    null = null_replicas(stacked, key=KEY)
    same = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), stacked, null)
    assert all(jax.tree.leaves(same))
    for x, y in ((stacked["dense"]["kernel"], null["dense"]["kernel"]), (stacked["half"], null["half"])):
        x, y = (np.asarray(z, np.float64) for z in (x, y))
        assert not np.isin(x, y).all()
        assert y.mean() == pytest.approx(x.mean(), abs=0.05 * x.std())
        assert y.std() == pytest.approx(x.std(), rel=0.05)
        assert scipy.stats.kstest((y.ravel() - y.mean()) / y.std(), "norm").statistic < 0.03
        assert abs(np.corrcoef(y.reshape(4, -1))[0, 1]) < 0.1
    np.testing.assert_allclose(null["dense"]["bias"], 0.1, rtol=1e-5)
    np.testing.assert_array_equal(null["step"], stacked["step"])
    assert (null["key"] == stacked["key"]).all()
    some = null_replicas(stacked, where="dense/*", key=KEY)
    np.testing.assert_array_equal(some["half"], stacked["half"])
    assert (some["dense"]["kernel"] != stacked["dense"]["kernel"]).any()
    again, other = null_replicas(stacked, key=KEY), null_replicas(stacked, key=jax.random.key(1))
    np.testing.assert_array_equal(again["half"], null["half"])
    assert (other["half"] != null["half"]).any()
    assert null_replicas(stacked, key=None) is None


def test_layouts():
    """PyTorch's state dicts, stacked: the same numbers as Flax's layout."""
    flax = trained(3)
    torch = {f"{name}.weight": np.moveaxis(np.asarray(layer["kernel"]), -1, 1) for name, layer in flax.items()}
    names = {f"{name}.weight": f"{name}/kernel" for name in flax}
    for measure in (marginal_distance, unmatched_distance):
        ours, theirs = measure(torch), measure(flax, where="*/kernel")
        for name, other in names.items():
            np.testing.assert_allclose(ours.pairs[name], theirs.pairs[other], rtol=1e-5)
    ours, theirs = ASSIGNMENT(torch, neuron_axis=0), ASSIGNMENT(flax, where="*/kernel")
    for name, other in names.items():
        np.testing.assert_allclose(ours.pairs[name], theirs.pairs[other], rtol=1e-5)


def test_identical_replicas_have_no_distance():
    stacked = trees.stack([network()] * 4)
    outputs = replica_outputs(apply, stacked, PROBE)
    sinkhorn = functools.partial(neuron_cloud_distance, solver="sinkhorn")
    for distance in (*(measure(stacked) for measure in (*OF_PARAMETERS, sinkhorn)), function_distance(outputs)):
        for reading in (distance.raw, distance.scale_free):
            for measured in (reading.total, *reading.layers.values()):
                assert measured.distance == (0, 0, 0)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e-6])
def test_layers_of_equal_entries(constant):
    """As biases before training: distance and null are zero in any unit, not 0 / 0 and not rounding over rounding."""
    stacked = {"w": trained(0)["dense_0"]["kernel"], "bias": jnp.full((4, 9), constant)}
    for measure in OF_PARAMETERS:
        distance = measure(stacked, key=KEY)
        assert distance.scales["bias"] == 0
        for reading in (distance.raw, distance.scale_free):
            assert reading.layers["bias"] == ((0, 0, 0),) * 3
            assert np.isfinite(reading.total).all()
    assert function_distance(stacked["bias"]).scale_free.total.distance == (0, 0, 0)


@pytest.mark.parametrize("measure", OF_PARAMETERS)
@pytest.mark.parametrize(("dtype", "scale"), [(jnp.float32, 3e37), (jnp.float16, 3e4)])
def test_weights_on_their_way_to_divergence(measure, dtype, scale):
    """Squares overflow; the null does not, and nothing stops a run that is measured."""
    kernel = trained(0)["dense_0"]["kernel"]
    stacked = {"w": (kernel * (scale / np.abs(kernel).max())).astype(dtype)}
    assert all(trees.all_finite(null_replicas(stacked, key=jax.random.key(seed))) for seed in range(5))
    distance = measure(stacked, key=KEY)
    assert np.isfinite(distance.scales["w"])
    assert distance.raw.total.distance.value > 0.05 * scale


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_low_precision_is_summed_in_float32(dtype):
    half = {"w": trained(0)["dense_0"]["kernel"].astype(dtype)}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    for measure in OF_PARAMETERS:
        assert value(measure(half)) == value(measure(wide))
        assert value(measure(half), "scale_free") == value(measure(wide), "scale_free")
        assert np.isfinite(measure(half, key=KEY).raw.total.null.value)
    assert null_replicas(half, key=KEY)["w"].dtype == dtype


def test_where_and_leaves_that_are_no_weights():
    stacked = trained(0) | {"step": jnp.arange(4), "name": "mlp"}
    for measure in OF_PARAMETERS:
        kernels = measure(stacked, where="*/kernel", key=KEY)
        assert kernels.pairs.keys() == {"dense_0/kernel", "dense_1/kernel"}
        with pytest.raises(ValueError, match="leaf 'name' holds no numbers"):
            measure(stacked, key=KEY)


def test_replica_outputs():
    stacked = trained(0)
    outputs = replica_outputs(apply, stacked, PROBE)
    for r in range(4):
        np.testing.assert_allclose(outputs[r], apply(trees.take(stacked, r), PROBE), rtol=1e-5, atol=1e-5)
    gaps = [np.sqrt(np.mean((x - y) ** 2)) for x, y in itertools.combinations(np.asarray(outputs), 2)]
    distance = function_distance(outputs, null_outputs=2 * outputs)
    assert value(distance) == pytest.approx(np.mean(gaps), rel=1e-5)
    assert distance.raw.total.excess.value == pytest.approx(-np.mean(gaps), rel=1e-5)
    assert distance.scale_free.total.excess.value == pytest.approx(0, abs=1e-6)


@pytest.mark.extended
def test_replica_outputs_of_a_list():
    nets = [network(seed) for seed in range(3)]
    expected = replica_outputs(apply, trees.stack(nets), PROBE)
    np.testing.assert_array_equal(replica_outputs(apply, nets, PROBE), expected)
    modules = [eqx.nn.MLP(5, 3, 4, 1, key=jax.random.key(seed)) for seed in range(2)]  # with functions as leaves
    found = replica_outputs(lambda net, x: jax.vmap(net)(x), modules, PROBE)
    np.testing.assert_allclose(found, [jax.vmap(net)(PROBE) for net in modules], rtol=1e-5, atol=1e-6)
    stacked = eqx.filter_vmap(lambda key: eqx.nn.MLP(5, 3, 4, 1, key=key))(
        jnp.stack([jax.random.key(0), jax.random.key(1)])
    )
    np.testing.assert_allclose(replica_outputs(lambda net, x: jax.vmap(net)(x), stacked, PROBE), found, rtol=1e-5)
    nnx_nets = [nnx.Linear(5, 3, rngs=nnx.Rngs(seed)) for seed in range(2)]
    found = replica_outputs(lambda net, x: net(x), nnx_nets, PROBE)
    np.testing.assert_allclose(found, [net(PROBE) for net in nnx_nets], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="at least 2 replicas"):
        replica_outputs(apply, nets[:1], PROBE)


@pytest.mark.extended
def test_sinkhorn_counts_pairs_that_did_not_converge():
    stacked = {"w": trained(0)["dense_0"]["kernel"]}
    sinkhorn = functools.partial(neuron_cloud_distance, solver="sinkhorn", epsilon=1e-5)
    bare, null = (sinkhorn(tree).unconverged for tree in (stacked, null_replicas(stacked, key=KEY)))
    assert 0 < bare <= 6
    assert sinkhorn(stacked, key=KEY).unconverged == bare + null
    assert neuron_cloud_distance(stacked, solver="sinkhorn").unconverged == 0
    assert ASSIGNMENT(stacked).unconverged == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e20, 1e30])
def test_scale_free_is_free_of_scale(scale):
    """Of dead and diverged layers too, with null and excess."""
    stacked, small = ({"w": trained(0)["dense_0"]["kernel"] * np.float32(c)} for c in (1, scale))
    for measure in (*OF_PARAMETERS, functools.partial(marginal_distance, p=30.0)):
        once, scaled = measure(stacked, key=KEY), measure(small, key=KEY)
        for reading, factor in ((lambda d: d.scale_free.total, 1), (lambda d: d.raw.total, scale)):
            np.testing.assert_allclose(
                reading(scaled), np.multiply(reading(once), factor), rtol=1e-4, atol=1e-5 * factor
            )
    outputs = small["w"]
    assert value(function_distance(outputs), "scale_free") == pytest.approx(
        value(function_distance(stacked["w"]), "scale_free"), rel=1e-5
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("measure", [marginal_distance, unmatched_distance, neuron_cloud_distance])
def test_traced(measure):
    """What jit gives is what the host gives, without intervals; the gradient is that of differences."""
    stacked = {"w": jnp.asarray(trained(0)["dense_0"]["kernel"])}
    readings = lambda t: [getattr(measure(t, key=KEY), form).total for form in ("raw", "scale_free")]  # noqa: E731
    for found, expected in zip(jax.jit(readings)(stacked), readings(stacked), strict=True):
        for reading, other in zip(found, expected, strict=True):
            assert reading.value == pytest.approx(other.value, rel=1e-4, abs=1e-5)
            assert np.isnan([reading.low, reading.high]).all()
    scalar = lambda w: value(measure({"w": w}))  # noqa: E731
    gradient = jax.jit(jax.grad(scalar))(stacked["w"])
    step = 1e-3 * gradient / jnp.linalg.norm(gradient)
    gain = float(scalar(stacked["w"] + step)) - float(scalar(stacked["w"] - step))
    assert gain == pytest.approx(2e-3 * float(jnp.linalg.norm(gradient)), rel=0.02)


def test_traced_in_a_batch():
    outputs = jnp.stack([trained(seed)["dense_0"]["kernel"] for seed in range(2)])
    several = jax.vmap(lambda o: value(function_distance(o)))(outputs)
    np.testing.assert_allclose(several, [value(function_distance(o)) for o in outputs], rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be traced; use 'sliced'"):
        jax.jit(lambda o: value(ASSIGNMENT({"w": o})))(outputs[0])


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_trees_is_replicas(kind):
    nets = [network(seed) for seed in range(3)]
    for measure in OF_PARAMETERS:
        assert value(measure(kind(nets))) == value(measure(trees.stack(nets)))


class Net(nnx.Module):
    def __init__(self, seed):
        self.dense, self.bn = nnx.Linear(4, 3, rngs=nnx.Rngs(seed)), nnx.BatchNorm(3, rngs=nnx.Rngs(seed))


def test_modules_are_replicas():
    """Of Equinox and NNX, as the dicts of their weights."""
    for make, names in (
        (lambda seed: eqx.nn.MLP(4, 3, 8, 1, key=jax.random.key(seed)), ("layers/0/weight", "layers/1/bias")),
        (Net, ("dense/kernel", "bn/scale")),
    ):
        nets = [make(seed) for seed in range(3)]
        plain = trees.stack([{k.replace("/", "_"): x for k, x in trees.floating(net).items()} for net in nets])
        for measure in (marginal_distance, unmatched_distance):
            for given in (nets, trees.stack(nets)):
                found = measure(given, key=KEY)
                assert set(names) <= found.pairs.keys()
                assert value(found) == pytest.approx(value(measure(plain)), rel=1e-6)


def test_float64_of_numpy_stays():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4, 30, 20))
    for measure in (marginal_distance, unmatched_distance, neuron_cloud_distance):
        found, expected = (measure({"k": tree}, key=KEY) for tree in (1e4 + 1e-3 * spread, spread.astype(np.float32)))
        for reading, other in zip(found.scale_free.total, expected.scale_free.total, strict=True):
            assert reading.value == pytest.approx(other.value, rel=1e-3, abs=1e-3)


def test_a_fresh_shape_of_small_layers_compiles_next_to_nothing(caplog):
    """Programs take longer to compile than small layers to measure."""
    for measure in OF_PARAMETERS:
        measure({"w": jnp.ones((3, 5, 4))}, key=KEY)
    stacked = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 11)), jnp.float32)}
    with jax.log_compiles():
        for measure in OF_PARAMETERS:
            measure(stacked, key=KEY)
    compiled = [record for record in caplog.records if record.message.startswith("Finished XLA")]
    # At most that of handing an array over, five milliseconds.
    assert len(compiled) <= 1, [record.message for record in compiled]


PAIR = {"w": np.ones((2, 3), np.float32)}


@pytest.mark.parametrize("key", [None, KEY], ids=["bare", "null"])
@pytest.mark.parametrize(
    ("measure", "arguments", "words"),
    [
        (marginal_distance, dict(p=0.5), "p=0.5 must be a finite number >= 1"),
        (neuron_cloud_distance, dict(solver="slice"), "solver='slice' is unknown; known: sliced, assignment, sinkhorn"),
        (neuron_cloud_distance, dict(solver="sinkhorn", epsilon=0.0), "epsilon=0.0 must be > 0"),
        (neuron_cloud_distance, dict(projections=0), "projections=0 must be >= 1"),
        *(
            (measure, arguments, words)
            for measure in OF_PARAMETERS
            for arguments, words in (
                (dict(stacked={"w": np.ones((1, 3))}), "at least 2 replicas"),
                (dict(stacked={"w": np.ones((2, 3)), "v": np.ones((3, 3))}), r"got sizes \[2, 3\]"),
                (dict(stacked={"w": np.ones((2, 3)), "v": 1.0}), r"got sizes \[0, 2\]"),
                (dict(where="v"), "stacked has no floating leaf that where='v' selects"),
                (dict(stacked=PAIR | {"v": np.array([[1, np.nan], [0, 0]])}), "leaf 'v' has 1 entries that are NaN"),
                (dict(stacked={"w": np.array([[1, np.inf], [0, 0]])}), "leaf 'w' has 1 entries that are NaN or inf"),
                (dict(stacked={"w": np.ones((2, 3), complex)}), "leaf 'w' is complex"),
            )
        ),
    ],
)
def test_refusals(measure, arguments, words, key):
    with pytest.raises(ValueError, match=words):
        measure(**{"stacked": PAIR, "key": key} | arguments)


def test_function_refusals():
    with pytest.raises(ValueError, match="at least 2 replicas"):
        function_distance(jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="leaf 'outputs' has 1 entries"):
        function_distance(jnp.ones((2, 3)).at[0, 0].set(jnp.nan))


def test_lists_of_outputs():
    """As lists of trees: stacked where they can only be replicas, refused where they could be heads of a network."""
    outputs = np.random.default_rng(0).normal(size=(4, 7, 3))
    heads = [{"a": x, "b": x[0]} for x in outputs]
    assert value(function_distance(heads)) == value(function_distance(trees.stack(heads)))
    assert function_distance(heads, heads).raw.total.excess.value == 0
    with pytest.raises(
        ValueError, match=r"outputs is a list of 4 trees .* give sbjax.trees.stack\(outputs\) if they are 4 repl"
    ):
        function_distance(list(outputs))
    with pytest.raises(ValueError, match=r"null_outputs is a list of 4 trees .* named outputs"):
        function_distance(outputs, list(outputs))
    with pytest.raises(ValueError, match=r"at least 2 replicas: give outputs\[0\]"):
        function_distance([outputs])
    with pytest.raises(
        ValueError, match="outputs has the leaves outputs, and null_outputs outputs/a; give both as one"
    ):
        function_distance(outputs, {"a": outputs})
