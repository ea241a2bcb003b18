"""Figures of the loss landscape: how pieces of the manifold intersect, counts over widths, losses along paths."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

# Loaded by its first use.
import scipy
from jaxtyping import Float

from sbjax.landscape import counting
from sbjax.landscape.manifold import Graph, Piece, dimension, intersection_graph, signature
from sbjax.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dv"


def intersection_graphs(cases: Sequence[tuple[int, int]] = ((1, 2), (2, 3), (3, 4)), *, din: int = 2) -> "Figure":
    """A panel for each (r, m): a node for each piece of the manifold, an edge where two pieces meet.

    Colour and mark tell the dimension of a piece for one output. Small graphs name their pieces, by the narrow unit
    that each unit copies (1, 2, ..) or the group in which it cancels (a, b, ..).

    Args:
        cases: narrow and wide widths.
        din: inputs.

    Raises:
        ValueError: no case, or as `manifold.intersection_graph`.

    >>> figure = intersection_graphs([(1, 2)])
    >>> figure.axes[0].get_title()
    'r = 1, m = 2: 3 pieces, 1 component'
    """
    if not cases:
        raise ValueError("cases is empty: give one pair (r, m) or more")
    graphs = [intersection_graph(r, m) for r, m in cases]
    with figures.styled():
        figure = figures.new_figure((0.4 + 3.0 * len(cases), 3.2))
        panels = figure.subplots(1, len(cases), squeeze=False)[0]
        for panel, graph, (r, m) in zip(panels, graphs, cases):
            _draw_graph(panel, graph, din)
            components = int(graph.component.max()) + 1
            many = "components" if components > 1 else "component"
            panel.set_title(f"r = {r}, m = {m}: {len(graph.pieces)} pieces, {components} {many}", fontsize=8)
    return figure


def counts_figure(r: int, widest: int) -> "Figure":
    """log10 of the pieces of global minima and of all narrower critical points, by the width of the network.

    Raises:
        ValueError: not 1 < r <= widest, or no integers.

    >>> counts_figure(4, 20).axes[0].get_xlabel()
    'width m'
    """
    if counting.whole("r", r, 1) == 1:
        raise ValueError("r=1 has no narrower critical points: choose r of at least 2")
    found = counting.counts(r, widest)
    with figures.styled():
        figure = figures.new_figure((3.5, 2.7))
        panel = figure.subplots()
        for values, label, colour, dash in (
            (found.minima, f"global minima T({r}, m)", figures.COLOURS[0], figures.DASHES[0]),
            (found.critical, f"critical points, sum of G(s, m), s < {r}", figures.COLOURS[1], figures.DASHES[1]),
        ):
            panel.plot(found.widths, values / np.log(10), color=colour, linestyle=dash, label=label)
        cross = counting.crossing(r)
        if cross <= widest:
            panel.axvline(cross, color="grey", linewidth=0.7, linestyle=":")
        panel.set_xlabel("width m")
        panel.set_ylabel("log10 number of subspaces")
        panel.legend()
    return figure


def path_losses(lines: Mapping[str, Float[np.ndarray, "..."]], *, least: float = 1e-34) -> "Figure":
    """Losses along paths of several segments and along straight lines, by the share of the way, on a logarithmic axis.

    Args:
        lines: by label, [segment, point] or [point] as from `sbjax.landscape.paths`.
        least: where losses of 0 are drawn.

    Raises:
        ValueError: nothing to draw, or a loss that is negative or not finite.

    >>> path_losses({'straight': np.array([0.0, 1.0, 0.0])}).axes[0].get_yscale()
    'log'
    """
    values = {label: np.ravel(line) for label, line in lines.items()}
    if not values or not all(len(line) for line in values.values()):
        raise ValueError(f"lines={list(lines)} has nothing to draw: give one line or more with a loss or more each")
    for label, line in values.items():
        if not np.all(np.isfinite(line) & (line >= 0)):
            raise ValueError(f"line {label!r} has losses that are negative or not finite: leave it out")
    with figures.styled():
        figure = figures.new_figure((3.5, 2.7))
        panel = figure.subplots()
        for (label, line), colour, dash in zip(values.items(), figures.COLOURS, figures.DASHES * 2):
            panel.plot(np.linspace(0, 1, len(line)), np.maximum(line, least), color=colour, linestyle=dash, label=label)
        panel.set_yscale("log")
        panel.set_xlabel("share of the way")
        panel.set_ylabel("loss")
        panel.legend()
    return figure


def name_piece(piece: Piece) -> str:
    """For each unit the narrow unit it copies (1, 2, ..), or the group in which it cancels (a, b, ..).

    >>> name_piece(Piece(((0, 2),), ((1,),)))
    '1a1'
    """
    names = {}
    for t, group in enumerate(piece.copies):
        names |= dict.fromkeys(group, str(t + 1))
    for t, group in enumerate(piece.zeros):
        names |= dict.fromkeys(group, chr(ord("a") + t))
    return "".join(names[unit] for unit in sorted(names))


def layout(graph: Graph, *, steps: int = 200) -> Float[np.ndarray, "piece 2"]:
    """Places of the nodes whose distances come near to those along edges (stress majorisation); components apart.

    Squared errors are weighted by one over the squared distance (Gansner, Koren, North 2004). The same graph always has
    the same layout; it lies in the square [-1, 1].
    """
    n = len(graph.pieces)
    if n == 1:
        return np.zeros((1, 2))
    edges = scipy.sparse.coo_matrix((np.ones(len(graph.edges)), graph.edges.T), shape=(n, n))
    apart = scipy.sparse.csgraph.shortest_path(edges, directed=False, unweighted=True)
    apart[~np.isfinite(apart)] = np.max(apart[np.isfinite(apart)]) + 2
    np.fill_diagonal(apart, 1)
    weights = 1 / apart**2
    np.fill_diagonal(weights, 0)
    inverse = np.linalg.pinv(np.diag(weights.sum(1)) - weights)
    # Classical scaling, shaken a little, for it puts equivalent nodes into one place.
    centring = np.eye(n) - 1 / n
    squares = apart**2 * (1 - np.eye(n))
    values, vectors = np.linalg.eigh(-0.5 * centring @ squares @ centring)
    places = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    places = places + np.random.default_rng(0).normal(scale=0.01, size=(n, 2))
    for _ in range(steps):
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
        pull = weights * apart / np.maximum(gaps, 1e-9)
        places = inverse @ (np.diag(pull.sum(1)) - pull) @ places
    places -= places.mean(0)
    return places / np.abs(places).max()


def _draw_graph(panel: "Axes", graph: Graph, din: int) -> None:
    from matplotlib.collections import LineCollection

    places = layout(graph)
    panel.add_collection(LineCollection(places[graph.edges], colors="grey", linewidths=0.6, alpha=0.6, zorder=1))
    dimensions = np.array([dimension(signature(piece), din) for piece in graph.pieces])
    for i, value in enumerate(np.unique(dimensions)):
        here = places[dimensions == value]
        panel.plot(
            *here.T,
            linestyle="none",
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            color=figures.COLOURS[i % len(figures.COLOURS)],
            label=f"dimension {value}",
            zorder=2,
        )
    if len(places) <= 12:
        for piece, place in zip(graph.pieces, places):
            panel.annotate(name_piece(piece), place, xytext=(4, 4), textcoords="offset points", fontsize=6)
    panel.set_xlim(-1.2, 1.2)
    panel.set_ylim(-1.2, 1.2)
    panel.set_aspect("equal")
    panel.set_axis_off()
    panel.legend(loc="lower center", ncols=3, fontsize=6, handletextpad=0.1, columnspacing=0.8)
