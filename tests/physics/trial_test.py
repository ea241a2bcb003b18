"""Mistakes in an equation of one's own: each is told before training, with the part, the line and what to write."""

import contextlib
import dataclasses
import itertools
import math
import random
import time
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from sbjax.common.names import import_path
from sbjax.experiments.pinn.experiment import build_equation
from sbjax.frame.errors import ConfigError
from sbjax.models import layers
from sbjax.models.field import Field
from sbjax.physics import building
from sbjax.physics.equation import Condition, Reference
from sbjax.physics.pdes import EQUATIONS, make_equation
from sbjax.physics.trial import try_equation, try_reference
from sbjax.runner.run import run
from sbjax.tasks.smoothness import _missing, check_activation

HEAT = make_equation("heat")
POISSON = make_equation("poisson")


def residual(function, **changes):
    return dataclasses.replace(HEAT, residual=function, **changes)


def value(function, equation=HEAT):
    kind = building.dirichlet("u", [("x", "upper")], function)
    return dataclasses.replace(equation, conditions=(kind,), ansatz=None)


def reference(function, equation=HEAT):
    return dataclasses.replace(equation, reference=building.exact(function, "test"))


def several_lines(x, d):
    scaled = 2 * x[1]
    return {"equation": d["u_t"] - np.exp(
        scaled
    )}  # fmt: skip


TERM = "heat: residual: term 'equation'"
cosine = np.cos
GENERATOR, COUNTER = np.random.default_rng(0), itertools.count()
ROBIN = [("x", "lower")], ("u",)


def conditions(*given):
    return dataclasses.replace(HEAT, conditions=given, ansatz=None)


