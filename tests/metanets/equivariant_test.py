"""The equivariant layer: Burnside's count, its span against the commutant, a published formula, real networks."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.metanets import (
    EquivariantLinear,
    count_invariants,
    count_maps,
    from_blocks,
    invariants,
    make_layout,
    open_ends,
    split_vector,
    to_blocks,
    vector,
)
from sbjax.models import make_map_model, make_model
from sbjax.models.transformer import Transformer
from sbjax.symmetry import Move, Spec, derive_spec, permute, random_permutations, spec_from_axes

KEY = jax.random.key(0)


def perceptron(widths):
    """A tree of zeros and its spec; every layer has a bias."""
    pairs = [*itertools.pairwise(widths)]
    tree = {f"w{i}": np.zeros(pair) for i, pair in enumerate(pairs)}
    tree |= {f"v{i}": np.zeros(outputs) for i, (_, outputs) in enumerate(pairs)}

    def apply(p, x):
        for i in range(len(pairs)):
            x = jnp.sin(x @ p[f"w{i}"] + p[f"v{i}"])
        return x

    return tree, derive_spec(apply, tree, jnp.ones(widths[0]), verify=False)


# Residual stream q, and attention with heads h of size d: three axes, and twice the same permutation.
STREAM = {"q": ("s", "h", "d"), "k": ("s", "h", "d"), "mix": ("s", "s"), "norm": ("s",), "head": ("s", None)}
STREAM_TREE = {"q": np.zeros((4, 2, 2)), "k": np.zeros((4, 2, 2)), "mix": np.zeros((4, 4)), "norm": np.zeros(4),
               "head": np.zeros((4, 3))}  # fmt: skip


def started(layer, layout, inputs=1, *, only_shapes=False):
    """Weights of a layer, or their shapes."""
    blocks = tuple(jax.ShapeDtypeStruct((*b.index.shape[:-1], b.features * inputs), np.float32) for b in layout.blocks)
    shapes = jax.eval_shape(layer.init, KEY, blocks)
    draw = np.random.default_rng(0).normal
    return shapes if only_shapes else jax.tree.map(lambda s: draw(size=s.shape) / max(s.shape[0], 1) ** 0.5, shapes)


def burnside(tree, spec):
    """Maps and invariants: means over the whole group of the squared number of fixed entries, and of that number."""
    places = {name: np.asarray(p) for name, p in split_places(tree).items()}
    fixed = []
    for orders in itertools.product(*(itertools.permutations(range(n)) for n in spec.sizes.values())):
        moved = permute(spec, places, {name: np.array(order) for name, order in zip(spec.sizes, orders)})
        fixed.append(sum(int((moved[name] == places[name]).sum()) for name in places))
    fixed = np.array(fixed, float)
    return (fixed**2).mean(), fixed.mean()


def split_places(tree):
    flat, start, found = trees.flatten(tree), 0, {}
    for name, leaf in flat.items():
        found[name] = start + np.arange(leaf.size).reshape(leaf.shape)
        start += leaf.size
    return found


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_count_of_np(depth):
    """Published: 4 L^2 + 10 L - 4 for L layers with biases, inputs and outputs permuted too; 2 L invariants."""
    for widths in [(2, 3, 2, 4, 2)[: depth + 1], (2,) * (depth + 1)]:
        tree, spec = perceptron(widths)
        layout = make_layout(open_ends(spec, tree), tree)
        assert count_maps(layout) == 4 * depth**2 + 10 * depth - 4
        assert count_invariants(layout) == 2 * depth


@pytest.mark.parametrize(
    ("widths", "count"),
    [((2, 3, 2), 74), ((3, 4, 3), 149), ((2, 3, 3, 2), 114), ((2, 3, 4, 3), 163), ((2, 3, 2, 3, 2), 164),
     ((1, 4, 4, 4, 2), 136)],
)  # fmt: skip
def test_count_of_hnp(widths, count):
    """Hidden units alone: a closed form, and Burnside's count over the whole group."""
    tree, spec = perceptron(widths)
    layout = make_layout(spec, tree)
    maps, fixed = count_maps(layout), count_invariants(layout)
    assert maps == count
    if math.prod(math.factorial(n) for n in spec.sizes.values()) < 2000:
        assert (maps, fixed) == pytest.approx(burnside(tree, spec))
    hidden, m = len(widths) - 2, len(widths) - 3
    copies = [1 + (widths[0] if i == 0 else 0) + (widths[-1] if i == hidden - 1 else 0) for i in range(hidden)]
    touching = [(i > 0) + (i < hidden - 1) for i in range(hidden)]
    total = sum(copies) + widths[-1] + m
    closed = total**2 + sum(v * v for v in copies) + 2 * sum(v * d for v, d in zip(copies, touching))
    assert maps == closed + 3 * m + 2 * max(m - 1, 0)
    assert fixed == total


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_count_where_a_permutation_meets_itself(n):
    """Of a square matrix there are 15 maps with four units or more, and fewer below, where some are dependent."""
    tree = {"a": np.zeros((n, n)), "b": np.zeros(n)}
    spec = spec_from_axes({"a": ("p", "p"), "b": ("p",)}, tree)
    layout = make_layout(spec, tree)
    assert (count_maps(layout), count_invariants(layout)) == pytest.approx(burnside(tree, spec))


