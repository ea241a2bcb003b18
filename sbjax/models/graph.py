"""Networks on graphs: layers that add to every node the mean of its neighbours."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from sbjax.asymmetry.figlu import Gate
from sbjax.common.options import option
from sbjax.models import layers


class Graph(NamedTuple):
    """Features of nodes, and edges sorted by the node that they lead to; see `make_graph`.

    Attributes:
        features: [node, d].
        senders: [edge], where an edge comes from.
        receivers: [edge], where it leads to, ascending.
        shares: [node], 1 / number of edges that lead to a node; 0 where there are none.
    """

    features: Float[Array, "node d"]
    senders: Int[Array, " edge"]
    receivers: Int[Array, " edge"]
    shares: Float[Array, " node"]


def make_graph(
    features: Float[np.ndarray, "node d"], edges: Int[np.ndarray, "edge 2"], *, undirected: bool = True
) -> Graph:
    """A graph from pairs (from, to) of nodes; each edge counts once, however often it is named.

    Args:
        features: of the nodes, kept as float32.
        edges: pairs of numbers of nodes, in any order; a node may lead to itself.
        undirected: add the opposite of every edge.

    Raises:
        ValueError: other shapes, or an edge to a node that there is not.

    >>> graph = make_graph(np.eye(3), np.array([[0, 1], [1, 0], [0, 2]]))
    >>> graph.senders.tolist(), graph.receivers.tolist(), graph.shares.tolist()
    ([1, 2, 0, 0], [0, 0, 1, 2], [0.5, 1.0, 1.0])
    """
    x, pairs = np.asarray(features, np.float32), np.asarray(edges)
    if x.ndim != 2 or pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            f"features of shape {x.shape} and edges of shape {pairs.shape}, {pairs.dtype}: give [node, d] and pairs of "
            "whole numbers [edge, 2]"
        )
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(x)):
        wrong = pairs[((pairs < 0) | (pairs >= len(x))).any(1)][0]
        raise ValueError(f"edges has the pair {wrong.tolist()}; nodes are 0 .. {len(x) - 1}")
    both = np.concatenate([pairs, pairs[:, ::-1]]) if undirected else pairs
    codes = np.unique(both[:, 1].astype(np.int64) * len(x) + both[:, 0])
    receivers, senders = (codes // len(x)).astype(np.int32), (codes % len(x)).astype(np.int32)
    counts = np.bincount(receivers, minlength=len(x))
    shares = np.where(counts, 1 / np.maximum(counts, 1), 0).astype(np.float32)
    return Graph(*map(jnp.asarray, (x, senders, receivers, shares)))


def permuted(graph: Graph, order: Int[np.ndarray, " node"]) -> Graph:
    """The same graph with its nodes in another order: node n of the result is node order[n].

    >>> graph = make_graph(np.array([[1.0], [2.0], [3.0]]), np.array([[0, 1]]))
    >>> permuted(graph, np.array([2, 0, 1])).features[:, 0].tolist()
    [3.0, 1.0, 2.0]
    """
    order = np.asarray(order)
    place = np.argsort(order)
    edges = np.stack([place[np.asarray(graph.senders)], place[np.asarray(graph.receivers)]], 1)
    return make_graph(np.asarray(graph.features)[order], edges, undirected=False)


def aggregate(graph: Graph, x: Float[Array, "node d"]) -> Float[Array, "node d"]:
    """x_i + mean over the neighbours j of i of x_j; x_i alone where there are none.

    A sum over edges, whose cost is edges times features, and not the product with a dense matrix.

    >>> graph = make_graph(np.zeros((3, 1)), np.array([[0, 1], [0, 2]]))
    >>> aggregate(graph, jnp.array([[1.0], [2.0], [6.0]]))[:, 0].tolist()
    [5.0, 3.0, 7.0]
    """
    total = jax.ops.segment_sum(x[graph.senders], graph.receivers, len(x), indices_are_sorted=True)
    return x + total * graph.shares[:, None].astype(x.dtype)


class GraphNet(nn.Module):
    """Layers `dense_0`, .. on `aggregate`d features, each followed by normalisation and activation; a dense output.

    h <- act(norm(W (h_i + mean_j h_j) + b)), and logits from the last h without aggregation: the network of arXiv
    2405.20231 on ogbn-arxiv, 128-256-256-256-40 with 176,424 parameters. Kernels start as PyTorch's dense layers do,
    uniformly on +-1/sqrt(fan-in); biases start at 0 (there: from the same law).

    Attributes:
        classes: outputs.
        aggregated: whether the features come aggregated already: the first aggregation needs no parameters, and a task
            computes it once.
        widths: hidden widths.
        norm: 'batch' over the nodes, 'group', 'layer' or 'none'.
        dropout: rate in [0, 1), after all hidden layers except the last.
        activation: a name of `layers.ACTIVATIONS`, or a `Gate`.

    >>> graph = make_graph(np.ones((5, 3)), np.array([[0, 1], [1, 2]]))
    >>> net = GraphNet(classes=4, widths=(8,))
    >>> variables = net.init(jax.random.key(0), graph)
    >>> net.apply(variables, graph).shape
    (5, 4)
    """

    classes: int
    aggregated: bool = False
    widths: Sequence[int] = option((256, 256, 256), "hidden widths", least=1)
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str | Gate = layers.activation_option("gelu")
    accepts_gate: ClassVar[bool] = True

    @nn.compact
    def __call__(self, graph: Graph, train: bool = False) -> Float[Array, "node classes"]:
        dense = partial(nn.Dense, kernel_init=layers.torch_uniform)
        x = graph.features
        for i, width in enumerate(self.widths):
            x = x if i == 0 and self.aggregated else aggregate(graph, x)
            x = dense(width, name=f"dense_{i}")(x)
            x = layers.make_norm(self.norm, train=train, name=f"norm_{i}")(x)
            x = layers.make_activation(self.activation, name=f"act_{i}")(x)
            if i + 1 < len(self.widths):
                x = layers.dropout(x, self.dropout, train=train)
        return dense(self.classes, name=f"dense_{len(self.widths)}")(x)
