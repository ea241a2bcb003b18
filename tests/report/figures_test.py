import sys

import matplotlib
import numpy as np
import pytest

from sbjax.report import figures as lib
from sbjax.report.results import load_results

DRAW = (lib.accuracy_curves, lib.loss_curves, lib.paired_dots)


@pytest.fixture
def results(write_run):
    return load_results(write_run())


def test_curves_show_medians_and_quartiles(results):
    panel = lib.accuracy_curves(results).axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "test accuracy (%)")
    assert [line.get_label() for line in panel.lines] == list(results.arms)
    for line, band, arm in zip(panel.lines, panel.collections, results.arms, strict=True):
        values = [100 * report.values["test/accuracy"] for report in results.reports[arm]]
        np.testing.assert_allclose(line.get_xdata(), [report.epoch for report in results.reports[arm]])
        np.testing.assert_allclose(line.get_ydata(), [np.nanmedian(v) for v in values], rtol=1e-12)
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.min() == pytest.approx(min(np.nanquantile(v, 0.25) for v in values))
        assert edges.max() == pytest.approx(max(np.nanquantile(v, 0.75) for v in values))
        later = band.get_paths()[0].vertices[band.get_paths()[0].vertices[:, 0] > 0, 1]
        assert panel.get_ylim()[0] < later.min() < later.max() < panel.get_ylim()[1]


def test_bands_are_within_the_picture_and_the_start_is_not(results):
    reports = {}
    for arm, (first, *rest) in results.reports.items():
        for i, report in enumerate(rest):
            report.values["test/accuracy"][:] = 0.01 * i + np.linspace(0.2, 0.9, len(report.values["test/accuracy"]))
        first.values["test/accuracy"][:] = 0.01
        reports[arm] = (first._replace(epoch=0.0, step=0), *rest)
    panel = lib.accuracy_curves(results._replace(reports=reports)).axes[0]
    low, high = panel.get_ylim()
    edges = np.concatenate([band.get_paths()[0].vertices for band in panel.collections])
    later = edges[edges[:, 0] > 0, 1]
    assert len(later)
    assert low < later.min() < later.max() < high
    assert later.max() - later.min() > 30
    assert low > 1


def test_steps_where_an_epoch_is_missing(results):
    first, *rest = results.reports["raw"]
    results = results._replace(reports=results.reports | {"raw": (first._replace(epoch=None), *rest)})
    panel = lib.accuracy_curves(results).axes[0]
    assert panel.get_xlabel() == "step"
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), [100, 200, 300, 400])


@pytest.mark.parametrize("names", [("raw", "expanded", "nearest"), ("raw", "expanded_mean_fill", "nearest_neighbours")])
def test_the_legend_stays_within_the_figure(results, names):
    reports = dict(zip(names, results.reports.values(), strict=True))
    figure = lib.accuracy_curves(results._replace(arms=names, reports=reports))
    lib.to_png(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_losses_have_a_panel_each_and_a_log_axis_when_they_span_a_decade(results):
    figure = lib.loss_curves(results)
    assert [panel.get_ylabel() for panel in figure.axes] == ["train loss", "test loss"]
    assert {panel.get_yscale() for panel in figure.axes} == {"log"}
    last = {arm: reports[-1:] for arm, reports in results.reports.items()}
    assert lib.loss_curves(results._replace(reports=last)).axes[0].get_yscale() == "linear"
    for report in last["raw"]:
        report.values["test/loss"][:] = -1.0
    assert lib.loss_curves(results).axes[0].get_yscale() == "linear"


def test_paired_dots_have_a_line_a_seed_and_a_panel_a_comparison(results):
    figure = lib.paired_dots(results)
    last = {arm: 100 * reports[-1].values["test/accuracy"] for arm, reports in results.reports.items()}
    for panel, arm in zip(figure.axes, ("expanded", "nearest"), strict=True):
        both = np.isfinite(last[arm])
        thin = [line.get_ydata() for line in panel.lines if line.get_zorder() == 1]
        np.testing.assert_allclose(np.array(thin), np.stack([last["raw"][both], last[arm][both]], 1), rtol=1e-12)
        bars = [line.get_ydata()[0] for line in panel.lines if line.get_zorder() == 3]
        np.testing.assert_allclose(bars, [np.median(last["raw"][both]), np.median(last[arm][both])], rtol=1e-12)
        assert [tick.get_text() for tick in panel.get_xticklabels()] == ["raw", arm]


def test_files_are_the_same_bytes_whatever_the_user_has_set(results, tmp_path):
    one = lib.draw_all(results, tmp_path / "one")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.facecolor": "red"}):
        two = lib.draw_all(results, tmp_path / "two")
    assert one == two
    assert [figure.name for figure in one] == ["accuracy_curves", "paired_dots", "loss_curves"]
    for figure in one:
        assert (tmp_path / "one" / "figures" / f"{figure.name}.png").read_bytes() == figure.png
        assert figure.png.startswith(b"\x89PNG")
        assert b"tEXt" not in figure.png
        assert len(figure.png) > 5000
        assert figure.panels
    dots = one[1].panels[0]
    assert dots.alt.startswith(
        "expanded ends higher than raw in 8 of 8 seeds; medians of test accuracy (%): expanded 85."
    )


def test_what_has_no_numbers_is_not_drawn(results, tmp_path):
    empty = results._replace(reports=dict.fromkeys(results.arms, ()))
    assert lib.draw_all(empty, tmp_path) == []
    for draw in DRAW:
        with pytest.raises(ValueError, match="nothing to draw"):
            draw(empty)
    alone = results._replace(arms=("raw",), reports={"raw": results.reports["raw"]})
    assert [figure.name for figure in lib.draw_all(alone, tmp_path)] == ["accuracy_curves", "loss_curves"]


def test_pyplot_is_left_alone(results):
    before = "matplotlib.pyplot" in sys.modules
    lib.to_png(lib.accuracy_curves(results))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_what_is_no_formula_is_shown_as_it_is():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 10], [1, 100], label=r"$\frac{$")
    axes.set(xscale="log", title=r"$x^2$", ylabel="$")
    axes.legend()
    assert lib.to_png(figure).startswith(b"\x89PNG")
    assert axes.title.get_parse_math()
    assert not axes.get_legend().get_texts()[0].get_parse_math()
