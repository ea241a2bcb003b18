"""Every equation written down a second time, in sympy, and compared with the code: symbolically where a solution is
known, and on trial functions that solve nothing, so that a residual that is zero by mistake is seen."""

import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp

from sbjax.physics.derivatives import MODES, partials
from sbjax.physics.equation import check_conditions, evaluate, make_condition, make_residual, on_face, spread
from sbjax.physics.pdes import EQUATIONS, make_equation

pytestmark = pytest.mark.usefixtures("x64")

x, y, t = sp.symbols("x y t", real=True)
pi, sin, cos, exp, diff, half = sp.pi, sp.sin, sp.cos, sp.exp, sp.diff, sp.Rational(1, 2)
tenth = sp.Rational(1, 10)


def case(coordinates, solution, residual, conditions, box):
    """Residuals and conditions are operators on expressions; a condition is (coordinate, bounds, operator)."""
    return types.SimpleNamespace(
        coordinates=coordinates, solution=solution, residual=residual, conditions=conditions, box=box
    )


def one(operator):
    return lambda *u: {"equation": operator(*u)}


def poisson():
    return case((x,), [sin(pi * x)], one(lambda u: -diff(u, x, 2) - pi**2 * sin(pi * x)),
                {"u_on_x": (x, (-1, 1), lambda u: u)}, [(-1, 1)])  # fmt: skip


def poisson_robin():
    return case((x,), [(x + 1) ** 2], one(lambda u: diff(u, x, 2) - 2),
                {"u_on_x_lower": (x, (-1,), lambda u: u), "robin_on_x_upper": (x, (1,), lambda u: diff(u, x) - u)},
                [(-1, 1)])  # fmt: skip


def poisson_multiscale(waves=10):
    return case((x,), [sin(2 * pi * x) + sin(waves * pi * x) / 10],
                one(lambda u: diff(u, x, 2) + (2 * pi) ** 2 * sin(2 * pi * x)
                    + (waves * pi) ** 2 * sin(waves * pi * x) / 10),
                {"u_on_x": (x, (0, 1), lambda u: u)}, [(0, 1)])  # fmt: skip


def euler_beam():
    return case((x,), [-(x**4) / 24 + x**3 / 6 - x**2 / 4], one(lambda u: diff(u, x, 4) + 1),
                {"u_on_x_lower": (x, (0,), lambda u: u), "u_x_on_x_lower": (x, (0,), lambda u: diff(u, x)),
                 "u_xx_on_x_upper": (x, (1,), lambda u: diff(u, x, 2)),
                 "u_xxx_on_x_upper": (x, (1,), lambda u: diff(u, x, 3))}, [(0, 1)])  # fmt: skip


def helmholtz(waves=1):
    k = 2 * pi * waves
    return case((x, y), [sin(k * x) * sin(k * y)],
                one(lambda u: -diff(u, x, 2) - diff(u, y, 2) - k**2 * u - k**2 * sin(k * x) * sin(k * y)),
                {"u_on_x_y": [(x, (0, 1), lambda u: u), (y, (0, 1), lambda u: u)]}, [(0, 1), (0, 1)])  # fmt: skip


def heat(diffusivity=4 * tenth):
    return case((x, t), [exp(-diffusivity * pi**2 * t) * sin(pi * x)],
                one(lambda u: diff(u, t) - diffusivity * diff(u, x, 2)),
                {"u_on_x": (x, (0, 1), lambda u: u), "initial_u": (t, (0,), lambda u: u - sin(pi * x))},
                [(0, 1), (0, 1)])  # fmt: skip


def heat_source():
    solution = exp(-t) * sin(pi * x)
    return case((x, t), [solution],
                one(lambda u: diff(u, t) - diff(u, x, 2) + exp(-t) * (1 - pi**2) * sin(pi * x)),
                {"u_on_x": (x, (-1, 1), lambda u: u), "initial_u": (t, (0,), lambda u: u - sin(pi * x))},
                [(-1, 1), (0, 1)])  # fmt: skip