MISTAKES = {
    # Shapes.
    "the point for a coordinate": (
        residual(lambda x, d: {"equation": d["u_t"] - d["u_xx"] * x}),
        rf"{TERM} has shape \(2,\) and must be a scalar.*the point x is \[x, t\], so that x\[0\] is x",
    ),
    "a value of shape [1]": (value(lambda x, t: jnp.zeros(1)), r"condition 'u_on_x_upper' has shape \(1,\)"),
    "a robin term of shape [2]": (
        conditions(building.robin(*ROBIN, lambda x, d: d["u"] - x)),
        r"condition 'robin_on_x_lower' has shape \(2,\)",
    ),
    "a reference of two": (reference(lambda x, t: (x, t)), r"reference gives shape \(2,\), needs an array"),
    "a list": (residual(lambda x, d: [d["u_t"]]), "residual gives a list: return the terms by name"),
    "a bare scalar": (residual(lambda x, d: d["u_t"]), "residual gives a single number: return the terms by name"),
    "an array": (residual(lambda x, d: x), r"residual gives an array of shape \(2,\): return the terms"),
    # Values that no training could lower.
    "divided by zero": (residual(lambda x, d: {"equation": d["u_t"] / 0.0}), rf"{TERM} is inf at .*whatever"),
    "a logarithm": (
        residual(lambda x, d: {"equation": jnp.log(-1.0 - x[0]) + d["u_t"]}),
        rf"{TERM} is nan at \[.*logarithm of a negative",
    ),
    "a value of no number": (value(lambda x, t: 1 / (x - 1)), r"condition 'u_on_x_upper' is -?inf at \[1.0, "),
    # Beyond the coordinates.
    "an index": (
        residual(lambda x, d: {"equation": d["u_t"] - x[5]}),
        r"residual \(trial_test.py, line \d+\): index 5 is out of bounds.*; x\[0\] is x, x\[1\] is t",
    ),
    "an index in a condition": (
        conditions(building.robin(*ROBIN, lambda x, d: d["u"] - x[2])),
        r"condition 'robin_on_x_lower'.*index 2 is out of bounds",
    ),
    "a list as term": (residual(lambda x, d: {"equation": [d["u_t"]]}), f"{TERM} is a list, needs a number"),
    "nothing": (residual(lambda x, d: None), "residual gives a NoneType"),
    "no term": (residual(lambda x, d: {}), "residual gives no term"),
    "complex": (
        residual(lambda x, d: {"equation": jax.lax.complex(d["u_t"], d["u_t"])}),
        f"{TERM} is complex: write real and imaginary",
    ),
    "a comparison": (residual(lambda x, d: {"equation": d["u_t"] > 0}), f"{TERM} is of type bool"),
    "no partial": (residual(lambda x, d: {"equation": x[0]}), f"{TERM} depends on no partial"),
    "rounded": (residual(lambda x, d: {"equation": jnp.round(d["u_t"])}), f"{TERM} has slope 0 in all partials"),
    "a constant to jax": (
        residual(lambda x, d: {"equation": jax.lax.stop_gradient(d["u_t"] - d["u_xx"])}),
        f"{TERM} has slope 0 in all partials, so that training cannot lower it",
    ),
    "a sign in a condition": (
        conditions(building.robin(*ROBIN, lambda x, d: jnp.sign(d["u"]))),
        "condition 'robin_on_x_lower' has slope 0",
    ),
    # Names.
    "a term called as a condition": (
        residual(lambda x, d: {"u_on_x": d["u_t"] - d["u_xx"]}),
        "term 'u_on_x', the name of a condition, which would take its place",
    ),
    "a term without a name": (residual(lambda x, d: {"": d["u_t"]}), "has a term called ''"),
    "a name that is no UTF-8": (residual(lambda x, d: {"a\udcff": d["u_t"]}), r"has a term called 'a\\udcff'"),
    "a number as name": (residual(lambda x, d: {0: d["u_t"]}), "has a term called 0"),
    "no face": (
        dataclasses.replace(HEAT, conditions=(building.dirichlet("u", [], 0.0),), ansatz=None),
        r"has no face: name one, \[\('x', 'lower'\)\]",
    ),
    # Partials.
    "undeclared in a residual": (
        residual(lambda x, d: {"equation": d["u_t"] - d["u"]}),
        r"residual reads d\['u'\], which partials do not list: write \('u_t', 'u_xx', 'u'\)",
    ),
    "undeclared in a copy": (
        residual(lambda x, d: {"equation": dict(d)["u_t"] - dict(d)["u"]}),
        r"residual \(trial_test.py, line \d+\): there is no 'u'; of a partial, list it",
    ),
    "undeclared by get": (residual(lambda x, d: {"equation": d["u_t"] - d.get("u", 0)}), r"reads d\['u'\]"),
    "of another unknown": (residual(lambda x, d: {"equation": d["v_t"]}), "partial 'v_t': 'v' is not an unknown"),
    "undeclared in a condition": (
        dataclasses.replace(
            HEAT, conditions=(building.robin([("x", "lower")], ("u",), lambda x, d: d["u"] + d["u_x"]),), ansatz=None
        ),
        r"condition 'robin_on_x_lower' reads d\['u_x'\], which its partials do not list",
    ),
    "undeclared in a periodic one": (
        dataclasses.replace(
            HEAT,
            conditions=(Condition("p", "periodic", building.both("x"), ("u",), lambda x, d, e: d["u_x"] - e["u_x"]),),
            ansatz=None,
        ),
        r"condition 'p' reads d\['u_x'\]",
    ),
    # Functions that jax does not know.
    "numpy in a value": (
        value(lambda x, t: np.sin(np.pi * x)),
        r"condition 'u_on_x_upper' \(trial_test.py, line \d+\) uses np.sin, .*: write jnp.sin",
    ),
    "math in a value": (value(lambda x, t: math.sin(x)), "uses math.sin, .*: write jnp.sin"),
    "math in a residual": (residual(lambda x, d: {"equation": d["u_t"] - math.exp(x[1])}), "uses math.exp, .* jnp.exp"),
    "numpy in a reference": (reference(lambda x, t: np.cosh(x)), "heat: reference .* uses np.cosh, .* jnp.cosh"),
    "on several lines": (residual(several_lines), "uses np.exp|makes a plain number"),
    "scipy": (value(lambda x, t: scipy.special.erf(x)), r"uses scipy.special.erf, .* jax.scipy.special.erf"),
    "float": (value(lambda x, t: float(x)), "makes a plain number of a traced one"),
    "if": (value(lambda x, t: 1.0 if x > 0.5 else 0.0), r"decides by the value .*jnp.where\(condition, a, b\)"),
    "max": (residual(lambda x, d: {"equation": max(d["u_t"], 0)}), "decides by the value"),
    "under another name": (value(lambda x, t: cosine(x)), "uses cosine, .*: write jnp.cos"),
    # Values that are no numbers.
    "a pair": (value(lambda x, t: (x, t)), "condition 'u_on_x_upper'.*: value gives a tuple, needs a number"),
    "a list of numbers": (value([0.0]), "value is a list, needs a number or a function"),
    "a word": (value("0"), "value is a str"),
    "forgotten": (value(lambda x, t: None), "value gives a NoneType"),
    # Values that jax would draw once and keep.
    "a random number": (value(lambda x, t: 0.1 * np.random.rand()), r"'u_on_x_upper' gives other values when"),  # noqa: NPY002
    "random numbers": (
        residual(lambda x, d: {"equation": d["u_t"] - np.random.normal(size=2) @ x}),  # noqa: NPY002
        "heat: residual gives other values",
    ),
    "a generator": (reference(lambda x, t: x * t + GENERATOR.normal()), "reference gives other values"),
    "of Python": (value(lambda x, t: random.gauss(0, 1) * x), "condition 'u_on_x_upper' gives other values"),
    "a counter": (residual(lambda x, d: {"equation": next(COUNTER) * d["u_t"]}), "heat: residual gives other values"),
    "a clock": (value(lambda x, t: x + time.time()), r"called again \(it calls time.time\)"),
    "in an ansatz": (
        dataclasses.replace(HEAT, ansatz=building.hard("u = t N", [], 0.0, lambda x, t: t * random.random())),
        "ansatz gives other values",
    ),
    # Functions written for other arguments.
    "a value of a point": (
        value(lambda p: p[0]),
        r"condition 'u_on_x_upper'.*: value is called with the coordinates apart, as value\(x, t\)",
    ),
    "a value of a point on a line": (value(lambda p: p[0], POISSON), r"IndexError: .*as numbers: value\(x\)"),
    "a reference of a point": (reference(lambda p: p[0] * p[1]), r"reference.*: formula is called with"),
    "a residual of coordinates": (residual(lambda x, t, d: {"equation": d["u_t"]}), r"residual is called as \(x, d\)"),
    "attributes": (residual(lambda x, d: {"equation": d.u_t}), r"residual \(trial_test.py, line \d+\): AttributeError"),
    "a form of a point": (
        dataclasses.replace(HEAT, ansatz=building.hard("u = t N", [], 0.0, lambda p: p[1])),
        "ansatz.*: distance is called with the coordinates apart",
    ),
}  # fmt: skip


