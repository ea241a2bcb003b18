"""Graphs of networks, from the same permutation specs: a node for every unit, an edge for every weight between two.

Inputs and outputs of the network are nodes too, with an embedding each; hidden units share one by layer. An array that
one permutation moves (a bias, a norm) gives features of nodes; one that two move gives features of edges, where the
taps of a kernel are features; more than two: the mean over the others, for each pair. What no permutation moves is told
to all nodes. Nothing is padded: arrays of each kind have an encoder of their own.

Sources: neural graphs, arXiv 2403.12143 (units as nodes, biases as their features, embeddings of inputs and outputs);
graph metanetworks, arXiv 2312.04501 (messages along edges that are updated). Ours is dense, an array a pair of layers.
"""

import collections
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.metanets.blocks import Layout, to_blocks
from sbjax.metanets.maps import Slot, take
from sbjax.metanets.pooling import largest

Pair = tuple[str, str]
Nodes = dict[str, Float[Array, "batch n d"]]
Edges = dict[Pair, Float[Array, "batch n m d"]]


def raw_graph(layout: Layout, x: Float[Array, "batch size"]) -> tuple[Nodes, Edges, Float[Array, "batch d"] | None]:
    """Features of nodes by permutation, of edges by pair of permutations, and of the whole network (or None).

    >>> from sbjax.metanets import make_layout
    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': jnp.ones((5, 3)), 'b': jnp.ones(3)}
    >>> layout = make_layout(spec_from_axes({'a': ('input', 'p'), 'b': ('p',)}, tree), tree)
    >>> nodes, edges, whole = raw_graph(layout, jnp.ones((2, 18)))
    >>> {name: leaf.shape for name, leaf in nodes.items()}, {name: leaf.shape for name, leaf in edges.items()}, whole
    ({'p': (2, 3, 1)}, {('input', 'p'): (2, 5, 3, 1)}, None)
    """
    nodes: dict[str, list] = collections.defaultdict(list)
    edges: dict[Pair, list] = collections.defaultdict(list)
    whole = []
    for block, entries in zip(layout.blocks, to_blocks(layout, x), strict=True):
        if not block.groups:
            whole.append(entries)
        elif len(block.groups) == 1:
            nodes[block.groups[0]].append(entries)
        for pair in itertools.combinations(range(len(block.groups)), 2):
            slot = Slot(tuple((axis,) for axis in range(len(block.groups))), tuple((axis,) for axis in pair), ())
            kept = take(entries, len(block.groups), slot)
            groups = (block.groups[pair[0]], block.groups[pair[1]])
            if groups[::-1] in edges and groups[0] != groups[1]:
                groups, kept = groups[::-1], kept.swapaxes(1, 2)
            edges[groups].append(kept)
    join = lambda found: {name: jnp.concatenate(parts, -1) for name, parts in found.items()}  # noqa: E731
    return join(nodes), join(edges), jnp.concatenate(whole, -1) if whole else None


class NeuralGraph(nn.Module):
    """Layers of messages along the edges of a network's graph, both ways, then means of nodes and edges, then a head.

    Attributes:
        outputs, reading: as in `sbjax.metanets.functional.Functional`.
        layers: of messages.
        nodes, edges: width of their states.
        head: hidden widths behind the means.
        messages: False: nodes and edges stay by themselves; what is left is a set network, the control.
    """

    outputs: int
    reading: Any
    layers: int = option(3, "of messages", least=1, most=100)
    nodes: int = option(32, "width of the state of a node", least=1, most=10**4)
    edges: int = option(16, "width of the state of an edge", least=1, most=10**4)
    head: Sequence[int] = option((64,), "hidden widths behind the means", least=1)
    messages: bool = option(True, "pass messages; without them the control, a set of nodes and edges")
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        nodes, edges = Start(self.reading, self.nodes, self.edges, name="start")(x)
        for number in range(self.layers):
            edges = EdgeUpdate(self.edges, self.messages, name=f"edges_{number}")(nodes, edges)
            arrived = Messages(self.nodes, name=f"messages_{number}")(nodes, edges) if self.messages else {}
            update, norm = Two(self.nodes, name=f"nodes_{number}"), nn.LayerNorm(name=f"node_norm_{number}")
            nodes = {
                name: state + update(jnp.concatenate([norm(state), *arrived.get(name, ())], -1))
                for name, state in nodes.items()
            }
        return Means(self.outputs, tuple(self.head), name="means")(nodes, edges)


