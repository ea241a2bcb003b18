"""The spectral solution against finer ones of its kind and against differences that share nothing with it."""

import numpy as np
import pytest
import scipy

from sbjax.physics.equation import evaluate
from sbjax.physics.pdes import make_equation
from sbjax.physics.references import allen_cahn

DEFAULT = (0.001, 5.0, 1.0)


@pytest.mark.extended
def test_the_certified_error():
    """The floors of the code are what resolution says, and no looser than that by more than a factor of two."""
    reference = make_equation("allen_cahn").reference
    l2, largest = allen_cahn.certify(*DEFAULT)
    assert l2 <= reference.floor <= 2 * l2
    assert largest <= reference.floor_max <= 2 * largest


@pytest.mark.extended
def test_it_converges():
    coarse, middle = (
        allen_cahn.distance(allen_cahn.solve(*DEFAULT, refine), allen_cahn.solve(*DEFAULT))[0] for refine in (0.4, 0.6)
    )
    assert coarse > 30 * middle > 900 * allen_cahn.certify(*DEFAULT)[0]


@pytest.mark.extended
def test_against_finite_differences():
    """Second-order differences on the half interval, an explicit Runge-Kutta method of order 8, and Richardson's
    extrapolation over three grids."""

    def solve(n, times):
        x = np.arange(n) / n

        def slope(_, v):  # of v = u + 1
            out = np.empty_like(v)
            out[1:-1] = v[2:] - 2 * v[1:-1] + v[:-2]
            out[0], out[-1] = 2 * (v[1] - v[0]), v[-2] - 2 * v[-1]
            return 0.001 * n**2 * out + 5 * v * (v - 1) * (2 - v)

        start = x**2 * np.cos(np.pi * x) + 1
        step = 1200 / n**2  # stable
        found = scipy.integrate.solve_ivp(
            slope, (0, 1), start, "DOP853", t_eval=times, rtol=1e-10, atol=1e-11, max_step=step, first_step=step
        )
        return found.y.T[:, :: n // 400] - 1

    times = np.array([0.25, 0.5, 1.0])
    coarse, middle, fine = (solve(n, times) for n in (400, 800, 1600))
    first = [(4 * b - a) / 3 for a, b in ((coarse, middle), (middle, fine))]
    differences = (16 * first[1] - first[0]) / 15
    points = np.stack(np.meshgrid(np.arange(400) / 400, times), -1).reshape(-1, 2)
    spectral = evaluate(make_equation("allen_cahn"), points).reshape(3, 400)
    gap = np.linalg.norm(differences - spectral, axis=1) / np.linalg.norm(spectral, axis=1)
    assert (gap < make_equation("allen_cahn").reference.floor).all()


def test_printed_values():
    x = [0, 0.1, 0.3, 0.5, 0.7]
    found = evaluate(make_equation("allen_cahn"), [(a, t) for t in (0.5, 1.0) for a in x])[:, 0]
    np.testing.assert_allclose(found[:5], [0.012001, 0.123243, 0.533275, -0.036402, -0.962736], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[5:], [0.27533, 0.82810, 0.99112, -0.2475, -0.99969], rtol=0, atol=1e-5)


def test_symmetry_ends_and_start():
    equation, x = make_equation("allen_cahn"), np.linspace(-1, 1, 101)

    def at(x, t):
        return evaluate(equation, np.stack(np.broadcast_arrays(x, t), 1).astype(float))[:, 0]

    np.testing.assert_array_equal(at(x, 0.37), at(-x, 0.37))
    np.testing.assert_allclose(at(1.0, np.linspace(0, 1, 50)), -1, rtol=0, atol=2e-14)
    np.testing.assert_allclose(at(x, 0.0), x**2 * np.cos(np.pi * x), rtol=0, atol=2e-13)
    assert (abs(at(x, 1.0)) <= 1 + 1e-12).all()


@pytest.mark.extended
def test_other_numbers_bring_floors_of_their_own():
    equation = make_equation("allen_cahn", diffusion=0.01, reaction=4.0)
    l2, largest = allen_cahn.distance(allen_cahn.solve(0.01, 4.0, 1.0), allen_cahn.solve(0.01, 4.0, 1.0, 2.0))
    assert equation.reference.floor / 5 < l2 <= equation.reference.floor < 1e-9
    assert largest <= equation.reference.floor_max
    with pytest.raises(ValueError, match=r"allen_cahn\.diffusion=1e-05 with reaction=5.0: interfaces of steepness 500"):
        allen_cahn.solve(1e-5, 5.0, 1.0)