def unpacked(u_t, u_xx):
    return {"equation": u_t - 0.4 * u_xx}


@pytest.mark.parametrize(
    "function",
    [
        lambda x, d: unpacked(**d),
        lambda x, d: unpacked(*d.values()),
        lambda x, d: unpacked(d.pop("u_t"), d["u_xx"]),
        lambda x, d: unpacked(d["u_t"] + 0 * x.at[0].set(1.0)[0], d["u_xx"]),
    ],
)
def test_partials_may_be_read_in_any_way(function):
    try_equation(residual(function))
    try_reference(residual(function))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_sentence(name):
    equation, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        try_equation(equation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknowns": ("u", "u")}, r"unknowns=\('u', 'u'\) must be a tuple of distinct names"),
        ({"unknowns": ()}, r"unknowns=\(\) must be"),
        (
            {"conditions": (Condition("interior", "dirichlet", (("x", "lower"),), ("u",), None),)},
            " a condition is called 'interior'",
        ),
        (
            {"conditions": (building.dirichlet("u", [("x", "lower")] * 2, 0.0),)},
            " condition 'u_on_x' names a face twice",
        ),
        ({"partials": ("u_t", "u_xx", "u_t")}, "partials has 'u_t' twice"),
        ({"reference": None}, "reference=None must be a Reference"),
        ({"unknowns": ("u_1",)}, r"unknowns=\('u_1',\) must be a tuple of distinct names without underscores"),
        ({"unknowns": "u"}, "unknowns='u' must be a tuple"),
        ({"coordinates": ("x", "x")}, r"coordinates=\('x', 'x'\) must be a tuple of distinct names"),
    ],
)
def test_names_of_an_equation(change, message):
    with pytest.raises(ValueError, match=f"heat.{message}"):
        dataclasses.replace(HEAT, **change)


