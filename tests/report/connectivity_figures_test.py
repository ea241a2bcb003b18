import itertools
import re

import numpy as np
import pytest

from sbjax.metrics.connectivity import Barrier, heights, summarise
from sbjax.report import connectivity_figures as lib
from sbjax.report.figures import to_png

ALPHAS = np.linspace(0, 1, 5)


def found(pairs, seed=0, spoil=()):
    rng = np.random.default_rng(seed)
    loss = rng.uniform(size=(pairs, 5))
    loss[list(spoil), 2] = np.nan
    curves = {"test/loss": loss, "test/accuracy": rng.uniform(size=(pairs, 5))}
    by_name = {
        name: heights(curve, ALPHAS, higher_is_better=name.endswith("accuracy")) for name, curve in curves.items()
    }
    return Barrier(ALPHAS, curves, by_name, np.isfinite(loss[:, [0, -1]]).all(1))


def test_curves_are_medians_and_quartiles_over_pairs():
    arms = {"raw": found(7), "expanded": found(6, seed=1)}
    figure = lib.interpolation_curves(arms)
    assert [panel.get_ylabel() for panel in figure.axes] == ["test loss", "test accuracy (%)"]
    for panel, (name, scale) in zip(figure.axes, (("test/loss", 1), ("test/accuracy", 100)), strict=True):
        assert [line.get_label() for line in panel.lines] == ["raw", "expanded"]
        for line, band, barrier in zip(panel.lines, panel.collections, arms.values(), strict=True):
            values = scale * barrier.curves[name]
            np.testing.assert_array_equal(line.get_xdata(), ALPHAS)
            np.testing.assert_allclose(line.get_ydata(), np.median(values, 0))
            edges = band.get_paths()[0].vertices
            for alpha, column in zip(ALPHAS, values.T):
                ys = edges[edges[:, 0] == alpha, 1]
                np.testing.assert_allclose([ys.min(), ys.max()], np.percentile(column, [25, 75]))
    assert to_png(figure) == to_png(lib.interpolation_curves(arms))


def test_pairs_that_are_not_finite_are_left_out_and_counted():
    spoiled = found(5, spoil=(1, 3))
    panel = lib.interpolation_curves({"raw": spoiled}, ["test/loss"]).axes[0]
    assert panel.lines[0].get_label() == "raw (2 of 5 pairs left out)"
    np.testing.assert_allclose(panel.lines[0].get_ydata(), np.median(spoiled.curves["test/loss"][[0, 2, 4]], 0))
    single = Barrier(ALPHAS, {"test/loss": ALPHAS**2}, {}, np.array(True))
    np.testing.assert_array_equal(lib.interpolation_curves({"one": single}).axes[0].lines[0].get_ydata(), ALPHAS**2)


def test_rows_have_ours_beside_published():
    one, spoiled = found(6), found(5, spoil=(0,))
    summaries = {"standard": summarise(one), "W-asymmetric": summarise(spoiled)}
    published = {"standard": (0.188, 0.12), "W-asymmetric": None}
    header, first, second = lib.barrier_rows(summaries, published)
    assert len(header) == len(first) == len(second)
    values = one.heights["test/loss"]["midpoint_over_mean_of_ends"]
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", first[1] + " " + first[2])]
    expected = [np.median(values), *np.percentile(values, [25, 75]), values.mean(), values.std(ddof=1)]
    np.testing.assert_allclose(numbers, expected, rtol=1e-3)
    assert (first[3], first[5], second[3], second[5]) == ("6", "0.188 +- 0.12", "4, 1 not finite", "-")
    drops = lib.barrier_rows(summaries, {}, name="test/accuracy", kind="maximum_over_chord")
    middle = 100 * np.median(one.heights["test/accuracy"]["maximum_over_chord"])
    assert drops[1][1].startswith(f"{middle:.2f} %")
    nothing = {"raw": summarise(found(1, spoil=(0,)))}
    assert lib.barrier_rows(nothing, {})[1][1:4] == ["-", "-", "0, 1 not finite"]
    with pytest.raises(ValueError, match="'standard' has no 'test/loss/height'"):
        lib.barrier_rows(summaries, published, kind="height")


def test_maps_share_their_colours_and_leave_the_diagonal_blank():
    matrices = {}
    for name, top in (("D0", 4.0), ("D3", 1.0)):
        matrix = np.zeros((3, 3))
        for i, j in itertools.combinations(range(3), 2):
            matrix[i, j] = matrix[j, i] = top / (1 + i + j)
        matrices[name] = matrix
    figure = lib.replica_maps(matrices)
    for panel, (name, matrix) in zip(figure.axes, matrices.items()):
        (image,) = panel.images
        assert panel.get_title() == name
        assert image.get_clim() == (0.0, 2.0)
        shown = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_array_equal(np.isnan(shown), np.eye(3, dtype=bool))
        off = ~np.eye(3, dtype=bool)
        np.testing.assert_array_equal(shown[off], matrix[off])
        assert sorted(text.get_text() for text in panel.texts) == sorted(f"{x:.2g}" for x in matrix[off])
    many = np.ones((9, 9))
    assert not lib.replica_maps({"D0": many}).axes[0].texts


def test_objectives_stand_over_the_range_of_random_ones():
    rng = np.random.default_rng(0)
    layers = {f"dense_{i}": lib.Objective(2.0 + i, 3.0 + i, rng.uniform(size=20)) for i in range(3)}
    figure = lib.matching_objectives({"raw": layers, "expanded": layers})
    assert [panel.get_title() for panel in figure.axes] == ["raw", "expanded"]
    panel = figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    np.testing.assert_array_equal(lines["identity"], [2, 3, 4])
    np.testing.assert_array_equal(lines["optimal"], [3, 4, 5])
    np.testing.assert_allclose(lines["random (range, median)"], [np.median(o.random) for o in layers.values()])
    for bar, objective in zip(panel.patches, layers.values(), strict=True):
        low, high = bar.get_y(), bar.get_y() + bar.get_height()
        np.testing.assert_allclose([low, high], [objective.random.min(), objective.random.max()])
    assert [label.get_text() for label in panel.get_xticklabels()] == list(layers)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: lib.interpolation_curves({}), "arms is empty"),
        (lambda: lib.interpolation_curves({"raw": found(2)}, ["train/loss"]), "'raw' has no 'train/loss'"),
        (lambda: lib.interpolation_curves({"raw": found(1, spoil=(0,))}, ["test/loss"]), "nothing to draw"),
        (lambda: lib.replica_maps({}), "give square ones"),
        (lambda: lib.replica_maps({"D0": np.ones((2, 3))}), "give square ones"),
        (lambda: lib.replica_maps({"D0": np.ones((2, 2)), "D3": np.ones((3, 3))}), "give square ones"),
        (lambda: lib.replica_maps({"D0": np.full((2, 2), np.nan)}), "nothing to draw"),
        (lambda: lib.matching_objectives({}), "at least one arm"),
        (lambda: lib.matching_objectives({"raw": {}}), "at least one layer"),
        (lambda: lib.matching_objectives({"raw": {"a": lib.Objective(1.0, 2.0, [])}}), "'a' has no random"),
    ],
)
def test_refusals(draw, match):
    with pytest.raises(ValueError, match=match):
        draw()
