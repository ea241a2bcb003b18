"""Paths of constant function: end points bit for bit, loss at round-off, against networks evaluated by numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.landscape import canonical, manifold
from sbjax.landscape import paths as lib
from sbjax.models.mlp import MLP

X = np.random.default_rng(9).uniform(-2, 2, size=(30, 2))


def draw_mlp(*dims, seed=0, spares=True):
    """tanh MLP with biases; the last unit of every hidden layer is read by nothing but the next layer's last."""
    rng = np.random.default_rng(seed)
    params = {}
    for i, (n, m) in enumerate(itertools.pairwise(dims)):
        params[f"dense_{i}"] = {"kernel": rng.normal(size=(n, m)), "bias": rng.normal(size=m)}
        if spares and i > 0:
            params[f"dense_{i}"]["kernel"][-1, : m - 1 if i < len(dims) - 2 else m] = 0
    return params


def draw_two_layer(m, dout=1, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(m, 2)), "a": np.append(rng.normal(size=(m - 1, dout)), np.zeros((1, dout)), 0)}


def outputs(params, x=X):
    if "w" in params:
        return np.tanh(x @ params["w"].T) @ params["a"]
    for i in range(len(params)):
        x = (np.tanh(x) if i else x) @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
    return x


def check_path(path, start, end, x=X):
    """Joined up, from start to end bit for bit, of constant function."""
    assert lib.same(path[0].start, start)
    assert lib.same(path[-1].end, end)
    assert jax.tree.structure(path[-1].end) == jax.tree.structure(end)
    for one, other in itertools.pairwise(path):
        assert lib.same(one.end, other.start)
    expected = outputs(start, x)
    worst = 0.0
    for segment in path:
        assert not lib.same(segment.start, segment.end)
        for t in np.linspace(0, 1, 5):
            between = jax.tree.map(lambda a, b, t=t: a + t * (b - a), segment.start, segment.end)
            worst = max(worst, np.mean((outputs(between, x) - expected) ** 2))
    assert worst <= 1e-25
    return worst


def roll(m, cycle):
    """The order that moves each unit of the cycle to the place before it."""
    order = np.arange(m)
    order[list(cycle)] = np.roll(cycle, -1)
    return order


ORDERS = {
    "swap": (roll(5, (0, 1)), 7),
    "cycle of four": (roll(5, (0, 1, 2, 3)), 11),
    "two swaps": (roll(5, (0, 1))[roll(5, (2, 3))], 13),
    "swap with the spare": (roll(5, (1, 4)), 3),
    "all and the spare": (roll(5, (0, 3, 4, 1, 2)), 9),
    "a swap, and one with the spare": (roll(5, (0, 1))[roll(5, (2, 4))], 9),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("make", [lambda: draw_mlp(2, 5, 1), lambda: draw_two_layer(5, 2)], ids=["mlp", "two-layer"])
def test_one_hidden_layer(name, make):
    order, count = ORDERS[name]
    params = make()
    path = lib.permutation_path(params, [order])
    assert len(path) == count == lib.segment_count(order, 4)
    goal = lib.permuted(params, [order])
    check_path(path, params, goal)
    np.testing.assert_allclose(outputs(goal), outputs(params), atol=1e-14)
    # Not the trivial path: the units are where they should be.
    if "w" in params:
        np.testing.assert_array_equal(goal["w"], params["w"][order])


@pytest.mark.parametrize("dims", [(2, 5, 4, 3), (2, 4, 4, 4, 1), (2, 5, 5, 5, 5, 1)])
def test_deep_networks(dims):
    params = draw_mlp(*dims)
    rng = np.random.default_rng(3)
    orders = [np.append(rng.permutation(m - 1), m - 1) for m in dims[1:-1]]
    orders[0] = roll(dims[1], (0, 1))
    path = lib.permutation_path(params, orders)
    # Weights between the spares are cleared and restored.
    counted = sum(lib.segment_count(order, m - 1) for order, m in zip(orders, dims[1:-1]))
    assert len(path) == counted + 2
    assert (path[0].move, path[-1].move) == ("clear", "restore")
    goal = lib.permuted(params, orders)
    check_path(path, params, goal)
    for layer in range(1, len(dims) - 2):
        params[f"dense_{layer}"]["kernel"][-1] = 0
    assert len(lib.permutation_path(params, orders)) == counted


def test_spares_that_move_and_layers_that_stay():
    params = draw_mlp(2, 4, 4, 4, 1)
    orders = [roll(4, (0, 3)), np.arange(4), roll(4, (1, 2, 3))]
    check_path(lib.permutation_path(params, orders), params, lib.permuted(params, orders))
    full = draw_mlp(2, 4, 4, 1, spares=False)
    full["dense_2"]["kernel"][2] = 0
    check_path(
        lib.permutation_path(full, [np.arange(4), orders[0]]), full, lib.permuted(full, [np.arange(4), orders[0]])
    )
    assert lib.permutation_path(params, [np.arange(4)] * 3) == []


@pytest.mark.extended
def test_losses_of_the_project_mlp_along_a_path_and_straight(x64):
    params = draw_mlp(2, 4, 4, 4, 1)
    mlp = MLP(classes=1, widths=(4, 4, 4), activation="tanh", dtype="float64")
    y = np.asarray(mlp.apply({"params": params}, X))
    orders = [roll(4, (0, 1, 2)), roll(4, (0, 2)), roll(4, (1, 2))]
    path = lib.permutation_path(params, orders)
    losses = lib.path_losses(path, X, y, jnp.tanh)
    assert losses.shape == (len(path), 21)
    assert losses.max() <= 1e-25
    straight = lib.straight_losses(params, path[-1].end, X, y, jnp.tanh)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, params, path[-1].end)
    assert straight[10] == pytest.approx(np.mean((outputs(middle) - y) ** 2), rel=1e-12)
    assert straight[0] <= 1e-25
    assert straight[-1] <= 1e-25
    assert straight.max() > 0.01


