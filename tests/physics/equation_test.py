"""The types, their refusals, and the points."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.physics import building
from sbjax.physics import equation as eq
from sbjax.physics.pdes import EQUATIONS, make_equation


@pytest.fixture
def heat():
    return make_equation("heat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": (0.0, math.nan)}, "heat.lower=nan of 't' must be finite"),
        ({"upper": (math.inf, 1.0)}, "heat.upper=inf of 'x' must be finite: cut the domain"),
        ({"lower": (1.0, 0.0)}, "heat.lower=1.0 of 'x' must lie below its upper=1.0: swap or move one"),
        ({"lower": (0.0,)}, r"heat.lower=\(0.0,\) must hold one number per coordinate: x, t"),
        ({"group": "linar"}, "heat.group='linar' is unknown, did you mean 'linear'"),
        ({"partials": ("u_t", "u_xy")}, "partial 'u_xy': 'xy' is not made of the coordinates x, t"),
        ({"conditions": (building.initial_value("w", 0.0),)}, "partial 'w': 'w' is not an unknown"),
        ({"conditions": (building.dirichlet("u", [("y", "lower")], 0.0),)}, r"face \('y', 'lower'\) does not exist"),
        ({"conditions": (building.dirichlet("u", [("x", "left")], 0.0),)}, "'lower' or 'upper'"),
        ({"conditions": (building.initial_value("u", 0.0),) * 2}, "two conditions are called 'initial_u'"),
    ],
)
def test_equations_that_do_not_fit_are_refused(heat, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(heat, **change)


def test_conditions_and_references_that_do_not_fit_are_refused(heat):
    with pytest.raises(ValueError, match="kind='dirichet' is unknown, did you mean 'dirichlet'"):
        dataclasses.replace(heat.conditions[0], kind="dirichet")
    with pytest.raises(ValueError, match=r"reference\.kind='guess'"):
        dataclasses.replace(heat.reference, kind="guess")
    for floor in (0.0, math.nan):
        with pytest.raises(ValueError, match=f"reference.floor={floor} must be finite and > 0"):
            dataclasses.replace(heat.reference, floor=floor)


@pytest.mark.parametrize("value", [math.nan, lambda x, t: 1 / (x - x), lambda x, t: jnp.log(-1 - t)])
def test_a_condition_that_is_not_finite_is_named(heat, value):
    conditions = (heat.conditions[0], building.dirichlet("u", [("x", "upper")], value))
    broken = dataclasses.replace(heat, conditions=conditions, ansatz=None)
    with pytest.raises(
        ValueError, match=r"heat: condition 'u_on_x_upper' is -?(nan|inf) at \[1.0, .*correct its value"
    ):
        eq.check_conditions(broken)


def test_all_equations_have_finite_conditions_in_float32():
    for name in EQUATIONS:
        eq.check_conditions(make_equation(name))


def test_residual_is_pure_and_maps(heat):
    residual = eq.make_residual(heat)
    points = jnp.asarray(eq.spread(heat, 6), jnp.float32)
    found = jax.jit(jax.vmap(lambda x: residual(heat.reference.solution, x)))(points)
    assert found["equation"].shape == (6,)
    assert abs(found["equation"]).max() < 1e-4


@pytest.mark.parametrize(("name", "outputs"), [("heat", 2), ("kovasznay", 1)])
def test_wrong_number_of_outputs(name, outputs):
    equation = make_equation(name)

    def u_fn(x):
        return jnp.zeros(outputs)

    with pytest.raises(ValueError, match=rf"u_fn gives shape \({outputs},\), needs \({len(equation.unknowns)},\)"):
        eq.make_residual(equation)(u_fn, jnp.zeros(2))
    with pytest.raises(ValueError, match="u_fn gives shape"):
        eq.make_condition(equation, equation.conditions[0].name)(u_fn, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"u_fn gives shape \(\)"):
        eq.make_residual(equation)(lambda x: jnp.sum(x), jnp.zeros(2))


def test_unknown_condition_and_mode(heat):
    with pytest.raises(ValueError, match="heat has no condition 'inital_u', did you mean 'initial_u'"):
        eq.make_condition(heat, "inital_u")
    with pytest.raises(ValueError, match="mode='reverse' is unknown"):
        eq.make_residual(heat, mode="reverse")(heat.reference.solution, jnp.zeros(2))


def test_points_move_to_the_face_that_is_named(heat):
    points = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    assert eq.on_face(heat, ("t", "upper"), points).tolist() == [[0.25, 1.0], [0.5, 1.0]]
    assert eq.on_face(heat, ("x", "lower"), points).tolist() == [[0.0, 0.75], [0.0, 0.5]]


def test_a_periodic_condition_looks_at_both_ends():
    equation = make_equation("advection")
    residual = eq.make_condition(equation, "periodic_u_x")

    def u_fn(p):
        return p[:1] * (1 + p[1])

    for face in (("x", "lower"), ("x", "upper")):
        x = eq.on_face(equation, face, jnp.array([3.0, 0.5]))
        np.testing.assert_allclose(residual(u_fn, x), -2 * np.pi * 1.5, rtol=1e-6)


def test_names_of_conditions():
    assert building.dirichlet("u", building.both("x", "y"), 0.0).name == "u_on_x_y"
    assert building.neumann("u_x", [("x", "upper")], 0.0).name == "u_x_on_x_upper"
    assert building.initial_velocity("u", 0.0).name == "initial_u_t"
    assert building.initial_velocity("u", 0.0).partials == ("u_t",)
    assert building.robin([("x", "lower")], ("u", "u_x"), lambda x, d: d["u_x"] + d["u"]).kind == "robin"


@pytest.mark.parametrize("name", ["poisson", "heat_multimode", "poisson_nd"])
def test_points_lie_inside_and_are_even(name):
    equation = make_equation(name)
    points = eq.spread(equation, 1000)
    lower, upper = np.array(equation.lower), np.array(equation.upper)
    assert ((points > lower) & (points < upper)).all()
    np.testing.assert_array_equal(points[:10], eq.spread(equation, 10))
    unit = (points - lower) / (upper - lower)
    for column in unit.T:  # a tenth of them in each tenth
        np.testing.assert_allclose(np.histogram(column, 10, (0, 1))[0], 100, atol=10)
    assert abs(np.corrcoef(unit, rowvar=False) - np.eye(len(lower))).max() < 0.05 or len(lower) == 1


def test_the_reference_is_in_double_precision_even_where_jax_is_not():
    assert not jax.config.jax_enable_x64
    points = eq.spread(make_equation("heat"), 50)
    x, t = points.T
    found = eq.evaluate(make_equation("heat"), points)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, 0], np.exp(-0.4 * np.pi**2 * t) * np.sin(np.pi * x), rtol=1e-14)
    for name in ("burgers", "allen_cahn", "kovasznay"):
        equation = make_equation(name)
        single = eq.evaluate(equation, eq.spread(equation, 20))
        with jax.enable_x64(True):
            double = eq.evaluate(equation, eq.spread(equation, 20))
        np.testing.assert_array_equal(single, double)


def test_evaluate_takes_more_points_than_a_block_holds(heat):
    points = np.tile(eq.spread(heat, 5), (1000, 1))
    found = eq.evaluate(heat, points)
    np.testing.assert_array_equal(found, np.tile(found[:5], (1000, 1)))


def test_evaluate_refuses_points_outside(heat):
    with pytest.raises(ValueError, match=r"points\[1\]=\[0.5, 1.5\] lies outside of heat"):
        eq.evaluate(heat, [[0.5, 0.5], [0.5, 1.5]])
    with pytest.raises(ValueError, match="lies outside"):
        eq.evaluate(heat, [[0.5, math.nan]])
    with pytest.raises(ValueError, match=r"points has shape \(3,\), needs \[n, 2\]: columns x, t"):
        eq.evaluate(heat, [0.1, 0.2, 0.3])
    edge = np.float32([[1.0, 1.0]]) + np.float32(1e-7)  # round-off of float32 is forgiven
    assert np.isfinite(eq.evaluate(heat, edge)).all()


def test_equations_can_be_static_arguments(heat):
    residual = jax.jit(lambda x, equation: eq.make_residual(equation)(heat.reference.solution, x), static_argnums=1)
    assert residual(jnp.array([0.5, 0.5]), heat)["equation"].shape == ()
