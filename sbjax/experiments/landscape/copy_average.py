"""Where gradient flow leaves students that are narrower than their teacher: do neurons copy or average?

Students of n erf neurons learn from k > n orthonormal ones by the exact population loss of
`sbjax.landscape.copy_average` (Simsek, Bendjeddou, Gerstner, Brea, arXiv 2311.01644). Of the critical points at which
every student neuron copies one teacher neuron or averages several, the best has n - 1 copies and one average of
k - n + 1, with the loss L*(k - n + 1) in closed form. Gradient flow from random weights is said to end there, or where
each student neuron roughly copies another teacher neuron. It is integrated from many initial weights at once, followed
by Newton steps on the gradient; then ends are told apart by their weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree

from sbjax import rng
from sbjax.common import devices
from sbjax.common.options import option
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.experiment import LandscapeExperiment
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.landscape.copy_average import copy_average_loss, copy_average_student, orthonormal_teacher, population_loss
from sbjax.metrics import shares
from sbjax.optimizers.gradient_flow import gradient_flow


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("copy_average", "which experiment on the loss landscape")
    students: int = option(2, "neurons n of the student", least=1, most=1000)
    teachers: int = option(4, "neurons k of the teacher", least=2, most=1000)
    extra_inputs: int = option(1, "dimensions besides those of the teacher", least=0, most=1000)
    flow_time: float = option(1e5, "of the gradient flow", above=1e-2)


SMOKE: dict[str, Any] = {"flow_time": 1e3}
PRIMARY = "train/loss"
BEST = "best copy-average"
OTHER = "other copy-average"
ROUGH = "rough copies"
ELSE = "other critical point"
UNFINISHED = "not converged"
KINDS = (BEST, OTHER, ROUGH, ELSE, UNFINISHED)

CONVERGED = 1e-10
"""Largest entry of the gradient at a critical point."""

TIMES = 41


class End(NamedTuple):
    """Where a student ended.

    Attributes:
        kind: one of `KINDS`.
        sizes: how many teacher neurons each student neuron stands for at a copy-average point, descending; else ().
    """

    kind: str
    sizes: tuple[int, ...]


def check(plan: Plan, arm: ArmPlan) -> None:
    """Refuse a student as wide as its teacher, and single precision."""
    task = arm.task
    if task.students >= task.teachers:
        raise ConfigError(
            f"task.students={task.students} must lie between 1 and task.teachers={task.teachers} - 1: a student "
            "as wide as its teacher reaches zero loss"
        )
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False is too coarse for critical points: set precision.x64=True")


def needs(plan: Plan, arm: ArmPlan) -> dict[str, int]:
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    return {"students": 8 * plan.replicas * task.students * (task.teachers + task.extra_inputs)}


def init_students(key: Key[Array, ""], seeds: int, n: int, inputs: int) -> dict[str, Float[Array, "seed ..."]]:
    """Normal weights of variance 2 / (fan in + fan out) in both layers (Glorot); a seed's do not depend on how many.

    >>> init_students(jax.random.key(0), 3, 2, 5)['w'].shape
    (3, 2, 5)
    """

    def one(seed):
        w, a = jax.random.split(rng.replica_stream(key, "init", seed))
        return {
            "w": np.sqrt(2 / (inputs + n)).item() * jax.random.normal(w, (n, inputs)),
            "a": np.sqrt(2 / (n + 1)).item() * jax.random.normal(a, (n, 1)),
        }

    return jax.vmap(one)(jnp.arange(seeds))


def newton(loss_fn: Callable[[PyTree], Float[Array, ""]], params: PyTree, steps: int) -> PyTree:
    """Newton steps on the gradient, halved twice if need be, of which none raises its largest entry.

    Ends at the nearest critical point of whatever kind: start where a flow has settled.

    >>> with jax.enable_x64(True):
    ...     found = newton(lambda w: (w ** 2 - 2.0) ** 2, jnp.array(1.3), 6)
    ...     print(f"{found:.12f}")
    1.414213562373
    """
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda w: loss_fn(unravel(w)))
    curvature = jax.jacfwd(slope)

    def size(w):
        largest = jnp.max(jnp.abs(slope(w)))
        return jnp.where(jnp.isfinite(largest), largest, jnp.inf)

    def step(_, w):
        values, vectors = jnp.linalg.eigh(curvature(w))
        kept = jnp.abs(values) > 1e-10 * jnp.max(jnp.abs(values))
        move = vectors @ jnp.where(kept, vectors.T @ slope(w) / jnp.where(kept, values, 1.0), 0.0)
        tried = w - jnp.array([0.0, 1.0, 0.5, 0.25], w.dtype)[:, None] * move
        return tried[jnp.argmin(jax.vmap(size)(tried))]

    return unravel(jax.lax.fori_loop(0, steps, step, flat))


def end_of(student: dict[str, Float[ArrayLike, "n ..."]], k: int, gradient: float, *, tolerance: float = 1e-6) -> End:
    """Which critical point this is.

    A copy-average point is one whose weights agree with the closed form for the partition that its overlaps suggest,
    after signs are folded, (w, a) being the same neuron as (-w, -a). Rough copies: more than half of the squared length
    of each incoming vector lies along a teacher neuron of its own.

    Args:
        student: {'w': [n, d], 'a': [n, 1]}.
        k: neurons of `orthonormal_teacher`.
        gradient: largest entry of the gradient.
        tolerance: of every weight.

    >>> end_of(copy_average_student([3, 1]), 4, 0.0)
    End(kind='best copy-average', sizes=(3, 1))
    >>> end_of(copy_average_student([2, 2]), 4, 0.0)
    End(kind='other copy-average', sizes=(2, 2))
    """
    w, a = np.asarray(student["w"], float), np.asarray(student["a"], float)
    n = len(w)
    if not gradient <= CONVERGED:  # NaN as well
        return End(UNFINISHED, ())
    sign = np.where(a < 0, -1, 1)
    w, a = sign * w, sign * a
    owner = w[:, :k].argmax(0)
    sizes = np.bincount(owner, minlength=n)
    if sizes.min() > 0:
        # In the order of the student's neurons, then of the teacher's.
        exact = copy_average_student(sizes.tolist(), w.shape[1])
        order = np.argsort(owner, kind="stable")
        exact["w"][:, order] = exact["w"][:, :k].copy()
        if max(np.abs(w - exact["w"]).max(), np.abs(a - exact["a"]).max()) <= tolerance:
            sizes = tuple(sorted(sizes.tolist(), reverse=True))
            return End(BEST if sizes[0] == k - n + 1 else OTHER, sizes)
    parts = w[:, :k] ** 2 / np.sum(w**2, 1, keepdims=True)
    rough = parts.max(1).min() > 0.5 and len(set(parts.argmax(1).tolist())) == n
    return End(ROUGH if rough else ELSE, ())


def run_arm(
    plan: Plan, arm: ArmPlan, key: Key[Array, ""], log: Callable[[str], Any], stop: Callable[[], bool]
) -> ArmResult | None:
    """All seeds of one (n, k) in one program; `train_steps` are the Newton steps."""
    task, seeds = arm.task, plan.replicas
    n, k = task.students, task.teachers
    if stop():
        return None
    log(f"{seeds} students of {n} neurons, {k} of the teacher")
    starts = init_students(key, seeds, n, k + task.extra_inputs)
    times = np.concatenate([[0.0], np.geomspace(1e-2, task.flow_time, TIMES - 1)])
    found = {name: np.asarray(value) for name, value in _ends(starts, times, k, plan.train_steps).items()}
    ends = [end_of({"w": w, "a": a}, k, gradient) for w, a, gradient in zip(found["w"], found["a"], found["gradient"])]
    curvatures = found.pop("curvature")
    negative = np.sum(curvatures < -1e-9 * np.abs(curvatures).max(1, keepdims=True), 1)
    return ArmResult(
        metrics={
            "train/loss": found["loss"].tolist(),
            "train/excess": (found["loss"] - copy_average_loss(n, k)).tolist(),
            "train/gradient": found["gradient"].tolist(),
        },
        summary={
            "students": n,
            "teachers": k,
            "best": copy_average_loss(n, k),
            "kinds": {kind: _share([end.kind == kind for end in ends]) for kind in KINDS},
            "given_up": int(np.sum(found["last"] < len(times) - 1)),
            "levels": levels(found["loss"], ends, negative),
        },
        arrays={
            **found,
            "times": times,
            "kind": np.array([KINDS.index(end.kind) for end in ends]),
            "negative": negative,
        },
        parameters=n * (k + task.extra_inputs + 1),
    )


def levels(
    losses: Float[np.ndarray, "seed"], ends: list[End], negative: Int[np.ndarray, "seed"]
) -> list[dict[str, Any]]:
    """Distinct losses of the ends with what they are, lowest first; those that did not converge are left out.

    >>> levels(np.array([0.5, 0.25, 0.5]), [End(BEST, (2,)), End(ELSE, ()), End(BEST, (2,))], np.array([0, 1, 0]))[1]
    {'loss': 0.5, 'kind': 'best copy-average', 'sizes': [2], 'count': 2, 'negative': 0}
    """
    found = {}
    for loss, end, down in zip(losses.tolist(), ends, negative.tolist()):
        if end.kind != UNFINISHED:
            found.setdefault((round(loss, 9), end, down), []).append(loss)
    return [
        {"loss": min(same), "kind": end.kind, "sizes": list(end.sizes), "count": len(same), "negative": down}
        for (_, end, down), same in sorted(found.items())
    ]


def _share(flags):
    """Count, share and the ends of its interval."""
    return {"count": sum(flags), **shares.share(flags, method="exact")._asdict()}


def _ends(starts, times, k, steps):
    """Losses along the flow [seed, time]; weights, loss, gradient and eigenvalues of the Hessian after Newton steps."""
    teacher = jax.tree.map(jnp.asarray, orthonormal_teacher(k, starts["w"].shape[2]))

    def loss(params):
        return population_loss(params, teacher)

    def one(params):
        flow = gradient_flow(loss, params, times)
        losses = jax.vmap(loss)(flow.params)
        # The last time that the solver reached: it may give up where next to nothing moves any more.
        last = jnp.sum(jnp.isfinite(losses)) - 1
        end = newton(loss, jax.tree.map(lambda leaf: leaf[last], flow.params), steps)
        flat, unravel = ravel_pytree(end)
        slope = jax.grad(lambda w: loss(unravel(w)))
        return {
            **end,
            "loss": loss(end),
            "losses": losses,
            "last": last,
            "gradient": jnp.max(jnp.abs(slope(flat))),
            "curvature": jnp.linalg.eigvalsh(jax.jacfwd(slope)(flat)),
        }

    with devices.double():  # of the CPU: diffrax asks its host whether each flow is well
        return jax.jit(jax.vmap(one))(starts)


EXPERIMENT = LandscapeExperiment(Fields, primary=PRIMARY, smoke=SMOKE, check_arm=check, needs=needs, run_arm=run_arm)