def test_count_of_a_stream():
    spec = spec_from_axes(STREAM, STREAM_TREE)
    layout = make_layout(spec, STREAM_TREE)
    assert (count_maps(layout), count_invariants(layout)) == pytest.approx(burnside(STREAM_TREE, spec))


@pytest.mark.parametrize("case", ["hnp", "np", "stream"])
def test_the_layer_is_every_map_that_commutes(case, x64):
    """Its maps, one a parameter, are as many as Burnside counts, independent, and each commutes."""
    if case == "stream":
        axes, tree = {"a": ("p", "p"), "b": ("p", None)}, {"a": np.zeros((4, 4)), "b": np.zeros((4, 2))}
        spec = spec_from_axes(axes, tree)
    else:
        tree, spec = perceptron((2, 3, 4, 2))
        spec = open_ends(spec, tree) if case == "np" else spec
    layout = make_layout(spec, tree)
    layer = EquivariantLinear(layout, 1)
    shapes = started(layer, layout, only_shapes=True)
    sizes = {name: leaf.size for name, leaf in trees.flatten(shapes).items()}
    ends = np.cumsum([*sizes.values()])[:-1]

    @jax.jit
    @jax.vmap
    def run(flat):  # of one vector of weights, on every unit vector
        parts = jnp.split(flat, ends)
        params = {n: p.reshape(s.shape) for (n, s), p in zip(trees.flatten(shapes).items(), parts)}
        return from_blocks(layout, layer.apply(trees.nest(params), to_blocks(layout, jnp.eye(layout.size + 1)[:, 1:])))

    whole = np.asarray(run(jnp.eye(sum(sizes.values())))).transpose(2, 1, 0)  # [out, 1 + in, weight]
    bias, whole = whole[:, 0], whole[:, 1:] - whole[:, :1]
    maps, used = whole.reshape(-1, whole.shape[-1]), np.abs(whole).max((0, 1)) > 0
    assert used.sum() == count_maps(layout) == np.linalg.matrix_rank(maps)
    assert (~used).sum() == np.linalg.matrix_rank(bias) == count_invariants(layout)
    p = random_permutations(jax.random.key(5), spec)
    order = np.asarray(vector(permute(spec, split_places(tree), p))).astype(int)
    np.testing.assert_allclose(whole[order][:, order], whole, atol=1e-14)
    np.testing.assert_allclose(bias[order], bias, atol=1e-14)


