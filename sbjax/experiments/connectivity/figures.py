"""Figures and table rows of linear mode connectivity: curves between replicas, barriers, distances, matching."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from sbjax.common.files import plain
from sbjax.metrics.connectivity import Barrier
from sbjax.report import tables
from sbjax.report.figures import COLOURS, DASHES, legend, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REBASED = "_rebased"
"""Ends the name of the row of an arm whose networks were matched."""
MOST_ACROSS = 4  # panels in a row
MOST_WRITTEN = 6  # replicas whose distances are written into the map
FEW_LAYERS = 6  # whose names are slanted


class Objective(NamedTuple):
    """Objective of matching two layers, larger = more alike.

    Attributes:
        identity: of the units in the order they have.
        optimal: of the best permutation.
        random: of random permutations, the scale of the two.
    """

    identity: float
    optimal: float
    random: Float[ArrayLike, " draws"]


def interpolation_curves(arms: Mapping[str, Barrier], names: Sequence[str] | None = None) -> "Figure":
    """Numbers along the line between two replicas, one panel a name: median and quartiles over pairs by arm.

    A pair with a point that is not finite is left out of a panel, and the legend says how many are. An arm called as
    another one with `REBASED` has its colour, dotted.

    Args:
        arms: what `sbjax.metrics.connectivity.barriers` (or `barrier`) found, by arm.
        names: such as ('test/loss', 'test/accuracy'); None = all of the first arm.

    Raises:
        ValueError: no arms, a name that an arm lacks, or an arm without a finite pair in every panel.
    """
    if not arms:
        raise ValueError("arms is empty: give the barriers of at least one arm")
    names = list(next(iter(arms.values())).curves if names is None else names)
    curves = {arm: {name: _pairs(arm, found, name) for name in names} for arm, found in arms.items()}
    labels = {arm: _label(arm, list(by_name.values())) for arm, by_name in curves.items()}
    with styled():
        figure = new_figure((0.9 + 2.6 * len(names), 2.5 + 0.05 * len(arms)))
        styles = _styles(list(arms))
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for panel, name in zip(panels, names):
            scale = 100.0 if tables.in_percent(name) else 1.0
            for arm, found in arms.items():
                kept = _finite(curves[arm][name])
                if not len(kept):
                    continue
                q1, median, q3 = scale * np.quantile(kept, [0.25, 0.5, 0.75], axis=0)
                colour, dash = styles[arm]
                panel.plot(found.alphas, median, dash, color=colour, label=labels[arm])
                panel.fill_between(found.alphas, q1, q3, color=colour, alpha=0.2, linewidth=0)
            panel.set_xlabel("alpha")
            panel.set_ylabel(name.replace("/", " ").replace("_", " ") + (" (%)" if tables.in_percent(name) else ""))
            panel.set_xlim(0, 1)
        legend(figure, panels)
    return figure


def barrier_rows(
    summaries: Mapping[str, Mapping[str, Mapping[str, float]]],
    published: Mapping[str, tuple[float, float] | None],
    *,
    name: str = "test/loss",
    kind: str = "midpoint_over_mean_of_ends",
) -> list[list[str]]:
    """Rows of a table of barriers, ours beside the published ones; the first is the header.

    Args:
        summaries: what `sbjax.metrics.connectivity.summarise` gives, by arm.
        published: mean and standard deviation by arm; None or left out where there is none.
        name: of the number.
        kind: of the barrier; a published number is comparable only if it is of this kind.

    Returns:
        [arm, median and quartiles, mean and standard deviation, pairs, the number itself at the ends, and the
        accuracy there where it is known, since networks that learned nothing have no barrier, published].

    Raises:
        ValueError: a summary without this number or kind.

    >>> numbers = {'median': 0.1, 'q1': 0.05, 'q3': 0.2, 'mean': 0.12, 'std': 0.03, 'pairs': 10, 'not_finite': 0}
    >>> summary = {'test/loss/midpoint_over_mean_of_ends': numbers, 'test/loss/mean_of_ends': numbers}
    >>> for line in barrier_rows({'raw': summary}, {'raw': (0.188, 0.12)}):
    ...     print(' | '.join(line))
    arm | ours, median [IQR] | ours, mean +- std | pairs | ends: loss | published
    raw | 0.1 [0.05, 0.2] | 0.12 +- 0.03 | 10 | 0.1 | 0.188 +- 0.12
    """
    beside = f"{name.rpartition('/')[0]}/accuracy".removeprefix("/")
    beside = [beside] if beside != name and any(f"{beside}/mean_of_ends" in s for s in summaries.values()) else []
    ends = [f"ends: {number.rpartition('/')[2]}" for number in (name, *beside)]
    rows = [["arm", "ours, median [IQR]", "ours, mean +- std", "pairs", *ends, "published"]]
    for arm, summary in summaries.items():
        if (key := f"{name}/{kind}") not in summary:
            raise ValueError(f"the summary of arm {arm!r} has no {key!r}; it has {', '.join(map(repr, summary))}")
        ours, theirs = summary[key], published.get(arm)
        lost = f", {ours['not_finite']} not finite" if ours["not_finite"] else ""
        rows.append(
            [
                arm,
                tables.spread(name, plain(ours)),
                _mean(name, ours["mean"], ours["std"]),
                f"{ours['pairs']}{lost}",
                *(_at_the_ends(summary, number) for number in (name, *beside)),
                tables.NONE if theirs is None else _mean(name, *theirs),
            ]
        )
    return rows


def replica_maps(arms: Mapping[str, Mapping[str, Float[ArrayLike, "replica replica"]]]) -> "Figure":
    """Distances between all pairs of replicas as heat maps, such as D0 (unmatched) and D3 (matched) side by side.

    The panels of an arm share one scale of colours from 0, so that what matching takes away is seen; each arm has its
    own, for arms differ in the size of their weights. Up to 6 replicas have their numbers written in.

    Args:
        arms: square matrices by kind, such as {'D0': .., 'D3': ..}, by arm; the same kinds in every arm.

    Raises:
        ValueError: no arms, arms of different kinds, matrices that are not square or differ in size within an arm, or
            an arm without a finite value off the diagonal.
    """
    kinds = {tuple(matrices) for matrices in arms.values()}
    if len(kinds) != 1 or kinds == {()}:
        raise ValueError(f"arms have the kinds {sorted(kinds)}; give at least one arm, and all the same kinds")
    shown = {arm: _off_diagonal(arm, matrices) for arm, matrices in arms.items()}
    each = len(next(iter(kinds)))
    with styled():
        # The panels of an arm stay together.
        figure, panels = _grid(len(arms), max(1, MOST_ACROSS // each), (2.1 * each + 0.5, 2.2), each=each)
        for row, (arm, matrices) in zip(panels, shown.items()):
            top = max(array[np.isfinite(array)].max(initial=0.0) for array in matrices.values()) or 1.0
            for panel, (kind, array) in zip(row, matrices.items()):
                image = panel.imshow(array, cmap="viridis", vmin=0.0, vmax=top)
                panel.set_title(f"{arm}: {kind}", fontsize=8)
                replicas = len(array)
                panel.set_xticks(range(replicas) if replicas <= 8 else [0, replicas - 1])
                panel.set_yticks(range(replicas) if replicas <= 8 else [0, replicas - 1])
                for i, j in np.argwhere(np.isfinite(array)) if replicas <= MOST_WRITTEN else ():
                    # Dark letters on viridis' bright upper half.
                    colour = "#111111" if array[i, j] > 0.6 * top else "white"
                    panel.text(j, i, f"{array[i, j]:.2g}", ha="center", va="center", fontsize=5, color=colour)
            row[0].set_ylabel("replica")
            figure.colorbar(image, ax=list(row), shrink=0.8)
    return figure


def matching_objectives(arms: Mapping[str, Mapping[str, Objective]], *, what: str = "matching objective") -> "Figure":
    """Objective of matching layer by layer, one panel an arm: identity and optimum over the range of random orders.

    If the identity is near the optimum, the units of two replicas need no permutation: the symmetry is broken. If it is
    among the random ones, it is not. What all names of layers end with ('/kernel') is left out.

    Args:
        arms: objectives by layer, by arm.
        what: it is, at the axis.

    Raises:
        ValueError: no arms, an arm without layers, or a layer without random permutations.
    """
    if not arms or not all(arms.values()):
        raise ValueError("arms: give at least one arm, and at least one layer an arm")
    for arm, layers in arms.items():
        if empty := [layer for layer, objective in layers.items() if not np.size(objective.random)]:
            raise ValueError(f"arm {arm!r}: layer {empty[0]!r} has no random permutations, which give it a scale")
    most = max(map(len, arms.values()))
    # Names of few layers are slanted; those of many stand upright, a line apart.
    slant = {"rotation": 20, "ha": "right"} if most <= FEW_LAYERS else {"rotation": 90, "fontsize": 6}
    height = 2.2 if most <= FEW_LAYERS else 3.0
    with styled():
        figure, panels = _grid(len(arms), MOST_ACROSS, (max(2.2, 0.6 + 0.11 * most), height))
        for (panel,), (arm, layers) in zip(panels, arms.items()):
            x = np.arange(len(layers))
            random = [np.asarray(objective.random, np.float64) for objective in layers.values()]
            ends = np.array([[draws.min(), draws.max()] for draws in random])
            panel.bar(x, ends[:, 1] - ends[:, 0], 0.6, ends[:, 0], color="0.8", zorder=0)
            medians = [np.median(draws) for draws in random]
            width = 12 if most <= FEW_LAYERS else 5
            panel.plot(x, medians, "_", color="0.4", markersize=width, label="random (range, median)")
            panel.plot(x, [o.optimal for o in layers.values()], "^", color=COLOURS[0], markersize=5, label="optimal")
            panel.plot(x, [o.identity for o in layers.values()], "o", color=COLOURS[1], markersize=3, label="identity")
            panel.set_xticks(x, _shortened(list(layers)), **slant)
            panel.use_sticky_edges = False  # else the lowest bar stands on the axis as if it began at 0
            panel.set_xlim(-0.6, len(layers) - 0.4)
            panel.set_title(arm, fontsize=8)
        # One scale for all arms.
        low, high = (edge(bound) for edge, bound in zip((min, max), zip(*(p.get_ylim() for (p,) in panels))))
        for number, (panel,) in enumerate(panels):
            panel.set_ylim(low, high)
            if number % MOST_ACROSS == 0:
                panel.set_ylabel(what)
        legend(figure, [panel for (panel,) in panels])
    return figure


def _grid(count: int, across: int, size: tuple[float, float], *, each: int = 1) -> tuple["Figure", np.ndarray]:
    """A figure of `count` groups of `each` panels, at most `across` groups a row, and its panels, a row a group."""
    across = min(count, across)
    rows = -(-count // across)
    figure = new_figure((0.5 + size[0] * across, 0.5 + size[1] * rows))
    panels = figure.subplots(rows, across * each, squeeze=False).reshape(-1, each)
    for panel in panels[count:].flat:
        panel.remove()
    return figure, panels[:count]


def _shortened(names: list[str]) -> list[str]:
    """Without the last part, where that is the same in all.

    >>> _shortened(['dense_0/kernel', 'dense_1/kernel']), _shortened(['kernel']), _shortened(['a/kernel', 'b/bias'])
    (['dense_0', 'dense_1'], ['kernel'], ['a/kernel', 'b/bias'])
    """
    parts = [name.rpartition("/") for name in names]
    alike = len({last for _, _, last in parts}) == 1 and all(first for first, _, _ in parts)
    return [first for first, _, _ in parts] if alike else names


def _off_diagonal(arm: str, matrices: Mapping[str, ArrayLike]) -> dict[str, Float[np.ndarray, "replica replica"]]:
    """The distance of a replica to itself is no news and is left blank."""
    arrays = {kind: np.asarray(matrix, np.float64) for kind, matrix in matrices.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(f"arm {arm!r}: matrices have shapes {sorted(shapes)}; give square ones of the same replicas")
    blank = {kind: np.where(np.eye(len(array), dtype=bool), np.nan, array) for kind, array in arrays.items()}
    if not any(np.isfinite(array).any() for array in blank.values()):
        raise ValueError(f"arm {arm!r}: no distance between two replicas is finite; nothing to draw")
    return blank


def _styles(arms: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and dash by arm; dots are for arms that are others re-based."""
    plain = [arm for arm in arms if not arm.endswith(REBASED) or arm.removesuffix(REBASED) not in arms]
    own = {arm: (COLOURS[n % len(COLOURS)], DASHES[n % (len(DASHES) - 1)]) for n, arm in enumerate(plain)}
    return {arm: own[arm] if arm in own else (own[arm.removesuffix(REBASED)][0], DASHES[-1]) for arm in arms}


