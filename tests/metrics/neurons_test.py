"""Clouds of neurons, and three solvers that must agree with one another and with brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metrics import neurons
from sbjax.metrics.neurons import neuron_clouds, pairwise_assignment, pairwise_sinkhorn, pairwise_sliced

CLOUD = jax.random.normal(jax.random.key(0), (3, 5, 4))
SOLVERS = ("sliced", "assignment", "sinkhorn")


def leaf(*shape):
    return np.random.default_rng(len(shape)).normal(size=(2, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("tree", "axis", "shapes"),
    [
        ({"dense": {"kernel": leaf(3, 4), "bias": leaf(4)}}, -1, {"dense": (4, 4)}),
        ({"conv": {"kernel": leaf(3, 3, 2, 8), "bias": leaf(8)}}, -1, {"conv": (8, 19)}),
        ({"norm": {"scale": leaf(6), "bias": leaf(6)}}, -1, {"norm": (6, 2)}),
        ({"norm": {"scale": leaf(6)}}, -1, {"norm/scale": (6, 1)}),
        ({"first": {"w": leaf(1, 7), "b": leaf(7)}}, -1, {"first": (7, 2)}),
        ([leaf(3, 4), leaf(4), leaf(4, 2), leaf(2)], -1, {"0": (4, 3), "1": (4, 1), "2": (2, 4), "3": (2, 1)}),
        ({"mlp": [leaf(3, 4), leaf(4, 4)]}, -1, {"mlp/0": (4, 3), "mlp/1": (4, 4)}),
        ({"fc": {"weight": leaf(5, 3), "bias": leaf(5)}}, 0, {"fc": (5, 4)}),
        ({"conv": {"weight": leaf(8, 2, 3, 3)}}, 0, {"conv/weight": (8, 18)}),
        (leaf(3, 4), -1, {"": (4, 3)}),
        ({"gain": np.ones(2)}, -1, {"gain": (1, 1)}),
    ],
)
def test_layers(tree, axis, shapes):
    clouds = neuron_clouds(tree, neuron_axis=axis)
    assert {name: cloud.shape[1:] for name, cloud in clouds.items()} == shapes
    assert sum(cloud.size for cloud in clouds.values()) == sum(x.size for x in jax.tree.leaves(tree))


def test_a_neuron_holds_its_incoming_weights_and_its_bias():
    kernel, bias = leaf(3, 3, 2, 8), leaf(8)
    (cloud,) = neuron_clouds({"conv": {"kernel": kernel, "bias": bias}}).values()
    np.testing.assert_array_equal(cloud[1, 5], [bias[1, 5], *kernel[1, :, :, :, 5].ravel()])
    (torch,) = neuron_clouds({"conv": {"kernel": np.moveaxis(kernel, -1, 1), "bias": bias}}, neuron_axis=0).values()
    np.testing.assert_array_equal(torch, cloud)


def test_where_is_of_leaves():
    tree = {"a": {"kernel": leaf(3, 4), "bias": leaf(4)}, "b": {"kernel": leaf(4, 2)}}
    assert neuron_clouds(tree, "*kernel").keys() == {"a/kernel", "b/kernel"}
    with pytest.raises(ValueError, match="stacked has no floating leaf"):
        neuron_clouds(tree, "c/*")


@pytest.mark.parametrize("axis", [2, 7, -3])
def test_an_axis_that_a_kernel_does_not_have_is_refused(axis):
    with pytest.raises(ValueError, match=rf"neuron_axis={axis} is no axis of 'a/kernel', whose shape .* \(3, 4\)"):
        neuron_clouds({"a": {"kernel": leaf(3, 4), "bias": leaf(4)}}, neuron_axis=axis)


def brute_sliced(cloud, directions):
    projected = np.sort(np.einsum("rnd,pd->rpn", cloud, directions), -1)
    return np.sqrt(((projected[:, None] - projected[None]) ** 2).mean((2, 3)))


def test_sliced_against_numpy_and_ott(x64):
    from ott.tools import sliced

    cloud, key = jnp.asarray(CLOUD, jnp.float64), jax.random.key(7)
    ours = pairwise_sliced(cloud, projections=20, key=key)
    directions = np.array(jax.random.normal(key, (20, 4), jnp.float64))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, brute_sliced(np.asarray(cloud), directions), atol=1e-12)
    theirs, _ = sliced.sliced_wasserstein(cloud[0], cloud[1], n_proj=20, rng=key)
    np.testing.assert_allclose(ours[0, 1], np.sqrt(theirs), rtol=1e-6)


def test_sliced_is_reproducible_and_converges():
    """To the mean over all directions, which for two single points is their distance over sqrt(d)."""
    np.testing.assert_array_equal(pairwise_sliced(CLOUD), pairwise_sliced(CLOUD, key=jax.random.key(0)))
    points = CLOUD[:2, :1]
    expected = np.sqrt(np.mean((points[0] - points[1]) ** 2))
    np.testing.assert_allclose(pairwise_sliced(points, projections=20_000)[0, 1], expected, rtol=0.02)


def brute_assignment(x, y):
    return min(np.sqrt(((x - y[list(order)]) ** 2).mean()) for order in itertools.permutations(range(len(x))))


def test_assignment_against_all_permutations_and_ott(x64):
    from ott.geometry import pointcloud
    from ott.tools import unreg

    cloud = np.asarray(CLOUD, np.float64)
    ours = pairwise_assignment(cloud)
    np.testing.assert_array_equal(ours, ours.T)
    for r, s in itertools.combinations(range(3), 2):
        np.testing.assert_allclose(ours[r, s], brute_assignment(cloud[r], cloud[s]), rtol=1e-9)
        cost, _ = unreg.hungarian(pointcloud.PointCloud(jnp.asarray(cloud[r]), jnp.asarray(cloud[s])))
        np.testing.assert_allclose(ours[r, s], np.sqrt(cost / 4), rtol=1e-9)


@pytest.mark.extended
def test_sinkhorn_nears_the_assignment(x64):
    cloud = jnp.asarray(CLOUD, jnp.float64)
    exact = pairwise_assignment(cloud)
    gaps = []
    for epsilon in (0.3, 0.01):
        smooth, unconverged = pairwise_sinkhorn(cloud, epsilon=epsilon, max_iterations=20_000)
        assert unconverged == 0
        gaps.append(np.abs(smooth**2 - exact**2).max())
    assert gaps[0] > 0.01
    assert gaps[1] < 1e-3


@pytest.mark.extended
def test_sinkhorn_of_equal_clouds_and_of_scaled_ones():
    pair = CLOUD.at[1].set(CLOUD[0, ::-1])[:2]
    np.testing.assert_allclose(pairwise_sinkhorn(pair)[0], 0, atol=2e-3)
    once, _ = pairwise_sinkhorn(CLOUD)
    for factor, offset in ((8.0, 0.0), (1e-3, 0.0), (1e-3, 1.0)):
        scaled, _ = pairwise_sinkhorn(factor * CLOUD + offset)
        np.testing.assert_allclose(scaled, factor * once, rtol=1e-3)
    assert not pairwise_sinkhorn(jnp.full((2, 5, 4), 0.1))[0].any()


def test_sinkhorn_reports_what_did_not_converge():
    assert pairwise_sinkhorn(CLOUD, epsilon=1e-3, max_iterations=10)[1] == 3
    assert pairwise_sinkhorn(CLOUD, epsilon=1e-3, max_iterations=10)[0].shape == (3, 3)


@pytest.mark.parametrize(
    "solve", [pairwise_sliced, pairwise_assignment, lambda cloud: pairwise_sinkhorn(cloud)[0]], ids=SOLVERS
)
def test_the_order_of_neurons_does_not_count(solve):
    permuted = CLOUD.at[1].set(CLOUD[1, jnp.array([3, 0, 4, 1, 2])])
    np.testing.assert_allclose(solve(permuted), solve(CLOUD), rtol=1e-4)
    assert solve(CLOUD)[0, 1] > 0.1
    other_axis = CLOUD.at[1].set(CLOUD[1][:, jnp.array([3, 0, 2, 1])])
    assert not np.allclose(solve(other_axis), solve(CLOUD), rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    half = CLOUD.astype(dtype)
    for solve in (pairwise_sliced, pairwise_assignment, lambda cloud: pairwise_sinkhorn(cloud)[0]):
        np.testing.assert_array_equal(solve(half), solve(half.astype(jnp.float32)))


@pytest.mark.parametrize(("solve", "name"), [(pairwise_assignment, "assignment"), (pairwise_sinkhorn, "sinkhorn")])
def test_too_many_neurons(monkeypatch, solve, name):
    monkeypatch.setattr(neurons, "MOST_NEURONS", 4)
    with pytest.raises(
        ValueError, match=f"solver='{name}' stores the dense cost.*5 neurons are more than 4; use 'sliced'"
    ):
        solve(CLOUD)
    assert pairwise_sliced(CLOUD).shape == (3, 3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_epsilon(epsilon):
    with pytest.raises(ValueError, match=f"epsilon={epsilon} must be > 0; use the solver 'assignment'"):
        pairwise_sinkhorn(CLOUD, epsilon=epsilon)


def test_projections():
    with pytest.raises(ValueError, match="projections=0 must be >= 1"):
        pairwise_sliced(CLOUD, projections=0)


def test_sinkhorn_in_one_program_as_on_accelerators(monkeypatch):
    expected, unconverged = pairwise_sinkhorn(CLOUD)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for at_once in (1, 2 * CLOUD.shape[1] ** 2):
        monkeypatch.setattr(neurons, "_AT_ONCE", at_once)
        found, still = pairwise_sinkhorn(CLOUD)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert still == unconverged
