"""The part of a report about neurons: which arms' can be told apart, and whether that predicts their barrier."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy

from sbjax.report import tables
from sbjax.report.figures import COLOURS, legend, new_figure, picture, styled
from sbjax.report.sections import Note, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARRIER = "midpoint_over_mean_of_ends"
FEWEST = 4
"""Arms below which a correlation says nothing."""
PREDICTORS = {"swap": "swap cost / own cost", "in_place": "units in place"}
CAPTION = (
    "Each dot is an arm: the barrier of the test loss in the middle of the line (median and quartiles over pairs) "
    "against the swap cost of two neurons over the norm that they have (left; mean of hidden layers, median over "
    "replicas) and against the share of units that the best matching by correlation leaves in place (right)."
)
_NOTE = (
    "k: dimension of a hidden layer's inputs that holds 90 % of their variance; nu: its coherence, from k/d to 1; "
    "means over hidden layers and replicas. Swap cost: what more norm two neurons of a network need to do what the "
    "other does, over what they have; 0: nothing tells them apart, as in every standard layer. Swappable: share of "
    "pairs that can be swapped for at most as much norm again. Out of reach: median share of what another neuron "
    "computes that no weights of a neuron give. In place: share of units that the best matching between two replicas, "
    "by correlation of pre-activations, leaves where they are. Costs see dense layers alone: not the gate of a "
    "sigma-asymmetric network, nor what a common start does."
)


class Point(NamedTuple):
    """An arm: its barriers by pair, and what might predict them by replica or pair."""

    barriers: np.ndarray
    swap: np.ndarray
    in_place: np.ndarray


def section(found: Mapping[str, Mapping[str, Any]], workdir: Path) -> list[Section]:
    """Table, scatter and correlation over the arms; nothing where identifiability was not measured."""
    measured = {arm: lines for arm, lines in found.items() if "identifiability" in lines and "pairs" in lines}
    if not measured:
        return []
    dots = points(measured)
    parts = [Table(*rows(measured)), Note(_NOTE), *[Note(text) for text in correlations(dots)]]
    if any(np.isfinite(dot.barriers).any() for dot in dots.values()):
        parts.append(picture(workdir, "identifiability", scatter(dots), CAPTION))
    return [Section("Which neurons can be told apart", parts)]


def points(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Point]:
    """What the scatter shows, by arm."""
    return {
        arm: Point(
            *(
                np.array(values, float)
                for values in (
                    lines["pairs"]["heights"]["test/loss"][BARRIER],
                    lines["identifiability"]["swap"],
                    lines["identifiability"]["in_place"],
                )
            )
        )
        for arm, lines in found.items()
    }


def rows(found: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    header = ["arm", "k", "nu", "swap cost / own", "swappable", "out of reach", "in place", "barrier"]
    body = []
    for arm, lines in found.items():
        layers = lines["identifiability"]["layers"].values()
        mean = {name: float(np.mean([layer[name] for layer in layers])) for name in next(iter(layers))}
        dot = points({arm: lines})[arm]
        body.append(
            [
                arm,
                f"{mean['dimension']:.0f}",
                f"{mean['coherence']:.2f}",
                f"{np.median(dot.swap):.3g}",
                f"{100 * mean['swappable']:.0f} %",
                f"{100 * mean['residual']:.0f} %",
                f"{100 * np.median(dot.in_place):.0f} %",
                tables.value("test/loss", float(np.median(dot.barriers))),
            ]
        )
    return header, body


def correlations(dots: Mapping[str, Point], *, draws: int = 2000, seed: int = 0) -> list[str]:
    """A sentence for each predictor: Spearman's rank correlation with the barrier over arms, and its interval.

    >>> dot = lambda x: Point(np.array([1.0 - x]), np.array([x]), np.array([0.5]))
    >>> correlations({str(x): dot(x) for x in range(6)})[0]
    'Rank correlation of the barrier with swap cost / own cost over 6 arms: -1.00 [-1.00, -1.00].'
    """
    medians = {arm: [float(np.median(values)) for values in dot] for arm, dot in dots.items()}
    table = np.array([row for row in medians.values() if np.isfinite(row).all()]).reshape(-1, 3)
    sentences = []
    for place, (_, said) in enumerate(PREDICTORS.items(), 1):
        value, low, high = spearman(table[:, place], table[:, 0], draws=draws, seed=seed)
        if np.isfinite(value):
            shown = f"{value:.2f} [{low:.2f}, {high:.2f}]"
            sentences.append(f"Rank correlation of the barrier with {said} over {len(table)} arms: {shown}.")
    return sentences


def spearman(x: np.ndarray, y: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Spearman's rank correlation and a 95 % percentile interval over resampled points; NaN for fewer than four, or
    where x or y is constant."""
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan
    random, found = np.random.default_rng(seed), []
    while len(found) < draws:
        chosen = random.integers(len(x), size=len(x))
        if np.ptp(x[chosen]) and np.ptp(y[chosen]):
            found.append(_rank_correlation(x[chosen], y[chosen]))
    return _rank_correlation(x, y), *(float(q) for q in np.quantile(found, [0.025, 0.975]))


def scatter(dots: Mapping[str, Point]) -> "Figure":
    """The barrier against both predictors, a dot an arm."""
    with styled():
        figure = new_figure((7.2, 3.0 + 0.05 * len(dots)))
        panels = figure.subplots(1, len(PREDICTORS), sharey=True)
        for panel, (name, said) in zip(panels, PREDICTORS.items()):
            for number, (arm, dot) in enumerate(dots.items()):
                q1, middle, q3 = np.quantile(dot.barriers, [0.25, 0.5, 0.75])
                x = np.median(getattr(dot, name))
                colour, marker = COLOURS[number % len(COLOURS)], "os^Dv"[number // len(COLOURS) % 5]
                panel.vlines(x, q1, q3, color=colour, linewidth=1)
                panel.plot(x, middle, marker, color=colour, markersize=4, label=arm)
            panel.margins(x=0.06)
            panel.set_xlabel(said)
        panels[0].set_xscale("symlog", linthresh=0.1)
        panels[0].set_ylabel("barrier of the test loss")
        legend(figure, panels)
    return figure


def _rank_correlation(x, y) -> float:
    ranks = [scipy.stats.rankdata(values) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])
