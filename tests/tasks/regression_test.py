"""Targets and the task around them."""

import jax
import numpy as np
import pytest

from sbjax.expansion.transform import VectorExpansion
from sbjax.models import make_field
from sbjax.tasks import regression


@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("sine", 0.5, 1.0),
        ("gauss", 1.0, 0.36787944117144233),
        ("cubic", 0.5, -0.375),
        ("runge", 0.2, 0.5),
        ("fast_sine", 0.025, 1.0),
        ("two_scales", 0.25, 1.0),
        ("sign", -0.3, -1.0),
        ("square", 0.3, -1.0),
        ("absolute", -0.75, 0.75),
        ("weierstrass", 0.0, 255 / 128),
        ("weierstrass", 1.0, -255 / 128),
    ],
)
def test_values_of_the_targets(name, x, value):
    assert regression.make_target(name).values(np.array([x]))[0] == pytest.approx(value, abs=1e-12)


def test_ten_targets_of_four_kinds():
    assert len(regression.TARGETS) == 10
    assert {t.kind for t in regression.TARGETS.values()} == {"smooth", "oscillating", "kinked", "discontinuous"}
    assert regression.describe().count("\n") == 10


def test_points():
    points = regression.make_points(regression.make_target("cubic"), 5, 4)
    assert points.x.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert points.test_x.tolist() == [-0.75, -0.25, 0.25, 0.75]
    np.testing.assert_allclose(points.test_y, points.test_x**3 - points.test_x)


def test_numbers_of_the_task(x64):
    """Loss, residuals and held-out errors against numpy on the network's own outputs."""
    options = {"widths": (4, 4), "expansion": VectorExpansion(1, 1, 0.5), "dtype": "float64"}
    field = make_field("field", unknowns=1, lower=(-1.0,), upper=(1.0,), x64=True, **options)
    target = regression.make_target("runge")
    task = regression.make_regression_task(target, field, points=16, test_points=20)
    key = jax.random.key(0)
    variables, batch = task.init(key), task.sample(task.data, key, 0)
    x = np.linspace(-1, 1, 16)
    error = np.asarray(field.apply(variables, x[:, None]))[:, 0] - 1 / (1 + 25 * x**2)
    assert task.loss(variables, batch, key)[0] == pytest.approx(np.mean(error**2), rel=1e-12)
    assert np.sum(np.square(task.residuals(variables, batch, key))) == pytest.approx(np.mean(error**2), rel=1e-12)
    test_x = np.asarray(task.data["test_x"])
    error = np.asarray(field.apply(variables, test_x)) - 1 / (1 + 25 * test_x**2)
    found = {name: float(x.total / x.weight) for name, x in task.evaluate(task.data, variables, 0).items()}
    assert found["test/mse"] == pytest.approx(np.mean(error**2), rel=1e-12)
    assert found["test/max"] == pytest.approx(np.abs(error).max(), rel=1e-12)
    # None of the points is in two of the sets.
    sets = [np.asarray(task.data[name]).ravel() for name in ("x", "test_x", "validation_x")]
    assert len(np.unique(np.round(np.concatenate(sets), 12))) == 16 + 20 + 20
    assert task.grid.predict(variables).shape == task.grid.reference.shape == (401, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regression.make_target("sinus"), "function='sinus' is unknown"),
        (lambda: regression.make_points(regression.make_target("sine"), 1, 5), "points=1 must be >= 2"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
