import itertools
import re

import numpy as np
import pytest

from sbjax.experiments.connectivity import figures as lib
from sbjax.metrics.connectivity import Barrier, heights, summarise
from sbjax.report.figures import to_png

ALPHAS = np.linspace(0, 1, 5)
SQUARE = np.ones((2, 2))


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
    assert header[4:] == ["ends: loss", "ends: accuracy", "published"]
    assert (first[3], first[-1], second[3], second[-1]) == ("6", "0.188 +- 0.12", "4, 1 not finite", "-")
    ends = one.curves["test/accuracy"][:, [0, -1]].mean(1)
    assert first[5] == f"{100 * np.median(ends):.2f} %"
    drops = lib.barrier_rows(summaries, {}, name="test/accuracy", kind="maximum_over_chord")
    assert drops[0][4:] == ["ends: accuracy", "published"]
    middle = 100 * np.median(one.heights["test/accuracy"]["maximum_over_chord"])
    assert drops[1][1].startswith(f"{middle:.2f} %")
    nothing = {"raw": summarise(found(1, spoil=(0,)))}
    assert lib.barrier_rows(nothing, {})[1][1:4] == ["-", "-", "0, 1 not finite"]
    with pytest.raises(ValueError, match="'standard' has no 'test/loss/height'"):
        lib.barrier_rows(summaries, published, kind="height")


def test_maps_of_an_arm_share_their_colours_and_leave_the_diagonal_blank():
    arms = {}
    for arm, size in (("raw", 1.0), ("expanded", 10.0), ("narrow", 1.0)):
        arms[arm] = {}
        for kind, top in (("D0", 4.0), ("D3", 1.0)):
            matrix = np.zeros((3, 3))
            for i, j in itertools.combinations(range(3), 2):
                matrix[i, j] = matrix[j, i] = size * top / (1 + i + j)
            arms[arm][kind] = matrix
    figure = lib.replica_maps(arms)
    panels = [panel for panel in figure.axes if panel.images and panel.get_title()]
    assert [panel.get_title() for panel in panels] == [f"{arm}: {kind}" for arm in arms for kind in ("D0", "D3")]
    # Two arms a row, and the third one's panels below those of the first.
    lefts = [round(panel.get_position().x0, 3) for panel in panels]
    assert lefts[:2] == lefts[4:]
    assert panels[4].get_position().y1 < panels[0].get_position().y0
    for panel, matrix in zip(panels, (m for kinds in arms.values() for m in kinds.values()), strict=True):
        (image,) = panel.images
        assert image.get_clim() == (0.0, 20.0 if "expanded" in panel.get_title() else 2.0)
        shown = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_array_equal(np.isnan(shown), np.eye(3, dtype=bool))
        off = ~np.eye(3, dtype=bool)
        np.testing.assert_array_equal(shown[off], matrix[off])
        assert sorted(text.get_text() for text in panel.texts) == sorted(f"{x:.2g}" for x in matrix[off])
    many = np.ones((9, 9))
    assert not lib.replica_maps({"raw": {"D0": many}}).axes[0].texts


def test_objectives_stand_over_the_range_of_random_ones():
    rng = np.random.default_rng(0)
    layers = {f"dense_{i}/kernel": lib.Objective(2.0 + i, 3.0 + i, rng.uniform(size=20)) for i in range(3)}
    low = {"dense_0/kernel": lib.Objective(-4.0, 1.0, [0.0, 1.0])}
    figure = lib.matching_objectives({"raw": layers, "expanded": layers, "low": low})
    assert [panel.get_title() for panel in figure.axes] == ["raw", "expanded", "low"]
    assert len({panel.get_ylim() for panel in figure.axes}) == 1
    assert figure.axes[0].get_ylim()[0] < -4
    panel = figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    np.testing.assert_array_equal(lines["identity"], [2, 3, 4])
    np.testing.assert_array_equal(lines["optimal"], [3, 4, 5])
    np.testing.assert_allclose(lines["random (range, median)"], [np.median(o.random) for o in layers.values()])
    for bar, objective in zip(panel.patches, layers.values(), strict=True):
        low, high = bar.get_y(), bar.get_y() + bar.get_height()
        np.testing.assert_allclose([low, high], [objective.random.min(), objective.random.max()])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["dense_0", "dense_1", "dense_2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)


def test_many_arms_of_many_layers_stay_within_a_page():
    layers = {f"stage_0_block_{i}/conv_0/kernel": lib.Objective(0.0, 1.0, [0.0, 0.1]) for i in range(21)}
    figure = lib.matching_objectives({f"arm_{i}": layers for i in range(5)})
    assert figure.get_figwidth() < 13
    tops = [round(panel.get_position().y0, 3) for panel in figure.axes]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == [4, 1]
    # The names of 21 layers, a line apart, do not run into one another.
    panel = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in panel.get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: lib.interpolation_curves({}), "arms is empty"),
        (lambda: lib.interpolation_curves({"raw": found(2)}, ["train/loss"]), "'raw' has no 'train/loss'"),
        (lambda: lib.interpolation_curves({"raw": found(1, spoil=(0,))}, ["test/loss"]), "nothing to draw"),
        (lambda: lib.replica_maps({}), "at least one arm"),
        (lambda: lib.replica_maps({"raw": {}}), "at least one arm"),
        (lambda: lib.replica_maps({"raw": {"D0": SQUARE}, "w": {"D3": SQUARE}}), "all the same kinds"),
        (lambda: lib.replica_maps({"raw": {"D0": np.ones((2, 3))}}), "arm 'raw': .* give square ones"),
        (lambda: lib.replica_maps({"raw": {"D0": SQUARE, "D3": np.ones((3, 3))}}), "give square ones"),
        (lambda: lib.replica_maps({"raw": {"D0": SQUARE * np.nan}}), "nothing to draw"),
        (lambda: lib.matching_objectives({}), "at least one arm"),
        (lambda: lib.matching_objectives({"raw": {}}), "at least one layer"),
        (lambda: lib.matching_objectives({"raw": {"a": lib.Objective(1.0, 2.0, [])}}), "'a' has no random"),
    ],
)
def test_refusals(draw, match):
    with pytest.raises(ValueError, match=match):
        draw()


def test_a_re_based_arm_has_the_colour_of_its_own_dotted():
    names = [f"arm_{i}" for i in range(8)]
    arms = {arm: found(2) for name in names for arm in (name, name + lib.REBASED)}
    lines = {line.get_label(): line for line in lib.interpolation_curves(arms, ["test/loss"]).axes[0].lines}
    styles = {arm: (line.get_color(), line.get_linestyle()) for arm, line in lines.items()}
    assert len({styles[name] for name in names}) == 8
    for name in names:
        assert styles[name + lib.REBASED] == (styles[name][0], ":")
        assert styles[name][1] != ":"
