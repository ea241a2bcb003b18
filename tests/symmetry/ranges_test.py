"""Axes made of ranges, so that each part of a concatenation is a group of its own; and the groups of loops."""

import functools
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from sbjax.metrics.matched import matched_distance
from sbjax.symmetry import activation_matching, rescaling
from sbjax.symmetry.matching import match_many, match_weights
from sbjax.symmetry.permutation import Move, Spec, check_spec, permute
from sbjax.symmetry.spec import derive_spec

# Traced on purpose as users write them: layers are x @ w + b, and counts, masks and floats meet.
pytestmark = pytest.mark.promotes("networks of users promote")
KEY = jax.random.key(0)
conv = functools.partial(
    lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)


def cat(*parts):
    return jnp.concatenate(parts, -1)


def unet(p, x):
    """Skips as wide as nothing else."""
    a = jnp.tanh(conv(x, p["a"]))
    b = jnp.tanh(conv(nn.max_pool(a, (2, 2), (2, 2)), p["b"]) + p["bias"])
    up = jax.image.resize(jnp.tanh(conv(nn.avg_pool(b, (2, 2), (2, 2)), p["c"])), (1, 2, 2, 7), "nearest")
    d = jnp.tanh(conv(cat(up, b), p["d"]))
    return conv(cat(d.repeat(2, 1).repeat(2, 2), a), p["e"])


def dense_block(p, x):
    x = x @ p["stem"]
    for i in range(3):
        normed = jax.nn.relu(x * p[f"scale{i}"] + p[f"shift{i}"])
        x = cat(x, jnp.tanh(normed @ p[f"narrow{i}"]) @ p[f"grow{i}"])
    return jax.nn.softmax(x) @ p["head"]


def inception(p, x):
    """Flattened afterwards: ranges within the positions of a map."""
    x = jnp.tanh(conv(x, p["stem"]))
    parts = [conv(x, p["one"]), conv(jnp.tanh(conv(x, p["down"])), p["three"]), nn.max_pool(x, (1, 1)) @ p["pool"]]
    return jnp.tanh(cat(*parts)).reshape(1, -1) @ p["head"]


def both_ways(p, x):
    """A recurrent network from learned states."""
    scan = lambda rows, w, u, h: lax.scan(lambda h, row: (jnp.tanh(row @ w + h @ u),) * 2, h, rows)[1]  # noqa: E731
    forth, back = scan(x, p["w"], p["u"], p["h"]), scan(x[::-1], p["v"], p["z"], p["g"])[::-1]
    return cat(forth, back) @ p["head"]


def branches(p, x):
    return cat(jnp.tanh(x @ p["a"]), jnp.tanh(x @ p["b"])) @ p["head"]


def fused(p, x):
    """Queries and keys of one size, values of another, by one kernel."""
    q, k, v = jnp.split(x @ p["qkv"], [4, 8], -1)
    return jax.nn.softmax(q @ k.T) @ v @ p["head"]


def fourier(p, x):
    """A Fourier layer along the points, and a skip."""
    h = x @ p["lift"]
    modes = jnp.einsum("kc,kcd->kd", jnp.fft.rfft(h, axis=0)[:3], p["real"] + 1j * p["imaginary"])
    modes = jnp.zeros((4, 5), modes.dtype).at[:3].set(modes)
    return cat(jnp.tanh(jnp.fft.irfft(modes, n=6, axis=0) + h @ p["skip"]), h) @ p["head"]


def state_space(p, x):
    """A linear recurrence by an associative scan, which slices, pads and concatenates along time."""
    u = x @ p["in"]
    decay = jnp.broadcast_to(jax.nn.sigmoid(p["rate"]), u.shape)
    step = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
    return lax.associative_scan(step, (decay, u))[1] @ p["out"]


GROWING = {}
for i, width in enumerate((4, 7, 10)):
    GROWING |= {f"scale{i}": (width,), f"shift{i}": (width,), f"narrow{i}": (width, 5), f"grow{i}": (5, 3)}
