"""Permutations of units: what is moved, the group laws, and specs that do not fit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.symmetry.permutation import (
    Move,
    Spec,
    check_spec,
    compose,
    identity,
    invert,
    permute,
    random_permutations,
)

KEY = jax.random.key(0)
TREE = {
    "first": {"kernel": np.arange(24.0).reshape(2, 12), "bias": np.arange(12.0)},
    "second": np.arange(36.0).reshape(12, 3),
}
# An axis of 12 units as [2, 3, 2]: p acts on the middle part, q on the last; r on all of another axis.
SPEC = Spec(
    {"p": 3, "q": 2, "r": 3},
    {
        "p": (Move("first/kernel", 1, 2, 2), Move("first/bias", 0, 2, 2), Move("second", 0, 2, 2)),
        "q": (Move("first/kernel", 1, 6, 1), Move("first/bias", 0, 6, 1), Move("second", 0, 6, 1)),
        "r": (Move("second", 1),),
    },
    {},
)
ORDERS = {"p": np.array([2, 0, 1]), "q": np.array([1, 0]), "r": np.array([1, 2, 0])}


def by_hand(tree, orders):
    """Entry by entry."""
    p, q, r = (orders[name] for name in "pqr")
    source = [i * 6 + p[j] * 2 + q[k] for i, j, k in itertools.product(range(2), range(3), range(2))]
    first = {"kernel": tree["first"]["kernel"][:, source], "bias": tree["first"]["bias"][source]}
    return {"first": first, "second": tree["second"][source][:, r]}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_units_move():
    """With numpy, with jax, and inside jit."""
    expected = by_hand(TREE, ORDERS)
    moved = permute(SPEC, TREE, ORDERS)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(moved))
    assert_same(moved, expected)
    jitted = jax.jit(lambda tree, orders: permute(SPEC, tree, orders))(TREE, jax.tree.map(jnp.asarray, ORDERS))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(jitted))
    assert_same(jitted, expected)


def test_group_laws():
    """Identity, inverse, and one permutation for two; a name that is left out is the identity."""
    other = {"p": np.array([1, 0, 2]), "r": np.array([0, 2, 1])}
    assert_same(permute(SPEC, TREE, identity(SPEC)), TREE)
    assert_same(permute(SPEC, TREE, {}), TREE)
    twice = permute(SPEC, permute(SPEC, TREE, ORDERS), other)
    assert_same(permute(SPEC, TREE, compose(ORDERS, other)), twice)
    assert not np.array_equal(permute(SPEC, TREE, compose(other, ORDERS))["second"], twice["second"])
    assert_same(permute(SPEC, permute(SPEC, TREE, ORDERS), invert(ORDERS)), TREE)


def test_random_permutations():
    """Of the key, the name and the size alone, whichever others there are."""
    spec = Spec({"p": 12, "r": 12}, {"p": (), "r": ()}, {})
    drawn, again = random_permutations(KEY, spec), random_permutations(jax.random.key(1), spec)
    orders = [drawn["p"], drawn["r"], again["p"], again["r"]]
    assert all(sorted(order.tolist()) == list(range(12)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    alone = random_permutations(KEY, Spec({"r": 12}, {"r": ()}, {}))["r"]
    np.testing.assert_array_equal(alone, drawn["r"])


def test_leaves_that_are_missing():
    part = {"first": TREE["first"]}
    with pytest.raises(ValueError, match="permutation 'p' acts on leaf 'second', which is not there"):
        permute(SPEC, part, ORDERS)
    assert_same(permute(SPEC, part, ORDERS, missing="skip"), {"first": by_hand(TREE, ORDERS)["first"]})


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ({"pp": ORDERS["p"]}, "'pp' is not in the spec, did you mean 'p'"),
        ({"p": np.arange(2)}, r"'p' has shape \(2,\): give 3 indices"),
        ({"p": np.array([0, 0, 1])}, "'p' must hold each of 0 .. 2 once"),
    ],
)
def test_orders_that_are_none(orders, message):
    with pytest.raises(ValueError, match=message):
        permute(SPEC, TREE, orders)


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        (
            (Move("first/bais", 0, 2, 2),),
            "'p' acts on leaf 'first/bais', which is not there, did you mean 'first/bias'",
        ),
        ((Move("first/bias", 1, 2, 2),), r"acts on axis 1 of leaf 'first/bias' of shape \(12,\)"),
        ((Move("first/bias", -1, 2, 2),), "acts on axis -1"),
        ((Move("first/bias", 0),), r"'p' of 3 units .* seen as \[1, 3, 1\], whose product must be 12"),
        ((Move("first/bias", 0, -2, -2),), "whose product must be 12"),
        ((Move("first/bias", 0, 2, 2), Move("first/bias", 0, 4, 1)), "'p' acts twice on axis 0 of leaf 'first/bias'"),
        ((Move("second", 1),), "'p' and 'r' overlap on axis 1 of leaf 'second' and do not commute"),
        ((Move("first/bias", 0, 4, 1),), "'p' and 'q' overlap on axis 0"),
        ((Move("first/bias", 0, 1, 4),), None),  # apart from q, [2, 3, 2] = [3, 4] or not
    ],
)
def test_specs_that_do_not_fit(moves, message):
    check_spec(SPEC, TREE)
    spec = SPEC._replace(moves=SPEC.moves | {"p": moves})
    if message is None:
        check_spec(spec, TREE)
        return
    with pytest.raises(ValueError, match=message):
        check_spec(spec, TREE)


def test_names_without_sizes():
    with pytest.raises(ValueError, match="permutations q have a size or moves, but not both"):
        check_spec(Spec({"p": 3, "q": 2}, {"p": ()}, {}), TREE)


def test_overlap_means_that_the_order_counts():
    """For every pair of factorisations of 12: refused if, and only if, some permutations do not commute."""
    views = [(o, n, 12 // (o * n)) for o in (1, 2, 3, 4, 6) for n in (2, 3, 4, 6) if 12 % (o * n) == 0]
    for (o1, n1, i1), (o2, n2, i2) in itertools.permutations(views, 2):
        spec = Spec({"p": n1, "q": n2}, {"p": (Move("x", 0, o1, i1),), "q": (Move("x", 0, o2, i2),)}, {})
        tree, commute = {"x": np.arange(12)}, True
        for a, b in itertools.product(range(n1 - 1), range(n2 - 1)):  # neighbours exchanged: they generate all
            p, q = np.arange(n1), np.arange(n2)
            p[[a, a + 1]], q[[b, b + 1]] = p[[a + 1, a]], q[[b + 1, b]]
            both = [
                permute(spec, permute(spec, tree, {x: y}), {v: w})["x"]
                for (x, y), (v, w) in ((("p", p), ("q", q)), (("q", q), ("p", p)))
            ]
            commute &= np.array_equal(*both)
        try:
            check_spec(spec, tree)
            accepted = True
        except ValueError:
            accepted = False
        assert accepted == commute, ((o1, n1, i1), (o2, n2, i2))