def test_faces_are_pairs():
    with pytest.raises(ValueError, match=r"faces=\('x', 'lower'\) of 'u' must be a list of pairs"):
        building.dirichlet("u", ("x", "lower"), 0.0)


def wrong(x, t):
    return jnp.exp(-0.4 * jnp.pi**2 * t) * jnp.sin(jnp.pi * x)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        (
            residual(lambda x, d: {"equation": d["u_t"] + 0.4 * d["u_xx"]}),
            r"reference leaves [\d.]+ in residual 'equation' at \[.*\], whose parts add up to [\d.]+: it solves",
        ),
        (residual(lambda x, d: {"equation": d["u_t"] - 0.41 * d["u_xx"]}), "in residual 'equation'"),
        (value(1.0), "reference leaves 1 in condition 'u_on_x_upper'"),
        (reference(lambda x, t: wrong(x, t) + 1e-2), "in condition 'u_on_x'"),
        (reference(lambda x, t: 1e-6 * wrong(x, t)), "in condition 'initial_u'"),
        (reference(lambda x, t: jnp.sqrt(t - 2)), r"reference is \[nan\] at \[.*\], inside the domain"),
        (
            dataclasses.replace(HEAT, reference=Reference(lambda p: p[:1], "numerical", 1e-3, 1e-3, "table")),
            "in condition 'u_on_x'",
        ),
    ],
)
def test_a_reference_of_another_problem(equation, message):
    try_equation(equation)
    with pytest.raises(ValueError, match=message):
        try_reference(equation)


@pytest.mark.extended
def test_references_that_are_not_exact():
    """A table of the solution, piecewise linear: its second derivative is zero, its values are right."""
    t, x = np.linspace(0, 1, 201), np.linspace(0, 1, 201)
    table = jnp.asarray(wrong(x[:, None], t[None, :]))

    def interpolated(p):
        i, j = (jnp.clip((200 * p[k]).astype(int), 0, 199) for k in (0, 1))
        a, b = 200 * p[0] - i, 200 * p[1] - j
        low, high = ((1 - a) * table[i, j + k] + a * table[i + 1, j + k] for k in (0, 1))
        return jnp.stack([(1 - b) * low + b * high])

    for floor in (1e-4, 1e-2):
        try_reference(dataclasses.replace(HEAT, reference=Reference(interpolated, "numerical", floor, floor, "table")))
    for small in (0.0, 1e-6, 1e6):  # a solution of any size, and none at all
        scaled = lambda x, t, small=small: small * wrong(x, t)  # noqa: E731
        conditions = (building.dirichlet("u", building.both("x"), 0.0), building.initial_value("u", scaled))
        try_reference(dataclasses.replace(reference(scaled), conditions=conditions, ansatz=None))


@pytest.mark.parametrize("name", ["heat", "poisson_robin", "advection", "kovasznay", "euler_beam"])
def test_equations_of_the_package(name):
    try_equation(make_equation(name))
    try_reference(make_equation(name))


@pytest.mark.extended
@pytest.mark.parametrize("name", EQUATIONS)
def test_all_equations_of_the_package(name):
    try_equation(make_equation(name))
    try_reference(make_equation(name))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (MISTAKES["undeclared in a residual"][0], r"task.equation='own_equation:make': heat: residual reads d\['u'\]"),
        (MISTAKES["numpy in a value"][0], "task.equation='own_equation:make': .* write jnp.sin"),
        (residual(lambda x, d: {"equation": d["u_t"]}), "task.equation='own_equation:make': .*reference leaves"),
        (None, "it returned NoneType, not a sbjax.physics.equation.Equation"),
        (KeyError("nu"), "task.equation='own_equation:make': KeyError: 'nu'"),
    ],
)
def test_told_as_the_field(made, message, monkeypatch):
    def make():
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setitem(__import__("sys").modules, "own_equation", types.SimpleNamespace(make=make))
    with pytest.raises(ConfigError, match=message):
        build_equation("own_equation:make")


