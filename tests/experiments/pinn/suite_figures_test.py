"""Split violins: what is drawn is what is there, whatever is there."""

import numpy as np
import pytest
import scipy.stats

from sbjax.experiments.pinn import suite_figures as lib
from sbjax.experiments.pinn.suite_members import panels
from sbjax.report import figures
from sbjax.report.suite import load_members

NAMES = ("poisson", "euler_beam", "heat", "burgers")
SIDES = {"sides": ("raw", "expanded"), "normalise": True}


@pytest.fixture
def members(write_member, tmp_path):
    for name in NAMES:
        write_member(name, equation=name)
    return load_members(tmp_path, NAMES)


def test_points_medians_and_halves(members):
    figure = lib.violins(members, panels(members), "train/loss", **SIDES)
    assert [panel.get_title() for panel in figure.axes] == ["stationary", "linear", "nonlinear"]
    assert {panel.get_yscale() for panel in figure.axes} == {"log"}
    panel = figure.axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["poisson", "euler_beam"]
    points = [line for line in panel.lines if line.get_marker() == "o"]
    bars = [line for line in panel.lines if line.get_marker() != "o"]
    for place, name in enumerate(("poisson", "euler_beam")):
        results = next(member.results for member in members if member.name == name)
        last = {arm: results.reports[arm][-1].values["train/loss"] for arm in results.arms}
        largest = max(values.max() for values in last.values())
        for side, arm in ((0, "raw"), (1, "expanded")):
            drawn, bar = points[2 * place + side], bars[2 * place + side]
            np.testing.assert_allclose(drawn.get_ydata(), last[arm] / largest, rtol=1e-12)
            assert np.all((drawn.get_xdata() < place) == (side == 0))
            assert bar.get_ydata()[0] == pytest.approx(np.median(last[arm]) / largest)
    halves = [half.get_paths()[0].vertices[:, 0] for half in panel.collections]
    for half, (low, high) in zip(halves, [(-0.4, 0), (0, 0.4), (0.6, 1), (1, 1.4)], strict=True):
        assert (half.min(), half.max()) == pytest.approx((low, high))
    figures.to_png(figure)


def test_density_is_scipys():
    values = np.random.default_rng(0).normal(size=20)
    heights, found = lib.density(values)
    assert (heights[0], heights[-1], found.max()) == (values.min(), values.max(), 1.0)
    expected = scipy.stats.gaussian_kde(values)(heights)
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-12)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 8, [0.0] * 4, [1.0, 1.0, 1.0 + 1e-12]])
def test_nothing_to_smooth(values):
    assert lib.density(np.array(values)) is None


def test_a_linear_axis_within_a_decade(write_member, tmp_path):
    write_member("heat", factors={"raw": 1.0, "expanded": 1.1}, replicas=1)
    members = load_members(tmp_path, ["heat"])
    figure = lib.violins(members, panels(members), "test/l2", sides=("raw", "expanded"), normalise=False)
    assert figure.axes[0].get_yscale() == "linear"
    figures.to_png(figure)


@pytest.mark.parametrize("replicas", [1, 2, 6])
def test_stopped_identical_missing_and_zero(write_member, tmp_path, replicas):
    spread = 10 ** (0.3 * np.random.default_rng(2).normal(size=30))[:replicas]
    some = np.where(np.arange(replicas) > 0, 0.1, np.nan)
    for name, factors in {
        "poisson": {"raw": 1 / spread, "expanded": 1 / spread},
        "heat": {"raw": 1.0, "expanded": some},
        "wave": {"raw": 1.0, "expanded": np.nan},
        "burgers": {"raw": 1.0},
        "kdv": {"raw": 0.0, "expanded": 1.0},
    }.items():
        write_member(name, equation=name, factors=factors, replicas=replicas)
    members = load_members(tmp_path, ["poisson", "heat", "wave", "burgers", "kdv", "advection"])
    figure = lib.violins(members, panels(members), "train/loss", **SIDES)
    figures.to_png(figure)
    marks = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    # wave's expanded stopped, advection has no run, burgers lacks an arm, a zero has no logarithm.
    # One seed: all others are the largest of their equation, and the axis is linear.
    assert marks == [[], ["none"] * (3 + (replicas == 1)), ["none"] * (1 + (replicas > 1))]


def test_nothing_at_all(tmp_path):
    with pytest.raises(ValueError, match="no run has a finite train/loss of raw or expanded"):
        lib.violins(load_members(tmp_path, ["heat"]), {"heat": "linear"}, "train/loss", **SIDES)