@pytest.mark.parametrize("seed", range(6))
def test_any_two_points_of_a_manifold(seed, x64):
    rng = np.random.default_rng(seed)
    units = {"w": rng.normal(size=(3, 2)), "a": rng.normal(size=(3, 2))}
    ends = []
    for key in jax.random.split(jax.random.key(seed)):
        piece = manifold.random_piece(key, 3, 6)
        ends.append(manifold.sample(key, piece, units))
    path = canonical.connect(*ends)
    check_path(path, *ends)
    assert len(path) < 40
    reduced = canonical.canonical_path(ends[0])[-1].end
    assert np.sum(np.any(reduced["a"] != 0, axis=1)) == 3
    assert canonical.canonical_path(reduced) == []


def expand_deep(core, seed):
    """A 2-3-3-1 MLP as a 2-5-6-1 MLP: copies with spread weights, cancelling groups, shuffled."""
    rng = np.random.default_rng(seed)
    (k0, b0), (k1, b1), (k2, b2) = ((core[f"dense_{i}"]["kernel"], core[f"dense_{i}"]["bias"]) for i in range(3))
    # First layer: unit 0 twice, one idle unit.
    k0, b0 = np.column_stack([k0, k0[:, 0], rng.normal(size=2)]), np.append(b0, [b0[0], rng.normal()])
    k1 = np.concatenate([k1, np.zeros((2, 3))])
    # Every target spreads the weight over the two copies in its own way.
    k1[3] = rng.normal(size=3)
    k1[0] -= k1[3]
    # Second layer: unit 2 twice and a pair that cancels, whose incoming weights are anything.
    free = rng.normal(size=(5, 1))
    k1, b1 = np.column_stack([k1, k1[:, 2], free, free]), np.append(b1, [b1[2], 0.3, 0.3])
    k2 = np.concatenate([k2, [[0.4], [0.7], [-0.7]]])
    k2[2] -= 0.4
    wide = {f"dense_{i}": {"kernel": k, "bias": b} for i, (k, b) in enumerate([(k0, b0), (k1, b1), (k2, b2)])}
    return lib.permuted(wide, [rng.permutation(5), rng.permutation(6)])


def test_any_two_expansions_of_a_deep_network():
    core = draw_mlp(2, 3, 3, 1, spares=False)
    ends = [expand_deep(core, seed) for seed in (1, 2)]
    np.testing.assert_allclose(outputs(ends[0]), outputs(core), atol=1e-13)
    path = canonical.connect(*ends)
    check_path(path, *ends)
    assert {segment.move for segment in path} >= {"merge", "idle", "incoming", "outgoing"}


def perturbed(params, name):
    return {**params, name: params[name] + 0.1}


NET = draw_two_layer(3)
FULL = {"w": NET["w"], "a": NET["a"] + 1}
SWAP = [1, 0, 2]
INVALID = [
    (lambda: lib.permutation_path(FULL, [SWAP]), "hidden layer 0 has no spare unit: .*widen the layer"),
    (lambda: lib.permutation_path(NET, [SWAP], spares=[0]), "spare=0, whose outgoing weights are not 0"),
    (lambda: lib.permutation_path(NET, [SWAP], spares=[0, 1]), "spares has 2 entries"),
    (lambda: lib.permutation_path(NET, [SWAP, SWAP]), "permutations has 2 entries: .* 1 hidden"),
    (
        lambda: lib.permutation_path(NET, [[0, 0, 2]]),
        r"permutations\[0\]=\[0, 0, 2\] is not a permutation of the 3 units",
    ),
    pytest.param(
        lambda: lib.permutation_path(NET, [[0.0, 1.0, 2.0]]), "is not a permutation", marks=pytest.mark.wrong_types
    ),
    (lambda: lib.segment_count(SWAP, 3), "spare=3 does not exist"),
    (lambda: canonical.connect(NET, draw_two_layer(4)), "same shapes"),
    (lambda: canonical.connect(NET, FULL), "start needs 2 units of hidden layer 0, end 3"),
    (lambda: canonical.connect(NET, perturbed(NET, "w")), "incoming weights of hidden layer 0 differ by"),
    (lambda: canonical.connect(NET, {"w": NET["w"], "a": 2 * NET["a"]}), "different outgoing weights"),
    (lambda: lib.path_losses([], X, X[:, :1], np.tanh), "path has 0 segments"),
    (lambda: lib.straight_losses(NET, NET, X, X, np.tanh), r"y \(30, 2\)"),
    (lambda: lib.straight_losses(NET, NET, X, X[:, :1], np.tanh, points=1), "points=1"),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
