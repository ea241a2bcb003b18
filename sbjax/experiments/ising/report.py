"""Figures of the Ising analogy: energy landscapes in three senses, and the distance of quenched replicas."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.common.files import read_json
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "energy_landscapes": "Per spin, against the magnetisation. Left: free energy in mean field, dots at its minima "
    "(hollow: metastable). Middle: a 4 x 4 lattice, exact; lines: free energy, dashed: least energy. Right: share of "
    "the quenched replicas.",
    "quenched_distance": "Root mean square difference of a spin between replicas during the quench; band: 95 % "
    "interval over replicas. 0: all in one state; sqrt(2): random; 2: opposite.",
}
DISTANCE = "replica_distance/unmatched"
_NOTE = (
    "Shares of replicas by the sign of their magnetisation [Wilson's 95 % interval]; the rest has none. Minima of the "
    "mean-field free energy f at magnetisation m. The energy in the other tables is that of the bonds, per spin, "
    "without the part of the field; parameters are spins, and steps are sweeps."
)


def report(results: Results, workdir: Path) -> list[Section]:
    """Shares of the two states and minima in mean field, the energy landscapes, and the distance of the replicas."""
    found = load_landscapes(workdir)
    if not found:
        return []
    drawn = {"energy_landscapes": energy_landscapes(results, found), "quenched_distance": quenched_distance(results)}
    pictures = [figures.picture(workdir, name, figure, CAPTIONS[name]) for name, figure in drawn.items()]
    return [Section("Which state", [_states(found), *pictures])]


def load_landscapes(workdir: Path) -> dict[str, Any]:
    """`landscapes.json` of a run, by arm; {} where there is none."""
    path = Path(workdir) / "landscapes.json"
    return read_json(path, {str: {"mean_field": dict, "four_by_four": dict, "quench": dict}}) if path.exists() else {}


def energy_landscapes(results: Results, landscapes: dict[str, Any]) -> "Figure":
    """Mean field, 4 x 4 and quenched replicas, a panel each."""
    with figures.styled():
        figure = figures.new_figure((8.2, 2.7))
        mean, small, quench = figure.subplots(1, 3)
        bins = np.linspace(-1, 1, 22)
        for arm, found in landscapes.items():
            colour, field = figures.arm_colour(results, arm), found["mean_field"]
            mean.plot(
                field["magnetisation"], field["free_energy"], color=colour, label=f"{arm}: h = {found['field']:g}"
            )
            for m in field["minima"]:
                face = colour if m["stable"] else "white"
                mean.scatter(m["magnetisation"], m["free_energy"], 14, edgecolors=colour, facecolors=face, zorder=3)
            four = found["four_by_four"]
            small.plot(four["magnetisation"], four["free_energy"], color=colour)
            small.plot(four["magnetisation"], four["ground_energy"], "--", color=colour, linewidth=0.8)
            final = np.asarray(found["quench"]["magnetisation"])
            quench.hist(final, bins, weights=np.full(len(final), 1 / len(final)), color=colour, alpha=0.6)
        first = next(iter(landscapes.values()))
        mean.set_title(f"mean field, T = {first['mean_field']['temperature']:g}", fontsize=8)
        small.set_title(f"4 x 4, T = {first['four_by_four']['temperature']:g}", fontsize=8)
        quench.set_title(f"quenched to T = {first['quench']['temperature']:g}", fontsize=8)
        for panel in (mean, small):
            panel.set_ylabel("(free) energy per spin")
        quench.set_ylabel("share of replicas")
        for panel in (mean, small, quench):
            panel.set_xlabel("magnetisation")
        figures.legend(figure, [mean])
    return figure


def quenched_distance(results: Results) -> "Figure":
    """Replica distance against the sweep."""
    with figures.styled():
        figure = figures.new_figure((3.5, 2.7))
        panel = figure.subplots()
        for arm in results.arms:
            measured = [(r.step, r.measures[DISTANCE]) for r in results.reports[arm] if DISTANCE in r.measures]
            sweeps = [step for step, _ in measured]
            value, low, high = ([m[end] for _, m in measured] for end in ("value", "low", "high"))
            colour = figures.arm_colour(results, arm)
            panel.plot(sweeps, value, color=colour, label=arm)
            if None not in low + high:
                panel.fill_between(sweeps, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set_xlabel("sweep")
        panel.set_ylabel("replica distance")
        panel.set_ylim(bottom=0)
        figures.legend(figure, [panel])
    return figure


def _states(landscapes):
    rows = []
    for arm, found in landscapes.items():
        minima = [
            f"m = {m['magnetisation']:.3f}, f = {m['free_energy']:.4f}{'' if m['stable'] else ' (metastable)'}"
            for m in found["mean_field"]["minima"]
        ]
        shares = [tables.measure(found["quench"]["shares"][sign], 3) for sign in ("up", "down")]
        rows.append([arm, f"{found['field']:g}", *shares, "; ".join(minima)])
    headers = ["arm", "field", "share up", "share down", "minima in mean field"]
    return Table(headers, rows, notes=[_NOTE])