def heat_multimode():
    source = 3 * sin(2 * x) / 2 + 8 * sin(3 * x) / 3 + 15 * sin(4 * x) / 4 + 63 * sin(8 * x) / 8
    first = sin(x) + sin(2 * x) / 2 + sin(3 * x) / 3 + sin(4 * x) / 4 + sin(8 * x) / 8
    return case((x, t), [exp(-t) * first], one(lambda u: diff(u, t) - diff(u, x, 2) - exp(-t) * source),
                {"u_on_x": (x, (-pi, pi), lambda u: u), "initial_u": (t, (0,), lambda u: u - first)},
                [(-pi, pi), (0, 1)])  # fmt: skip


def wave(speed=2):
    solution = sin(pi * x) * cos(speed * pi * t) + half * sin(4 * pi * x) * cos(4 * speed * pi * t)
    return case((x, t), [solution], one(lambda u: diff(u, t, 2) - speed**2 * diff(u, x, 2)),
                {"u_on_x": (x, (0, 1), lambda u: u),
                 "initial_u": (t, (0,), lambda u: u - sin(pi * x) - sin(4 * pi * x) / 2),
                 "initial_u_t": (t, (0,), lambda u: diff(u, t))}, [(0, 1), (0, 1)])  # fmt: skip


def advection(beta=10):
    return case((x, t), [sin(x - beta * t)], one(lambda u: diff(u, t) + beta * diff(u, x)),
                {"periodic_u_x": (x, (0, 2 * pi), lambda u: u.subs(x, 0) - u.subs(x, 2 * pi)),
                 "initial_u": (t, (0,), lambda u: u - sin(x))}, [(0, 2 * pi), (0, 1)])  # fmt: skip


def burgers(nu=tenth**2 / pi):
    return case((x, t), None, one(lambda u: diff(u, t) + u * diff(u, x) - nu * diff(u, x, 2)),
                {"u_on_x": (x, (-1, 1), lambda u: u), "initial_u": (t, (0,), lambda u: u + sin(pi * x))},
                [(-1, 1), (0, 1)])  # fmt: skip


def allen_cahn():
    return case((x, t), None, one(lambda u: diff(u, t) - diff(u, x, 2) / 1000 - 5 * (u - u**3)),
                {"u_on_x": (x, (-1, 1), lambda u: u + 1), "initial_u": (t, (0,), lambda u: u - x**2 * cos(pi * x))},
                [(-1, 1), (0, 1)])  # fmt: skip


def klein_gordon(final=10):
    return case((x, t), [x * cos(t)],
                one(lambda u: diff(u, t, 2) - diff(u, x, 2) + u**2 + x * cos(t) - x**2 * cos(t) ** 2),
                {"u_on_x": (x, (-1, 1), lambda u: u - x * cos(t)), "initial_u": (t, (0,), lambda u: u - x),
                 "initial_u_t": (t, (0,), lambda u: diff(u, t))}, [(-1, 1), (0, final)])  # fmt: skip


def kovasznay(reynolds=20):
    rate = sp.Rational(reynolds, 2) - sp.sqrt(sp.Rational(reynolds) ** 2 / 4 + 4 * pi**2)
    u0 = 1 - exp(rate * x) * cos(2 * pi * y)
    v0 = rate / (2 * pi) * exp(rate * x) * sin(2 * pi * y)
    p0 = (1 - exp(2 * rate * x)) / 2

    def residual(u, v, p):
        def momentum(w, z):
            return u * diff(w, x) + v * diff(w, y) + diff(p, z) - (diff(w, x, 2) + diff(w, y, 2)) / reynolds

        return {"momentum_x": momentum(u, x), "momentum_y": momentum(v, y), "continuity": diff(u, x) + diff(v, y)}

    ends = (x, (-half, 1)), (y, (-half, 3 * half))
    return case((x, y), [u0, v0, p0], residual,
                {"u_on_x_y": [(*end, lambda u, v, p: u - u0) for end in ends],
                 "v_on_x_y": [(*end, lambda u, v, p: v - v0) for end in ends],
                 "p_on_x_upper": (x, (1,), lambda u, v, p: p - p0)}, [(-half, 1), (-half, 3 * half)])  # fmt: skip


