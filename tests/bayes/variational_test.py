"""Networks with Gaussian weights: law of the noise, frozen entries, the closed optimum of linear regression."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sbjax import trees
from sbjax.asymmetry import AsymmetrySpec, MaskSpec, StartedFrom, make_asymmetric, trainable_size
from sbjax.asymmetry.options import build_asymmetric
from sbjax.bayes import gaussian
from sbjax.bayes.noise import add_noise, grouped_dense
from sbjax.bayes.spec import VariationalSpec
from sbjax.bayes.variational import NOISE, Started, Variational
from sbjax.models import make_model
from sbjax.models.layers import Conv

KEY = jax.random.key(0)
MASKS = AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(2, 0.5)),))


class Line(nn.Module):
    """One dense layer."""

    features: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.features, name="dense_0")(x)


def filled(net, x, scale=0.4, seed=1):
    """Variables with factors that are not small, zeros where they are frozen."""
    variables = net.init(KEY, x)
    masks = trees.flatten(variables.get("frozen", {}).get("asymmetry", {}).get("trainable", {}).get("factors", {}))
    rng = np.random.default_rng(seed)
    factors = {
        name: scale * rng.normal(size=leaf.shape).astype(np.float32) * np.asarray(masks.get(name, True))
        for name, leaf in trees.flatten(variables["params"]["factors"]).items()
    }
    return {**variables, "params": {**variables["params"], "factors": trees.nest(factors)}}


def outputs(net, variables, x, count):
    """Outputs for one input, independent draws: [count, ..]."""
    call = jax.jit(lambda x: net.apply(variables, jnp.repeat(x, count, 0), rngs={NOISE: jax.random.key(3)}))
    return np.asarray(call(x), np.float64)


def check_covariance(found, mean, expected):
    centred, count = found - mean, len(found)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
    assert (np.abs(centred.T @ centred / count - expected) <= 4 * error + 1e-9).all()
    assert (np.abs(centred.mean(0)) <= 4 * np.sqrt(np.diag(expected) / count) + 1e-6).all()


def expected_covariance(net, variables, x):
    """Of the outputs of one dense layer at one input, from the covariance matrix of its weights."""
    ((variance, factors, masks),) = net._gaussians(variables).values()
    kernel, bias = "dense_0/kernel", "dense_0/bias"
    d_in, d_out = factors[kernel].shape[1:]
    jacobian = np.zeros((d_out, (d_in + 1) * d_out))
    for o in range(d_out):
        jacobian[o, o : d_in * d_out : d_out] = x[0]
        jacobian[o, d_in * d_out + o] = 1
    flat = np.concatenate([np.asarray(factors[n]).reshape(len(factors[n]), -1) for n in (kernel, bias)], 1)
    spread = np.concatenate([np.broadcast_to(variance[n], factors[n].shape[1:]).ravel() for n in (kernel, bias)])
    kept = np.ones(len(spread), bool)
    if masks[kernel] is not None:
        kept[: d_in * d_out] = np.asarray(masks[kernel]).ravel()
    matrix = gaussian.covariance(jnp.asarray(spread), jnp.asarray(flat), mask=jnp.asarray(kept))
    return jacobian @ np.asarray(matrix, np.float64) @ jacobian.T


@pytest.mark.sampled(1)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("learnt", [False, True])
def test_noise_of_a_dense_layer_has_the_covariance_of_its_weights(masked, learnt):
    shares = {"dense_0/bias": 0.5} if not masked else {}
    spec = VariationalSpec(rank=3, log_variance=-1.0, learn_diagonal=learnt, noise_shares=shares)
    net = Variational(make_asymmetric(Line(3), MASKS) if masked else Line(3), spec)
    x = jnp.array([[1.0, -2.0, 0.5, 3.0]])
    variables = filled(net, x)
    mean = np.asarray(net.apply(variables, x))
    check_covariance(outputs(net, variables, x, 30_000), mean, expected_covariance(net, variables, x))
    # Weights that are drawn whole have the same law.
    whole = jax.jit(jax.vmap(lambda key: net.module.apply(net.sample(variables, key=key), x)[0]))
    drawn = np.asarray(whole(jax.random.split(jax.random.key(5), 30_000)), np.float64)
    check_covariance(drawn, mean, expected_covariance(net, variables, x))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("masked", [False, True])
def test_examples_of_a_group_share_their_factors(masked):
    """The law of each is as before; a cheaper way to the numbers of the general one."""
    module = make_asymmetric(Line(3), MASKS) if masked else Line(3)
    apart, together = (Variational(module, VariationalSpec(rank=2, log_variance=-1.0, group=g)) for g in (1, 4))
    x = jnp.array([[1.0, -2.0, 0.5, 3.0]])
    variables = filled(apart, x)
    mean, expected = np.asarray(apart.apply(variables, x)), expected_covariance(apart, variables, x)
    check_covariance(outputs(together, variables, x, 40_000)[::4], mean, expected)
    sharp = Variational(module, VariationalSpec(rank=2, log_variance=-50.0, group=4))
    found = outputs(sharp, variables, x, 10)  # the last group is not whole
    np.testing.assert_allclose(found, found[[0] * 4 + [4] * 4 + [8] * 2], atol=1e-5)
    assert np.abs(np.diff(found[::4], axis=0)).max(-1).min() > 1e-2
    noise = together._noises(variables)["dense_0"]
    several = jax.random.normal(KEY, (10, 4))
    added = add_noise(nn.Dense(3), several, noise, key=KEY, group=4)
    whole = grouped_dense(nn.Dense(3), several, noise, key=KEY, group=4)
    np.testing.assert_allclose(whole - added, several @ noise.mean["kernel"] + noise.mean["bias"][None], atol=1e-5)


class Picture(nn.Module):
    """One convolution, of this package or of Flax."""

    ours: bool

    @nn.compact
    def __call__(self, x, train=False):
        if self.ours:
            return Conv(2, 3, 2, use_bias=True, name="conv")(x)
        return nn.Conv(2, (3, 3), 2, padding=1, feature_group_count=2, name="conv")(x)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("ours", [True, False])
def test_noise_of_a_convolution_has_the_variance_of_its_weights_at_every_place(ours):
    """And the low rank part is one number for all places of an example."""
    net = Variational(Picture(ours), VariationalSpec(rank=2, log_variance=-2.0))
    x = jax.random.normal(KEY, (1, 4, 4, 2))
    variables = filled(net, x)
    found = outputs(net, variables, x, 20_000)
    whole = jax.jit(jax.vmap(lambda key: net.module.apply(net.sample(variables, key=key), x)[0]))
    drawn = np.asarray(whole(jax.random.split(jax.random.key(5), 20_000)), np.float64)
    for moment in (found, drawn):
        assert moment.shape == (20_000, 2, 2, 2)
    ratio = found.var(0) / drawn.var(0)
    assert np.abs(ratio - 1).max() < 4 * np.sqrt(2 * 2 / 20_000)
    low = Variational(Picture(ours), VariationalSpec(rank=2, log_variance=-50.0))
    a, b = outputs(low, variables, x, 5000), np.asarray(low.apply(variables, x))
    both = (a - b).reshape(5000, -1)
    assert np.linalg.matrix_rank(both, tol=1e-3 * np.linalg.norm(both)) == 2


def test_without_a_key_it_is_the_network_of_the_means():
    model = make_model("cnn", classes=3, channels=(4,), norm="batch")
    net = Variational(model, VariationalSpec())
    x = jax.random.normal(KEY, (2, 4, 4, 3))
    variables = jax.jit(net.init)(KEY, x)
    same = {**variables, "params": variables["params"]["mean"]}
    np.testing.assert_array_equal(jax.jit(net.apply)(variables, x), jax.jit(model.apply)(same, x))
    noisy = jax.jit(lambda: net.apply(variables, x, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]))
    y, updates = noisy()
    assert set(updates) == {"batch_stats"}
    assert np.isfinite(y).all()


def test_frozen_entries_are_constants():
    """No noise, no gradient, no part of the divergence; a whole layer without trained entries is deterministic."""
    frozen = AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(9, 0.5, allow_all_frozen=True)),))
    net = Variational(make_asymmetric(Line(3), frozen), VariationalSpec(log_variance=-1.0, bias_factor=0.0))
    x = jnp.ones((4, 5))
    variables = net.init(KEY, x)
    kernel = net._noises(variables)["dense_0"]
    assert not kernel.variance["kernel"].any()
    assert not kernel.factors["kernel"].any()

    net = Variational(make_asymmetric(Line(3), MASKS), VariationalSpec(log_variance=-1.0))
    variables = filled(net, x)

    def loss(params):
        inner = {**variables, "params": params}
        return (net.apply(inner, x, rngs={NOISE: KEY}) ** 2).sum() + net.kl(inner)

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    mask = np.asarray(variables["frozen"]["asymmetry"]["trainable"]["mean"]["dense_0"]["kernel"])
    assert not np.asarray(gradient["mean"]["dense_0"]["kernel"])[~mask].any()
    assert not np.asarray(gradient["factors"]["dense_0"]["kernel"])[:, ~mask].any()
    assert np.asarray(gradient["factors"]["dense_0"]["kernel"])[:, mask].all()


@pytest.mark.extended
def test_gradients_are_finite_where_a_layer_sees_zeros():
    net = Variational(Picture(True), VariationalSpec())
    x = jnp.zeros((2, 4, 4, 2))
    variables = net.init(KEY, x)
    loss = lambda x: net.apply(variables, x, rngs={NOISE: KEY}).sum()  # noqa: E731
    assert np.isfinite(jax.grad(loss)(x)).all()


SIZES = {
    # Published: arXiv 2405.20231, table of Bayesian networks.
    ("resnet20", False): 1_356_098,
    ("resnet20", True): 1_143_858,
    ("resnet110", False): 8_620_418,
    ("resnet110", True): 7_371_378,
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "asymmetric"), SIZES)
def test_published_numbers_of_parameters(name, asymmetric):
    module = make_model(name, classes=10, norm="layer")
    fields = {"kind": "w", "preset": "resnet20", "kappa_factor": 0.25} if asymmetric else None
    net = Variational(build_asymmetric(module, fields), VariationalSpec(rank=4))
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 8, 8, 3)))
    size = trees.size(shapes["params"])
    if asymmetric:  # the masks themselves, counted as published: each frozen weight with its four factors
        from sbjax.asymmetry import constants

        made = constants(shapes["params"]["mean"], net.module.spec)["trainable"]
        size -= 5 * sum(int((~mask).sum()) for mask in trees.flatten(made).values())
        assert {mask.kappa for _, mask in net.module.spec.masks} == {0.5}
    assert size == SIZES[name, asymmetric]


def test_trained_parameters_of_an_asymmetric_network_are_counted_with_their_factors():
    net = Variational(make_asymmetric(Line(3), MASKS), VariationalSpec(rank=2))
    assert trainable_size(net.init(KEY, jnp.ones((1, 5)))) == 3 * (15 + 3) - 3 * 2 * 3


def test_arms_share_means_and_factors_where_nothing_is_frozen():
    x, spec = jnp.ones((1, 9)), VariationalSpec()
    line = Started(Line(3), "uniform")
    plain, masked = Variational(line, spec), Variational(make_asymmetric(line, MASKS), spec)
    started = Variational(StartedFrom(make_asymmetric(line, MASKS), line), spec)
    a, b, c = (net.init(KEY, x) for net in (plain, masked, started))
    mask = np.asarray(b["frozen"]["asymmetry"]["trainable"]["mean"]["dense_0"]["kernel"])
    for tree in (b, c):
        np.testing.assert_array_equal(
            np.asarray(tree["params"]["factors"]["dense_0"]["kernel"])[:, mask],
            np.asarray(a["params"]["factors"]["dense_0"]["kernel"])[:, mask],
        )
    np.testing.assert_array_equal(plain.network_variables(a)["params"]["dense_0"]["kernel"][mask],
                                  started.network_variables(c)["params"]["dense_0"]["kernel"][mask])  # fmt: skip
    np.testing.assert_array_equal(masked.apply(b, x), started.apply(c, x))
    scale = np.asarray(a["params"]["factors"]["dense_0"]["kernel"]).std() / (1 / np.sqrt(3 * 9))
    assert scale == pytest.approx(0.5 / np.sqrt(4), rel=0.25)


def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) @ np.diag([2.0, 1.0, 0.6, 0.3])
    y = x @ np.array([1.0, -1.0, 0.5, 2.0]) + 0.5 * rng.normal(size=60)
    return x.astype(np.float32), y.astype(np.float32), 0.5**2


@pytest.mark.promotes("the bias correction and the schedules of optax are functions of a count")
def test_linear_regression_reaches_its_closed_optimum():
    """Mean: that of the exact posterior. Covariance: along the eigenvectors of the exact one, which it reaches where
    a factor is there for it, in the order of what is gained; elsewhere the fixed diagonal."""
    x, y, noise = regression()
    inputs = np.concatenate([x, np.ones((60, 1), np.float32)], 1)  # the bias is a weight like the others
    prior, floor_variance = 1.0, float(np.exp(-9.0))
    precision = inputs.T @ inputs / noise + np.eye(5) / prior
    mean = np.linalg.solve(precision, inputs.T @ y / noise)

    net = Variational(Line(), VariationalSpec(rank=5, log_variance=-9.0, prior_precision=1.0))
    variables = net.init(KEY, x)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 3000))

    def bound(params, key):
        # Four draws of each example; the divergence weighs as much as the sum over the examples.
        drawn = net.apply({"params": params}, jnp.tile(x, (8, 1)), rngs={NOISE: key})[:, 0]
        return jnp.sum((drawn - jnp.tile(y, 8)) ** 2) / (2 * noise * 8) + net.kl({"params": params})

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(bound)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 3000))[0][0]

    params = train(variables["params"])
    found = np.concatenate([params["mean"]["dense_0"]["kernel"].ravel(), params["mean"]["dense_0"]["bias"]])
    np.testing.assert_allclose(found, mean, atol=0.02)
    factors = np.concatenate(
        [np.asarray(params["factors"]["dense_0"][n]).reshape(5, -1) for n in ("kernel", "bias")], 1
    )
    covariance = floor_variance * np.eye(5) + factors.T @ factors / 5
    np.testing.assert_allclose(covariance, np.linalg.inv(precision), rtol=0.1, atol=4e-4)


def test_what_cannot_be_random_is_refused():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", nn.initializers.ones, (3, 2))

    with pytest.raises(ValueError, match="'kernel' belongs to no dense layer or convolution"):
        Variational(Own(), VariationalSpec()).init(KEY, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="there is nothing to be random"):
        Variational(nn.LayerNorm(), VariationalSpec()).init(KEY, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match=r"posterior.rank=-1 must be >= 0"):
        VariationalSpec(rank=-1)
    with pytest.raises(ValueError, match=r"noise_shares\['\*'\]=-1 must be a number >= 0"):
        VariationalSpec(noise_shares={"*": -1})
    with pytest.raises(ValueError, match="law='x' must be 'uniform' or 'normal'"):
        Started(Line(), "x")
