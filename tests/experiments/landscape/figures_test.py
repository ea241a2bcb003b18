"""What is drawn is what was counted."""

import numpy as np
import pytest
import scipy

from sbjax.experiments.landscape import figures as lib
from sbjax.landscape import counting
from sbjax.landscape.manifold import Piece, intersection_graph
from sbjax.report import figures


def test_intersection_graphs():
    figure = lib.intersection_graphs()
    assert [panel.get_title() for panel in figure.axes] == [
        "r = 1, m = 2: 3 pieces, 1 component",
        "r = 2, m = 3: 12 pieces, 1 component",
        "r = 3, m = 4: 60 pieces, 1 component",
    ]
    for panel, nodes, edges in zip(figure.axes, (3, 12, 60), (2, 12, 72)):
        assert sum(len(line.get_xdata()) for line in panel.lines) == nodes
        assert len(panel.collections[0].get_segments()) == edges
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(labels) == ["11", "1a", "a1"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["dimension 1", "dimension 2"]
    assert not figure.axes[2].texts
    assert figures.to_png(figure).startswith(b"\x89PNG")


def test_components_are_counted():
    assert lib.intersection_graphs([(2, 2)]).axes[0].get_title() == "r = 2, m = 2: 2 pieces, 2 components"
    figures.to_png(lib.intersection_graphs([(1, 1)]))


def test_layout():
    """The chain of three is straight and even; in larger graphs neighbours are nearer than others."""
    chain = intersection_graph(1, 2)
    places = lib.layout(chain)
    middle = int(np.flatnonzero(np.bincount(chain.edges.ravel()) == 2)[0])
    ends = [i for i in range(3) if i != middle]
    np.testing.assert_allclose(places[middle], places[ends].mean(0), atol=0.05)
    assert np.linalg.norm(places[ends[0]] - places[ends[1]]) > 1.9
    graph = intersection_graph(2, 3)
    places = lib.layout(graph)
    assert np.abs(places).max() == pytest.approx(1)
    gaps = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(places))
    assert gaps[tuple(graph.edges.T)].max() < np.median(gaps[np.triu_indices(12, 1)])
    np.testing.assert_array_equal(places, lib.layout(graph))


def test_counts():
    found = {"r = 4": counting.counts(4, 12), "r = 8": counting.counts(8, 10)}
    panel, narrow = lib.counts_figure(found).axes
    minima, critical, crossing = panel.lines
    np.testing.assert_allclose(10 ** minima.get_ydata(), [counting.T(4, m) for m in range(4, 13)], rtol=1e-9)
    narrower = [sum(counting.G(s, m) for s in (1, 2, 3)) for m in range(4, 13)]
    np.testing.assert_allclose(10 ** critical.get_ydata(), narrower, rtol=1e-9)
    assert crossing.get_xdata()[0] == counting.crossing(4) == 5
    assert len(narrow.lines) == 2  # the crossing lies beyond


def test_losses_along_paths():
    panel = lib.path_losses({"path": np.zeros((2, 3)), "straight": np.array([0.0, 0.3, 1e-3])}).axes[0]
    assert panel.get_yscale() == "log"
    path, straight = panel.lines
    np.testing.assert_array_equal(path.get_ydata(), [1e-34] * 6)
    np.testing.assert_array_equal(straight.get_ydata(), [1e-34, 0.3, 1e-3])
    np.testing.assert_allclose(straight.get_xdata(), [0, 0.5, 1])


def test_names_of_pieces():
    assert lib.name_piece(Piece(((1,), (0, 4)), ((2,), (3, 5)))) == "21ab2b"


INVALID = [
    (lambda: lib.intersection_graphs([]), "cases is empty"),
    (lambda: lib.intersection_graphs([(3, 2)]), "r=3 > m=2"),
    (lambda: lib.counts_figure({"r = 1": counting.counts(1, 4)}), "'r = 1' has no narrower"),
    (lambda: lib.counts_figure({}), "panels is empty"),
    (lambda: lib.path_losses({}), "nothing to draw"),
    (lambda: lib.path_losses({"bad": np.array([np.nan])}), "'bad' has losses"),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