def kdv(speed=4):
    solution = sp.Rational(speed, 2) / sp.cosh(sp.sqrt(speed) / 2 * (x - speed * t)) ** 2
    return case((x, t), [solution], one(lambda u: diff(u, t) + 6 * u * diff(u, x) + diff(u, x, 3)),
                {"u_on_x": (x, (-5, 5), lambda u: u - solution),
                 "u_x_on_x_upper": (x, (5,), lambda u: diff(u, x) - diff(solution, x)),
                 "initial_u": (t, (0,), lambda u: u - solution)}, [(-5, 5), (0, half)])  # fmt: skip


def poisson_nd(dimensions=5):
    c = sp.symbols(f"x1:{dimensions + 1}", real=True)
    solution = sum(sin(pi * z / 2) for z in c)
    return case(c, [solution],
                one(lambda u: sum(diff(u, z, 2) for z in c) + pi**2 / 4 * sum(sin(pi * z / 2) for z in c)),
                {"u_on_" + "_".join(map(str, c)): [(z, (0, 1), lambda u: u - solution) for z in c]},
                [(0, 1)] * dimensions)  # fmt: skip


def fisher(rate=6):
    solution = (1 + exp(sp.sqrt(sp.Rational(rate, 6)) * x - sp.Rational(5 * rate, 6) * t)) ** -2
    return case((x, t), [solution], one(lambda u: diff(u, t) - diff(u, x, 2) - rate * u * (1 - u)),
                {"u_on_x": (x, (-5, 5), lambda u: u - solution), "initial_u": (t, (0,), lambda u: u - solution)},
                [(-5, 5), (0, 1)])  # fmt: skip


def sine_gordon(velocity=half):
    solution = 4 * sp.atan(exp((x - velocity * t) / sp.sqrt(1 - velocity**2)))
    return case((x, t), [solution], one(lambda u: diff(u, t, 2) - diff(u, x, 2) + sin(u)),
                {"u_on_x": (x, (-5, 5), lambda u: u - solution), "initial_u": (t, (0,), lambda u: u - solution),
                 "initial_u_t": (t, (0,), lambda u: diff(u, t) - diff(solution, t))}, [(-5, 5), (0, 5)])  # fmt: skip


DEFAULTS = [(name, {}) for name in EQUATIONS]
VARIANTS = [
    ("poisson_multiscale", {"waves": 50}),
    ("helmholtz", {"waves": 2}),
    ("heat", {"diffusivity": 3}),
    ("wave", {"speed": 5}),
    ("advection", {"beta": 30}),
    ("burgers", {"nu": 1}),
    ("klein_gordon", {"final": 2}),
    ("kovasznay", {"reynolds": 40}),
    ("kdv", {"speed": 1}),
    ("poisson_nd", {"dimensions": 3}),
    ("fisher", {"rate": 2}),
    ("sine_gordon", {"velocity": -sp.Rational(3, 5)}),
]


def parametrize(cases):
    return pytest.mark.parametrize(
        ("name", "numbers"), cases, ids=["-".join((n, *map(str, k.values()))) for n, k in cases]
    )


def both_forms(name, numbers):
    numeric = {key: int(value) if value == int(value) else float(value) for key, value in numbers.items()}
    return make_equation(name, **numeric), globals()[name](**numbers)


def faces(condition):
    """[(coordinate, bound, operator)] of a condition's one or several lines."""
    lines = condition if isinstance(condition, list) else [condition]
    return [(coordinate, bound, operator) for coordinate, bounds, operator in lines for bound in bounds]


EXACT = [(name, numbers) for name, numbers in DEFAULTS + VARIANTS if globals()[name]().solution is not None]


@parametrize(EXACT)
def test_the_exact_solution_solves_the_equation(name, numbers):
    _, form = both_forms(name, numbers)
    for term in form.residual(*form.solution).values():
        assert is_zero(term)
    for condition in form.conditions.values():
        for coordinate, bound, operator in faces(condition):
            assert is_zero(operator(*form.solution).subs(coordinate, bound))


def is_zero(expression):
    expression = sp.sympify(expression)
    if expression == 0:
        return True
    if expression.has(sp.atan):
        expression = sp.expand_trig(expression)
    if expression.has(sp.cosh):
        expression = expression.rewrite(exp)
    return sp.simplify(expression) == 0


