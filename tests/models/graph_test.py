"""The network on graphs: counts, aggregation against dense matrices, permutations of nodes and of hidden units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.asymmetry import AsymmetrySpec, gnn_arxiv, make_asymmetric, trainable_size
from sbjax.models import make_graph_model
from sbjax.models.graph import aggregate, make_graph, permuted
from sbjax.symmetry.activation_matching import match_activations, recorded
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import permute, random_permutations
from sbjax.symmetry.spec import derive_spec

RNG = np.random.default_rng(0)
NODES, FEATURES = 12, 5
EDGES = RNG.integers(NODES - 1, size=(30, 2))  # the last node has no neighbours


@pytest.fixture(scope="module")
def graph():
    return make_graph(RNG.normal(size=(NODES, FEATURES)), EDGES)


@pytest.fixture(scope="module")
def network(graph):
    """With statistics that are not those of the start."""
    net = make_graph_model("graph", classes=3, widths=(8, 7, 6))
    variables = jax.jit(net.init)(jax.random.key(0), graph)
    _, updates = net.apply(variables, graph, train=True, mutable=["batch_stats"])
    return net, {**variables, **updates}


def test_the_published_network_has_the_published_counts():
    graph = make_graph(np.zeros((2, 128)), np.array([[0, 1]]))
    net = make_graph_model("graph", classes=40)
    count = trees.size(jax.eval_shape(net.init, jax.random.key(0), graph)["params"])
    assert count == 176_424
    asymmetric = make_asymmetric(net, gnn_arxiv())
    assert trainable_size(jax.jit(asymmetric.init)(jax.random.key(0), graph)) == 171_576
    assert count - 171_576 == 6 * (3 * 256 + 40)


def test_aggregation_is_a_product_with_a_dense_matrix(graph):
    """I + D^-1 A, with the adjacency of the undirected graph, each edge once."""
    dense = np.zeros((NODES, NODES))
    for a, b in EDGES:
        dense[a, b] = dense[b, a] = 1
    degree = dense.sum(1, keepdims=True)
    assert degree[-1] == 0
    matrix = np.eye(NODES) + dense / np.maximum(degree, 1)
    x = RNG.normal(size=(NODES, 4))
    np.testing.assert_allclose(aggregate(graph, jnp.asarray(x, jnp.float32)), matrix @ x, atol=1e-5)


def test_a_network_is_layers_on_dense_matrices(graph, network):
    """Everything written out in numpy, in evaluation mode."""
    net, variables = network
    params, stats = jax.tree.map(np.asarray, (variables["params"], variables["batch_stats"]))
    matrix = np.asarray(aggregate(graph, jnp.eye(NODES)), np.float64)
    h = np.asarray(graph.features, np.float64)
    for i in range(3):
        h = matrix @ h @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
        norm, seen = params[f"norm_{i}"], stats[f"norm_{i}"]
        h = (h - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
        h = np.asarray(jax.nn.gelu(h))
    logits = h @ params["dense_3"]["kernel"] + params["dense_3"]["bias"]
    np.testing.assert_allclose(net.apply(variables, graph), logits, atol=1e-4)


def test_features_that_come_aggregated_give_the_same(graph, network):
    net, variables = network
    once = graph._replace(features=aggregate(graph, graph.features))
    np.testing.assert_array_equal(net.clone(aggregated=True).apply(variables, once), net.apply(variables, graph))


@pytest.mark.parametrize("train", [False, True])
def test_permuted_nodes_have_permuted_outputs(graph, network, train):
    net, variables = network
    order = RNG.permutation(NODES)

    def outputs(graph):
        given = {"mutable": ["batch_stats"]} if train else {}
        found = net.apply(variables, graph, train=train, **given)
        return found[0] if train else found

    np.testing.assert_allclose(outputs(permuted(graph, order)), outputs(graph)[order], atol=1e-5)
    assert np.abs(outputs(graph)[order] - outputs(graph)).max() > 0.1  # it is no test of nothing


def test_hidden_groups_are_found_through_segment_sums(graph, network):
    """One permutation a hidden layer, which moves its kernel, norm and statistics, and the rows of the next kernel."""
    net, variables = network
    spec = derive_spec(lambda v, graph: net.apply(v, graph), variables, graph)
    assert sorted(spec.sizes.values()) == [6, 7, 8]
    for i, width in enumerate((8, 7, 6)):
        name = next(name for name, size in spec.sizes.items() if size == width)
        assert {(move.leaf, move.axis) for move in spec.moves[name]} == {
            (f"params/dense_{i}/kernel", 1),
            (f"params/dense_{i}/bias", 0),
            (f"params/norm_{i}/scale", 0),
            (f"params/norm_{i}/bias", 0),
            (f"batch_stats/norm_{i}/mean", 0),
            (f"batch_stats/norm_{i}/var", 0),
            (f"params/dense_{i + 1}/kernel", 0),
        }
    moved = permute(spec, variables, random_permutations(jax.random.key(1), spec))
    np.testing.assert_allclose(net.apply(moved, graph), net.apply(variables, graph), atol=1e-5)


@pytest.mark.parametrize("by", ["weights", "pearson", "dot"])
def test_planted_permutations_come_back(graph, network, by):
    net, variables = network
    spec = derive_spec(lambda v, graph: net.apply(v, graph), variables, graph)
    planted = random_permutations(jax.random.key(2), spec)
    other = permute(spec, variables, planted)
    if by == "weights":
        found = match_weights(spec, variables, other, key=jax.random.key(3), restarts=4).permutations
    else:

        def record(v, graph):
            seen = net.apply(v, graph, capture_intermediates=True, mutable="intermediates")[1]["intermediates"]
            return recorded(spec, v, seen)

        found = match_activations(spec, record, variables, other, [graph], kind=by)
    back = permute(spec, other, found)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.extended
def test_constants_leave_no_permutation_of_the_weights_alone(graph):
    """The same permutation of weights and statistics, with the constants left where they are, is another network."""
    standard = make_graph_model("graph", classes=3, widths=(8, 7))
    net = make_asymmetric(standard, AsymmetrySpec("w", masks=gnn_arxiv().masks[:1]))
    wide = graph._replace(features=jnp.asarray(RNG.normal(size=(NODES, 9)), jnp.float32))
    variables = jax.jit(net.init)(jax.random.key(0), wide)
    spec = derive_spec(
        lambda v, graph: standard.apply(v, graph),
        {"params": variables["params"], "batch_stats": variables["batch_stats"]},
        wide,
    )
    moved = permute(
        spec, {k: variables[k] for k in ("params", "batch_stats")}, random_permutations(jax.random.key(1), spec)
    )
    gap = net.apply({**variables, **moved}, wide) - net.apply(variables, wide)
    assert np.abs(gap).max() > 0.05
    # With them, it is the same one: what the spec of the whole tree moves.
    whole = derive_spec(lambda v, graph: net.apply(v, graph), variables, wide)
    assert any(move.leaf.startswith("frozen/") for moves in whole.moves.values() for move in moves)
    both = permute(whole, variables, random_permutations(jax.random.key(1), whole))
    np.testing.assert_allclose(net.apply(both, wide), net.apply(variables, wide), atol=1e-5)


@pytest.mark.parametrize(
    ("features", "edges", "message"),
    [
        (np.zeros((3, 1)), np.array([[0, 3]]), r"^edges has the pair \[0, 3\]; nodes are 0 .. 2"),
        (np.zeros(3), np.array([[0, 1]]), r"^features of shape \(3,\)"),
        (np.zeros((3, 1)), np.zeros((2, 2)), "float64: give"),
    ],
)
def test_graphs_that_cannot_be(features, edges, message):
    with pytest.raises(ValueError, match=message):
        make_graph(features, edges)
