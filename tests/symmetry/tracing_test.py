"""Axes followed through all kinds of functions: what can be permuted is found, and nothing else is."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from sbjax.symmetry.spec import derive_spec

# Traced on purpose as users write them: layers are x @ w + b, and counts, masks and floats meet.
pytestmark = pytest.mark.promotes("networks of users promote")
KEY = jax.random.key(0)
X = (2, 3)
IMAGE = (1, 4, 4, 2)
RING = np.roll(np.eye(5), 1, 1) / 2 + np.roll(np.eye(5), -1, 1) / 2
ENDS = np.array([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
conv = functools.partial(
    lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)


def attention(p, x):
    q, k, v = (jnp.einsum("td,dhe->the", x, p[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("the,she->hts", q, k) / 2)
    return jnp.einsum("hts,she,hed->td", weights, v, p["o"])


def packed_attention(p, x):
    q, k, v = jnp.split(x @ p["qkv"], 3, axis=-1)
    return jax.nn.softmax(q @ k.T) @ v @ p["o"]


def recurrent(p, x):
    def cell(state, row):
        z = row @ p["w"] + state @ p["u"]
        state = jnp.tanh(z[:4]) * jax.nn.sigmoid(z[4:8]) + state * z[8:]
        return state, state.sum()

    last, sums = lax.scan(cell, jnp.zeros(4, x.dtype), x)
    return last @ p["b"] + sums[0]


def graph(p, x):
    """Mean over neighbours, then sums over edges."""
    x = jax.nn.relu(x @ p["self"] + RING.astype(x.dtype) @ x @ p["neighbour"] + p["bias"])
    messages = jnp.maximum(x[ENDS[0]] @ p["message"], 0)
    return jax.ops.segment_sum(messages, ENDS[1], 5) @ p["head"]


def group_norm(p, x):
    y = (x @ p["a"]).reshape(len(x), 3, 2)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 0.1)
    return (y.reshape(len(x), 6) * p["scale"]) @ p["b"]


def looped(p, x):
    h = x @ p["a"]
    h = lax.fori_loop(0, 3, lambda i, h: jnp.sin(h @ p["w"]) + i, h)
    return lax.cond(x[0, 0] > 0, lambda h: h * p["c"], lambda h: jnp.ones_like(h), h) @ p["b"]


@jax.custom_vjp
def custom(x):
    return jnp.sin(x)


custom.defvjp(lambda x: (custom(x), x), lambda x, y: (y,))

AB = {"a": (3, 4), "b": (4, 2)}
# Shapes of the parameters, shape of the input, the function, and the sizes of the permutations that it has.
FOUND = {
    "einsum": (
        AB,
        X,
        lambda p, x: jnp.einsum("bj,jk->bk", jnp.einsum("ij,bi->bj", p["a"], jnp.sin(x)), p["b"]),
        {"a": 4},
    ),
    "norm": (
        AB | {"scale": (4,)},
        X,
        lambda p, x: (jax.nn.standardize(x @ p["a"]) * p["scale"]) @ p["b"],
        {"a": 4},
    ),
    "residual": (
        AB | {"u": (4, 5), "v": (5, 4)},
        X,
        lambda p, x: (lambda h: (h + jax.nn.gelu(h @ p["u"]) @ p["v"]) @ p["b"])(x @ p["a"]),
        {"a": 4, "u": 5},
    ),
    "attention": (
        {"q": (3, 2, 4), "k": (3, 2, 4), "v": (3, 2, 5), "o": (2, 5, 3)},
        (6, 3),
        attention,
        {"q.0": 2, "q.1": 4, "v": 5},
    ),
    "packed": ({"qkv": (3, 12), "o": (4, 3)}, (6, 3), packed_attention, {"qkv": 4}),
    "recurrent": ({"w": (3, 12), "u": (4, 12), "b": (4, 2)}, (6, 3), recurrent, {"w": 4}),
    "graph": (
        {"self": (3, 4), "neighbour": (3, 4), "bias": (4,), "message": (4, 6), "head": (6, 2)},
        (5, 3),
        graph,
        {"self": 4, "message": 6},
    ),
    "group norm": ({"a": (3, 6), "scale": (6,), "b": (6, 2)}, X, group_norm, {"a.0": 3, "a.1": 2}),
    "maxout": (
        {"a": (3, 6), "b": (3, 2)},
        X,
        lambda p, x: (x @ p["a"]).reshape(-1, 3, 2).max(2) @ p["b"],
        {"a.0": 3, "a.1": 2},
    ),
    "gated": ({"a": (3, 8), "b": (4, 2)}, X, lambda p, x: jax.nn.glu(x @ p["a"]) @ p["b"], {"a": 4}),
    "every second": (
        {"a": (3, 8), "b": (4, 2)},
        X,
        lambda p, x: (lambda h: h[:, ::2] * h[:, 1::2])(x @ p["a"]) @ p["b"],
        {"a": 4},
    ),
    "loops": (AB | {"w": (4, 4), "c": (4,)}, X, looped, {"a": 4}),
    "custom": (AB, X, lambda p, x: jax.checkpoint(custom)(jax.nn.silu(x @ p["a"])) @ p["b"], {"a": 4}),
    "flattened": (
        {"k": (3, 3, 2, 5), "b": (80, 2)},
        IMAGE,
        lambda p, x: jnp.tanh(conv(x, p["k"])).reshape(1, -1) @ p["b"],
        {"k": 5},
    ),
    "flattened channels first": (
        {"k": (3, 3, 2, 5), "b": (20, 2)},
        IMAGE,
        lambda p, x: nn.avg_pool(conv(x, p["k"]), (2, 2), (2, 2)).transpose(0, 3, 1, 2).reshape(1, -1) @ p["b"],
        {"k": 5},
    ),
    "depthwise": (
        {"k": (1, 1, 2, 4), "d": (3, 3, 1, 4), "b": (4, 2)},
        IMAGE,
        lambda p, x: nn.max_pool(conv(conv(x, p["k"]), p["d"], feature_group_count=4), (2, 2)).mean((1, 2)) @ p["b"],
        {"k": 4},
    ),
    "grouped": (
        {"k": (1, 1, 2, 6), "d": (3, 3, 3, 4), "b": (4, 2)},
        IMAGE,
        lambda p, x: jnp.sin(conv(jnp.sin(conv(x, p["k"])), p["d"], feature_group_count=2)).max((1, 2)) @ p["b"],
        {"k.0": 2, "k.1": 3, "d": 2},
    ),
    "tied embedding": (
        {"table": (7, 4), "w": (4, 4)},
        X,
        lambda p, x: jnp.sin(p["table"][jnp.array([3, 0, 5])] @ p["w"]) @ p["table"].T,
        {"table": 4},
    ),
    "concatenated": (
        {"a": (3, 4), "b": (8, 2)},
        X,
        lambda p, x: (lambda h: jnp.concatenate([h, jnp.roll(h, 1, 0)], 1))(x @ p["a"]) @ p["b"],
        {"a": 4},
    ),
    "products": (
        {"a": (3, 4), "c": (3, 5), "b": (20, 2)},
        X,
        lambda p, x: ((x @ p["a"])[:, :, None] * (x @ p["c"])[:, None]).reshape(-1, 20) @ p["b"],
        {"a": 4, "c": 5},
    ),
    "sorted": (AB, X, lambda p, x: jnp.sort(x @ p["a"]) @ p["b"], {"a": 4}),
    "while": (
        AB | {"w": (4, 4)},
        X,
        lambda p, x: (
            lax.while_loop(lambda c: c[1] < 3, lambda c: (jnp.sin(c[0] @ p["w"]), c[1] + 1), (x @ p["a"], 0))[0]
            @ p["b"]
        ),
        {"a": 4},
    ),
    "branches": (
        AB | {"c": (3, 4)},
        X,
        lambda p, x: lax.cond(x[0, 0] > 0, lambda: x @ p["a"], lambda: x @ p["c"]) @ p["b"],
        {"c": 4},
    ),
    # What has no common factors, or would need one permutation twice on an axis, stays in place.
    "reshaped": ({"a": (3, 6), "b": (4, 2)}, X, lambda p, x: (x @ p["a"]).reshape(3, 4) @ p["b"], {}),
    "two and three": (
        {"a": (3, 6), "c": (3, 6), "b": (6, 2)},
        X,
        lambda p, x: (
            (
                jax.nn.softmax((x @ p["a"]).reshape(2, 2, 3)).reshape(2, 6)
                + jax.nn.softmax((x @ p["c"]).reshape(2, 3, 2)).reshape(2, 6)
            )
            @ p["b"]
        ),
        {},
    ),
    "squares": (
        {"a": (3, 4), "b": (16, 2)},
        X,
        lambda p, x: (lambda h: (h[:, :, None] * h[:, None]).reshape(-1, 16))(x @ p["a"]) @ p["b"],
        {},
    ),
    "zeros": (
        AB,
        X,
        lambda p, x: (jnp.zeros((2, 4)).at[np.array([1, 0])].add(x @ p["a"]) * np.ones(4)) @ p["b"],
        {"a": 4},
    ),
}


def hidden(function):
    return lambda p, x: function(x @ p["a"]) @ p["b"]


def by_reference(h):
    ref = jax.new_ref(jnp.zeros_like(h))
    ref[:, 0] = h[:, 1]
    return ref[...][:, :1] + h


# Functions of hidden units that need them in order.
ORDERED = {
    "numbers": lambda h: h * np.arange(4),
    "cumsum": lambda h: jnp.cumsum(h, 1),
    "roll": lambda h: jnp.roll(h, 1, 1),
    "reverse": lambda h: h[:, ::-1],
    "index": lambda h: h[:, np.array([1, 0, 3, 2])],
    "part": lambda h: h + h[:, :3].sum(1, keepdims=True),
    "unequal": lambda h: jnp.concatenate([h.mean(1, keepdims=True), h], 1)[:, :4] + h,
    "argmax": lambda h: h + jnp.argmax(h, 1)[:, None],
    "top": lambda h: h + lax.top_k(h, 2)[1].sum(),
    "causal": lambda h: h @ jnp.tril(jnp.ones((4, 4))),
    "noise": lambda h: h + jax.random.normal(KEY, h.shape),
    "pad": lambda h: jnp.pad(h, ((0, 0), (1, 0)))[:, :4],
    "payload": lambda h: lax.sort([h * 0, h], dimension=1, num_keys=1)[1],
    "rounds": lambda h: h + lax.scan(lambda c, u: (jnp.sin(c + u), None), jnp.zeros(2, h.dtype), h.T)[0][:, None],
    "fourier": lambda h: h + jnp.abs(jnp.fft.fft(h))[:, 1:2],
    "window": lambda h: jnp.convolve(h[0], np.array([1.0, 2.0, 3.0]), mode="same")[None],
    "reference": by_reference,
    "set": lambda h: h.at[:, 2].set(0.0),
    "put": lambda h: lax.dynamic_update_slice(h, h[:, :2], (jnp.int32(0), jnp.int32(1))),
    "cut": lambda h: h + lax.dynamic_slice(h, (jnp.int32(0), jnp.int32(1)), (2, 2)).sum(1)[:, None],
    "mixed": lambda h: h.T.reshape(2, 4) + h,
}


def joined(h):
    return jnp.concatenate([h, jnp.sin(h)], 1)


# The same of two ranges of hidden units.
ORDERED_RANGES = {
    "both numbered": lambda h: joined(h) * np.arange(8),
    "across the seam": lambda h: joined(h)[:, 2:6],
    "beyond the seam": lambda h: joined(h)[:, :5].sum(1, keepdims=True) + h,
    "both summed up": lambda h: jnp.cumsum(joined(h), 1),
    "both reversed": lambda h: jnp.flip(joined(h), 1),
    "first of both": lambda h: h + jnp.argmax(joined(h), 1)[:, None],
    "places of both": lambda h: h + jnp.argsort(joined(h), 1)[:, :1],
    "index of both": lambda h: joined(h)[:, np.array([1, 0, 3, 2, 5, 4, 7, 6])],
    "sixths": lambda h: jnp.concatenate([h, jnp.sin(h), h[:, :1]], 1).reshape(3, 6),
    "both paired": lambda h: joined(h) * jnp.concatenate([jnp.roll(h, 1, 1), h], 1),
    "frequencies of both": lambda h: h + jnp.abs(jnp.fft.rfft(joined(h)))[:, 1:2],
    "padded": lambda h: jnp.pad(joined(h), ((0, 0), (3, 0)))[:, :8] * joined(h),
    "shifted": lambda h: joined(h) * jnp.concatenate([h[:, :1], joined(h)[:, :7]], 1),
}


@functools.cache
def derived(name):
    shapes, x, function, _ = FOUND[name]
    shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()}
    return derive_spec(function, shaped, jax.ShapeDtypeStruct(x, np.float32), verify=False)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name):
    spec = derived(name)
    assert spec.sizes == FOUND[name][3]
    explained = {f"{move.leaf}[{move.axis}]" for moves in spec.moves.values() for move in moves} | set(spec.fixed)
    assert explained == {f"{leaf}[{axis}]" for leaf, shape in FOUND[name][0].items() for axis in range(len(shape))}


def rearrange(spec, tree, orders):
    """`permute` written out: every entry of an axis is taken from where its unit was."""
    tree = dict(tree)
    for name, moves in spec.moves.items():
        for leaf, axis, outer, inner, before, after, gap, stack, layer in moves:
            n, new = spec.sizes[name], np.arange(tree[leaf].shape[axis])
            for i, j, k in itertools.product(range(outer), range(n), range(inner)):
                block = before + i * (n * inner + gap) + k
                new[block + j * inner] = block + orders[name][j] * inner
            assert before + outer * n * inner + (outer - 1) * gap + after == len(new)
            moved = tree[leaf].take(new, axis)
            if stack != -1:
                layers = [moved if i == layer else tree[leaf] for i in range(moved.shape[stack])]
                moved = np.stack([array.take(i, stack) for i, array in enumerate(layers)], stack)
            tree[leaf] = moved
    return tree


def assert_unchanged(cases, specs):
    """Outputs of all functions under their permutations, in one compilation."""
    generator = np.random.default_rng(3)
    draw = lambda shape: generator.normal(size=shape)  # noqa: E731
    params = {name: {key: draw(shape) for key, shape in shapes.items()} for name, (shapes, *_) in cases.items()}
    inputs = {name: draw(x) for name, (_, x, *_) in cases.items()}
    evaluate = jax.jit(lambda params: {name: case[2](params[name], inputs[name]) for name, case in cases.items()})
    before = evaluate(params)
    # A random cycle over all units: nothing stays in place.
    cycle = lambda n: (lambda p: p[(p.argsort() + 1) % n])(generator.permutation(n))  # noqa: E731
    orders = {name: {key: cycle(n) for key, n in spec.sizes.items()} for name, spec in specs.items()}
    after = evaluate({name: rearrange(specs[name], params[name], orders[name]) for name in cases})
    for name in cases:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_functions_stay_the_same(x64):
    assert_unchanged(FOUND, {name: derived(name) for name in FOUND})


UNARY = {
    "sin": lambda h: jnp.sin(h),
    "standardised": lambda h: jax.nn.standardize(h),
    "pairs": lambda h: h.reshape(2, 2, 2).max(2, keepdims=True).repeat(2, 2).reshape(2, 4),
    "interleaved": lambda h: (h.reshape(2, 2, 2) - h.reshape(2, 2, 2).mean(1, keepdims=True)).reshape(2, 4),
    "transposed": lambda h: h.reshape(2, 2, 2).transpose(0, 2, 1).reshape(2, 4),
    "halves": lambda h: jnp.concatenate([h[:, 2:], h[:, :2]], 1),
    "sorted": lambda h: jnp.sort(h, 1),
    "gram": lambda h: h @ (h.T @ h),
    "rows": lambda h: jnp.cumsum(h, 0)[::-1],
    "masked": lambda h: jnp.where(h > h.mean(1, keepdims=True), h, 0),
    "frequencies of rows": lambda h: jnp.fft.irfft(jnp.fft.rfft(h, axis=0), n=len(h), axis=0),
    "both softmax": lambda h: jax.nn.softmax(jnp.concatenate([h, 2 * h], 1))[:, 4:],
    "unequal ranges": lambda h: jnp.concatenate([h, h[:, ::2]], 1)[:, :4],
    "zeros beside": lambda h: jnp.pad(h, ((0, 0), (1, 3))).reshape(2, 4, 2).sum(2),
    "swapped parts": lambda h: jnp.concatenate(jnp.split(h, [1], 1)[::-1], 1),
    "parts": lambda h: jnp.concatenate([jnp.sin(part) for part in jnp.split(h, [1, 2], 1)], 1),
    "blocks of both": lambda h: (lambda b: b - b.mean(1, keepdims=True))(joined(h).reshape(2, 4, 2)).reshape(2, 8)[
        :, 4:
    ],
}


def random_function(seed):
    """A program of ten random steps on hidden units, each reading one or two of the values before."""
    generator = np.random.default_rng(seed)
    steps = []
    unary = list(UNARY) + list(ORDERED) * (seed % 3 == 0)
    for count in range(1, 11):
        kind = generator.choice(["unary", "dense", "bias", "sum", "product"])
        steps.append((kind, generator.choice(unary), generator.integers(count, size=2), generator.integers(3)))

    def function(p, x):
        values = [x @ p["a"]]
        for kind, name, (i, j), weight in steps:
            first, second = values[i], values[j]
            if kind == "unary":
                new = {**UNARY, **ORDERED}[name](first) + jnp.zeros((2, 1), x.dtype)
            elif kind == "dense":
                new = first @ p[f"w{weight}"]
            elif kind == "bias":
                new = first + p[f"v{weight}"]
            else:
                new = first + second if kind == "sum" else first * second
            values.append(new / (1 + jnp.abs(new).max()))
        return sum(values[-3:]) @ p["b"]

    shapes = AB | {f"w{i}": (4, 4) for i in range(3)} | {f"v{i}": (4,) for i in range(3)}
    return shapes, X, function


def random_cases(seeds):
    cases = {seed: random_function(seed) for seed in seeds}
    specs = {
        seed: derive_spec(
            function,
            {key: jax.ShapeDtypeStruct(shape, np.float64) for key, shape in shapes.items()},
            jax.ShapeDtypeStruct(x, np.float64),
            verify=False,
        )
        for seed, (shapes, x, function) in cases.items()
    }
    return cases, specs


def test_random_programs(x64):
    cases, specs = random_cases(range(6))
    assert sum(len(spec.sizes) for spec in specs.values()) > 6
    assert_unchanged(cases, specs)


@pytest.mark.extended
@pytest.mark.parametrize("part", range(20))
def test_many_random_programs(part, x64):
    assert_unchanged(*random_cases(range(10 * part, 10 * part + 10)))


@pytest.mark.parametrize("name", ORDERED | ORDERED_RANGES)
def test_order_is_seen(name):
    function = (ORDERED | ORDERED_RANGES)[name]
    width = jax.eval_shape(function, jax.ShapeDtypeStruct((2, 4), np.float32)).shape[1]
    shapes = {"a": (3, 4), "b": (width, 2)}
    shaped = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()}
    spec = derive_spec(hidden(function), shaped, jax.ShapeDtypeStruct(X, np.float32), verify=False)
    assert spec.sizes == {}
    assert set(spec.fixed) == {"a[0]", "a[1]", "b[0]", "b[1]"}