def test_cole_hopf_turns_the_heat_equation_into_burgers():
    """Of phi the residual is -2 nu d/dx ((phi_t - nu phi_xx) / phi), and phi(x, 0) gives -sin(pi x)."""
    nu, phi = sp.Symbol("nu", positive=True), sp.Function("phi")(x, t)
    u = -2 * nu * diff(phi, x) / phi
    left = burgers(nu).residual(u)["equation"]
    assert sp.simplify(left + 2 * nu * diff((diff(phi, t) - nu * diff(phi, x, 2)) / phi, x)) == 0
    first = exp(-cos(pi * x) / (2 * pi * nu))
    assert sp.simplify(-2 * nu * diff(first, x) / first + sin(pi * x)) == 0


@parametrize(DEFAULTS + VARIANTS)
def test_the_code_says_what_the_text_says(name, numbers):
    """Box, residual terms and conditions on a trial function that solves nothing."""
    equation, form = both_forms(name, numbers)
    assert equation.coordinates == tuple(map(str, form.coordinates))
    np.testing.assert_allclose(list(zip(equation.lower, equation.upper)), np.array(form.box, float), rtol=1e-15)
    trial = [
        sin(sum((i + 1) * z for i, z in enumerate(form.coordinates)) + k) + sp.prod(form.coordinates) / (k + 2)
        for k in range(len(equation.unknowns))
    ]
    u_fn = as_jax(form.coordinates, trial)

    points = spread(equation, 5)
    found = jax.jit(jax.vmap(functools.partial(make_residual(equation), u_fn)))(points)
    expected = form.residual(*trial)
    assert found.keys() == expected.keys()
    for term in expected:
        np.testing.assert_allclose(
            found[term], as_numbers(form.coordinates, expected[term], points), rtol=1e-11, atol=1e-11
        )

    assert {c.name for c in equation.conditions} == form.conditions.keys()
    for condition in equation.conditions:
        residual = jax.jit(jax.vmap(functools.partial(make_condition(equation, condition.name), u_fn)))
        text = faces(form.conditions[condition.name])
        assert len(condition.faces) == len(text)
        for face, (coordinate, bound, operator) in zip(condition.faces, text):
            on = np.asarray(on_face(equation, face, points))
            i = form.coordinates.index(coordinate)
            np.testing.assert_allclose(on[:, i], float(bound), rtol=1e-15)
            np.testing.assert_allclose(
                residual(on), as_numbers(form.coordinates, operator(*trial), on), rtol=1e-12, atol=1e-12
            )


def as_jax(coordinates, expressions):
    functions = {"sin": jnp.sin, "cos": jnp.cos, "exp": jnp.exp}
    parts = [sp.lambdify(coordinates, expression, [functions]) for expression in expressions]
    return lambda p: jnp.stack([part(*p) for part in parts])


def as_numbers(coordinates, expression, points):
    function = sp.lambdify(coordinates, expression, "numpy")
    return np.broadcast_to(function(*points.T), len(points))


@parametrize(EXACT)
def test_the_certified_error_of_exact_references(name, numbers):
    """Against the formula in 30 digits; it is never typed in by faith."""
    equation, form = both_forms(name, numbers)
    points = spread(equation, 200)
    with mpmath.workdps(30):
        functions = [sp.lambdify(form.coordinates, expression, "mpmath") for expression in form.solution]
        truth = np.array([[mpmath.mpf(f(*map(mpmath.mpf, row))) for f in functions] for row in points])
        gap = (evaluate(equation, points) - truth).astype(float)
    truth = truth.astype(float)
    assert (np.linalg.norm(gap, axis=0) <= equation.reference.floor * np.linalg.norm(truth, axis=0)).all()
    assert abs(gap).max() <= equation.reference.floor_max


@pytest.mark.sampled(18)
@pytest.mark.parametrize("mode", MODES)
@parametrize(DEFAULTS)
def test_every_reference_meets_the_codes_own_residual(name, numbers, mode):
    """Up to the round-off of its terms, eps sum |d residual / d partial| |partial|, times what differentiating costs:
    of a quadrature's exponents for Burgers; for Allen-Cahn the solution's own error is what is seen."""
    equation = make_equation(name)
    if mode == "taylor" and name in ("sine_gordon", "allen_cahn"):  # arctan; a custom derivative
        with pytest.raises(NotImplementedError, match=r"jax.experimental.jet .* use another mode"):
            make_residual(equation, mode)(equation.reference.solution, jnp.array([0.5, 0.5]))
        return
    points = spread(equation, 40)
    if equation.coordinates[-1] == "t":
        points[:, -1] = np.maximum(points[:, -1], 0.02)
    u_fn = equation.reference.solution
    amplified = {"allen_cahn": 4e6, "burgers": 600}.get(name, 60)
    found, scale = jax.jit(jax.vmap(lambda p: residual_and_scale(equation, u_fn, p, mode)))(points)
    for term, value in found.items():
        assert np.isfinite(value).all()
        assert (abs(value) <= amplified * np.finfo(float).eps * (scale[term] + 1)).all()


