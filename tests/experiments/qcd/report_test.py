"""Tables of an equation of state against planted errors."""

import json

import numpy as np
import pytest

from sbjax.experiments.qcd import report as qcd_section
from sbjax.experiments.qcd.figures import Curves, load_curves, mean_error
from sbjax.physics import lattice
from sbjax.report.results import load_results, save_arms

T = np.linspace(0.155, 0.4, 246)
NAMES = ("P/T^4", "eps/T^4", "s/T^3", "Delta/T^4", "c_s^2", "m_ud", "m_s", "m_g")
FACTORS = {"raw": 1.0, "expanded": 0.5, "matched_bias": 0.5, "widened": 1.0}
ABOUT = {
    "matched_bias": {"role": "control of bias", "labels": {"treatment": "expanded", "about": "the same bias"}},
    "widened": {"role": "control of size", "labels": {"treatment": "expanded"}},
}
SEEDS = 8
REPORTS = 4


def errors_of(arm, report):
    """Of P/T^4 at a report: at the third of four a tenth of the last one's."""
    noise = np.exp(0.05 * np.random.default_rng(list(FACTORS).index(arm)).normal(size=SEEDS))
    return 1e-2 * FACTORS[arm] * noise * (0.1 if report == 3 else 1.0)


@pytest.fixture
def workdir(tmp_path):
    lines = []
    for arm in FACTORS:
        for report in range(REPORTS + 1):
            mae = errors_of(arm, report)
            numbers = {"test/mae_pressure": mae, "test/mae_energy": 3 * mae, "validation/mae_pressure": 1.1 * mae}
            numbers["lattice/worst_pressure"] = 5 * mae
            listed = {name: values.tolist() for name, values in numbers.items()}
            lines.append({"arm": arm, "step": 10 * report, "flops": 10.0 * report, **listed})
    save_arms(
        tmp_path, arms=tuple(FACTORS), reference="raw", primary="test/mae_pressure", goal="min",
        parameters=dict.fromkeys(FACTORS, 1), flops_per_step=dict.fromkeys(FACTORS, 1.0),
        steps=dict.fromkeys(FACTORS, 40), failures=[], about=ABOUT,
    )  # fmt: skip
    config = {"task": {"kind": "equation_of_state", "parametrisation": "hotqcd_2014"}}
    (tmp_path / "config.json").write_text(json.dumps({"config": config, "environment": {}, "overrides": []}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = np.stack(lattice.reference("hotqcd_2014", T), -1)
    reference = np.concatenate([known, np.ones((len(T), 3))], -1)
    (tmp_path / "grids").mkdir()
    for arm in FACTORS:
        predicted = reference * (1 + errors_of(arm, REPORTS)[:, None, None])
        names = {"coordinates": np.array(["T"]), "unknowns": np.array(NAMES)}
        np.savez(
            tmp_path / "grids" / f"{arm}.npz", points=T[:, None], reference=reference, predicted=predicted, **names
        )
    return tmp_path


def test_the_text_says_whether_the_gain_survives(workdir):
    results = load_results(workdir)
    errors, _, lattice_section, drawn = qcd_section.report(results, workdir)
    said = " ".join(errors.texts)
    assert "Error of P/T^4: expanded / raw 0." in said
    assert said.count("It does not survive matched_bias") == 3
    assert said.count("It survives widened") == 3
    assert errors.parts[-1].text.endswith("matched_bias: the same bias.")
    (table,) = lattice_section.tables
    # Tested by itself below.
    assert "up to 0.72% from these points" in table.notes[0]
    for arm, row in zip(FACTORS, table.rows, strict=True):  # 5 times the error, at the best report a tenth of it
        assert row[0] == arm
        assert row[-2:] == (f"{np.median(5 * errors_of(arm, 3)):.2%}", f"{SEEDS} of {SEEDS}")
    assert len(drawn.figures) == 3
    # One arm, no grid: still a table.
    (workdir / "grids" / "raw.npz").unlink()
    (alone,) = qcd_section.report(results._replace(arms=("raw",)), workdir)
    assert len(alone.parts) == 1


@pytest.mark.extended
def test_other_lattices_are_not_compared_with_the_points(workdir):
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if "lattice" not in k}) + "\n" for r in lines))
    (table,) = qcd_section.report(load_results(workdir), workdir)[2].tables
    assert table.headers == ("arm", "P, parametrisation", "seeds within 1%")
    assert table.notes[0].endswith("the median over the seeds.")


def test_best_reports_are_chosen_on_validation(workdir):
    results = load_results(workdir)
    found = qcd_section.best_report(results, "expanded", "test/mae_energy")
    np.testing.assert_allclose(found, 3 * errors_of("expanded", 3), rtol=1e-12)


def test_distances_from_the_fit_and_from_the_points(workdir):
    curves = load_curves(load_results(workdir), workdir)["raw"]
    of_fit, of_points, offset = qcd_section.worst_pressure(curves)
    np.testing.assert_allclose(of_fit, errors_of("raw", REPORTS), rtol=1e-9)
    rows = lattice.HOTQCD_ROWS[5:]
    fit = lattice.reference("hotqcd_2014", rows[:, 0]).pressure / rows[:, 2]
    assert offset == pytest.approx(np.abs(fit - 1).max(), rel=1e-6)
    expected = [np.abs(fit * (1 + e) - 1).max() for e in errors_of("raw", REPORTS)]
    np.testing.assert_allclose(of_points, expected, rtol=1e-5)


def test_interval_of_the_mean_error():
    """Against the normal law's: 60 seeds of exponential errors."""
    drawn = np.random.default_rng(0).exponential(size=(60, 40))
    curves = Curves(np.arange(40.0), {"P/T^4": np.zeros(40)}, {"P/T^4": drawn})
    mean, low, high = mean_error(curves, "P/T^4")
    np.testing.assert_allclose(mean, drawn.mean(0), rtol=1e-12)
    half = 2.0 * drawn.std(0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose((high - low) / 2, half, rtol=0.12)
    assert np.isnan(mean_error(curves._replace(predicted={"P/T^4": drawn[:3]}), "P/T^4")[1]).all()