def _pairs(arm: str, found: Barrier, name: str) -> Float[np.ndarray, "pair points"]:
    if name not in found.curves:
        raise ValueError(f"arm {arm!r} has no {name!r}; it has {', '.join(map(repr, found.curves))}")
    return np.atleast_2d(found.curves[name])


def _finite(curves: Float[np.ndarray, "pair points"]) -> Float[np.ndarray, "kept points"]:
    return curves[np.isfinite(curves).all(1)]


def _label(arm: str, curves: Sequence[Float[np.ndarray, "pair points"]]) -> str:
    kept, pairs = min(len(_finite(each)) for each in curves), len(curves[0])
    if not kept and not any(len(_finite(each)) for each in curves):
        raise ValueError(f"arm {arm!r} has no pair whose curve is finite; nothing to draw")
    return arm if kept == pairs else f"{arm} ({pairs - kept} of {pairs} pairs left out)"


def _at_the_ends(summary: Mapping[str, Mapping[str, float]], name: str) -> str:
    numbers = summary.get(f"{name}/mean_of_ends")
    return tables.NONE if numbers is None else tables.value(name, plain(numbers)["median"])


def _mean(name: str, mean: float, std: float) -> str:
    if np.isnan(mean):
        return tables.NONE
    middle = tables.value(name, mean)
    return middle if np.isnan(std) else f"{middle} +- {tables.value(name, std).removesuffix(' %')}"
