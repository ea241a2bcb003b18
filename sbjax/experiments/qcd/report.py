"""What the report of an equation of state says in numbers: errors with intervals, controls, lattice points."""

from pathlib import Path

import numpy as np

from sbjax.experiments.qcd.figures import T_C, Curves, is_equation_of_state, load_curves, mean_error
from sbjax.metrics.bootstrap import Estimate
from sbjax.report import controls, statistics, tables
from sbjax.report.controls import Ratio, show
from sbjax.report.markup import note, table, tag
from sbjax.report.results import Results

PRESSURE, ENERGY, CHOSEN_ON = "test/mae_pressure", "test/mae_energy", "validation/mae_pressure"
AT_POINTS = "lattice/worst_pressure"
ERRORS = {PRESSURE: "P/T^4", ENERGY: "eps/T^4"}
EXPANDED, CONTROLS = "expanded", ("matched", "widened")
AT = (1.0, 1.25, 1.5, 2.0, 2.5)  # T/T_c of the rows in the table of Fig. 3
WITHIN = 0.01

_NOTE = (
    "Mean absolute errors at temperatures between those of the training: median [quartiles] over the seeds, and the "
    "median ratio to {reference}, paired by seed [95 % interval]. Best report: of each seed, the one with the least "
    "error at temperatures of validation, as the authors of the network keep the best of all epochs."
)
_CONTROL_NOTE = (
    "A gain is a ratio whose interval lies below 1; it survives a control if the ratio to that control does so too. "
    "Matched: raw input with the starting values and the step size of the bias that the constants amount to. Widened: "
    "raw input with a first layer of about as many parameters."
)
_FIGURE_NOTE = (
    "Mean absolute error over the seeds against the parametrisation [95 % bootstrap interval over seeds], at T/T_c "
    "with T_c = 0.155 GeV: Fig. 3 of arXiv 2409.06402 in numbers. Published beside it: a smaller error of the expanded "
    "network in both panels, as curves without printed numbers."
)
_LATTICE_NOTE = (
    "Largest relative error of P over all temperatures, the median over the seeds: against the parametrisation that "
    "was fitted, and against the points of lattice QCD (HotQCD, arXiv 1407.6387, every 5 MeV), at the last step and at "
    "the best report of each seed; by default the training temperatures are theirs, so that this says how well lattice "
    "QCD is fitted. The parametrisation itself is up to {offset:.2%} from these points."
)


def section(results: Results, workdir: Path) -> list[str]:
    """Tables and sentences; nothing for runs of another kind or without numbers.

    Raises:
        ValueError: as `load_curves`.
    """
    if not is_equation_of_state(results):
        return []
    parts = [tag("h2", "Errors of the equation of state, and the controls"), _errors(results)]
    parts += [note(_NOTE.format(reference=results.reference)), *_survival(results)]
    curves = load_curves(results, workdir)
    if curves:
        parts += [tag("h2", "Fig. 3 in numbers"), _figure_table(curves), note(_FIGURE_NOTE)]
        parts += [tag("h2", "Against lattice QCD"), *_lattice(results, curves)]
    return parts


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
    return table(headers, rows)


def _describe(values):
    return tables.NONE if values is None else tables.spread("", _plain(statistics.describe(values)))


def _plain(described):
    return {name: x if np.isfinite(x) else None for name, x in described._asdict().items()}


def _over(found: Ratio, arm, reference):
    return tables.NONE if arm == reference else show(found)


def _survival(results):
    if EXPANDED not in results.arms or results.reference == EXPANDED:
        return []
    present = [name for name in CONTROLS if name in results.arms]
    parts = []
    for metric, what in ERRORS.items():
        gain = controls.ratio(results, EXPANDED, metric)
        rest = {name: controls.ratio(results, EXPANDED, metric, reference=name) for name in present}
        parts.append(controls.survival(f"Error of {what}", EXPANDED, results.reference, gain, rest))
    best = {name: best_report(results, name, PRESSURE) for name in {results.reference, EXPANDED, *present}}
    gain = controls.paired_ratio(best[results.reference], best[EXPANDED])
    rest = {name: controls.paired_ratio(best[name], best[EXPANDED]) for name in present}
    parts.append(controls.survival("Error of P/T^4, best report", EXPANDED, results.reference, gain, rest))
    return [*(tag("p", text) for text in parts), note(_CONTROL_NOTE)]


def _figure_table(curves):
    first = next(iter(curves.values()))
    at = [x for x in AT if first.T[0] - 1e-9 <= x * T_C <= first.T[-1] + 1e-9]
    rows = []
    for name in ERRORS.values():
        for arm, found in curves.items():
            numbers = [np.interp(np.array(at) * T_C, found.T, part) for part in mean_error(found, name)]
            cells = [tables.measure(_estimate(*numbers_at), 2) for numbers_at in zip(*numbers)]
            rows.append([name, arm, *cells])
    return table(["error of", "arm", *(f"T/T_c = {x:g}" for x in at)], rows)


def _estimate(value, low, high):
    plain = [float(x) if np.isfinite(x) else None for x in (value, low, high)]
    return Estimate(*plain)._asdict()


def _lattice(results, curves):
    hotqcd = str(results.config["task"].get("parametrisation")).startswith("hotqcd")
    rows, offset = [], np.nan
    for arm, found in curves.items():
        of_fit, of_points, offset = worst_pressure(found)
        cells = _within(of_fit)
        if hotqcd and of_points is not None:
            cells += _within(of_points) + _within(best_report(results, arm, AT_POINTS))
        rows.append([arm, *cells])
    shown = hotqcd and np.isfinite(offset)
    columns = ["P, parametrisation", *(["P, lattice points", "P, lattice points, best report"] if shown else [])]
    headers = ["arm", *(header for column in columns for header in (column, f"seeds within {WITHIN:.0%}"))]
    text = _LATTICE_NOTE.format(offset=offset) if shown else _LATTICE_NOTE.split(": against")[0] + "."
    return [table(headers, rows), note(text)]


def _within(errors):
    """Median and how many are small enough; seeds that stopped, NaN, are not."""
    if np.isnan(errors).all():
        return ["-", "-"]
    return [f"{np.nanmedian(errors):.2%}", f"{np.sum(errors <= WITHIN)} of {len(errors)}"]
