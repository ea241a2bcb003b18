"""The matrices, the slopes, and what Gauss-Newton does with them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.physics import collocation_rows
from sbjax.physics.collocation_rows import Box, continued, gauss_newton, make_rows
from sbjax.physics.pdes import EQUATIONS, make_equation

pytestmark = pytest.mark.usefixtures("x64")


def whole(equation, n):
    return Box(np.array(equation.lower), np.array(equation.upper), n, (0.0,) * len(n))


@pytest.mark.parametrize("a", [0.0, 3.0])
def test_matrices_differentiate(a):
    """Each order is the central difference of the one before."""
    box = Box(np.array([-1.0]), np.array([3.0]), (7,), (a,))
    x, step = box.points(0), 1e-4
    assert ((x > -1) & (x < 3)).all()
    for order in (1, 2, 3, 4):
        expected = (box.matrix(0, x + step, order - 1) - box.matrix(0, x - step, order - 1)) / (2 * step)
        np.testing.assert_allclose(box.matrix(0, x, order), expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_stretched_series_is_one_in_s():
    box = Box(np.array([-1.0]), np.array([3.0]), (7,), (3.0,))
    x = box.points(0)
    s = box.matrix(0, x, 0)[:, 1]  # T_1(s)
    np.testing.assert_allclose(s, np.cos(np.pi * (np.arange(7) + 0.5) / 7), atol=1e-14)
    np.testing.assert_allclose(x, 1 + 2 * np.sinh(3 * s) / np.sinh(3))
    np.testing.assert_allclose(box.matrix(0, x, 0)[:, 4], np.cos(4 * np.arccos(s)), atol=1e-13)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", sorted(set(EQUATIONS) - {"poisson_nd"}))
def test_slopes_are_those_of_differences(name):
    equation = make_equation(name)
    n = (6, 5)[: len(equation.coordinates)]
    rows, rng = make_rows(equation, whole(equation, n)), np.random.default_rng(0)
    c, step = rng.normal(size=(2, len(equation.unknowns), *n))
    values, jacobian = collocation_rows._system(rows, c)
    assert len(values) >= c.size
    ahead, behind = (collocation_rows._system(rows, c + h * step, slopes=False) for h in (1e-5, -1e-5))
    expected = (ahead - behind) / 2e-5
    np.testing.assert_allclose(jacobian @ step.ravel(), expected, rtol=0, atol=1e-7 * abs(expected).max())


def test_rows_of_all_faces():
    """The equation, two ends of x and the start; a periodic condition looks at both ends in one."""
    heat, advection = make_equation("heat"), make_equation("advection")
    assert [len(rows.x) for rows in make_rows(heat, whole(heat, (6, 5)))] == [30, 5, 5, 6]
    found = make_rows(advection, whole(advection, (6, 5)))
    assert [len(rows.x) for rows in found] == [30, 5, 6]
    assert [len(rows.matrices) for rows in found] == [1, 2, 1]


def test_the_next_slab_asks_for_the_end_of_the_last():
    """c T_1(x) T_1(t) ends with c x and the slope c in t: these are what the initial rows then are zero for."""
    equation = make_equation("wave")
    first = Box(np.array([0.0, 0.0]), np.array([1.0, 0.5]), (4, 4), (0.0, 0.0))
    second = first._replace(lower=np.array([0.0, 0.5]), upper=np.array([1.0, 1.0]))
    before, after = np.zeros((2, 1, 4, 4))
    before[0, 1, 1] = 3.0  # at the end 3 T_1(x), with slope 12 T_1(x)
    after[0, 1, :2] = 6.0, 3.0  # at its start 6 - 3, with slope 12
    rows = [continued(equation, part, before, first) for part in make_rows(equation, second)]
    initial = [part for part in rows if part.kind.startswith("initial")]
    assert len(initial) == 2
    for part in initial:
        np.testing.assert_allclose(part.linearised(after)[0], part.target, atol=1e-12)


def test_least_squares_of_short_rank():
    """A column of zeros, which QR cannot divide by: the smallest solution leaves it out."""
    a = np.asfortranarray([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(collocation_rows._least_squares(a, np.array([2.0, 4.0, 1.0])), [2.0, 0.0], atol=1e-15)


def test_a_residual_that_is_not_finite_says_so():
    poisson = make_equation("poisson")
    broken = dataclasses.replace(poisson, residual=lambda x, d: {"equation": jnp.log(-1 - d["u_xx"] ** 2)})
    with pytest.raises(RuntimeError, match="poisson: no step reduces the residual nan; raise n or slabs"):
        gauss_newton(make_rows(broken, whole(broken, (6,))), np.zeros((1, 6)), "poisson")
