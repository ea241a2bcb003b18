"""The arms of an experiment that the training loop runs, built from a plan and ready to train."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp

from sbjax.common import devices
from sbjax.common.names import near
from sbjax.common.options import words
from sbjax.frame.errors import ConfigError
from sbjax.frame.estimate import largest_array
from sbjax.frame.sections import Precision
from sbjax.metrics.monitor import Monitor
from sbjax.tasks.task import Task
from sbjax.training.fit import Phase
from sbjax.training.timeline import boundaries


class Arm(NamedTuple):
    """One side of the comparison, ready to train.

    Attributes:
        phases: of training; the second one may be None.
        steps: of both phases.
        parameters: trained ones of one replica.
        flops_per_step: of loss and gradient of one replica. See `Plan.one_gradient`.
        checkpoint_bytes: of one checkpoint, all replicas.
        monitor, monitor_steps: what is measured over all replicas together, and where.
        counted: whether `flops_per_step` is all of loss and gradient, see `Cost`.
    """

    name: str
    task: Task
    phases: tuple[Phase, Phase | None]
    steps: int
    parameters: int
    flops_per_step: float
    checkpoint_bytes: int
    monitor: Monitor | None
    monitor_steps: tuple[int, ...]
    counted: bool = True

    def phase_ends(self, extend_steps: int = 0) -> tuple[int, ...]:
        """The last step of each phase, of a training that is so many steps longer."""
        first = (self.phases[0].steps,) if self.phases[1] else ()
        return (*first, self.steps + extend_steps)


class Cost(NamedTuple):
    """Of one replica and step.

    Attributes:
        flops: of loss and gradient, as XLA counts them in the program before optimisation, and the share of a step in
            what only some steps compute, `Task.besides`.
        largest: bytes of the largest array in it.
        counted: False where the program has a `while_loop`, whose body counts once, however often it runs.
    """

    flops: float
    largest: int
    counted: bool


def step_cost(task: Task) -> Cost:
    """What one step of one replica costs, from its program alone.

    XLA counts the body of a loop once; here it counts as often as `scan` runs it. It counts on the CPU alone: where jax
    was started without one, only matrix products and convolutions are counted.
    """
    key = jax.random.key(0)
    variables = jax.eval_shape(task.init, key)
    batch = jax.eval_shape(task.sample, task.data, key, jnp.int32(0))

    def gradient(params, variables, batch, key):
        return jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(params)

    cost = _program_cost(gradient, variables["params"], variables, batch, key)
    for fn, every in task.besides:
        own = _program_cost(fn, variables, batch, key)
        counted = cost.counted and own.counted
        cost = Cost(cost.flops + own.flops / every, max(cost.largest, own.largest), counted)
    return cost


def _program_cost(fn, *arguments) -> Cost:
    traced = jax.jit(fn).trace(*arguments)
    # Arms that differ in a constant alone are one program: lowering it costs as much as tracing it.
    digest = hashlib.sha256(str(traced.jaxpr).encode()).hexdigest()
    if digest not in _counted():
        flops = _flops(traced)
        flops = of_products(traced.jaxpr.jaxpr) if flops is None else flops + _repeated(traced.jaxpr)
        jaxpr = traced.jaxpr.jaxpr
        _counted()[digest] = Cost(flops, largest_array(jaxpr), "while" not in primitives(jaxpr))
    return _counted()[digest]


def _flops(traced) -> float | None:
    """As XLA's client of the CPU counts them; those of accelerators are plugins, which tell nothing of a program that
    is not compiled (jax-ml/jax#22713)."""
    with jax.default_device(next(iter(devices.cpus()), None)):
        found = traced.lower().cost_analysis()
    # Where there is nothing to count, such as in a loop that moves numbers, there is no entry; what XLA does not know,
    # such as a call of Python, counts -1.
    return None if found is None else max(0.0, float(found.get("flops", 0.0)))


def primitives(jaxpr: jax.extend.core.Jaxpr) -> set[str]:
    """Names of the primitives in a program and in all that it calls.

    >>> sorted(primitives(jax.make_jaxpr(jax.jit(lambda x: 2 * x + 1))(1.0).jaxpr))
    ['add', 'jit', 'mul']
    """
    found = {equation.primitive.name for equation in jaxpr.eqns}
    inside = (
        primitives(inner) for equation in jaxpr.eqns for inner in jax.extend.core.jaxprs_in_params(equation.params)
    )
    return found.union(*inside)


def of_products(jaxpr: jax.extend.core.Jaxpr) -> float:
    """FLOPs of matrix products and convolutions, with the zeros around an image; a body as often as `scan` runs it.

    >>> product = lambda x: jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=3)[0]
    >>> of_products(jax.make_jaxpr(product)(jnp.ones((4, 4))).jaxpr)
    384.0
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            left, (contracted, _) = equation.invars[0].aval, params["dimension_numbers"][0]
            total += 2.0 * equation.outvars[0].aval.size * math.prod(left.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, features = equation.invars[1].aval, params["dimension_numbers"].rhs_spec[0]
            taps = kernel.size / kernel.shape[features] / math.prod(params["lhs_dilation"])  # the others meet zeros
            total += 2.0 * equation.outvars[0].aval.size * taps
        inside = sum(of_products(inner) for inner in jax.extend.core.jaxprs_in_params(params))
        total += inside * (params["length"] if name == "scan" else 1)
    return total


def _repeated(jaxpr) -> float:
    """FLOPs of all runs but the first of the bodies of `scan` in a program."""
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
        inner = [value for value in inner if hasattr(value, "eqns")]
        inside = sum(map(_repeated, inner))
        if equation.primitive.name == "scan":
            body, runs = equation.params["jaxpr"], equation.params["length"]
            alone = jax.jit(jax.extend.core.jaxpr_as_fun(body)).trace(*(x.aval for x in body.jaxpr.invars))
            total += runs * inside + (runs - 1) * _flops(alone)
        else:
            total += inside
    return total


@functools.cache
def _counted() -> dict[str, Cost]:
    """Costs by digest of a program, for the life of the process."""
    return {}


def parse_steps(text: str, *, steps: int, reports: int) -> tuple[int, ...]:
    """The steps that `monitor.at` names: numbers, shares of the training, 'start', 'end', 'reports'.

    Raises:
        ConfigError: a word that is none of these, or a step outside the training.

    >>> parse_steps('start, 10%, 70, end', steps=200, reports=4)
    (0, 20, 70, 200)
    """
    known = {"start": [0], "end": [steps], "reports": boundaries(steps, reports)}
    found: set[int] = set()
    for word in words(text):
        try:
            exact = float(word[:-1]) / 100 * steps if word.endswith("%") else 0
            chosen = known.get(word) or [round(exact) if word.endswith("%") else int(word)]
        except (ValueError, OverflowError):  # the latter from 'inf%'
            raise ConfigError(
                f"monitor.at={text!r}: {word!r} is no step{near(word, known)}; give numbers, shares such as 10%, "
                f"or {', '.join(known)}"
            ) from None
        if not (0 <= chosen[0] <= steps and 0 <= exact <= steps):
            raise ConfigError(f"monitor.at={text!r}: {word!r} lies outside the training of {steps} steps")
        found.update(chosen)
    return tuple(sorted(found))


@contextlib.contextmanager
def precision(section: Precision) -> Iterator[None]:
    """Matmul precision and double precision of a run.

    Raises:
        ConfigError: double precision on a TPU, which has no float64.
    """
    if section.x64 and jax.default_backend() == "tpu":
        raise ConfigError(
            "precision.x64=True: a TPU has no float64. Set precision.x64=False (and model.dtype='float32', if the "
            "config says otherwise), or compute on the CPU of this machine with JAX_PLATFORMS=cpu"
        )
    with jax.default_matmul_precision(section.matmul), jax.enable_x64(section.x64):
        yield
