"""What the report of an equation of state says in numbers: errors with intervals, controls, lattice points."""

from pathlib import Path

import numpy as np

from sbjax.common.files import plain
from sbjax.experiments.qcd.figures import T_C, Curves, draw, load_curves, mean_error
from sbjax.metrics.bootstrap import Estimate
from sbjax.report import controls, statistics, tables
from sbjax.report.controls import Ratio, show
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

PRESSURE, ENERGY, CHOSEN_ON = "test/mae_pressure", "test/mae_energy", "validation/mae_pressure"
AT_POINTS = "lattice/worst_pressure"
ERRORS = {PRESSURE: "P/T^4", ENERGY: "eps/T^4"}
AT = (1.0, 1.25, 1.5, 2.0, 2.5)  # T/T_c of the rows in the table of Fig. 3
WITHIN = 0.01

_NOTE = (
    "Mean absolute errors at temperatures between those of the training: median [quartiles] over the seeds, and the "
    "median ratio to {reference}, paired by seed [95 % interval]. Best report: of each seed, the one with the least "
    "error at temperatures of validation, as the authors of the network keep the best of all epochs."
)
_FIGURE_NOTE = (
    "Mean absolute error over the seeds against the parametrisation [95 % bootstrap interval over seeds], at T/T_c "
    "with T_c = 0.155 GeV: Fig. 3 of arXiv 2409.06402 in numbers. Published beside it: a smaller error of the expanded "
    "network in both panels, as curves without printed numbers."
)
_WORST = "Largest relative error of P over all temperatures, the median over the seeds"
_LATTICE_NOTE = (
    "against the parametrisation that was fitted, and against the points of lattice QCD (HotQCD, arXiv 1407.6387, "
    "every 5 MeV), at the last step and at the best report of each seed; by default the training temperatures are "
    "theirs, so that this says how well lattice QCD is fitted. The parametrisation itself is up to {offset:.2%} from "
    "these points."
)


def report(results: Results, workdir: Path) -> list[Section]:
    """Errors and whether gains survive the controls; with grids, Fig. 3 in numbers, lattice points, and figures.

    Raises:
        ValueError: as `load_curves`.
    """
    errors = [_errors(results), *_survivals(results), *controls.note(results)]
    found = [Section("Errors of the equation of state, and the controls", errors)]
    curves = load_curves(results, workdir)
    if curves:
        fig3, *drawn = draw(results, workdir, curves)
        found += [
            Section("Fig. 3 in numbers", [_figure_table(curves), fig3]),
            Section("Against lattice QCD", [_lattice(results, curves)]),
            Section("Densities, masses and sum rules", drawn),
        ]
    return found


def best_report(results: Results, arm: str, metric: str) -> np.ndarray:
    """A metric of each replica at its report with the least `CHOSEN_ON`, [replica]; NaN where there is none."""
    reports = [r for r in results.reports[arm] if r.step > 0 and CHOSEN_ON in r.values and metric in r.values]
    if not reports:
        return np.full(results.replicas, np.nan)
    chosen = np.stack([np.nan_to_num(r.values[CHOSEN_ON], nan=np.inf) for r in reports]).argmin(0)
    values = np.stack([r.values[metric] for r in reports])[chosen, np.arange(results.replicas)]
    # A replica that stopped has no result, as everywhere.
    return np.where(np.isfinite(reports[-1].values[metric]), values, np.nan)


def worst_pressure(curves: Curves) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Largest relative error of P of each seed against the parametrisation and against the lattice points.

    The last number is the distance of the parametrisation from the points. None where no point lies in the range.
    """
    from sbjax.physics.lattice import HOTQCD_ROWS

    T, known, found = curves.T, curves.reference["P/T^4"], curves.predicted["P/T^4"]
    of_fit = np.max(np.abs(found / known - 1), -1)
    rows = HOTQCD_ROWS[(HOTQCD_ROWS[:, 0] > T[0] - 1e-9) & (HOTQCD_ROWS[:, 0] < T[-1] + 1e-9)]
    if not len(rows):
        return of_fit, None, np.nan
    at, pressure = rows[:, 0], rows[:, 2]
    of_points = [np.max(np.abs(np.interp(at, T, own) / pressure - 1)) for own in found]
    return of_fit, np.array(of_points), float(np.max(np.abs(np.interp(at, T, known) / pressure - 1)))


def _errors(results):
    reference, rows = results.reference, []
    for arm in results.arms:
        cells = [arm]
        for metric in ERRORS:
            described = _describe(controls.final(results, arm).get(metric))
            cells += [described, _over(controls.ratio(results, arm, metric), arm, reference)]
        best = [best_report(results, name, PRESSURE) for name in (reference, arm)]
        rows.append([*cells, _describe(best[1]), _over(controls.paired_ratio(*best), arm, reference)])
    names = [*ERRORS.values(), "P/T^4, best report"]
    headers = ["arm", *(cell for name in names for cell in (name, f"over {reference}"))]
    return Table(headers, rows, notes=[_NOTE.format(reference=reference)])


def _describe(values):
    return tables.NONE if values is None else tables.spread("", plain(statistics.describe(values)._asdict()))


def _over(found: Ratio, arm, reference):
    return tables.NONE if arm == reference else show(found)


def _survivals(results):
    found = []
    for metric, what in ERRORS.items():
        found += controls.survivals(
            results,
            f"Error of {what}",
            lambda arm, other, metric=metric: controls.ratio(results, arm, metric, reference=other),
        )

    def at_best(arm, other):
        return controls.paired_ratio(*(best_report(results, name, PRESSURE) for name in (other, arm)))

    return found + controls.survivals(results, "Error of P/T^4, best report", at_best)


def _figure_table(curves):
    first = next(iter(curves.values()))
    at = [x for x in AT if first.T[0] - 1e-9 <= x * T_C <= first.T[-1] + 1e-9]
    rows = []
    for name in ERRORS.values():
        for arm, found in curves.items():
            numbers = [np.interp(np.array(at) * T_C, found.T, part) for part in mean_error(found, name)]
            cells = [tables.measure(plain(Estimate(*numbers_at)._asdict()), 2) for numbers_at in zip(*numbers)]
            rows.append([name, arm, *cells])
    return Table(["error of", "arm", *(f"T/T_c = {x:g}" for x in at)], rows, notes=[_FIGURE_NOTE])


def _lattice(results, curves):
    # Reported where HotQCD was fitted: other parametrisations are of other lattices.
    compared = any(AT_POINTS in controls.final(results, arm) for arm in curves)
    rows, offset = [], np.nan
    for arm, found in curves.items():
        of_fit, of_points, offset = worst_pressure(found)
        cells = _within(of_fit)
        if compared and of_points is not None:
            cells += _within(of_points) + _within(best_report(results, arm, AT_POINTS))
        rows.append([arm, *cells])
    shown = compared and np.isfinite(offset)
    columns = ["P, parametrisation", *(["P, lattice points", "P, lattice points, best report"] if shown else [])]
    headers = ["arm", *(header for column in columns for header in (column, f"seeds within {WITHIN:.0%}"))]
    text = f"{_WORST}: {_LATTICE_NOTE.format(offset=offset)}" if shown else f"{_WORST}."
    return Table(headers, rows, notes=[text])


def _within(errors):
    """Median and how many are small enough; seeds that stopped, NaN, are not."""
    if np.isnan(errors).all():
        return ["-", "-"]
    return [f"{np.nanmedian(errors):.2%}", f"{np.sum(errors <= WITHIN)} of {len(errors)}"]
