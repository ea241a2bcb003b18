"""Replica distances of designs that are trained briefly, and of parameters that were trained elsewhere."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sbjax import config as config_lib
from sbjax import trees
from sbjax.common.files import plain, write_json
from sbjax.common.names import expanded, near
from sbjax.common.options import words
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.metrics import replica
from sbjax.metrics.monitor import NUMBERS, SUFFIXES
from sbjax.report import figures, ranking, ranking_page, tables
from sbjax.report import results as results_lib
from sbjax.report.replicas import FEWEST_REPLICAS
from sbjax.runner import run as experiment
from sbjax.training.params_files import ParamsError, read_params


class Measurement(NamedTuple):
    """Tables for a terminal, the files written, the numbers, and the page, of a ranking."""

    table: str
    files: list[pathlib.Path]
    numbers: Any
    page: pathlib.Path | None = None


def rank_designs(
    config: ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    against: str | os.PathLike | None = None,
    by: str = "marginal",
    overrides: list[str] | None = None,
    config_file: str | None = None,
) -> Measurement:
    """Train the arms of `config` (or go on with what is there), rank them by replica distance, compare with full runs.

    Writes `ranking.json`, `ranking.html`, `figures/ranking.png` and, with `against`, `figures/rank_correlation.png` to
    the workdir.

    Args:
        config: its arms are the designs; `monitor.kinds` says what is measured.
        workdir: as in `experiment.run`, whose errors and interrupts are passed on.
        against: workdir of a finished run with arms of the same names.
        by: a kind with or without a suffix, such as 'marginal' or 'neuron_cloud_scale_free_excess'.
        overrides: as in `experiment.run`.
        config_file: likewise.

    Raises:
        ConfigError: besides those of `experiment.run`: `by` is not measured, or `against` cannot be compared with.
    """
    plan = config_lib.read(config)
    kinds = [kind for kind in words(plan.monitor.kinds) if kind not in NUMBERS]
    known = [kind + suffix for kind in kinds for suffix in SUFFIXES]
    if by not in known:
        raise ConfigError(
            f"--by={by!r} is not measured{near(by, known)}; give one of {', '.join(kinds) or 'nothing'} "
            f"(monitor.kinds), bare or with one of the endings {', '.join(filter(None, SUFFIXES))}"
        )
    full = None
    if against is not None:
        try:
            full = results_lib.load_results(expanded(against))
            ranking.common_arms([arm.name for arm in plan.arms], full.arms)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--against={against}: {error}") from error
    experiment.run(config, workdir, overrides=overrides, config_file=config_file)
    folder = expanded(workdir)
    early = results_lib.load_results(folder)
    try:
        rows = ranking.rank(early, by)
    except ValueError as error:
        raise ConfigError(f"--by={by}: {error}") from error
    text = [ranking.ranking_table(rows, by=by, primary=early.primary, arms=early.arms)]
    numbers = {"by": by, "ranking": [row._asdict() for row in rows]}
    found = None
    if full is not None:
        found = ranking.correlate(early, full)
        text.append(ranking.correlation_table(found, primary=full.primary))
        numbers["against"] = str(against)
        numbers["correlations"] = [row._asdict() | {"rho": row.rho._asdict()} for row in found]
    write_json(folder / "ranking.json", numbers)
    page, drawn = ranking_page.save_ranking(folder, early, rows, by=by, found=found, full=full, kinds=kinds)
    return Measurement("\n\n".join(text), [folder / "ranking.json", *drawn], numbers, page)


def measure_params(
    paths: Sequence[str | os.PathLike],
    *,
    where: trees.Where = None,
    neuron_axis: int | None = None,
    workdir: str | os.PathLike | None = None,
    buffers: bool = False,
) -> Measurement:
    """Replica distances D0, D1 and D2 of parameters on disk, layer by layer, with null and excess.

    Args:
        paths: one file or orbax folder a replica, or a single one whose arrays have the replica axis first, as the
            checkpoints of `sbjax` have.
        where: which leaves.
        neuron_axis: the axis of a kernel that counts neurons: -1 in Flax, 0 in PyTorch. None: 0 where arrays are called
            'weight' and none 'kernel', else -1; the table says which.
        workdir: where to write `measures.json` and `figures/pairs.png`; None = write nothing.
        buffers: whether running statistics, masks, averaged copies and other arrays that are no weights count, see
            `sbjax.training.params_buffers`. What was left out is in the table, and in `numbers['left_out']`.

    Raises:
        ConfigError: a file cannot be read, trees do not fit together, or their numbers are not finite.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if strange := [path for path in paths if not isinstance(path, str | os.PathLike)]:
        raise ConfigError(f"--params: {strange[0]!r} is a {type(strange[0]).__name__} and no path of a file or folder")
    if not paths or not all(os.fspath(path).strip() for path in paths):
        raise ConfigError(
            f"--params={','.join(map(os.fspath, paths))!r} has an empty path; give files or folders, one a replica "
            "(is a variable of the shell empty?)"
        )
    with told_of_files("--params: "):
        paths = [expanded(path) for path in paths]
    try:
        loaded = [read_params(path, buffers=buffers, where=where) for path in paths]
        for path, one in zip(paths, loaded):
            _check_where(path, one, where)
        stacked = _stack(paths, [one.params for one in loaded], where)
        guessed = neuron_axis is None
        neuron_axis = _neuron_axis(stacked) if neuron_axis is None else neuron_axis
        key = jax.random.key(0)
        measured = [
            replica.marginal_distance(stacked, where=where, key=key),
            replica.neuron_cloud_distance(stacked, where=where, neuron_axis=neuron_axis, key=key),
            replica.unmatched_distance(stacked, where=where, key=key),
        ]
    except (ParamsError, ValueError) as error:
        raise ConfigError(f"--params: {error}") from error
    left_out = {name: why for one in loaded for name, why in one.left_out.items()}
    replicas = len(next(iter(measured[0].pairs.values())))
    alone = (
        [f"One file: the first axis of its arrays, of {replicas}, is taken for replicas."] if len(paths) == 1 else []
    )
    axis = [
        f"Neurons are counted along axis {neuron_axis} of a kernel, by PyTorch's names; --neuron_axis says otherwise."
    ] * (guessed and neuron_axis == 0)
    twice = [str(path) for path in dict.fromkeys(paths) if paths.count(path) > 1]
    same = [f"Given more than once, at distance 0 from itself: {', '.join(twice)}."] * bool(twice)
    few = [f"{replicas} replicas give no intervals: these take {FEWEST_REPLICAS}."] * (replicas < FEWEST_REPLICAS)
    said = [*axis, *_told(left_out), *alone, *same, *few]
    text = "\n\n".join([*(_layers_table(distance) for distance in measured), *said])
    numbers: dict[str, Any] = {
        distance.kind: {form: _reading(getattr(distance, form)) for form in ("raw", "scale_free")}
        for distance in measured
    }
    numbers["left_out"] = left_out
    files = []
    if workdir is not None:
        with told_of_files("--workdir: "):
            folder = expanded(workdir)
        write_json(folder / "measures.json", numbers)
        files = [
            folder / "measures.json",
            figures.save_png(folder, "pairs", ranking.pair_maps(measured[2].pairs)),
        ]
    return Measurement(text, files, numbers)


