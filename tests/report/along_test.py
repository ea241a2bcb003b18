"""Curves and ratios of numbers of each network, against what was planted."""

import numpy as np
import pytest

from sbjax.report import along as lib
from sbjax.report import figures
from sbjax.report.ratios import ratio
from sbjax.report.results import load_results

FACTORS = {"raw": 1.0, "expanded": 0.5, "nearest": 2.0}


@pytest.fixture
def results(write_run):
    """Sharpness that triples at the second report and falls to a half at the last one, twice as fast in seed 1."""
    found = load_results(write_run())
    for arm, factor in FACTORS.items():
        reports = found.reports[arm]
        for growth, report in zip((1.0, 3.0, None, 0.5), reports, strict=True):
            if growth is not None:
                report.values["train/sharpness"] = factor * growth * np.arange(1.0, 1 + found.replicas)
                report.values["symmetry/pair"] = np.full(found.replicas, 0.1)
    return found


def test_rows(results):
    rows = lib.rows(results)
    assert [(row["number"], row["arm"]) for row in rows] == [
        (number, arm) for number in ("sharpness", "nearest two units") for arm in FACTORS
    ]
    seeds = np.arange(1.0, 1 + results.replicas)
    for row in rows[:3]:
        factor = FACTORS[row["arm"]]
        assert row["first"]["value"] == pytest.approx(factor * np.median(seeds))
        assert row["last"]["low"] == pytest.approx(0.5 * factor * np.quantile(seeds, 0.25))
        assert row["growth"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
        if row["arm"] != "raw":
            assert row["over"]["value"] == row["along"]["value"] == pytest.approx(factor)
    assert "over" not in rows[0]
    assert rows[3]["growth"]["value"] == 1


def test_along_training_is_a_geometric_mean_without_the_start(results):
    for report, factor in zip(results.reports["nearest"], (100.0, 2.0, 1.0, 8.0), strict=True):
        if "train/sharpness" in report.values:
            report.values["train/sharpness"] *= factor
    row = next(row for row in lib.rows(results) if (row["number"], row["arm"]) == ("sharpness", "nearest"))
    assert row["along"]["value"] == pytest.approx(2 * np.sqrt(2 * 8), rel=1e-4)


def test_ratios_leave_out_what_is_not_positive():
    assert ratio([1, 1, 1, 1, 1, 0, 1], [2, 2, 2, 2, 2, 1, np.nan])["value"] == 2
    assert ratio([1, 0], [0, 1]) is None
    a, b = np.arange(1.0, 9), np.arange(1.0, 9) ** 1.5
    assert ratio(a, b)["value"] == pytest.approx(np.exp(np.median(np.log(b / a))), rel=1e-4)
    assert ratio(a, b)["low"] < ratio(a, b)["value"] < ratio(a, b)["high"]


def test_curves(results, tmp_path):
    drawn = lib.draw(results, tmp_path)
    assert [figure.name for figure in drawn] == ["sharpness_curves", "breaking_curves"]
    assert all((tmp_path / "figures" / f"{figure.name}.png").exists() for figure in drawn)
    figure = lib._curves(results, ["train/sharpness", "symmetry/pair"])
    assert [panel.get_yscale() for panel in figure.axes] == ["log", "linear"]
    line = figure.axes[0].lines[0]
    assert len(line.get_xdata()) == 3
    np.testing.assert_allclose(line.get_ydata(), np.median(np.arange(1.0, 1 + results.replicas)) * np.r_[1, 3, 0.5])
    figures.to_png(figure)


def test_nothing_without_numbers(write_run, tmp_path):
    results = load_results(write_run())
    assert lib.draw(results, tmp_path) == []
    assert lib.section(results).parts == ()


def test_the_section_has_a_row_each(results):
    table = lib.section(results).parts[0]
    assert len(table.rows) == 6
    assert "lower bound" in table.notes[0]
