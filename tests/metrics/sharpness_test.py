"""Sharpness against dense Hessians and ARPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sbjax import trees
from sbjax.metrics import curvature, spectrum
from sbjax.metrics.sharpness import check_twice_differentiable, make_sharpness

KEY = jax.random.key(0)


def init(seed):
    random = np.random.default_rng(seed)
    params = {"w": random.normal(size=(3, 4)), "b": random.normal(size=4), "v": random.normal(size=(4, 1))}
    return jax.tree.map(jnp.float32, {"params": params, "frozen": {"shift": random.normal(size=(1,))}})


def loss(variables, batch):
    p = variables["params"]
    y = jnp.tanh(batch @ p["w"] + p["b"][None]) @ p["v"] + variables["frozen"]["shift"][None]
    return jnp.mean((y - 1) ** 2)


BATCHES = [jnp.asarray(np.random.default_rng(9).normal(size=(5, 3)), jnp.float32) * (1 + i) for i in range(2)]


def dense(variables):
    flat, unravel = ravel_pytree(variables["params"])

    def mean(w):
        return sum(loss({**variables, "params": unravel(w)}, batch) for batch in BATCHES) / 2

    return np.linalg.eigvalsh(jax.hessian(mean)(flat))


@pytest.fixture(scope="module")
def networks():
    return [init(seed) for seed in range(3)]


def test_with_all_products_it_is_the_largest_eigenvalue(networks):
    """Also of frozen constants that differ between replicas, and of more than one batch."""
    calls = []
    measure = make_sharpness(loss, lambda: calls.append(1) or BATCHES, networks[0], key=KEY, products=50)
    stacked = trees.stack(networks)
    found = measure(stacked)
    np.testing.assert_allclose(found, [dense(one)[-1] for one in networks], rtol=1e-5)
    assert (found == measure(jax.tree.map(np.asarray, stacked))).all()
    assert (found[1:] == measure(trees.take(stacked, slice(1, 3)))).all()  # whatever other replicas there are
    assert len(calls) == 1


@pytest.mark.extended
def test_fewer_products_give_a_lower_bound_that_grows(networks):
    exact = dense(networks[0])
    stacked = trees.stack(networks[:1])
    found = [
        float(make_sharpness(loss, lambda: BATCHES, networks[0], key=KEY, products=k)(stacked)[0]) for k in (2, 4, 8)
    ]
    assert sorted(found) == found
    assert exact[0] < found[0]
    assert found[-1] <= exact[-1] * (1 + 1e-5)
    assert found[-1] > 0.99 * exact[-1]


def test_against_arpack(networks):
    params = networks[1]["params"]
    product = curvature.hessian_product(
        lambda params, batch: loss({**networks[1], "params": params}, batch), params, BATCHES
    )
    pairs = spectrum.extreme_eigenvalues(product, 20, key=KEY)
    found = make_sharpness(loss, lambda: BATCHES, networks[0], key=KEY)(trees.stack(networks[1:2]))
    np.testing.assert_allclose(found, pairs.values, rtol=1e-3)


def test_a_diverging_network_does_not_stop_a_run(networks):
    bad = jax.tree.map(lambda leaf: leaf * jnp.float32(np.nan), networks[0])
    found = make_sharpness(loss, lambda: BATCHES, networks[0], key=KEY)(trees.stack([bad, networks[1]]))
    assert np.isnan(found).tolist() == [True, False]


@pytest.mark.parametrize(
    ("shapes", "products", "message"),
    [
        ({"params": {"w": jnp.zeros(3)}}, 1, r"^products=1 must be >= 2"),
        ({"params": {}}, 4, "there are no parameters"),
        ({"w": jnp.zeros(3)}, 4, "shapes have w and no 'params'"),
        (
            {"params": {"w": jax.ShapeDtypeStruct((10**9,), jnp.float32)}},
            4,
            "products=4 keep as many vectors of 1,000,000,000 parameters, 14.9 GiB, more than 2.0 GiB; lower",
        ),
    ],
)
def test_refusals(shapes, products, message):
    with pytest.raises(ValueError, match=message):
        make_sharpness(loss, lambda: BATCHES, shapes, key=KEY, products=products)


def test_calls_that_cannot_be_measured(networks):
    shapes = networks[0]
    with pytest.raises(ValueError, match="gives none"):
        make_sharpness(loss, list, shapes, key=KEY)(trees.stack([shapes]))
    with pytest.raises(ValueError, match="give replicas of"):
        make_sharpness(loss, lambda: BATCHES, shapes, key=KEY)(shapes)


def test_a_loss_that_cannot_be_differentiated_twice(networks):
    @jax.custom_jvp
    def once(x):
        return jnp.sum(x**2)

    once.defjvp(lambda primals, tangents: (once(primals[0]), _once_only(primals[0], tangents[0])))
    shapes = {"params": {"w": jnp.zeros(3)}}
    with pytest.raises(ValueError, match="cannot be differentiated twice"):
        check_twice_differentiable(lambda variables, _: once(variables["params"]["w"]), shapes, None)
    check_twice_differentiable(loss, networks[0], BATCHES[0])


def _once_only(x, t):
    return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x) @ t
