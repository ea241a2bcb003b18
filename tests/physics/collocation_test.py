"""Every equation solved once more, from its own residual and conditions alone, and compared with its reference."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import scipy
from threadpoolctl import threadpool_limits

from sbjax.physics import collocation_rows
from sbjax.physics.collocation import search, solve, time_to_errors
from sbjax.physics.equation import evaluate, spread
from sbjax.physics.pdes import EQUATIONS, make_equation


@pytest.fixture(autouse=True)
def one_thread():
    """The matrices are small: threads that wait for one another on a busy machine take far longer."""
    with threadpool_limits(1):
        yield


LINEAR = ("stationary", "linear")

# Terms, slabs, stretch and the relative L2 error they must reach.
CASES = {
    "poisson": ((20,), 1, None, 1e-12),
    "poisson_robin": ((6,), 1, None, 1e-12),
    "poisson_multiscale": ((36,), 1, None, 1e-9),
    "euler_beam": ((8,), 1, None, 1e-14),
    "helmholtz": ((16, 16), 1, None, 1e-9),
    "heat": ((14, 13), 1, None, 1e-8),
    "heat_source": ((16, 9), 1, None, 1e-8),
    "heat_multimode": ((42, 7), 1, None, 1e-6),
    "wave": ((24, 10), 8, None, 1e-6),
    "advection": ((14, 18), 1, None, 1e-6),
    "burgers": ((48, 7), 8, (5.0, 0.0), 2e-3),
    "allen_cahn": ((87, 7), 4, None, 2e-2),
    "klein_gordon": ((18, 18), 1, None, 1e-5),
    "kovasznay": ((15, 17), 1, None, 1e-4),
    "kdv": ((44, 7), 8, None, 1e-3),
    "fisher": ((24, 7), 3, None, 1e-4),
    "sine_gordon": ((32, 8), 4, None, 1e-4),
}


def distance(equation, solved, n=500):
    points = spread(equation, n)
    truth = evaluate(equation, points)
    return (np.linalg.norm(solved.evaluate(points) - truth, axis=0) / np.linalg.norm(truth, axis=0)).max()


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", CASES)
def test_the_solution_is_the_reference(name):
    n, slabs, stretch, error = CASES[name]
    equation = make_equation(name)
    solved = solve(equation, n, slabs=slabs, stretch=stretch)
    assert distance(equation, solved) < error
    if equation.group in LINEAR:
        assert solved.iterations == slabs
    assert solved.seconds > 0
    assert len(solved.coefficients) == slabs
    assert not jax.config.jax_enable_x64  # it is as it was


def test_all_but_the_one_in_five_dimensions_are_here():
    assert CASES.keys() == set(EQUATIONS) - {"poisson_nd"}
    with pytest.raises(ValueError, match="poisson_nd has 5 coordinates; collocation on a full grid takes 1 or 2"):
        solve(make_equation("poisson_nd"), (4,) * 5)
    plane = make_equation("poisson_nd", dimensions=2)
    assert distance(plane, solve(plane, (10, 10))) < 1e-8


def test_the_reference_is_not_read():
    heat = make_equation("heat")
    blind = dataclasses.replace(heat, reference=dataclasses.replace(heat.reference, solution=None))
    assert distance(heat, solve(blind, (12, 12))) < 1e-6


@pytest.mark.parametrize(
    ("name", "numbers", "n"), [("helmholtz", {"waves": 2}, (26, 26)), ("heat", {"diffusivity": 0.1}, (12, 10))]
)
def test_other_numbers(name, numbers, n):
    equation = make_equation(name, **numbers)
    assert distance(equation, solve(equation, n)) < 1e-6


def test_errors_fall_like_those_of_a_series():
    """Faster than any power: each four terms more gain more than the four before."""
    equation = make_equation("helmholtz")
    errors = [distance(equation, solve(equation, (k, k))) for k in (8, 12, 16)]
    assert errors[1] < 1e-3 * errors[0]
    assert errors[2] < 1e-3 * errors[1]


def test_tails_foretell_the_error():
    equation = make_equation("heat_source")
    in_x, in_t = solve(equation, (8, 12)).tails()
    assert in_x > 30 * in_t
    in_x, in_t = solve(equation, (18, 4)).tails()
    assert in_t > 30 * in_x


def test_slabs_join():
    equation = make_equation("klein_gordon", final=4.0)
    solved = solve(equation, (12, 10), slabs=3)
    assert [box.upper[-1] for box in solved.boxes] == pytest.approx([4 / 3, 8 / 3, 4])
    for box in solved.boxes[:-1]:
        at = np.array([[0.3, box.upper[-1]]])
        np.testing.assert_allclose(solved.evaluate(at), solved.evaluate(at + np.array([0, 1e-9])), atol=1e-7)
    assert distance(equation, solved) < 1e-6


def test_a_good_start_saves_iterations():
    equation = make_equation("kovasznay")
    cold = solve(equation, (12, 14))
    warm = solve(equation, (12, 14), start=cold.evaluate)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.evaluate(spread(equation, 20)), cold.evaluate(spread(equation, 20)), atol=1e-7)


def test_poisson_by_hand():
    """scipy's solver of boundary value problems, another method altogether."""
    equation = make_equation("poisson_multiscale")
    slow, fast = 2 * np.pi, 10 * np.pi
    truth = scipy.integrate.solve_bvp(
        lambda x, u: np.stack([u[1], -(slow**2) * np.sin(slow * x) - 0.1 * fast**2 * np.sin(fast * x)]),
        lambda a, b: np.array([a[0], b[0]]),
        np.linspace(0, 1, 50),
        np.zeros((2, 50)),
        tol=1e-7,
        max_nodes=20000,
    )
    x = spread(equation, 50)
    np.testing.assert_allclose(solve(equation, (40,)).evaluate(x)[:, 0], truth.sol(x[:, 0])[0], atol=1e-6)