# The function, the shape of its input, those of its weights, and the sizes of its permutations.
NETWORKS = {
    "unet": (
        unet,
        (1, 4, 4, 2),
        {"a": (3, 3, 2, 3), "b": (3, 3, 3, 5), "bias": (5,), "c": (1, 1, 5, 7), "d": (3, 3, 12, 4), "e": (1, 1, 7, 2)},
        {"a": 3, "b": 5, "c": 7, "d": 4},
    ),
    "dense block": (
        dense_block,
        (2, 3),
        {"stem": (3, 4), **GROWING, "head": (13, 2)},
        {"stem": 4, "narrow0": 5, "grow0": 3, "narrow1": 5, "grow1": 3, "narrow2": 5, "grow2": 3},
    ),
    "inception": (
        inception,
        (1, 3, 3, 2),
        {
            **{"stem": (1, 1, 2, 4), "one": (1, 1, 4, 3), "down": (1, 1, 4, 2), "three": (3, 3, 2, 5), "pool": (4, 3)},
            "head": (99, 2),
        },
        {"stem": 4, "one": 3, "down": 2, "three": 5, "pool": 3},
    ),
    "both ways": (
        both_ways,
        (4, 3),
        {
            **{"w": (3, 5), "u": (5, 5), "h": (5,), "v": (3, 5), "z": (5, 5), "g": (5,)},
            "head": (10, 2),
        },
        {"w": 5, "v": 5},
    ),
    "branches": (branches, (2, 3), {"a": (3, 6), "b": (3, 6), "head": (12, 2)}, {"a": 6, "b": 6}),
    "state space": (state_space, (9, 3), {"in": (3, 5), "rate": (5,), "out": (5, 2)}, {"in": 5}),
    "fused": (fused, (5, 3), {"qkv": (3, 14), "head": (6, 2)}, {"qkv.0": 4, "qkv.1": 6}),
    "fourier": (
        fourier,
        (6, 2),
        {"lift": (2, 5), "real": (3, 5, 5), "imaginary": (3, 5, 5), "skip": (5, 5), "head": (10, 2)},
        {"lift": 5, "imaginary": 5},
    ),
}


def together(p):
    """All networks in one function, so that they are compiled once."""
    rng = np.random.default_rng(1)
    return [function(p[name], rng.normal(size=shape)) for name, (function, shape, *_) in NETWORKS.items()]


@functools.cache
def all_networks():
    shapes = {name: shapes for name, (_, _, shapes, _) in NETWORKS.items()}
    rng = np.random.default_rng(0)
    tree = {name: {key: rng.normal(size=shape) for key, shape in inner.items()} for name, inner in shapes.items()}
    return derive_spec(together, tree), tree


def test_every_part_is_a_group():
    """And random permutations of all groups, in double precision, change nothing."""
    spec, _ = all_networks()
    sizes = {f"{name}/{key}": n for name, (*_, found) in NETWORKS.items() for key, n in found.items()}
    assert sorted(spec.sizes.values()) == sorted(sizes.values())
    firsts = {moves[0].leaf.split("/")[0] for moves in spec.moves.values()}
    assert firsts == set(NETWORKS)
    for name, (function, x, shapes, found) in NETWORKS.items():
        shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()}
        spec = derive_spec(function, shaped, jax.ShapeDtypeStruct(x, np.float32), verify=False)
        assert spec.sizes == found, name


def test_planted_permutations_come_back():
    """From weights, between several models, and as a distance of zero."""
    spec, tree = all_networks()
    rng = np.random.default_rng(2)
    moved = permute(spec, tree, {name: rng.permutation(n) for name, n in spec.sizes.items()})
    assert any(not np.array_equal(*pair) for pair in zip(jax.tree.leaves(tree), jax.tree.leaves(moved)))
    matched = match_weights(spec, tree, moved, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, permute(spec, moved, matched.permutations), tree)
    assert matched.objective == pytest.approx(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree)))


