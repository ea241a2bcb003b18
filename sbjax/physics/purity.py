"""Whether functions of an equation give the same twice: jax traces them once, and what they drew stays for ever."""

import contextlib
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from sbjax.physics.equation import Equation

CLOCKS = ("time", "perf_counter", "monotonic", "process_time", "time_ns")
_OURS = ("site-packages", sysconfig.get_paths()["stdlib"])


def check_pure(equation: Equation) -> None:
    """Trace residual, conditions, reference and ansatz twice, and compare the programs and the constants in them.

    Random numbers of numpy and Python, and clocks, are numbers to jax when it traces: training, resuming and drawing
    would each see another equation, of which every one is fixed.

    Raises:
        ValueError: two traces differ. The message names the part, and the function that was called where it is a
            clock.

    >>> from sbjax.physics.pdes import make_equation
    >>> check_pure(make_equation('heat'))
    """
    point = jax.ShapeDtypeStruct((len(equation.coordinates),), np.float32)
    for what, function, names in _parts(equation):
        numbers = [jax.ShapeDtypeStruct((), np.float32)] * len(names)
        clocks: list[str] = []
        with _noted(clocks):
            programs = [_program(function, (point, *numbers)) for _ in range(2)]
        if clocks or programs[0] != programs[1]:
            by = f" (it calls time.{clocks[0]})" if clocks else ""
            raise ValueError(
                f"{equation.name}: {what} gives other values when it is called again{by}: it is traced once, so that a "
                "random number, a clock or a counter in it would stay as it was then; draw random values once, outside "
                "of the function and with a fixed seed"
            )


def _parts(equation: Equation) -> Iterator[tuple[str, Callable, tuple[str, ...]]]:
    """(what, function of a point and of numbers, names of the numbers)."""

    def of(function, names, sides=1):
        n = len(names)
        return lambda x, *v: function(x, *(dict(zip(names, v[side * n :])) for side in range(sides)))

    yield "residual", of(equation.residual, equation.partials), equation.partials
    for condition in equation.conditions:
        sides = 2 if condition.kind == "periodic" else 1
        what = f"condition {condition.name!r}"
        yield what, of(condition.residual, condition.partials, sides), condition.partials * sides
    yield "reference", lambda x: equation.reference.solution(x), ()
    if equation.ansatz:
        form, outputs = equation.ansatz.fn, jnp.zeros(len(equation.unknowns))
        yield "ansatz", lambda x: form(x, outputs), ()


def _program(function: Callable, given: tuple) -> tuple:
    """What a function is to jax, to compare: names of its operations, the numbers in them, and its constants."""
    closed = jax.make_jaxpr(lambda *given: function(*given))(*given)  # a new function: jax keeps traces of known ones
    literals: list[bytes] = []

    def visit(jaxpr):
        for one in jaxpr.eqns:
            literals.extend(np.asarray(var.val).tobytes() for var in one.invars if hasattr(var, "val"))
            for inner in jaxprs_in_params(one.params):
                visit(inner)
        literals.extend(np.asarray(var.val).tobytes() for var in jaxpr.outvars if hasattr(var, "val"))

    visit(closed.jaxpr)
    return (
        [str(one.primitive) for one in closed.jaxpr.eqns],
        literals,
        [np.asarray(constant).tobytes() for constant in closed.consts],
    )


@contextlib.contextmanager
def _noted(clocks: list[str]) -> Iterator[None]:
    """Collect which clocks of `time` a user's code reads: in single precision, a time of day is the same for long."""
    real = {name: getattr(time, name) for name in CLOCKS}

    def noting(name):
        def read():
            file = sys._getframe(1).f_code.co_filename
            if not any(part in file for part in _OURS):
                clocks.append(name)
            return real[name]()

        return read

    for name in CLOCKS:
        setattr(time, name, noting(name))
    try:
        yield
    finally:
        for name, clock in real.items():
            setattr(time, name, clock)