class NeuralGraphTransformer(nn.Module):
    """Attention among all units of a network, whose logits and values read the edge between two units.

    Attributes:
        outputs, reading: as in `sbjax.metanets.functional.Functional`.
        layers: of attention.
        nodes, edges: width of their states.
        heads: of attention, which divide `nodes`.
        head: hidden widths behind the means.

    Source: relational attention, Diao and Loynd, arXiv 2210.05062, as in NG-T of arXiv 2403.12143.
    """

    outputs: int
    reading: Any
    layers: int = option(3, "of attention", least=1, most=100)
    nodes: int = option(32, "width of the state of a node", least=1, most=10**4)
    edges: int = option(16, "width of the state of an edge", least=1, most=10**4)
    heads: int = option(4, "of attention", least=1, most=1000)
    head: Sequence[int] = option((64,), "hidden widths behind the means", least=1)
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        if self.nodes % self.heads:
            raise ValueError(f"heads={self.heads} must divide nodes={self.nodes}")
        nodes, edges = Start(self.reading, self.nodes, self.edges, name="start")(x)
        order = tuple(nodes)
        sizes = [nodes[name].shape[1] for name in order]
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes) - 1)]
        for number in range(self.layers):
            edges = EdgeUpdate(self.edges, True, name=f"edges_{number}")(nodes, edges)
            every = jnp.concatenate([nodes[name] for name in order], axis=1)
            read = nn.Dense(self.heads + self.nodes, use_bias=False, name=f"relation_{number}")(dense(nodes, edges))
            arrived = Attention(self.heads, name=f"attention_{number}")(
                nn.LayerNorm(name=f"norm_{number}")(every), read[..., : self.heads], read[..., self.heads :]
            )
            every = every + arrived
            every = every + Two(self.nodes, name=f"nodes_{number}")(nn.LayerNorm(name=f"node_norm_{number}")(every))
            nodes = dict(zip(order, jnp.split(every, ends, axis=1)))
        return Means(self.outputs, tuple(self.head), name="means")(nodes, edges)


class Start(nn.Module):
    """First states of nodes and edges."""

    reading: Any
    nodes: int
    edges: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"]) -> tuple[Nodes, Edges]:
        layout = self.reading.opened
        nodes, edges, whole = raw_graph(layout, x)
        states = {}
        for group, size in layout.sizes.items():
            # Inputs and outputs are told apart; hidden units of a layer are alike.
            rows = size if group in self.reading.ends else 1
            table = self.param(f"embedding_{_word(group)}", nn.initializers.normal(1.0), (rows, self.nodes))
            state = jnp.broadcast_to(table[None].astype(x.dtype), (len(x), size, self.nodes))
            if group in nodes:
                state = state + nn.Dense(self.nodes, use_bias=False, name=f"node_{_word(group)}")(nodes[group])
            if whole is not None:
                told = nn.Dense(self.nodes, use_bias=False, name=f"whole_{_word(group)}")(whole)
                state = state + told[:, None]
            states[group] = state
        return states, {
            pair: nn.Dense(self.edges, name=f"edge_{_word('+'.join(pair))}")(found) for pair, found in edges.items()
        }


class EdgeUpdate(nn.Module):
    """e + MLP(e, source, target), the same for all edges; without the nodes where `look` is False."""

    width: int
    look: bool

    @nn.compact
    def __call__(self, nodes: Nodes, edges: Edges) -> Edges:
        first, norm = nn.Dense(self.width, name="first"), nn.LayerNorm(name="norm")
        source = nn.Dense(self.width, use_bias=False, name="source")
        target = nn.Dense(self.width, use_bias=False, name="target")
        last = nn.Dense(self.width, name="last")
        found = {}
        for pair, state in edges.items():
            hidden = first(norm(state))
            if self.look:
                hidden = hidden + source(nodes[pair[0]])[:, :, None] + target(nodes[pair[1]])[:, None]
            found[pair] = state + last(nn.silu(hidden))
        return found


