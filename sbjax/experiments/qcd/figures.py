"""Figures of what only equations of state have: errors by temperature, densities, masses, sum rules."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from sbjax.metrics.bootstrap import expanded_tail
from sbjax.report import figures, roles, sections
from sbjax.report.fields import load_grid
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T_C = 0.155  # GeV

CAPTIONS = {
    "error_by_temperature": "Mean absolute error over the seeds of P/T^4 and of the energy density over T^4 against "
    "the parametrisation, by temperature over 0.155 GeV (Fig. 3 of arXiv 2409.06402). Band: 95 % bootstrap interval "
    "over seeds, of the reference and the first treatment; thin: the others.",
    "equation_of_state": "Densities of the quasi-partons. Line: median over the seeds; band: quartiles; grey: the "
    "parametrisation; dots: lattice QCD (HotQCD, arXiv 1407.6387).",
    "masses": "Masses in GeV. Line: median over the seeds; band: quartiles. Grey: the masses with the pressure of the "
    "parametrisation if m_s = m_ud + 0.09 GeV and m_g = 1.5 m_ud held at all temperatures. One curve does not "
    "determine three masses, so other masses are no error.",
    "sum_rules": "Relative deviation from the sum rules s = dP/dT, with the slope of a spline through P, and "
    "eps + P = T s; the largest over the seeds. Predictions are kept in float32: deviations below 1e-4 are rounding.",
}

_DENSITIES = {
    "P/T^4": r"$P/T^4$",
    "eps/T^4": r"$\varepsilon/T^4$",
    "s/T^3": r"$s/T^3$",
    "Delta/T^4": r"$(\varepsilon-3P)/T^4$",
    "c_s^2": r"$c_s^2$",
}
_MASSES = {"m_ud": r"$m_{ud}$ (GeV)", "m_s": r"$m_s$ (GeV)", "m_g": r"$m_g$ (GeV)"}
_ROWS = {"Delta/T^4": 1, "P/T^4": 2, "eps/T^4": 3, "s/T^3": 4, "c_s^2": 5}  # columns of `lattice.HOTQCD_ROWS`
_EDGE = 3  # points at either end where a spline has no neighbours


class Curves(NamedTuple):
    """One arm by temperature.

    Attributes:
        T: [n], GeV.
        reference: by name of a density or mass, [n].
        predicted: by name, [replica, n], of the replicas that were trained to the end.
    """

    T: np.ndarray
    reference: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]


def draw(results: Results, workdir: Path, curves: dict[str, Curves]) -> list[sections.Figure]:
    """Every figure, written into `workdir/figures`, in reading order."""
    drawing = (error_by_temperature, equation_of_state, masses, sum_rules)
    return [
        figures.picture(workdir, function.__name__, function(results, curves), CAPTIONS[function.__name__])
        for function in drawing
    ]


def load_curves(results: Results, workdir: Path) -> dict[str, Curves]:
    """`grids/<arm>.npz` of a workdir by arm; arms without a file or without a replica trained to the end are left out.

    Raises:
        ValueError: a file that does not hold what `Workdir.save_grid` writes.
    """
    found = {}
    for arm in results.arms:
        path = Path(workdir) / "grids" / f"{arm}.npz"
        last = results.reports[arm][-1].values.get(results.primary) if results.reports[arm] else None
        if last is None or not np.isfinite(last).any() or not path.exists():
            continue
        points, reference, predicted, _, names = load_grid(path, results.replicas)
        if missing := {*_DENSITIES, *_MASSES} - set(names):
            raise ValueError(f"{path} has no {', '.join(sorted(missing))}; remove the file, or train the arm again")
        predicted = predicted[np.isfinite(last)].astype(np.float64)
        found[arm] = Curves(
            points[:, 0],
            {name: reference[:, i] for i, name in enumerate(names)},
            {name: predicted[..., i] for i, name in enumerate(names)},
        )
    return found


def error_by_temperature(results: Results, curves: dict[str, Curves]) -> "Figure":
    """Mean absolute error over the seeds of P/T^4 and eps/T^4 against T/T_c: Fig. 3 of arXiv 2409.06402."""
    with figures.styled():
        figure = figures.new_figure((6.6, 2.8))
        panels = figure.subplots(1, 2)
        for panel, name in zip(panels, ("P/T^4", "eps/T^4")):
            for arm, found in curves.items():
                error, low, high = mean_error(found, name)
                main = arm in (results.reference, *roles.treatments(results)[:1])
                panel.plot(found.T / T_C, error, **_style(results, arm), linewidth=1.6 if main else 0.8)
                if main and np.isfinite(low).all():
                    colour = figures.arm_colour(results, arm)
                    panel.fill_between(found.T / T_C, low, high, color=colour, alpha=0.2, linewidth=0)
            # Ends of bands may come close to zero.
            panel.set_ylim(bottom=max(min(np.min(line.get_ydata()) for line in panel.lines) / 3, 1e-12))
            panel.set_yscale("log")
            panel.set_xlabel(r"$T/T_c$, $T_c = 0.155$ GeV")
            panel.set_ylabel(f"mean absolute error of {_DENSITIES[name]}")
        figures.legend(figure, panels)
    return figure


def mean_error(curves: Curves, name: str, *, resamples: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean absolute error over the seeds by temperature, and the ends of its 95 % bootstrap interval, each [n].

    The percentiles are expanded for few seeds, see `metrics.bootstrap`; the ends are NaN below four seeds.
    """
    errors = np.abs(curves.predicted[name] - curves.reference[name])
    mean, seeds = errors.mean(0), len(errors)
    if seeds < 4:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    tail = expanded_tail(seeds, 0.95)
    low, high = np.quantile(counts @ errors / seeds, [tail, 1 - tail], axis=0)
    return mean, low, high


