"""Spurious minima of two-layer ReLU networks (arXiv 2210.06088): families in closed form, and a search from starts.

`part='families'` needs no randomness: loss and Hessian of the three families, how far their spectra are from that of
the global minimum, what splitting a unit does, and the slope in a new unit of zero norm. `part='turning'` finds the
real k at which a family turns from saddle to minimum. `part='search'` descends from `replicas` starts with `extra`
spare units, by gradient descent and then by L-BFGS where the loss is not small yet, and says where they end.
"""

import collections
import dataclasses

import jax
import numpy as np

from sbjax import rng
from sbjax.common.options import one_of, option
from sbjax.experiments.exact.experiment import ExactExperiment, counted, result
from sbjax.frame.errors import ConfigError
from sbjax.landscape import relu_minima as rm
from sbjax.landscape import relu_minima_fractional as fractional

GLOBAL, CRITICAL = 1e-3, 1e-6  # a loss below is a global minimum's; a gradient below is that of a critical point
LARGEST = 25  # k up to which Hessians of k^2 entries a side are diagonalised in numbers
WIDEST = 50  # k up to which those of the families are


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("relu_minima", "which experiment with closed forms")
    part: str = option("families", "what is done", choices=("families", "turning", "search"))
    k: int = option(6, "units of the teacher, and inputs; with 'turning' the largest", least=4, most=1000)
    extra: int = option(0, "units of the student beyond k", least=0, most=100, only={"part": one_of("search")})
    pace: float = option(
        1.5, "gradient descent with the rate pace / k", above=0, most=100, only={"part": one_of("search")}
    )


def check(plan, arm):
    """Refuse a Hessian that would not end.

    Raises:
        ConfigError: a search with k above 25, single precision.
    """
    if arm.task.part == "search" and arm.task.k > LARGEST:
        raise ConfigError(f"task.k={arm.task.k} must be <= {LARGEST} with task.part='search'")
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False: gradients of 1e-14 need double precision; set it to True")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    size = task.k * (task.k + task.extra)
    search = {"weights of all starts": 8 * plan.replicas * size, "a Hessian": 8 * size**2}
    return search if task.part == "search" else {}


def run_arm(plan, arm, key, log, stop):
    """The families at one k, where they turn, or a search at one k and number of units."""
    parts = {"families": _families, "turning": _turning, "search": _search}
    return parts[arm.task.part](plan, arm.task, key, log, stop)


def _families(plan, task, key, log, stop):
    k, cells, splits = task.k, {"k": task.k}, []
    target = rm.spectrum(np.eye(k)) if k <= WIDEST else None
    for family in rm.FAMILIES:
        if stop():
            return None
        point = rm.critical_point(family, k)
        cells[f"loss_{family}"] = point.loss
        cells[f"slope_{family}"] = rm.first_descent(point.weights) if k <= LARGEST else None
        if k > WIDEST:
            continue
        values = rm.spectrum(point.weights)
        cells[f"gap_{family}"] = float(np.mean(np.abs(values - target)))
        cells[f"least_{family}"] = float(values[0])
        cells[f"negative_{family}"] = int(np.sum(values < -1e-9))
        cells[f"top_{family}"] = float(values[-1] / k)
        for unit in (0, k - 1) if k <= LARGEST else ():
            splits.append(int(np.sum(rm.spectrum(rm.split(point.weights, unit)) < -1e-9)))
    cells["k_loss_II"] = k * cells["loss_II"]
    if splits:
        cells["split"] = {"low": min(splits), "high": max(splits)}
    log(", ".join(f"loss of {family} {cells['loss_' + family]:.8f}" for family in rm.FAMILIES))
    return result({"train/loss": [cells["loss_II"]] * plan.replicas}, cells, k * k)


def _turning(plan, task, key, log, stop):
    """For each family the k below `k` at which its eigenvalue on alternating directions passes zero, if it does."""
    cells = {"k": task.k}
    for family in rm.FAMILIES:
        if stop():
            return None
        signs = {
            k: fractional.alternating_eigenvalue(fractional.real_point(family, k), k) > 0 for k in range(5, task.k)
        }
        low = [k for k in signs if signs.get(k + 1, signs[k]) != signs[k]]
        cells[f"turns_{family}"] = fractional.turning_point(family, low[0], low[0] + 1) if low else None
    log(", ".join(f"{family} turns at {cells['turns_' + family]}" for family in rm.FAMILIES))
    return result({"train/loss": [rm.critical_point("II", task.k).loss] * plan.replicas}, cells)


def _search(plan, task, key, log, stop):
    k, n = task.k, task.k + task.extra
    random = np.random.default_rng(np.asarray(jax.random.key_data(rng.stream(key, "starts"))).tolist())
    w = random.normal(size=(plan.replicas, n, k)) * np.sqrt(2 / (n + k))
    done = 0
    while done < plan.train_steps:
        if stop():
            return None
        steps = min(200, plan.train_steps - done)
        w, slopes = rm.descend(w, steps=steps, rate=task.pace / k)
        done += steps
    for number in np.flatnonzero(rm.loss(w) > GLOBAL):
        if stop():
            return None
        w[number] = rm.polish(w[number])
    losses, slopes = rm.loss(w), np.abs(rm.gradient(w)).max((-1, -2))
    critical = (losses > GLOBAL) & (slopes < CRITICAL)
    least = np.full(len(w), np.inf)
    least[critical] = [rm.spectrum(one)[0] for one in w[critical]]
    trapped = critical & (least > -CRITICAL)
    kinds = collections.Counter(
        f"{value:.5f} {'+'.join(map(str, rm.orbits(one)[1]))}" for value, one in zip(losses[trapped], w[trapped])
    )
    cells = {
        "n": n,
        "k": k,
        "trapped": counted(trapped),
        "saddles": int(np.sum(critical & ~trapped)),
        "open": int(np.sum(~(losses <= GLOBAL) & ~critical)),  # and what diverged
        "least": float(least[trapped].min()) if trapped.any() else None,
        "kinds": "; ".join(f"{number} at {kind}" for kind, number in kinds.most_common(4)) or "-",
    }
    log(f"n = {n}, k = {k}: {cells['trapped']['count']} of {len(w)} trapped ({cells['kinds']})")
    return result({"train/loss": losses}, cells, n * k)


COLUMNS = {
    "n": "units n",
    "k": "k",
    **{f"loss_{family}": f"loss, {family}" for family in rm.FAMILIES},
    **{f"least_{family}": f"least eigenvalue, {family}" for family in rm.FAMILIES},
    **{f"negative_{family}": f"negative ones, {family}" for family in rm.FAMILIES},
    **{f"top_{family}": f"largest / k, {family}" for family in rm.FAMILIES},
    **{f"gap_{family}": f"mean distance from the spectrum of the global minimum, {family}" for family in rm.FAMILIES},
    **{f"turns_{family}": f"k at which {family} turns" for family in rm.FAMILIES},
    "k_loss_II": "k loss, II",
    "split": "negative eigenvalues after a split",
    **{f"slope_{family}": f"least slope of a new unit, {family}" for family in rm.FAMILIES},
    "trapped": "ends at a spurious minimum",
    "saddles": "at a saddle",
    "open": "not converged above 1e-3",
    "least": "least eigenvalue at minima",
    "kinds": "loss and classes of inputs",
}

EXPERIMENT = ExactExperiment(
    Fields,
    title="Spurious minima of two-layer ReLU networks",
    columns=COLUMNS,
    note="After a split: over both kinds of units of all three families. Shares with 95 % Wilson intervals.",
    digits=7,
    primary="train/loss",
    smoke={},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
)