class Messages(nn.Module):
    """What arrives at each node: means and maxima over its edges of SiLU(W source + U edge), forwards and backwards."""

    width: int

    @nn.compact
    def __call__(self, nodes: Nodes, edges: Edges) -> dict[str, list[Float[Array, "batch n _"]]]:
        arrived: dict[str, list] = {}
        for way, ends in (("forward", (0, 1)), ("backward", (1, 0))):
            of_node = nn.Dense(self.width, name=f"{way}_node")
            of_edge = nn.Dense(self.width, use_bias=False, name=f"{way}_edge")
            found: dict[str, list] = collections.defaultdict(list)
            for pair, state in edges.items():
                sent = of_node(nodes[pair[ends[0]]])
                sent = nn.silu(of_edge(state) + (sent[:, :, None] if way == "forward" else sent[:, None]))
                axis = 1 if way == "forward" else 2
                found[pair[ends[1]]].append(jnp.concatenate([sent.mean(axis), largest(sent, axis)], -1))
            for group, state in nodes.items():
                none = jnp.zeros((*state.shape[:-1], 2 * self.width), state.dtype)
                many = found.get(group, [none])
                arrived.setdefault(group, []).append(sum(many) / len(many))
        return arrived


class Attention(nn.Module):
    """Attention with a number beside each logit and a vector beside each value."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch n d"], bias: Float[Array, "batch n n h"], beside: Float[Array, "batch n n d"]
    ) -> Float[Array, "batch n d"]:
        size = x.shape[-1] // self.heads
        split = lambda leaf: leaf.reshape((*leaf.shape[:-1], self.heads, size))  # noqa: E731
        q, k, v = (split(nn.Dense(x.shape[-1], name=name)(x)) for name in ("query", "key", "value"))
        logits = jnp.einsum("bihd,bjhd->bijh", q, k) / size**0.5 + bias
        weights = nn.softmax(logits, axis=2)
        found = jnp.einsum("bijh,bjhd->bihd", weights, v) + jnp.einsum("bijh,bijhd->bihd", weights, split(beside))
        return nn.Dense(x.shape[-1], name="out")(found.reshape(x.shape))


class Two(nn.Module):
    """Two dense layers with SiLU between."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch width"]:
        return nn.Dense(self.width, name="last")(nn.silu(nn.Dense(self.width, name="first")(x)))


class Means(nn.Module):
    """Means of nodes by permutation and of edges by pair, which no permutation changes, and a perceptron of them."""

    outputs: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, nodes: Nodes, edges: Edges) -> Float[Array, "batch outputs"]:
        means = [state.mean(1) for state in nodes.values()] + [state.mean((1, 2)) for state in edges.values()]
        x = nn.LayerNorm(name="norm")(jnp.concatenate(means, -1))
        for number, width in enumerate(self.widths):
            x = nn.silu(nn.Dense(width, name=f"dense_{number}")(x))
        return nn.Dense(self.outputs, name="head")(x)


def dense(nodes: Nodes, edges: Edges) -> Float[Array, "batch n n two_d"]:
    """Edges among all nodes, [.., i, j] as i receives from j: those that lead to i, then those that lead from it."""
    batch, width = next(iter(edges.values())).shape[::3]
    dtype = next(iter(edges.values())).dtype
    rows = []
    for to, state in nodes.items():
        row = []
        for source, other in nodes.items():
            none = jnp.zeros((batch, state.shape[1], other.shape[1], width), dtype)
            into = edges[source, to].swapaxes(1, 2) if (source, to) in edges else none
            out = edges.get((to, source), none)
            row.append(jnp.concatenate([into, out], axis=-1))
        rows.append(jnp.concatenate(row, axis=2))
    return jnp.concatenate(rows, axis=1)


def _word(name: str) -> str:
    return name.replace("/", ".")
