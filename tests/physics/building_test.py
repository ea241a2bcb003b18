"""Hard constraints: met whatever the network is, able to hold the solution, and not the solution themselves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.models import Field
from sbjax.physics.ansatz import mirrored
from sbjax.physics.building import hard, lift
from sbjax.physics.equation import evaluate, make_condition, make_residual, on_face, spread
from sbjax.physics.pdes import EQUATIONS, make_equation
from sbjax.tasks.field_partials import make_solution

pytestmark = pytest.mark.usefixtures("x64")

HARD = [name for name in EQUATIONS if name != "poisson_nd"]
VARIANTS = [
    ("advection", {"beta": 30.0}),
    ("advection", {"beta": 0.0}),
    ("helmholtz", {"waves": 2}),
    ("kdv", {"speed": 1.0}),
    ("klein_gordon", {"final": 2.0}),
    ("kovasznay", {"reynolds": 40.0}),
    ("poisson_multiscale", {"waves": 50}),
    ("sine_gordon", {"velocity": -0.6}),
    ("wave", {"speed": 5.0}),
]
CASES = [(name, {}) for name in HARD] + VARIANTS
parametrize = pytest.mark.parametrize(
    ("name", "numbers"), CASES, ids=["-".join((n, *map(str, k.values()))) for n, k in CASES]
)


def make_network(equation, seed, width=12):
    rng = np.random.default_rng(seed)
    d, unknowns = len(equation.coordinates), len(equation.unknowns)
    w1, b1, w2 = rng.normal(size=(d, width)), rng.normal(size=width), rng.normal(size=(width, unknowns))
    return lambda x: jnp.tanh(x @ jnp.asarray(w1, x.dtype) + jnp.asarray(b1, x.dtype)) @ jnp.asarray(w2, x.dtype)


def constrained(equation, seed):
    network = make_network(equation, seed)
    return lambda x: equation.ansatz.fn(x, network(x))


def violation(equation, condition, u_fn):
    residual = jax.jit(jax.vmap(functools.partial(make_condition(equation, condition.name), u_fn)))
    return max(float(abs(residual(on_face(equation, face, spread(equation, 50)))).max()) for face in condition.faces)


@pytest.mark.sampled(4)
@parametrize
def test_conditions_hold_whatever_the_network_is(name, numbers):
    """To round-off of values of a few units; those that are not named are missed by a random network."""
    equation = make_equation(name, **numbers)
    assert equation.ansatz.conditions
    for condition in equation.conditions:
        missed = [violation(equation, condition, constrained(equation, seed)) for seed in range(3)]
        if condition.name in equation.ansatz.conditions:
            assert max(missed) < 16 * np.finfo(float).eps
        else:
            assert min(missed) > 0.01


def towards_faces(equation, points):
    """The points, and the same brought to within 1e-3 of each face."""
    lower, upper = np.asarray(equation.lower), np.asarray(equation.upper)
    found = [points]
    for i in range(len(lower)):
        for near, far in ((lower, upper), (upper, lower)):
            moved = points.copy()
            moved[:, i] = near[i] + 1e-3 * (far[i] - near[i])
            found.append(moved)
    return np.concatenate(found)


@pytest.mark.sampled(8)
@parametrize
def test_the_solution_is_within_reach(name, numbers):
    """N = (u - g) / d is of order 1 up to the faces, so that a network of ordinary size can hold it; it is not zero:
    the form does not give the solution away."""
    equation = make_equation(name, **numbers)
    points = towards_faces(equation, spread(equation, 200))
    raw = np.zeros(len(equation.unknowns))
    g, with_one = (jax.vmap(lambda x, r=r: equation.ansatz.fn(x, r))(jnp.asarray(points)) for r in (raw, raw + 1))
    distance = with_one - g
    assert (distance > 0).all()
    assert 0.1 < distance.max() <= 2.1
    implied = np.asarray((evaluate(equation, points) - g) / distance)
    if numbers.get("beta") != 0:
        assert (abs(implied).max(0) > 0.02).all()
    assert abs(implied).max() < 12


@pytest.mark.parametrize("name", [name for name in HARD if make_equation(name).ansatz.mirror])
def test_a_mirrored_form_has_the_parity_of_the_solution(name):
    """The reference by an independent route, and the form with any network to round-off."""
    equation = make_equation(name)
    coordinate, parity = equation.ansatz.mirror
    points = jnp.asarray(spread(equation, 40))
    other = mirrored(equation, coordinate, points)
    gap = evaluate(equation, other) - parity * evaluate(equation, points)
    assert abs(gap).max() < max(1e-9, 10 * equation.reference.floor_max)
    field = Field(unknowns=1, widths=(5,), lower=equation.lower, upper=equation.upper, dtype="float64")
    variables = field.init(jax.random.key(0), jnp.zeros(2))
    u_fn = jax.vmap(lambda x: make_solution(equation, field, hard=True)(variables, x))
    np.testing.assert_allclose(u_fn(other), parity * u_fn(points), atol=1e-15)
    assert float(jnp.abs(u_fn(points)).max()) > 0.1


def test_a_mirror_is_of_a_coordinate():
    burgers = make_equation("burgers")
    for mirror in (("y", 1), ("x", 2)):
        with pytest.raises(ValueError, match=r"burgers.ansatz.mirror=.* must name one of x, t and a parity"):
            dataclasses.replace(burgers, ansatz=hard("u = N", [], 0.0, lambda x, t: x, mirror=mirror))


def test_taylor_mode_has_a_rule_for_all_that_they_are_made_of():
    for name in set(HARD) - {"sine_gordon"}:  # arctan
        equation = make_equation(name)
        jax.eval_shape(
            lambda x, e=equation: make_residual(e, "taylor")(constrained(e, 0), x), jnp.asarray(equation.lower)
        )


def test_float32_stays_float32():
    for name in HARD:
        equation = make_equation(name)
        points = jnp.asarray(spread(equation, 3), jnp.float32)
        values = jax.jit(jax.vmap(constrained(equation, 0)))(points)
        assert (values.dtype, values.shape) == (jnp.float32, (3, len(equation.unknowns)))


def test_a_form_of_conditions_that_do_not_exist_is_refused():
    heat = make_equation("heat")
    with pytest.raises(
        ValueError, match=r"heat.ansatz.conditions: 'inital_u' is no condition, did you mean 'initial_u'"
    ):
        dataclasses.replace(heat, ansatz=hard("u = t N", ["inital_u"], 0.0, lambda x, t: t))
    assert dataclasses.replace(heat, ansatz=None).ansatz is None
    assert make_equation("poisson_nd").ansatz is None


def test_a_network_of_another_number_of_outputs_is_refused():
    with pytest.raises(ValueError, match=r"raw has shape \(2,\), needs \(1,\): one output per unknown"):
        make_equation("heat").ansatz.fn(jnp.zeros(2), jnp.zeros(2))


def test_lift_reads_the_value_at_the_ends_only():
    g = lift(lambda x, t: jnp.where(abs(x) == 2, x * jnp.cos(t), jnp.nan), lambda x, t: x, -2.0, 2.0)
    np.testing.assert_allclose(g(2.0, 1.5), 2 * np.cos(1.5))
    np.testing.assert_allclose(g(0.5, 1.5), 0.5 * np.cos(1.5))  # x cos t is a line
    np.testing.assert_allclose(g(0.5, 0.0), 0.5)
