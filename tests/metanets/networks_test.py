"""Metanetworks: which read functions and which read names of units, published counts, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.metanets import graphs, make_reading, permuted, statistics, vector
from sbjax.metanets.baselines import _windows
from sbjax.models import make_metanet, make_model
from sbjax.models.transformer import Transformer
from sbjax.symmetry import derive_spec, random_permutations, spec_from_axes

KEY = jax.random.key(0)
INVARIANT = {
    "functional": {"channels": (6, 5), "head": (8,)},
    "neural_graph": {"layers": 2, "nodes": 8, "edges": 4, "head": (8,)},
    "neural_graph_transformer": {"layers": 1, "nodes": 8, "edges": 4, "heads": 2, "head": (8,)},
    "deepsets": {"width": 8},
}
NOT = {"flat": {"widths": (8,)}, "dmc": {"channels": (4, 8), "pool": 4}}


@functools.cache
def reading_of(name):
    if name == "transformer":
        net, x = Transformer(classes=3, width=8, depth=1, heads=2, hidden=6), jnp.ones((1, 4, 5))
    elif name == "cnn":
        net, x = make_model("cnn", classes=3, channels=(6, 5, 4), norm="none"), jnp.ones((1, 8, 8, 2))
    else:
        net, x = make_model("resnet8", classes=3, width=0.25), jnp.ones((1, 8, 8, 3))
    shapes = jax.eval_shape(net.init, KEY, x)
    spec = derive_spec(net.apply, shapes, x, verify=False)
    return make_reading(spec, {"params": shapes["params"]})


def nets(reading, count=3):
    return np.random.default_rng(0).normal(size=(count, reading.layout.size)).astype(np.float32)


def moved(reading, entries):
    orders = jax.vmap(lambda key: random_permutations(key, reading.spec))(jax.random.split(KEY, len(entries)))
    return permuted(reading, entries, orders)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        *(("cnn", name) for name in [*INVARIANT, *NOT]),
        *(pytest.param(n, name, marks=pytest.mark.extended) for n in ("transformer", "resnet8") for name in INVARIANT),
    ],
)
def test_whether_permuted_units_are_read_alike(network, name):
    """Of those that know the architecture, and of sets of entries; the others see another network."""
    reading = reading_of(network)
    module = make_metanet(name, outputs=2, reading=reading, **(INVARIANT | NOT)[name])
    x = nets(reading)
    variables = jax.jit(functools.partial(module.init, train=False))(KEY, x)
    run = jax.jit(functools.partial(module.apply, variables, train=False))
    out, other = np.asarray(run(x)), np.asarray(run(moved(reading, x)))
    assert out.shape == (3, 2)
    assert out.dtype == np.float32
    assert np.ptp(out, axis=0).min() > 1e-3
    error = np.abs(out - other).max()
    assert error < 1e-5 if name in INVARIANT else error > 1e-2
    if name in ("functional", "neural_graph", "neural_graph_transformer"):  # one unit's row alone breaks the coupling
        block = next(block for block in reading.layout.blocks if len(block.groups) == 1)
        broken = x.copy()
        broken[:, block.index] = x[:, np.roll(block.index, 1, 0)]
        assert np.abs(np.asarray(run(broken)) - out).max() > 1e-4


@pytest.mark.extended
def test_np_with_embeddings_is_invariant_too():
    reading = reading_of("cnn")
    module = make_metanet("functional", outputs=1, reading=reading, ends="permuted", channels=(4,), keep_features=True)
    x = nets(reading)
    variables, run = jax.jit(module.init)(KEY, x), jax.jit(module.apply)
    np.testing.assert_allclose(run(variables, moved(reading, x)), run(variables, x), atol=1e-5)
    assert {name for name in variables["params"] if "embedding" in name} == {"embedding_input", "embedding_output"}


def test_published_counts():
    """arXiv 2405.20231: a ResNet-8 of 78,042 parameters in 29 arrays; its four metanetworks."""
    net = make_model("resnet8", classes=10)
    shapes = jax.eval_shape(net.init, KEY, jnp.ones((1, 8, 8, 3)))["params"]
    reading = make_reading(spec_from_axes({}, shapes), shapes)
    assert reading.layout.size == 78_042
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))  # noqa: E731
    x = jax.ShapeDtypeStruct((2, reading.layout.size), np.float32)
    made = {name: make_metanet(name, outputs=1, reading=reading) for name in ("flat", "deepsets", "dmc")}
    sizes = {name: count(jax.eval_shape(module.init, KEY, x)) for name, module in made.items()}
    assert sizes == {"flat": 4_994_945, "deepsets": 8897, "dmc": 105_357}
    columns = make_metanet("statistics", outputs=1, reading=reading)
    assert count(jax.eval_shape(columns.init, KEY, jax.ShapeDtypeStruct((2, 203), np.float32))) == 119_297


def test_statistics_by_scipy():
    reading = reading_of("cnn")
    x = nets(reading)
    found = statistics(reading, x)
    assert found.shape == (3, 7 * len(reading.names))
    for number in range(len(reading.names)):
        own = x[1, reading.leaves == number].astype(float)
        about = scipy.stats.describe(own, ddof=0)
        wanted = [about.mean, about.variance, *about.minmax, *np.percentile(own, [25, 50, 75])]
        np.testing.assert_allclose(found[1, 7 * number : 7 * number + 7], wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(statistics(reading, moved(reading, x)), found, rtol=1e-6, atol=1e-9)


def test_frozen_entries_are_not_read():
    tree = {"a": np.ones((4, 3)), "b": np.ones(3)}
    spec = spec_from_axes({"a": (None, "p"), "b": ("p",)}, tree)
    mask = np.random.default_rng(0).random((4, 3)) > 0.4
    reading = make_reading(spec, tree, {"a": mask})
    assert reading.kept.sum() == mask.sum() + 3
    x = np.random.default_rng(1).normal(size=(2, 15)).astype(np.float32)
    other = np.where(reading.kept, x, 7.0).astype(np.float32)
    for name in ("flat", "deepsets", "dmc"):
        module = make_metanet(name, outputs=1, reading=reading, **NOT.get(name, {}))
        variables = jax.jit(module.init)(KEY, x)
        run = jax.jit(module.apply)
        np.testing.assert_array_equal(run(variables, other), run(variables, x))
    np.testing.assert_array_equal(statistics(reading, x), statistics(reading, other))


def test_windows_are_a_convolution():
    x, kernel = (
        np.random.default_rng(i).normal(size=s).astype(np.float32) for i, s in enumerate([(2, 9, 3), (5, 3, 4)])
    )
    wanted = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    np.testing.assert_allclose(_windows(jnp.asarray(x), 5) @ kernel.reshape(15, 4), wanted, rtol=1e-5, atol=1e-5)


def test_graph_of_a_network():
    """Nodes and edges in closed form, all weights among them; without messages, nodes of a pair do not mix."""
    reading = reading_of("cnn")
    x = nets(reading)
    nodes, edges, whole = graphs.raw_graph(reading.opened, jnp.asarray(x))
    assert {n: s.shape[1:] for n, s in edges.items()} == {
        ("input", "conv_0"): (2, 6, 9), ("conv_0", "conv_1"): (6, 5, 9), ("conv_1", "conv_2"): (5, 4, 9),
        ("conv_2", "output"): (4, 3, 1),
    }  # fmt: skip
    assert {n: s.shape[1:] for n, s in nodes.items()} == {
        "conv_0": (6, 1),
        "conv_1": (5, 1),
        "conv_2": (4, 1),
        "output": (3, 1),
    }
    assert whole is None
    total = sum(np.asarray(leaf, float).sum() for leaf in [*nodes.values(), *edges.values()])
    assert total == pytest.approx(x.astype(float).sum(), abs=1e-3)


def test_without_messages_a_graph_is_a_set():
    """Edges and nodes in any order within a layer, each by itself, are the same: only then."""
    reading = reading_of("cnn")
    x, other = nets(reading), nets(reading)
    block = next(b for b in reading.opened.blocks if b.groups == ("conv_0", "conv_1"))
    other[:, block.index] = x[:, block.index[::-1, ::1][:, np.random.default_rng(1).permutation(5)]]
    other[:, block.index[0]] = other[:, block.index[0][::-1]]  # no permutation of units does this
    for messages in (False, True):
        options = {"layers": 1, "nodes": 4, "edges": 4, "head": (4,), "messages": messages}
        module = make_metanet("neural_graph", outputs=1, reading=reading, **options)
        variables = jax.jit(module.init)(KEY, x)
        change = jax.jit(lambda x, v, m=module: m.apply(v, x))
        error = np.abs(np.asarray(change(x, variables)) - np.asarray(change(other, variables))).max()
        assert error > 1e-4 if messages else error < 1e-5


def test_dense_edges_are_received_and_sent():
    nodes = {"a": jnp.zeros((1, 2, 1)), "b": jnp.zeros((1, 3, 1))}
    state = jnp.arange(6.0).reshape(1, 2, 3, 1) + 1
    found = np.asarray(graphs.dense(nodes, {("a", "b"): state}))
    assert found.shape == (1, 5, 5, 2)
    np.testing.assert_array_equal(found[0, 2:, :2, 0], np.asarray(state)[0, :, :, 0].T)  # b receives from a
    np.testing.assert_array_equal(found[0, :2, 2:, 1], np.asarray(state)[0, :, :, 0])  # a sends to b
    assert np.count_nonzero(found) == 12


def test_bad_input():
    tree = {"a": np.ones((4, 3))}
    with pytest.raises(ValueError, match=r"masks: 'a' has shape \(3,\), the array \(4, 3\)"):
        make_reading(spec_from_axes({}, tree), tree, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="name='functionl' is unknown, did you mean 'functional'"):
        make_metanet("functionl", outputs=1, reading=None)
    reading = make_reading(spec_from_axes({"a": (None, "p")}, tree), tree)
    with pytest.raises(ValueError, match="heads=3 must divide nodes=8"):
        make_metanet("neural_graph_transformer", outputs=1, reading=reading, heads=3, nodes=8).init(
            KEY, vector(tree)[None]
        )