def of_order(order):
    name = "u_" + "x" * order
    return dataclasses.replace(
        POISSON, partials=(name,), residual=lambda x, d: {"equation": d[name]}, conditions=(), ansatz=None
    )


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_activations_have_the_derivatives_of_the_equation(activation):
    """As seen from the derivatives themselves: none of order 2 of piecewise linear ones, a jump in those of elu."""
    kinks = {
        "relu": 1,
        "leaky_relu": 1,
        "identity": 1,
        "hard_sigmoid": 1,
        "elu": 2,
        "celu": 2,
        "selu": 1,
        "hard_swish": 1,
    }
    highest = kinks.get(activation, 4)
    field = Field(unknowns=1, widths=(4,), lower=(0.0,), upper=(1.0,), activation=activation)
    for order in (1, 2, 3, 4):
        if order <= highest:
            check_activation(of_order(order), field)
        else:
            with pytest.raises(ValueError, match=rf"activation='{activation}' has no derivatives of order {order}"):
                check_activation(of_order(order), field)


class Own(nn.Module):
    """A network of one's own."""

    bend: Callable
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(self.bend(nn.Dense(8)(x)))


@pytest.mark.parametrize(
    "activation",
    [a if a in layers.ORDERS else pytest.param(a, marks=pytest.mark.extended) for a in layers.ACTIVATIONS],
)
def test_orders_are_those_of_the_activations(activation):
    """The table against the derivatives of each: the last one that is not zero, and has no jump in the one below."""
    function, found = layers.ACTIVATIONS[activation], 0
    x = np.linspace(-4, 4, 8001)
    while found < 4:
        values = jax.vmap(function)(jnp.asarray(x, jnp.float32))
        function = jax.grad(function)
        slopes = jax.vmap(function)(jnp.asarray(x, jnp.float32))
        if not np.abs(slopes).max() or _missing(np.asarray(values), np.asarray(slopes), x) > 0.02:
            break
        found += 1
    assert layers.ORDERS.get(activation, 4) == found


class Kinked(nn.Module):
    """A field of one's own with any bend, and zeros in its last layer where asked."""

    bend: Callable
    start: Callable = nn.initializers.lecun_normal()
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, kernel_init=self.start)(self.bend(nn.Dense(16)(x)))


@pytest.mark.parametrize(
    ("bend", "order", "words"),
    [
        (nn.elu, 3, "u_xxx of poisson lacks the jumps of u_xx"),
        (lambda x: jnp.concatenate([nn.relu(x), jnp.sin(x)], -1), 2, "u_xx of poisson lacks the jumps of u_x"),
        (lambda x: jnp.sin(30 * x), 2, None),
        *[
            pytest.param(*case, marks=pytest.mark.extended)
            for case in (
                (nn.elu, 2, None),
                (nn.selu, 2, "u_xx of poisson lacks the jumps of u_x"),
                (lambda x: nn.relu(x) ** 2, 2, None),
                (lambda x: nn.relu(x) ** 2, 3, "are zero for any weights"),
                (jnp.sign, 1, "u_x of poisson lacks the jumps of u"),
                (lambda x: x * jnp.tanh(nn.softplus(x)), 4, None),
            )
        ],
    ],
)
def test_kinks_of_networks_of_ones_own(bend, order, words):
    with contextlib.nullcontext() if words is None else pytest.raises(ValueError, match=words):
        check_activation(of_order(order), Kinked(bend))


@pytest.mark.extended
def test_one_partial_that_is_zero_is_refused():
    beam = make_equation("euler_beam")  # has u_xx at its ends, u_xxxx inside
    with pytest.raises(ValueError, match=r"u_xxxx.* of euler_beam are zero for any weights"):
        check_activation(beam, Kinked(lambda x: nn.relu(x) ** 2))
    check_activation(beam, Kinked(jnp.tanh, nn.initializers.zeros))  # zero at the start, and not for ever


def test_networks_of_ones_own():
    check_activation(of_order(2), Kinked(jnp.tanh, nn.initializers.zeros))  # zero at the start, and not for ever
    check_activation(of_order(1), Own(nn.relu))
    with pytest.raises(ValueError, match="u_xx of poisson are zero for any weights of the network"):
        check_activation(of_order(2), Own(nn.relu))


def test_the_field_is_named_and_nothing_written(tmp_path):
    config = import_path("configs/pdes.py:get_config")("poisson,smoke")
    config.model.activation = "relu"
    with pytest.raises(ConfigError, match=r"model.activation='relu' has no derivatives of order 2, as in u_xx"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
