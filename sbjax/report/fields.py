"""Figures of runs whose loss has terms, or whose networks are fields on a grid: curves of terms, maps of solutions."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sbjax.common.files import REMEDY, FileError, read_arrays
from sbjax.report import figures, roles, sections
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TERM = "train/loss_"

TERM_CAPTION = (
    "Terms of the training loss without weights, each the mean over the steps since the last report. Line: median over "
    "the seeds; band: quartiles."
)
SOLUTION_CAPTION = (
    "The reference, every arm's solution and its absolute error, of the replica with the median {primary}. Predictions "
    "are kept in float32: errors below 1e-7 of the solution are rounding."
)

_SHADES = 5
"""Decades of error that a logarithmic scale of colours shows at most."""


class Field(NamedTuple):
    """One arm's grid, of one replica.

    Attributes:
        points: `[*shape, d]`.
        reference, predicted: `[*shape, unknowns]`.
        coordinates, unknowns: their names.
    """

    points: np.ndarray
    reference: np.ndarray
    predicted: np.ndarray
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...]

    @property
    def error(self) -> np.ndarray:
        """|predicted - reference|, `[*shape, unknowns]`."""
        return np.abs(self.predicted - self.reference)


def draw_terms(results: Results, workdir: Path) -> list[sections.Figure]:
    """Curves of the terms of the training loss, where there are any, written into `workdir/figures`."""
    if not term_names(results):
        return []
    return [figures.picture(workdir, "term_curves", term_curves(results), TERM_CAPTION)]


def draw_solutions(results: Results, workdir: Path) -> list[sections.Figure]:
    """Maps of the solutions of the arms that `roles.shown` chooses, where there are grids, into `workdir/figures`.

    Raises:
        ValueError: as `load_fields`.
    """
    shown = results._replace(arms=roles.shown(results))
    fields = load_fields(shown, workdir)
    caption = SOLUTION_CAPTION.format(primary=results.primary)
    return [
        figures.picture(
            workdir, f"solution_maps{f'_{number}' if where else ''}", solution_maps(shown, part), f"{where}{caption}"
        )
        for number, (where, part) in enumerate(slices(fields))
    ]


def term_names(results: Results) -> list[str]:
    """Metrics called 'train/loss_<term>' with a finite value somewhere, in the order of the reports."""
    reports = [report for by_arm in results.reports.values() for report in by_arm]
    names = dict.fromkeys(name for report in reports for name in report.values if name.startswith(TERM))
    return [name for name in names if any(np.isfinite(report.values.get(name, np.nan)).any() for report in reports)]


def term_curves(results: Results) -> "Figure":
    """Every term of the training loss against the step, one panel each on one logarithmic axis.

    Raises:
        ValueError: no arm has a finite value of a metric called 'train/loss_<term>'.
    """
    names = term_names(results)
    if not names:
        raise ValueError(f"no report has a finite value of a metric called {TERM}<term>; nothing to draw")
    with figures.styled():
        columns = min(len(names), 4)
        rows = -(-len(names) // columns)
        figure = figures.new_figure((1.0 + 2.3 * columns, 0.5 + 2.0 * rows))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for panel in panels.flat[len(names) :]:
            panel.set_visible(False)
        for panel, name in zip(panels.flat, names):
            for arm in results.arms:
                figures.curve(panel, results, arm, name, in_epochs=False)
            panel.set_title(name.removeprefix(TERM).replace("_", " "), fontsize=8)
        heights = np.concatenate([np.asarray(line.get_ydata()) for panel in panels.flat for line in panel.lines])
        if heights.max() > 0:  # a term that is zero lies below such an axis
            panels[0, 0].set_yscale("log")
            least = heights[heights > 0].min()
            panels[0, 0].set_ylim(bottom=least / 2)
        for place in range(len(names)):
            if place + columns >= len(names):
                panels.flat[place].set_xlabel("step")
                panels.flat[place].tick_params(labelbottom=True)
        for panel in panels[:, 0]:
            panel.set_ylabel("mean square")
        figures.legend(figure, panels.flat)
    return figure


def load_fields(results: Results, workdir: Path) -> dict[str, Field]:
    """`grids/<arm>.npz` of a workdir for the replica with the median primary metric of each arm.

    Of an even number of replicas the lower middle one. Arms without a file, or of which no replica has a finite primary
    metric, are left out.

    Raises:
        ValueError: a file that does not hold what `Workdir.save_grid` writes.
    """
    found = {}
    for arm in results.arms:
        path, replica = Path(workdir) / "grids" / f"{arm}.npz", median_replica(results, arm)
        if replica is None or not path.exists():
            continue
        points, reference, predicted, coordinates, unknowns = load_grid(path, results.replicas)
        found[arm] = Field(points, reference, predicted[replica], coordinates, unknowns)
    return found


def slices(fields: dict[str, Field]) -> list[tuple[str, dict[str, Field]]]:
    """Fields of one or two coordinates alone; of more, one entry a value of the last coordinate, with a sentence that
    says where it is and the first two coordinates left.
    """
    if not fields:
        return []
    first = next(iter(fields.values()))
    if len(first.coordinates) <= 2:
        return [("", fields)]
    found = []
    for place in np.ndindex(first.points.shape[2:-1]):
        at = (slice(None), slice(None), *place)
        values = zip(first.coordinates[2:], first.points[at][0, 0, 2:])
        where = "At " + ", ".join(f"{name} = {value:.4g}" for name, value in values) + ". "
        found.append((where, {arm: _slice(field, at) for arm, field in fields.items()}))
    return found


def _slice(field: Field, at: tuple) -> Field:
    points, *rest = (part[at] for part in field[:3])
    return Field(points[..., :2], *rest, field.coordinates[:2], field.unknowns)


def load_grid(path: Path, replicas: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Points, reference, predictions `[replica, ..]`, coordinates and unknowns that `Workdir.save_grid` wrote.

    Raises:
        FileError: the file does not hold them.
    """
    found = read_arrays(path, ("points", "reference", "predicted", "coordinates", "unknowns"))
    points, reference, predicted = (found[name] for name in ("points", "reference", "predicted"))
    names = [tuple(map(str, found[field].ravel())) for field in ("coordinates", "unknowns")]
    fits = (
        all(array.dtype.kind == "f" for array in (points, reference, predicted))
        and points.ndim
        and points.shape[-1] == len(names[0])
        and reference.shape == (*points.shape[:-1], len(names[1]))
        and predicted.shape == (replicas, *reference.shape)
    )
    if not fits:
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in found.items())
        raise FileError(f"{path} is no grid of {replicas} replicas ({shapes}); {REMEDY}")
    return points, reference, predicted, *names