def test_the_published_layer_written_out(x64):
    """arXiv 2302.14040, equation 3, of two layers: every term of it by hand, with the weights of our layer."""
    tree, spec = perceptron((3, 4, 2))
    layout = make_layout(open_ends(spec, tree), tree)
    layer = EquivariantLinear(layout, 1, use_bias=False)
    x = jax.random.normal(KEY, (layout.size,))
    params = started(layer, layout)["params"]
    out = jax.jit(lambda x: layer.apply({"params": params}, to_blocks(layout, x)))(x)
    ours = {name: np.asarray(leaf) for name, leaf in split_vector(layout, from_blocks(layout, out)).items()}
    arrays = {name: np.asarray(leaf) for name, leaf in split_vector(layout, x).items()}
    v0, v1, w0, w1 = (arrays[name] for name in ("v0", "v1", "w0", "w1"))
    kernels = {name.removeprefix("kernel_"): np.asarray(leaf) for name, leaf in params.items()}
    # What each permutation can carry over, arrays in the order v0, v1, w0, w1; and what it reaches, in that order.
    everything = np.array([v0.mean(), v1.mean(), w0.mean(), w1.mean()]) @ kernels["all"]
    hidden = np.stack([v0, w0.mean(0), w1.mean(1)], -1) @ kernels["w0"]
    inputs = w0.mean(1)[:, None] @ kernels["input"]
    outputs = np.stack([v1, w1.mean(0)], -1) @ kernels["output"]
    np.testing.assert_allclose(ours["v0"], everything[0] + hidden[:, 0], atol=1e-13)
    np.testing.assert_allclose(ours["v1"], everything[1] + outputs[:, 0], atol=1e-13)
    first = everything[2] + inputs[:, 0][:, None] + hidden[:, 1][None] + kernels["input+w0"][0, 0] * w0
    np.testing.assert_allclose(ours["w0"], first, atol=1e-13)
    second = everything[3] + hidden[:, 2][:, None] + outputs[:, 1][None] + kernels["output+w0"][0, 0] * w1
    np.testing.assert_allclose(ours["w1"], second, atol=1e-13)


def network(name):
    """Variables (shapes) and spec."""
    if name == "transformer":
        net = Transformer(classes=3, width=8, depth=1, heads=2, hidden=6, norm="layer", bias=True)
        x = jnp.ones((1, 4, 5))
        apply = net.apply
    elif name == "unet":
        net, x = make_map_model("unet", outputs=2, width=3, depth=2), jnp.ones((1, 4, 4, 2))
    elif name == "mlp":
        net, x = make_model("mlp", classes=3, widths=(6, 5), norm="batch"), jnp.ones((1, 4))
    elif name == "padded":  # shortcuts without weights: ranges of an axis
        net, x = make_model("resnet8", classes=3, width=0.25, shortcut="identity"), jnp.ones((1, 4, 4, 3))
    else:
        net, x = make_model(name, classes=3, width=0.25), jnp.ones((1, 4, 4, 3))
    apply = net.apply
    variables = jax.eval_shape(net.init, KEY, x)
    return variables, derive_spec(apply, variables, x, verify=False)


def stacked():
    """Layers stacked for a scan, each with permutations of its own."""
    tree = {"w": np.zeros((2, 4)), "l": np.zeros((3, 4, 4)), "b": np.zeros((3, 4)), "o": np.zeros((4, 2))}
    step = lambda h, row: (jnp.sin(h @ row[0] + row[1]), None)  # noqa: E731
    apply = lambda p, x: jax.lax.scan(step, x @ p["w"], (p["l"], p["b"]))[0] @ p["o"]  # noqa: E731
    return tree, derive_spec(apply, tree, jnp.ones(2), verify=False)


more = functools.partial(pytest.param, marks=pytest.mark.extended)