def residual_and_scale(equation, u_fn, p, mode):
    d = partials(u_fn, p, equation.partials, coordinates=equation.coordinates, unknowns=equation.unknowns, mode=mode)
    slopes = jax.jacrev(lambda d: equation.residual(p, d))(d)
    scale = {term: sum(abs(row[name] * d[name]) for name in d) for term, row in slopes.items()}
    return equation.residual(p, d), scale


@parametrize(DEFAULTS)
def test_every_reference_meets_its_conditions(name, numbers):
    equation = make_equation(name)
    check_conditions(equation)
    for condition in equation.conditions:
        residual = jax.jit(
            jax.vmap(functools.partial(make_condition(equation, condition.name), equation.reference.solution))
        )
        for face in condition.faces:
            assert abs(residual(on_face(equation, face, spread(equation, 20)))).max() < 2e-13


def test_advection_keeps_its_integrals():
    equation = make_equation("advection", beta=30.0)
    circle = 2 * np.pi * np.arange(64) / 64
    u = np.array([evaluate(equation, np.stack([circle, np.full(64, time)], 1))[:, 0] for time in np.linspace(0, 1, 5)])
    np.testing.assert_allclose(u.mean(1), 0, atol=1e-14)
    np.testing.assert_allclose((u**2).mean(1), 0.5, rtol=1e-13)


