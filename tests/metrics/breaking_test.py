"""Symmetry-breaking distances against the mean over all permutations, least squares, and exchanges by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.metrics.breaking import make_layout, symmetry_breaking
from sbjax.symmetry.permutation import Move, Spec, permute

SPECS = {
    "two layers": (
        Spec(
            {"a": 3, "b": 4}, {"a": (Move("w", 1), Move("c", 0), Move("v", 0)), "b": (Move("v", 1), Move("u", 0))}, {}
        ),
        {"w": (2, 3), "c": (3,), "v": (3, 4), "u": (4, 2)},
    ),
    "both axes of one array": (
        Spec({"a": 4}, {"a": (Move("w", 1), Move("r", 0), Move("r", 1), Move("u", 0))}, {}),
        {"w": (2, 4), "r": (4, 4), "u": (4, 1)},
    ),
    "both axes and another": (
        Spec({"a": 4, "b": 3}, {"a": (Move("r", 1), Move("r", 3)), "b": (Move("r", 0),)}, {}),
        {"r": (3, 4, 2, 4)},
    ),
    "after flattening, and a concatenation": (
        Spec({"a": 3}, {"a": (Move("w", 1), Move("v", 0, outer=2, inner=2, before=1, gap=1, after=2))}, {}),
        {"w": (2, 3), "v": (16, 2)},
    ),
    "two ranges of one axis": (
        Spec({"a": 3}, {"a": (Move("v", 0, after=4), Move("v", 0, before=4))}, {}),
        {"v": (7, 2)},
    ),
    "two on one axis": (
        Spec({"a": 3, "b": 3}, {"a": (Move("v", 0, inner=3),), "b": (Move("v", 0, outer=3),)}, {}),
        {"v": (9, 2)},
    ),
    "one layer of a stack": (
        Spec({"a": 4}, {"a": (Move("v", 1, stack=0, layer=1), Move("v", 2, stack=0, layer=1), Move("u", 0))}, {}),
        {"v": (2, 4, 4), "u": (4,)},
    ),
    "two layers of a stack": (
        Spec({"a": 3}, {"a": (Move("v", 1, stack=0, layer=0), Move("v", 2, stack=0, layer=1), Move("u", 0))}, {}),
        {"v": (2, 3, 3), "u": (3,)},
    ),
}


def network(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def moved(spec, tree, names):
    """The tree under every element of the group of these permutations."""
    orders = [[np.array(p) for p in itertools.permutations(range(spec.sizes[name]))] for name in names]
    for chosen in itertools.product(*orders):
        yield permute(spec, tree, dict(zip(names, chosen)))


def from_the_mean(spec, tree, names):
    """|w - P w|^2 with P w the mean over the group, element by element."""
    every = [trees.flatten(one) for one in moved(spec, tree, names)]
    return sum(np.sum((leaf - np.mean([one[name] for one in every], 0)) ** 2) for name, leaf in tree.items())


@pytest.mark.parametrize("case", SPECS)
def test_against_the_mean_over_the_group(case):
    spec, shapes = SPECS[case]
    tree = network(shapes)
    found = symmetry_breaking(make_layout(spec, tree), tree)
    names = list(spec.sizes)
    np.testing.assert_allclose(found.permutation, from_the_mean(spec, tree, names), rtol=1e-12)
    for name in names:
        np.testing.assert_allclose(found.layers[name], from_the_mean(spec, tree, [name]), rtol=1e-12)


def exchange(spec, tree, name, i, j):
    """The tree with two units exchanged."""
    order = np.arange(spec.sizes[name])
    order[[i, j]] = j, i
    return permute(spec, tree, {name: order})


@pytest.mark.parametrize("case", SPECS)
def test_pairs_and_units_by_hand(case):
    """Exchanges by `permute`. An entry belongs to a unit if it moves with every exchange of it (of units enough)."""
    spec, shapes = SPECS[case]
    tree = network(shapes, 1)
    places = {leaf: np.arange(np.prod(shape)).reshape(shape) for leaf, shape in shapes.items()}
    pairs, units = [], []
    for name, n in spec.sizes.items():
        norms = []
        for i in range(n):
            others = [exchange(spec, places, name, i, j) for j in set(range(n)) - {i}]
            own = {leaf: np.all([one[leaf] != places[leaf] for one in others], 0) for leaf in shapes}
            norms.append(sum(np.sum(tree[leaf][own[leaf]] ** 2) for leaf in shapes))
        for i, j in itertools.combinations(range(n), 2):
            other = exchange(spec, tree, name, i, j)
            pairs.append(sum(np.sum((tree[leaf] - other[leaf]) ** 2) / 2 for leaf in tree) / (norms[i] + norms[j]))
        units.append(min(norms) / np.mean(norms))
    found = symmetry_breaking(make_layout(spec, tree), tree)
    np.testing.assert_allclose(found.pair, min(pairs), rtol=1e-10)
    np.testing.assert_allclose(found.unit, min(units), rtol=1e-12)


@pytest.mark.parametrize("case", SPECS)
def test_invariant_under_the_group(case):
    spec, shapes = SPECS[case]
    tree = network(shapes, 2)
    layout, random = make_layout(spec, tree), np.random.default_rng(3)
    order = {name: random.permutation(n) for name, n in spec.sizes.items()}
    first, second = (symmetry_breaking(layout, one) for one in (tree, permute(spec, tree, order)))
    np.testing.assert_allclose([*first[:2], *first[3:]], [*second[:2], *second[3:]], rtol=1e-12)


def test_zero_at_symmetric_points():
    spec, shapes = SPECS["both axes of one array"]
    tree = network(shapes)
    alike = {name: np.mean([one[name] for one in moved(spec, tree, ["a"])], 0) for name in tree}
    found = symmetry_breaking(make_layout(spec, alike), alike)
    assert found.permutation < 1e-28
    assert found.pair < 1e-15
    other = exchange(spec, tree, "a", 0, 1)
    half = {name: (leaf + other[name]) / 2 for name, leaf in tree.items()}  # units 0 and 1 are copies
    found = symmetry_breaking(make_layout(spec, half), half)
    assert found.pair < 1e-28
    assert found.permutation > 1


def test_a_unit_without_weights():
    spec, shapes = SPECS["two layers"]
    tree = network(shapes)
    tree["w"][:, 1] = tree["c"][1] = tree["v"][1] = 0
    found = symmetry_breaking(make_layout(spec, tree), tree)
    assert found.unit == 0
    assert 0 < found.share < 1
    nothing = {name: 0 * leaf for name, leaf in tree.items()}
    assert symmetry_breaking(make_layout(spec, nothing), nothing)[:2] == (0, 0)


def test_one_unit_has_no_pair():
    spec = Spec({"a": 1}, {"a": (Move("w", 0),)}, {})
    found = symmetry_breaking(make_layout(spec, {"w": np.ones(1)}), {"w": np.ones(1)})
    assert np.isnan(found.pair)
    assert found.unit == 1


def test_the_orders_of_shares_and_where():
    spec, shapes = SPECS["two layers"]
    tree = network(shapes)
    only = symmetry_breaking(make_layout(spec, tree, where="w"), tree)
    np.testing.assert_allclose(only.permutation, np.sum((tree["w"] - tree["w"].mean(1, keepdims=True)) ** 2))
    np.testing.assert_allclose(only.share, only.permutation / np.sum(tree["w"] ** 2))
    shaped = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))
    assert symmetry_breaking(make_layout(spec, shaped), tree) == symmetry_breaking(make_layout(spec, tree), tree)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_diverged_network_has_no_distances(value):
    """Not those of copies, which NaN as a number that is not greater would give."""
    spec, shapes = SPECS["two layers"]
    tree = network(shapes)
    layout = make_layout(spec, tree)
    tree["w"][0, 0] = value
    found = symmetry_breaking(layout, tree)
    assert np.isnan([found.permutation, found.share, found.pair, found.unit, *found.layers.values()]).all()


def test_networks_that_do_not_fit():
    spec, shapes = SPECS["two layers"]
    tree = network(shapes)
    layout = make_layout(spec, tree)
    for changed, message in (
        ({"w": tree["w"].T}, "leaf 'w' is .* and the layout was made for"),
        ({"w": tree["w"] * 1j}, "leaf 'w' is complex"),
        ({"w": None}, "leaf 'w' is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            symmetry_breaking(layout, tree | changed)
    with pytest.raises(ValueError, match="axis"):
        make_layout(spec, tree | {"w": np.ones((3, 9))})


def test_refusals():
    with pytest.raises(ValueError, match="no hidden units that can be permuted"):
        make_layout(Spec({}, {}, {}), {"w": np.ones(2)})
    spec = Spec({"a": 2}, {"a": tuple(Move("w", axis) for axis in range(3))}, {})
    with pytest.raises(ValueError, match="'a' acts along 3 axes of leaf 'w'; 2 are the most"):
        make_layout(spec, {"w": np.ones((2, 2, 2))})