def _neuron_axis(stacked):
    """0 for the names of PyTorch, -1 for those of Flax."""
    last = {name.rpartition("/")[2] for name in stacked}
    return 0 if "weight" in last and "kernel" not in last else -1


def _check_where(path, loaded, where):
    """Refuse a selection of nothing but what was left out."""
    chosen = [name for name in loaded.left_out if trees.selects(where, name)]
    if chosen and not any(trees.selects(where, name) for name in trees.flatten(loaded.params)):
        why = loaded.left_out[chosen[0]]
        raise ValueError(
            f"{path}: where={where!r} selects no weight, only such as {chosen[0]!r} ({why}); --buffers counts it"
        )


def _stack(paths, loaded, where):
    """One stacked tree; what does not fit, or is not finite, is told with its file."""
    flat = [trees.floating(tree, where, what=str(path)) for path, tree in zip(paths, loaded)]
    for path, leaves in zip(paths, flat):
        trees.check_finite(leaves, str(path))
    if len(flat) == 1:
        sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in flat[0].values()}
        if len(sizes) > 1 or min(sizes, default=0) < 2:
            raise ValueError(
                f"{paths[0]}: one file must hold all replicas, along the first axis of every array, and these are of "
                f"sizes {sorted(sizes)}; or give a file a replica, with commas between: --params=a.npz,b.npz"
            )
        return flat[0]
    for path, leaves, tree in zip(paths[1:], flat[1:], loaded[1:]):
        if leaves.keys() != flat[0].keys():
            name = sorted(leaves.keys() ^ flat[0].keys())[0]
            here, there, other = (path, paths[0], loaded[0]) if name in leaves else (paths[0], path, tree)
            leaf = trees.flatten(other).get(name)
            if leaf is not None:
                raise ValueError(f"{there}: {trees.cast_to_float(name, leaf.dtype)}, as {name!r} of {here} is")
            raise ValueError(
                f"{here} and {there} differ: only one has {name!r}, the first; replicas have one architecture"
            )
        for name, leaf in leaves.items():
            if leaf.shape != flat[0][name].shape:
                raise ValueError(f"{name!r} has shape {leaf.shape} in {path} and {flat[0][name].shape} in {paths[0]}")
    return trees.stack(flat)


def _told(left_out: dict[str, str]) -> list[str]:
    """What was left out, a line a reason."""
    if not left_out:
        return []
    reasons = {why: [name for name, other in left_out.items() if other == why] for why in left_out.values()}
    lines = [
        f"  {why}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for why, names in reasons.items()
    ]
    return ["\n".join(["Left out as no weights (--buffers counts those that are floats):", *lines])]


def _layers_table(distance: replica.ReplicaDistance) -> str:
    header = [distance.kind, "distance", "null", "excess", "scale free", "null"]
    body = []
    for name, raw, free in [
        *((name, raw, distance.scale_free.layers[name]) for name, raw in distance.raw.layers.items()),
        ("all", distance.raw.total, distance.scale_free.total),
    ]:
        estimates = (raw.distance, raw.null, raw.excess, free.distance, free.null)
        body.append([name, *(tables.measure(plain(x._asdict()), 3) for x in estimates)])
    return "\n".join(tables.columns([header, *body]))


def _reading(reading: replica.Reading) -> dict[str, Any]:
    def fields(measured):
        return {name: x._asdict() for name, x in measured._asdict().items() if x is not None}

    return {"layers": {name: fields(x) for name, x in reading.layers.items()}, "total": fields(reading.total)}