def gauss(equation, time, n=400, panels=8):
    """Points of one time and weights of a composite Gauss rule in x, finer around x = 0."""
    nodes, weights = np.polynomial.legendre.leggauss(n // panels)
    edges = (
        equation.upper[0] * np.linspace(-1, 1, panels + 1) ** 3
        if equation.lower[0] < 0
        else np.linspace(0, 1, panels + 1)
    )
    centre, half_width = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    xs = (centre[:, None] + half_width[:, None] * nodes).ravel()
    return np.stack([xs, np.full(len(xs), time)], 1), (half_width[:, None] * weights).ravel()


def along(equation, names):
    return jax.jit(jax.vmap(lambda p: partials(equation.reference.solution, p, names, coordinates="xt", unknowns="u")))


def test_the_string_keeps_its_energy():
    equation, energies = make_equation("wave"), []
    derivatives = along(equation, ("u_t", "u_x"))
    for time in (0.0, 0.3, 1.0):
        points, weights = gauss(equation, time)
        d = derivatives(points)
        energies.append(weights @ (d["u_t"] ** 2 + 4 * d["u_x"] ** 2) / 2)
    np.testing.assert_allclose(energies, 5 * np.pi**2, rtol=1e-12)  # c^2 (pi^2 + (4 pi)^2 / 4) / 4


def test_burgers_loses_energy_by_viscosity_alone():
    """d/dt int u^2 / 2 = -nu int u_x^2, through the front."""
    equation = make_equation("burgers")
    derivatives = along(equation, ("u", "u_t", "u_x"))
    for time in (0.2, 0.6, 1.0):
        points, weights = gauss(equation, time)
        d = derivatives(points)
        assert abs(weights @ d["u"]) < 1e-12
        np.testing.assert_allclose(weights @ (d["u"] * d["u_t"]), -0.01 / np.pi * weights @ d["u_x"] ** 2, rtol=1e-9)


@pytest.mark.extended
def test_the_energy_of_allen_cahn_falls_as_it_must():
    """d/dt int d u_x^2 / 2 + r (1 - u^2)^2 / 4 = -int u_t^2, by a difference in time."""
    equation = make_equation("allen_cahn")
    derivatives = along(equation, ("u", "u_x", "u_t"))

    def energy(time):
        points, weights = gauss(equation, time)
        d = derivatives(points)
        return weights @ (0.0005 * d["u_x"] ** 2 + 1.25 * (1 - d["u"] ** 2) ** 2), weights @ d["u_t"] ** 2

    for time in (0.2, 0.8):
        step = 1e-3
        around = [energy(time + k * step)[0] for k in (-2, -1, 1, 2)]
        slope = np.dot([1, -8, 8, -1], around) / (12 * step)
        np.testing.assert_allclose(slope, -energy(time)[1], rtol=1e-6)


# What is known to be wrong elsewhere is not copied (arXiv 2306.08827's code).


def test_the_wave_moves_at_the_speed_of_its_equation():
    """A 'solution' of the equation with the other sign leaves 2 u_tt; ours leaves nothing and not by being still."""
    equation = make_equation("wave")
    d = along(equation, ("u_tt", "u_xx"))(spread(equation, 20))
    assert abs(d["u_tt"]).max() > 100
    np.testing.assert_allclose(d["u_tt"], 4 * d["u_xx"], atol=1e-10)


def test_every_problem_in_time_has_conditions_on_all_faces():
    """Initial values without boundary conditions do not make a problem."""
    for name in EQUATIONS:
        equation = make_equation(name)
        faces = {face for condition in equation.conditions for face in condition.faces}
        for i, coordinate in enumerate(equation.coordinates):
            sides = ("lower",) if coordinate == "t" else ("lower", "upper")
            assert {(coordinate, side) for side in sides} <= faces, (name, i)


def test_references_are_no_files_of_few_digits():
    """All have certified errors; the loosest is the spectral one."""
    floors = {name: make_equation(name).reference.floor for name in EQUATIONS}
    assert max(floors, key=floors.get) == "allen_cahn"
    assert floors["allen_cahn"] < 1e-9
    assert all(floor < 1e-13 for name, floor in floors.items() if name != "allen_cahn")


# Registry and numbers


def test_groups():
    groups = {name: make_equation(name).group for name in EQUATIONS}
    assert [len([1 for group in groups.values() if group == g]) for g in ("stationary", "linear", "nonlinear")] == [
        5
    ] * 3
    assert all(make_equation(name).name == name for name in EQUATIONS)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("burger", {}, "equation='burger' is unknown, did you mean 'burgers'"),
        ("burgers", {"mu": 1}, "burgers.mu is no coefficient of this equation.*known: nu"),
        ("poisson", {"k": 1}, "poisson.k is no coefficient of this equation; it has none"),
        ("burgers", {"nu": 0}, "burgers.nu=0 must be finite and > 0"),
        ("burgers", {"nu": 1e-6}, "burgers.nu=1e-06 must be at least 1e-5"),
        ("heat", {"diffusivity": math.inf}, "heat.diffusivity=inf must be finite"),
        ("advection", {"beta": math.nan}, "advection.beta=nan must be finite"),
        ("poisson_multiscale", {"waves": 2.5}, "poisson_multiscale.waves=2.5 must be a whole number"),
        ("poisson_nd", {"dimensions": 10}, "poisson_nd.dimensions=10 must be at most 9"),
        ("helmholtz", {"waves": 5}, "helmholtz.waves=5 is a resonance"),
        ("klein_gordon", {"final": 0.0}, "klein_gordon.final=0.0 must be finite and > 0"),
        ("klein_gordon", {"final": math.inf}, "klein_gordon.final=inf must be finite"),
        ("sine_gordon", {"velocity": 1}, "sine_gordon.velocity=1 must lie between -1 and 1"),
        ("allen_cahn", {"diffusion": 1e-5}, "too thin for a reference"),
        ("kdv", {"speed": -1}, "kdv.speed=-1 must be finite and > 0"),
    ],
)
def test_impossible_numbers(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        make_equation(name, **numbers)


def test_resonances_of_the_square_are_all_found():
    for waves in range(1, 30):
        resonant = any(i * i + j * j == 4 * waves**2 for i, j in itertools.product(range(1, 60), repeat=2))
        if resonant:
            with pytest.raises(ValueError, match="resonance"):
                make_equation("helmholtz", waves=waves)
        else:
            make_equation("helmholtz", waves=waves)