@pytest.mark.parametrize(
    ("name", "double"),
    [("transformer", False), ("stacked", True), more("transformer", True), more("unet", True), more("mlp", True),
     more("resnet8", True), more("padded", True)],
)  # fmt: skip
def test_equivariance_in_real_networks(name, double):
    """Of two layers with a nonlinearity; also that it is lost where the coupling of layers is, and under jit."""
    variables, spec = stacked() if name == "stacked" else network(name)
    layout = make_layout(spec, variables)
    assert sum(block.index.size for block in layout.blocks) == layout.size
    first, second = EquivariantLinear(layout, 4, keep_features=False), EquivariantLinear(layout, 1)
    tree = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32), variables
    )
    one = started(first, layout)
    hidden = tuple(jnp.zeros((*block.index.shape[:-1], 4)) for block in layout.blocks)
    draw = np.random.default_rng(1).normal
    two = jax.tree.map(lambda s: draw(size=s.shape) / s.shape[0] ** 0.5, jax.eval_shape(second.init, KEY, hidden))

    @jax.jit
    def run(one, two, entries):
        hidden = jax.tree.map(jnp.sin, first.apply(one, to_blocks(layout, entries)))
        out = second.apply(two, hidden)
        return from_blocks(layout, out), invariants(layout, out)

    def compare(dtype):
        cast = lambda t: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), t)  # noqa: E731
        p = {name: np.asarray(order) for name, order in random_permutations(jax.random.key(7), spec).items()}
        change, fixed = run(*cast((one, two)), cast(vector(tree)))
        moved, same = run(*cast((one, two)), cast(vector(permute(spec, tree, p))))
        arrays = trees.nest({n: np.asarray(leaf) for n, leaf in split_vector(layout, change).items()})
        wanted = vector(permute(spec, arrays, p))
        assert moved.dtype == fixed.dtype == dtype
        return float(jnp.abs(moved - wanted).max()), float(jnp.abs(same - fixed).max()), fixed

    *errors, fixed = compare(jnp.float32)
    assert max(errors) < 1e-5
    broken = trees.nest(dict(trees.flatten(tree)))
    leaf = next(b.leaf for b in layout.blocks if b.groups)
    group = next(b.groups[0] for b in layout.blocks if b.leaf == leaf and b.groups)
    alone = Spec({group: spec.sizes[group]}, {group: tuple(m for m in spec.moves[group] if m.leaf == leaf)}, {})
    assert len(alone.moves[group]) < len(spec.moves[group])
    broken = permute(alone, broken, {group: np.roll(np.arange(spec.sizes[group]), 1)})
    assert float(jnp.abs(run(one, two, vector(broken))[1] - fixed).max()) > 1e-4
    if double:
        with jax.enable_x64(True):
            assert max(compare(jnp.float64)[:2]) < 1e-12


def test_ten_in_one_program_and_one_compilation():
    tree, spec = perceptron((3, 4, 2))
    layout = make_layout(spec, tree)
    layer = EquivariantLinear(layout, 2, keep_features=True)
    nets = jax.random.normal(KEY, (5, layout.size))
    init = lambda key: layer.init(key, to_blocks(layout, nets))  # noqa: E731
    many = jax.jit(jax.vmap(init))(jax.random.split(KEY, 10))
    counted = []

    @jax.jit
    @jax.vmap
    def run(params):
        counted.append(1)
        return layer.apply(params, to_blocks(layout, nets))

    out = run(many)
    run(jax.tree.map(lambda x: x + 1, many))
    assert len(counted) == 1
    alone = layer.apply(jax.tree.map(lambda x: x[3], many), to_blocks(layout, nets[2]))
    for whole, one in zip(out, alone):
        np.testing.assert_allclose(whole[3, 2], one, rtol=1e-5, atol=1e-6)


def test_start():
    """Every term of an output has the same share of its variance: that of the inputs it sums, over the terms."""
    tree, spec = perceptron((3, 50, 2))
    layout = make_layout(spec, tree)
    layer = EquivariantLinear(layout, 4000, keep_features=False)
    blocks = to_blocks(layout, jax.random.normal(KEY, (layout.size,)))
    out = jax.jit(lambda key: layer.init_with_output(key, blocks)[0])(KEY)
    fixed, hidden = (
        np.asarray(x) for x in (invariants(layout, blocks), jnp.concatenate([blocks[i] for i in (0, 2, 3)], -1))
    )
    assert [block.groups for block in layout.blocks] == [("w0",), (), ("w0",), ("w0",)]
    wanted = ((fixed**2).mean() + (hidden**2).mean(-1)) / 2
    np.testing.assert_allclose(np.asarray(out[0]).var(-1), wanted, rtol=0.15)
    np.testing.assert_allclose(np.asarray(out[1]).var(), (fixed**2).mean(), rtol=0.15)


def test_bad_input():
    tree, spec = perceptron((3, 4, 2))
    with pytest.raises(ValueError, match="the spec moves arrays such as 'v0', and the tree holds 'params/v0'"):
        make_layout(spec, {"params": tree})
    both = Spec({"p": 2, "q": 2}, {"p": (Move("a", 0, stack=1),), "q": (Move("a", 3, stack=2),)}, {})
    with pytest.raises(ValueError, match=r"'a' is stacked along axes \[1, 2\]"):
        make_layout(both, {"a": np.zeros((2, 2, 2, 2))})