def test_distances_of_ranges():
    """D3 of two networks that are planted apart is zero, and three of them come into one frame."""
    _, _, shapes, _ = NETWORKS["branches"]
    rng = np.random.default_rng(2)
    tree = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    spec = derive_spec(branches, tree, np.ones((2, 3)), verify=False)
    moved = [permute(spec, tree, {name: rng.permutation(n) for name, n in spec.sizes.items()}) for _ in range(2)]
    stacked = jax.tree.map(lambda *rows: np.stack(rows), tree, *moved)
    assert matched_distance(stacked, spec, key=KEY, null=False).raw.total.distance.value == 0
    assert match_many(spec, [tree, *moved], key=KEY).history[-1] == 0


def test_objective_of_ranges():
    """That of the permuted trees written out, at a random start, with ranges on both axes of a leaf."""
    spec = Spec(
        {"p": 2, "q": 3, "g": 2},
        {
            "p": (Move("w", 0, after=6), Move("w", 1, 2, gap=1, before=1, after=3), Move("v", 0)),
            "q": (Move("w", 0, before=3, after=2), Move("w", 1, before=6)),
            "g": (Move("w", 0, before=6),),
        },
        {},
    )
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(8, 9)), "v": rng.normal(size=2)} for _ in range(2))
    check_spec(spec, a)
    matched = match_weights(spec, a, b, key=KEY, restarts=20)
    value = lambda tree: sum(float((a[name] * tree[name]).sum()) for name in a)  # noqa: E731
    assert matched.objective == pytest.approx(value(permute(spec, b, matched.permutations)))
    every = [
        value(permute(spec, b, {"p": np.array(p), "q": np.array(q), "g": np.array(g)}))
        for p in ([0, 1], [1, 0])
        for q in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
        for g in ([0, 1], [1, 0])
    ]
    assert matched.objective == pytest.approx(max(every))


def test_on_paper():
    """A spec with ranges comes back from JSON, and its sizes are plain integers."""
    spec, tree = all_networks()
    sizes, moves, fixed = json.loads(json.dumps(spec))
    again = Spec(sizes, {name: tuple(Move(*move) for move in group) for name, group in moves.items()}, fixed)
    assert again == spec
    check_spec(again, tree)
    gated = derive_spec(
        lambda p, x: jax.nn.glu(x @ p["a"]) @ p["b"], {"a": np.ones((3, 8)), "b": np.ones((4, 2))}, np.ones(3)
    )
    assert json.loads(json.dumps(gated))[0] == {"a": 4}


def test_activations_and_scales_of_ranges():
    """Of a norm over both branches, each permutation has its own columns; rescaled units keep the function."""
    spec = Spec(
        {"a": 2, "b": 3},
        {"a": (Move("params/norm/scale", 0, after=3),), "b": (Move("params/norm/scale", 0, before=2),)},
        {},
    )
    out = jnp.arange(10.0).reshape(2, 5)
    variables = {"params": {"norm": {"scale": np.ones(5)}}}
    found = activation_matching.recorded(spec, variables, {"norm": {"__call__": (out,)}})
    np.testing.assert_array_equal(found["a"][0], out[:, :2])
    np.testing.assert_array_equal(found["b"][0], out[:, 2:])
    p = {name: np.random.default_rng(3).normal(size=shape) for name, shape in NETWORKS["branches"][2].items()}
    relu = lambda p, x: cat(jax.nn.relu(x @ p["a"]), jax.nn.relu(x @ p["b"])) @ p["head"]  # noqa: E731
    x = np.random.default_rng(4).normal(size=(2, 3))
    scaled = rescaling.canonical_scale(derive_spec(relu, p, x, verify=False), p)
    np.testing.assert_allclose(relu(scaled, x), relu(p, x), rtol=1e-5)
    for name in "ab":
        np.testing.assert_allclose(np.linalg.norm(scaled[name], axis=0), 1, rtol=1e-6)