def equation_of_state(results: Results, curves: dict[str, Curves]) -> "Figure":
    """The five densities against T, with the parametrisation and lattice points."""
    from sbjax.physics.lattice import HOTQCD_ROWS

    panels, figure = _bands(results, curves, _DENSITIES)
    first = next(iter(curves.values()))
    inside = HOTQCD_ROWS[::2]  # every 10 MeV
    inside = inside[(first.T[0] - 1e-9 <= inside[:, 0]) & (inside[:, 0] <= 1e-9 + first.T[-1])]
    for name, column in _ROWS.items():
        panels[name].plot(inside[:, 0], inside[:, column], "o", color="black", markersize=2.5, label="lattice QCD")
    with figures.styled():
        figures.legend(figure, panels.values())
    return figure


def masses(results: Results, curves: dict[str, Curves]) -> "Figure":
    """The three masses against T."""
    panels, figure = _bands(results, curves, _MASSES)
    with figures.styled():
        figures.legend(figure, panels.values())
    return figure


def sum_rules(results: Results, curves: dict[str, Curves]) -> "Figure":
    """Relative deviations from s = dP/dT and eps + P = T s against T, the largest over the seeds."""
    labels = (r"$|s - dP/dT|\,/\,s$", r"$|\varepsilon + P - Ts|\,/\,Ts$")
    with figures.styled():
        figure = figures.new_figure((6.6, 2.8))
        panels = figure.subplots(1, 2)
        for arm, found in curves.items():
            for panel, deviation in zip(panels, sum_rule_deviations(found)):
                inner = slice(_EDGE, -_EDGE)
                panel.plot(found.T[inner], np.maximum(deviation.max(0)[inner], 1e-12), **_style(results, arm))
        for panel, label in zip(panels, labels):
            panel.set_yscale("log")
            panel.set_xlabel("T (GeV)")
            panel.set_ylabel(label)
        figures.legend(figure, panels)
    return figure


def sum_rule_deviations(curves: Curves) -> tuple[np.ndarray, np.ndarray]:
    """|s - dP/dT| / s and |eps + P - T s| / (T s), each [replica, n], from the densities alone."""
    T, found = curves.T, curves.predicted
    slope = CubicSpline(T, found["P/T^4"] * T**4, axis=-1).derivative()(T)
    entropy = found["s/T^3"] * T**3
    enthalpy = (found["eps/T^4"] + found["P/T^4"]) * T**4
    return np.abs((entropy - slope) / entropy), np.abs(enthalpy / (T * entropy) - 1)


def _bands(results, curves, labels) -> "tuple[dict[str, Axes], Figure]":
    """A panel a name, with medians and quartiles over the seeds, and the reference."""
    first = next(iter(curves.values()))
    columns = 3
    rows = -(-len(labels) // columns)
    with figures.styled():
        figure = figures.new_figure((2.5 * columns, 0.4 + 2.2 * rows))
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for panel in grid[len(labels) :]:
            panel.set_visible(False)
        panels = dict(zip(labels, grid))
        for place, (name, panel) in enumerate(panels.items()):
            panel.plot(first.T, first.reference[name], color="0.75", linewidth=4, label="reference")
            for arm, found in curves.items():
                q1, median, q3 = np.quantile(found.predicted[name], (0.25, 0.5, 0.75), axis=0)
                panel.plot(found.T, median, **_style(results, arm))
                panel.fill_between(found.T, q1, q3, color=figures.arm_colour(results, arm), alpha=0.2, linewidth=0)
            panel.set_ylabel(labels[name])
            if place + columns >= len(labels):
                panel.set_xlabel("T (GeV)")
                panel.tick_params(labelbottom=True)
    return panels, figure


def _style(results, arm):
    dash = figures.DASHES[results.arms.index(arm) % len(figures.DASHES)]
    return {"linestyle": dash, "color": figures.arm_colour(results, arm), "label": arm}
