"""Figures of an equation of state against planted errors."""

import numpy as np
import pytest

from sbjax.experiments.qcd import figures as lib
from sbjax.experiments.qcd.report import report
from sbjax.physics import lattice
from sbjax.report import figures
from sbjax.report.results import load_results

NAMES = ("P/T^4", "eps/T^4", "s/T^3", "Delta/T^4", "c_s^2", "m_ud", "m_s", "m_g")
T = np.linspace(0.155, 0.4, 50)
ARMS = {"raw": 1.0, "expanded": np.array([0.1, 0.1, np.nan, 0.1, 0.1, 0.1]), "ones": 1.0}


def offsets(arm):
    """What seed r adds to P/T^4: (r - 2) times 0.01, 0.001, .. by arm."""
    return 10.0 ** -(2 + list(ARMS).index(arm)) * (np.arange(6) - 2.0)


@pytest.fixture
def workdir(write_member):
    """Densities with P/T^4 moved by a constant c: then eps/T^4 moves by 3c and s/T^3 by 4c, and all rules hold."""
    folder = write_member("qcd", kind="equation_of_state", factors=ARMS)
    known = np.stack(lattice.reference("hotqcd_2014", T), -1)
    reference = np.concatenate([known, lattice.reference_masses("hotqcd_2014", T)], -1)
    (folder / "grids").mkdir()
    shape = np.array([1.0, 3.0, 4.0, 0.0, 0.0, 0.5, 0.5, 0.5])
    for arm in ARMS:
        predicted = reference + offsets(arm)[:, None, None] * shape
        names = {"coordinates": np.array(["T"]), "unknowns": np.array(NAMES)}
        np.savez(folder / "grids" / f"{arm}.npz", points=T[:, None], reference=reference, predicted=predicted, **names)
    return folder


def lines(panel):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in panel.lines}


def test_errors_by_temperature_are_those_planted(workdir):
    results = load_results(workdir)
    figure = lib.error_by_temperature(results, lib.load_curves(results, workdir))
    for panel, factor in zip(figure.axes, (1, 3), strict=True):
        assert panel.get_yscale() == "log"
        assert list(lines(panel)) == list(ARMS)
        np.testing.assert_allclose(panel.lines[0].get_xdata(), T / 0.155)
        for arm, found in lines(panel).items():
            # The replica that stopped is left out.
            own = np.delete(offsets(arm), 2) if arm == "expanded" else offsets(arm)
            np.testing.assert_allclose(found, factor * np.abs(own).mean(), rtol=1e-9)


def test_densities_and_masses_have_medians_quartiles_and_references(workdir):
    results = load_results(workdir)
    curves = lib.load_curves(results, workdir)
    figure = lib.equation_of_state(results, curves)
    panel = next(panel for panel in figure.axes if panel.get_ylabel() == r"$s/T^3$")
    found = lines(panel)
    assert list(found) == ["reference", *ARMS, "lattice QCD"]
    np.testing.assert_allclose(found["lattice QCD"], lattice.HOTQCD_ROWS[6::2, 4])
    np.testing.assert_allclose(found["raw"] - found["reference"], 4 * np.median(offsets("raw")), atol=1e-12)
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    q1, q3 = (found["reference"][0] + 4 * np.quantile(offsets("raw"), q) for q in (0.25, 0.75))
    assert np.isclose(band, q1).any()
    assert np.isclose(band, q3).any()
    masses = lib.masses(results, curves)
    assert len(masses.axes) == 3
    tied = lattice.reference_masses("hotqcd_2014", T)
    for panel, mass in zip(masses.axes, tied.T, strict=True):
        np.testing.assert_allclose(lines(panel)["reference"], mass)


def test_sum_rules_hold_where_they_do_and_fail_where_not(workdir):
    results = load_results(workdir)
    curves = lib.load_curves(results, workdir)["raw"]
    slope, enthalpy = lib.sum_rule_deviations(curves)
    assert slope[:, 3:-3].max() < 1e-4  # of a spline through points 5 MeV apart
    assert enthalpy.max() < 1e-12
    wrong = curves._replace(predicted=curves.predicted | {"s/T^3": 1.01 * curves.predicted["s/T^3"]})
    slope, enthalpy = lib.sum_rule_deviations(wrong)
    np.testing.assert_allclose(slope[:, 3:-3], 1 - 1 / 1.01, atol=1e-4)
    np.testing.assert_allclose(enthalpy, 1 - 1 / 1.01, rtol=1e-9)


def test_the_report_has_the_figures_with_captions(workdir):
    drawn = {figure.name: figure for section in report(load_results(workdir), workdir) for figure in section.figures}
    assert drawn.keys() == lib.CAPTIONS.keys()
    for name, figure in drawn.items():
        assert (workdir / "figures" / f"{name}.png").read_bytes() == figure.png
        assert figure.caption == lib.CAPTIONS[name]


def test_broken_grids_are_named(workdir):
    results = load_results(workdir)
    names = np.array(["u"])
    np.savez(workdir / "grids" / "raw.npz", points=T[:, None], reference=T, predicted=np.zeros((6, 50)), unknowns=names)
    with pytest.raises(ValueError, match=r"raw\.npz cannot be used .*coordinates"):
        lib.load_curves(results, workdir)
    (workdir / "grids" / "raw.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"raw\.npz cannot be used \(it is no \.npz"):
        report(results, workdir)
    (workdir / "grids" / "raw.npz").unlink()
    assert list(lib.load_curves(results, workdir)) == ["expanded", "ones"]
    figures.to_png(lib.masses(results, lib.load_curves(results, workdir)))