def loop(body, start, rows, unroll):
    if not unroll:
        return lax.scan(lambda h, row: (body(h, row), None), start, rows)[0]
    for i in range(4):
        start = body(start, jax.tree.map(operator.itemgetter(i), rows))
    return start


LOOPS = {
    "learned state": (
        lambda p, x, unroll: loop(lambda h, r: jnp.tanh(r @ p["w"] + h @ p["u"]), p["h"], x, unroll) @ p["o"],
        {"w": (3, 7), "u": (7, 7), "h": (7,), "o": (7, 2)},
    ),
    "stacked layers": (
        lambda p, x, unroll: (
            loop(lambda h, r: jnp.tanh(h @ r[0] + r[1]), x @ p["w"], (p["l"], p["b"]), unroll) @ p["o"]
        ),
        {"w": (3, 7), "l": (4, 7, 7), "b": (4, 7), "o": (7, 2)},
    ),
    "stacked blocks": (
        lambda p, x, unroll: (
            loop(lambda h, r: h + jnp.sin(h @ r[0]) @ r[1], x @ p["w"], (p["l"], p["m"]), unroll) @ p["o"]
        ),
        {"w": (3, 7), "l": (4, 7, 5), "m": (4, 5, 7), "o": (7, 2)},
    ),
    "scanned numbers": (
        lambda p, x, unroll: loop(lambda h, r: jnp.sin(h * r), x @ p["w"], p["s"], unroll) @ p["o"],
        {"w": (3, 7), "s": (4,), "o": (7, 2)},
    ),
    "carried weights": (
        lambda p, x, unroll: (
            loop(lambda c, r: (jnp.sin(c[0] @ c[1]) + r, c[1]), (x @ p["w"], p["l"]), p["s"], unroll)[0] @ p["o"]
        ),
        {"w": (3, 7), "l": (7, 7), "s": (4,), "o": (7, 2)},
    ),
    "while": (
        lambda p, x, unroll: (
            (
                jnp.sin(jnp.sin(p["h"] @ p["l"]) @ p["l"])
                if unroll
                else lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.sin(c[0] @ p["l"]), c[1] + 1), (p["h"], 0))[0]
            )
            @ p["o"]
        ),
        {"h": (7,), "l": (7, 7), "o": (7, 2)},
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_have_the_groups_of_the_unrolled(name):
    function, shapes = LOOPS[name]
    shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()} | {"idle": np.ones(3)}
    x = jax.ShapeDtypeStruct((4, 3), np.float32)
    rolled, written = (
        derive_spec(functools.partial(function, unroll=unroll), shaped, x, verify=False) for unroll in (False, True)
    )
    assert rolled.sizes
    assert rolled.sizes == written.sizes
    assert {name: {*moves} for name, moves in rolled.moves.items()} == {
        name: {*moves} for name, moves in written.moves.items()
    }
    assert rolled.fixed["idle[0]"] == "not used by the function"
    assert [reason for key, reason in rolled.fixed.items() if key != "idle[0]" and "not used" in reason] == []


def test_carry_of_ranges():
    """A state that moves on by three entries a step: what is left are pairs, one three entries behind the other."""

    def delayed(p, x):
        body = lambda h, row: (jnp.tanh(cat(h[3:], row @ p["w"] + h @ p["u"])), None)  # noqa: E731
        return lax.scan(body, cat(jnp.zeros(3), p["h"]), x)[0] @ p["o"]

    shapes = {"w": (3, 3), "u": (7, 3), "h": (4,), "o": (7, 2)}
    tree = {name: np.random.default_rng(0).normal(size=shape) for name, shape in shapes.items()}
    spec = derive_spec(delayed, tree, np.ones((4, 3)))
    assert spec.sizes == {"h": 2}
    assert [move[2:7] for move in spec.moves["h"] if move.leaf == "o"] == [(2, 1, 1, 1, 1)]