def median_replica(results: Results, arm: str) -> int | None:
    """The replica whose primary metric is the (lower) median at the last report; None where none is finite."""
    values = results.reports[arm][-1].values.get(results.primary) if results.reports[arm] else None
    if values is None or not np.isfinite(values).any():
        return None
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    return int(order[(np.isfinite(values).sum() - 1) // 2])


def solution_maps(results: Results, fields: dict[str, Field]) -> "Figure":
    """Reference, solutions and errors of the arms: heat maps over two coordinates, lines over one.

    Solutions have the reference's scale of colours; errors have one of their own for all arms, logarithmic where some
    arm's largest error is ten times another's.

    Args:
        fields: by arm, of one or two coordinates, see `slices`.

    Raises:
        ValueError: no field.
    """
    if not fields:
        raise ValueError("no arm has a grid; nothing to draw")
    with figures.styled():
        if len(next(iter(fields.values())).coordinates) == 1:
            return _lines(results, fields)
        return _maps(fields)


def _lines(results: Results, fields: dict[str, Field]) -> "Figure":
    """A column an unknown: solutions above, errors below."""
    first = next(iter(fields.values()))
    figure = figures.new_figure((0.8 + 3.4 * len(first.unknowns), 4.2))
    panels = figure.subplots(2, len(first.unknowns), sharex=True, squeeze=False, height_ratios=(1, 1))
    for i, unknown in enumerate(first.unknowns):
        above, below = panels[:, i]
        above.plot(first.points[..., 0], first.reference[..., i], color="0.75", linewidth=4, label="reference")
        for arm, field in fields.items():
            style = {"color": figures.arm_colour(results, arm), "label": arm}
            dash = figures.DASHES[results.arms.index(arm) % len(figures.DASHES)]
            above.plot(field.points[..., 0], field.predicted[..., i], dash, **style)
            below.plot(field.points[..., 0], field.error[..., i], dash, linewidth=1, **style)
        above.set_ylabel(unknown)
        below.set_ylabel(f"|{unknown} - reference|")
        below.set_xlabel(first.coordinates[0])
        errors = np.concatenate([field.error[..., i] for field in fields.values()])
        errors = errors[np.isfinite(errors)]
        if errors.size and errors.max() > 0:
            below.set_yscale("log")
            # Where an error changes its sign it has no logarithm to speak of.
            low = max(np.quantile(errors[errors > 0], 0.01) / 2, errors.max() / 1e8)
            below.set_ylim(low, 2 * errors.max())
    figures.legend(figure, panels.flat)
    return figure


def _maps(fields: dict[str, Field]) -> "Figure":
    """Two rows an unknown: the reference and the arms' solutions on one scale, below them the arms' errors."""
    first = next(iter(fields.values()))
    unknowns = len(first.unknowns)
    figure = figures.new_figure((1.6 + 1.45 * (1 + len(fields)), 0.6 + 2.7 * unknowns))
    panels = figure.subplots(2 * unknowns, 1 + len(fields), sharex=True, sharey=True, squeeze=False)
    for i, unknown in enumerate(first.unknowns):
        above, below = panels[2 * i], panels[2 * i + 1]
        prefix = "" if unknowns == 1 else f"{unknown}, "
        # What lies outside of the reference's range is shown as its end.
        norm = _solution_norm(first.reference[..., i])
        image = _map(above[0], first, first.reference[..., i], cmap="viridis", norm=norm)
        above[0].set_title(f"{unknown}, reference", fontsize=8)
        for panel, (arm, field) in zip(above[1:], fields.items()):
            _map(panel, field, field.predicted[..., i], cmap="viridis", norm=norm)
            panel.set_title(f"{prefix}{arm}", fontsize=8)
        figure.colorbar(image, ax=list(above), shrink=0.9, label=unknown)
        below[0].set_axis_off()
        norm = _error_norm([field.error[..., i] for field in fields.values()])
        for panel, (arm, field) in zip(below[1:], fields.items()):
            image = _map(panel, field, field.error[..., i], cmap="magma", norm=norm)
            panel.set_title(f"{prefix}{arm}, error", fontsize=8)
        figure.colorbar(image, ax=list(below), shrink=0.9, label=f"|{unknown} - reference|")
        for panel in (above[0], below[1]):
            panel.set_ylabel(first.coordinates[1 - _across(first)])
            panel.tick_params(labelleft=True)
    for panel in (panels[-2, 0], *panels[-1, 1:]):  # nothing stands below the last reference
        panel.set_xlabel(first.coordinates[_across(first)])
        panel.tick_params(labelbottom=True)
    return figure


def _map(panel: "Axes", field: Field, values: np.ndarray, **options):
    """`values [n, m]` over the two coordinates, pixels centred on the points."""
    across = _across(field)
    ends = []
    for axis in (across, 1 - across):
        ticks = np.take(field.points[..., axis], 0, axis=1 - axis)
        half = (ticks[-1] - ticks[0]) / (2 * (len(ticks) - 1))
        ends += [ticks[0] - half, ticks[-1] + half]
    picture = values if across == 1 else values.T
    return panel.imshow(picture, origin="lower", extent=ends, aspect="auto", interpolation="nearest", **options)


def _across(field: Field) -> int:
    """The coordinate that runs to the right: time, or else the first."""
    return 1 if field.coordinates[1] == "t" else 0


def _solution_norm(reference: np.ndarray):
    from matplotlib.colors import Normalize

    return Normalize(float(reference.min()), float(reference.max()))


def _error_norm(errors: list[np.ndarray]):
    """One scale of colours for all arms."""
    from matplotlib.colors import LogNorm, Normalize

    errors = [error[np.isfinite(error)] for error in errors]
    largest = [error.max() for error in errors if error.size and error.max() > 0]
    if not largest:
        return Normalize(0, 1)
    if max(largest) < 10 * min(largest):
        return Normalize(0, max(largest))
    positive = np.concatenate([error[error > 0] for error in errors])
    low = max(np.quantile(positive, 0.05), max(largest) / 10**_SHADES)
    return LogNorm(low, max(largest), clip=True)
