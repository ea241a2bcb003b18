"""Layers stacked for a `scan`: a group a layer, and never one too many."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from sbjax.metrics.matched import matched_distance
from sbjax.symmetry import activation_matching, rescaling
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Move, Spec, check_spec, compose, permute, random_permutations
from sbjax.symmetry.spec import derive_spec

# Traced on purpose as users write them: layers are x @ w + b, and counts, masks and floats meet.
pytestmark = pytest.mark.promotes("networks of users promote")
KEY = jax.random.key(0)


def run(body, start, rows, **options):
    return lax.scan(lambda h, row: (body(h, row), None), start, rows, **options)[0]


def layer(h, row):
    return jnp.tanh(h @ row[0] + row[1])


def block(h, row):
    return h + jnp.sin(h @ row[0]) @ row[1]


def deep(p, x):
    return run(layer, x @ p["w"], (p["l"], p["b"])) @ p["o"]


def backwards(p, x):
    return run(layer, x @ p["w"], (p["l"], p["b"]), reverse=True) @ p["o"]


def by_hand(p, x):
    h = x @ p["w"]
    for row in zip(p["l"], p["b"]):
        h = layer(h, row)
    return h @ p["o"]


def half(p, x):
    """Cast before the loop, and stacked along the second axis."""
    rows = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.astype("bfloat16"), 1, 0), (p["l"], p["b"]))
    return run(layer, (x @ p["w"]).astype("bfloat16"), rows).astype("float32") @ p["o"]


def residual(p, x):
    return run(block, x @ p["w"], (p["l"], p["m"])) @ p["o"]


def masked(p, x):
    """A learned mask of the weights, and a number a layer."""
    rows = (p["l"] * jax.nn.sigmoid(p["mask"]), p["m"], p["s"])
    return run(lambda h, row: block(h, row) * row[2], x @ p["w"], rows) @ p["o"]


def skipped(p, x):
    """A decoder that reads what the layers of the encoder made, the last one first."""
    h, seen = lax.scan(lambda h, row: (layer(h, row),) * 2, x @ p["w"], (p["l"], p["b"]))
    return run(lambda h, row: jnp.tanh(h @ row[0] + row[1] @ row[2]), h, (p["d"], seen, p["e"]), reverse=True) @ p["o"]


def recomputed(p, x):
    return jax.jit(lambda p, x: run(jax.checkpoint(block), x @ p["w"], (p["l"], p["m"])) @ p["o"])(p, x)


MLP = {"w": (3, 7), "l": (4, 7, 7), "b": (4, 7), "o": (7, 2)}
RESIDUAL = {"w": (3, 7), "l": (4, 7, 5), "m": (4, 5, 7), "o": (7, 2)}
# The function, the shapes of its weights, and the sizes of its permutations.
NETWORKS = {
    "deep": (deep, MLP, [7] * 5),
    "backwards": (backwards, MLP, [7] * 5),
    "by hand": (by_hand, MLP, [7] * 5),
    "half": (half, MLP | {"l": (7, 4, 7), "b": (7, 4)}, [7] * 5),
    "residual": (residual, RESIDUAL, [5] * 4 + [7]),
    "masked": (masked, RESIDUAL | {"mask": (4, 7, 5), "s": (4,)}, [5] * 4 + [7]),
    "skipped": (skipped, MLP | {"d": (4, 7, 7), "e": (4, 7, 7)}, [7] * 9),
    "recomputed": (recomputed, RESIDUAL, [5] * 4 + [7]),
}
X = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@functools.cache
def all_networks():
    """All networks in one function, compiled once. Random permutations of all groups change nothing."""
    tree = {name: drawn(shapes) for name, (_, shapes, _) in NETWORKS.items()}
    together = lambda p: [function(p[name], X) for name, (function, *_) in NETWORKS.items()]  # noqa: E731
    return derive_spec(together, tree), tree


@pytest.mark.parametrize("name", NETWORKS)
def test_a_group_a_layer(name):
    function, shapes, sizes = NETWORKS[name]
    shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()}
    spec = derive_spec(function, shaped, X, verify=False)
    assert sorted(spec.sizes.values()) == sizes
    place = 1 if name == "half" else 0
    assert spec.fixed[f"l[{place}]"] == "number of a layer"


def test_planted_permutations_come_back():
    spec, tree = all_networks()
    moved = permute(spec, tree, {name: np.asarray(p) for name, p in random_permutations(KEY, spec).items()})
    gaps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), tree, moved)
    assert gaps["deep"]["l"] > 0
    matched = match_weights(spec, tree, moved, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, permute(spec, moved, matched.permutations), tree)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), tree, moved)
    assert matched_distance(stacked, spec, key=KEY, null=False).raw.total.distance.value == 0


class Scanned(nn.Module):
    """A stack of blocks or of dense layers, by `nn.scan`."""

    residual: bool
    place: int = 0

    @nn.compact
    def __call__(self, x):
        residual = self.residual

        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                inner = jnp.tanh(nn.Dense(5 if residual else 7, name="inner")(x))
                return (x + nn.Dense(7, name="out")(nn.LayerNorm(name="norm")(inner)) if residual else inner), None

        axes = {"params": self.place, "intermediates": 0}
        many = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)
        return nn.Dense(2, name="head")(many(name="many")(nn.Dense(7, name="stem")(x), None)[0])


@pytest.mark.parametrize(("residual", "place"), [(True, 0), (False, 1)])
def test_layers_scanned_by_flax(residual, place):
    net = Scanned(residual, place)
    noise = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape), net.init(KEY, X))
    spec = derive_spec(net.apply, variables, X)
    assert sorted(spec.sizes.values()) == ([5, 5, 5, 7] if residual else [7] * 4)
    moved = permute(spec, variables, random_permutations(KEY, spec))
    np.testing.assert_allclose(net.apply(moved, X), net.apply(variables, X), atol=1e-5)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), variables, moved)
    assert matched_distance(stacked, spec, key=KEY, null=False).raw.total.distance.value == 0
    if place == 0:
        record = lambda v, x: activation_matching.recorded(  # noqa: E731
            spec, variables, net.apply(v, x, capture_intermediates=True, mutable="intermediates")[1]["intermediates"]
        )
        assert record(variables, X).keys() == spec.sizes.keys()
        batch = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
        found = activation_matching.match_activations(spec, record, variables, moved, [batch])
        back = jax.tree.map(np.asarray, permute(spec, moved, found))
        jax.tree.map(np.testing.assert_array_equal, back, jax.tree.map(np.asarray, variables))


ALIKE = {
    "a sum over layers beside": (lambda p, x: deep(p, x) + jnp.tanh(x @ p["w"]) @ p["l"].sum(0) @ p["o"], MLP, [7]),
    "a choice of a layer": (
        lambda p, x: deep(p, x) + jnp.sin(x @ p["w"] @ p["l"][jnp.argmax(x[0])]) @ p["o"],
        MLP,
        [7],
    ),
    "an end of all layers": (lambda p, x: deep(p, x) + p["l"].sum((0, 1)) @ p["o"], MLP, [7]),
    "tied to the stem": (lambda p, x: deep({**p, "o": p["w"].T}, x), MLP, [7] * 4),
    "one matrix in all": (
        lambda p, x: run(lambda h, b: jnp.tanh(h @ p["l"] + b), x @ p["w"], p["b"]) @ p["o"],
        MLP | {"l": (7, 7)},
        [7],
    ),
    # Sizes of layers that are no numbers of layers.
    "by accident": (
        lambda p, x: run(layer, jnp.tanh(x @ p["w"]) @ p["v"], (p["l"], p["b"])) @ p["o"],
        {"w": (3, 4), "v": (4, 7), **{key: MLP[key] for key in "lbo"}},
        [4] + [7] * 5,
    ),
    "square": (
        lambda p, x: run(layer, x @ p["w"], (p["l"], p["b"])) @ p["o"],
        {"w": (3, 4), "l": (4, 4, 4), "b": (4, 4), "o": (4, 2)},
        [4] * 5,
    ),
    "a loop in a loop": (
        lambda p, x: run(lambda h, outer: run(block, h, outer), x @ p["w"], (p["l"], p["m"])) @ p["o"],
        {"w": (3, 7), "l": (2, 3, 7, 5), "m": (2, 3, 5, 7), "o": (7, 2)},
        [5] * 2 + [7],
    ),
    "outputs of all layers": (
        lambda p, x: lax.scan(lambda h, row: (layer(h, row),) * 2, x @ p["w"], (p["l"], p["b"])),
        MLP,
        [7],
    ),
    "a mean of all layers": (
        lambda p, x: lax.scan(lambda h, row: (layer(h, row),) * 2, x @ p["w"], (p["l"], p["b"]))[1].mean(0) @ p["o"],
        MLP,
        [7] * 2,
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_never_a_group_too_many(name):
    """The spec is verified: random permutations of all groups leave the function as it is."""
    function, shapes, sizes = ALIKE[name]
    spec = derive_spec(function, drawn(shapes), X)
    assert sorted(spec.sizes.values()) == sizes


def test_longer_stacks_have_one_group():
    shaped = {"w": (3, 4), "l": (257, 4, 4), "b": (257, 4), "o": (4, 2)}
    shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shaped.items()}
    assert list(derive_spec(deep, shaped, X, verify=False).sizes.values()) == [4]


def test_objective_of_layers():
    """The best of all permutations, where one moves all layers and two a layer each; and a spec on paper."""
    spec = Spec(
        {"p": 2, "q": 3, "r": 3},
        {
            "p": (Move("w", 1), Move("v", 0)),
            "q": (Move("w", 2, stack=0, layer=0), Move("u", 0, stack=1, layer=1)),
            "r": (Move("w", 2, stack=0, layer=1),),
        },
        {},
    )
    a, b = (drawn({"w": (3, 2, 3), "v": (2,), "u": (3, 2)}, seed) for seed in (0, 1))
    check_spec(spec, a)
    value = lambda tree: sum(float((a[name] * tree[name]).sum()) for name in a)  # noqa: E731
    orders = itertools.product(*(itertools.permutations(range(n)) for n in spec.sizes.values()))
    best = max(value(permute(spec, b, dict(zip(spec.sizes, map(np.array, order))))) for order in orders)
    matched = match_weights(spec, a, b, key=KEY, restarts=20)
    assert matched.objective == pytest.approx(best, rel=1e-6)
    assert value(permute(spec, b, matched.permutations)) == pytest.approx(best, rel=1e-6)
    sizes, moves, fixed = json.loads(json.dumps(spec))
    assert Spec(sizes, {name: tuple(Move(*move) for move in group) for name, group in moves.items()}, fixed) == spec
    first, then = (random_permutations(jax.random.key(seed), spec) for seed in (1, 2))
    once, twice = permute(spec, b, compose(first, then)), permute(spec, permute(spec, b, first), then)
    jax.tree.map(np.testing.assert_array_equal, once, twice)
    gradient = jax.grad(lambda tree: sum(jnp.sum(permute(spec, tree, first)[name] * a[name]) for name in a))(b)
    inverse = {name: np.argsort(order) for name, order in first.items()}
    jax.tree.map(np.testing.assert_allclose, gradient, permute(spec, a, inverse))


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"p": (Move("w", 1, stack=0, layer=3),)}, "layer 3 along axis 0"),
        ({"p": (Move("w", 1, stack=1),)}, "another axis than the moved one"),
        ({"p": (Move("w", 1, stack=4),)}, "along axis 4"),
        ({"p": (Move("w", 1, stack=0), Move("w", 0))}, "acts on single layers of leaf 'w' along axis 0"),
        ({"p": (Move("w", 1, stack=0), Move("w", 1))}, "acts twice"),
    ],
)
def test_layers_that_are_refused(moves, message):
    with pytest.raises(ValueError, match=message):
        check_spec(Spec({"p": 3}, moves, {}), {"w": np.zeros((3, 3, 5))})


@pytest.mark.parametrize(
    ("canonical", "activation"), [(rescaling.canonical_scale, jax.nn.relu), (rescaling.canonical_sign, jnp.tanh)]
)
def test_scales_of_layers(canonical, activation):
    """The units of each layer have scales of their own, and all rescaled copies become one network."""
    net = lambda p, x: run(lambda h, r: activation(h @ r[0] + r[1]), activation(x @ p["w"]), (p["l"], p["b"])) @ p["o"]  # noqa: E731
    tree = drawn(MLP)
    spec = derive_spec(net, tree, X, verify=False)
    found = canonical(spec, tree)
    np.testing.assert_allclose(net(found, X), net(tree, X), rtol=1e-4)
    c = -1 if canonical is rescaling.canonical_sign else 3
    other = {name: leaf.copy() for name, leaf in tree.items()}
    other["l"][1, :, 2] *= c
    other["b"][1, 2] *= c
    other["l"][2, 2] /= c
    np.testing.assert_allclose(net(other, X), net(tree, X), rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), canonical(spec, other), found)