def test_times_and_sizes():
    equation = make_equation("heat")
    found = search(equation, (1e-2, 1e-6))
    assert found[1e-2].error <= 1e-2
    assert found[1e-6].error <= 1e-6
    # The fastest that were seen; times are noisy, but not by that much.
    assert math.prod(found[1e-2].n) * found[1e-2].slabs <= math.prod(found[1e-6].n) * found[1e-6].slabs
    for error, row in found.items():
        assert distance(equation, solve(equation, row.n, slabs=row.slabs), 2000) <= 1.001 * error
    assert all(0 < seconds < 60 for seconds in time_to_errors(equation, (1e-2, 1e-6)).values())


def test_what_is_out_of_reach_has_no_time():
    found = time_to_errors(make_equation("wave"), (1e-1, 1e-30), limit=0.02)
    assert found[1e-30] is None


@pytest.mark.parametrize(
    ("name", "n", "options", "message"),
    [
        ("heat", (2, 5), {}, r"n=\(2, 5\) must hold one number of terms for each of x, t, above the orders \(2, 1\)"),
        ("heat", (5,), {}, "must hold one number of terms for each of x, t"),
        ("heat", (5, 5), {"slabs": 0}, "slabs=0 must be >= 1"),
        ("helmholtz", (5, 5), {"slabs": 2}, "slabs=2 must be >= 1, and 1 for helmholtz"),
        ("heat", (5, 5), {"stretch": (1.0,)}, r"stretch=\(1.0,\) must hold a number >= 0 for each of x, t"),
        ("heat", (5, 5), {"stretch": (1.0, -1.0)}, "must hold a number >= 0"),
    ],
)
def test_misuse_is_named(name, n, options, message):
    with pytest.raises(ValueError, match=message):
        solve(make_equation(name), n, **options)


def test_what_does_not_converge_says_so_and_has_no_time(monkeypatch):
    monkeypatch.setattr(collocation_rows, "ITERATIONS", 1)
    burgers = make_equation("burgers")
    with pytest.raises(
        RuntimeError, match=r"burgers: residual .* after 1 iterations; raise n or slabs, or give a start"
    ):
        solve(burgers, (14, 8))
    assert time_to_errors(burgers, (1e-2,), limit=0.05) == {1e-2: None}
