"""Networks for collisions: symmetry and conservation to rounding where built in, and what an arm leaves."""

import types

import jax
import numpy as np
import pytest

from sbjax import trees
from sbjax.experiments.exact import lattice_collision as lib
from sbjax.physics import lattice_boltzmann as lb


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def task(**changes):
    fields = {field.name: field.default for field in lib.dataclasses.fields(lib.Fields)}
    return types.SimpleNamespace(**fields | {"points": 12, "nodes": 8, "fields": 2} | changes)


def untrained(one):
    params = lib.init_network(jax.random.key(1), one.fields, equivariant=one.method == "equivariant")
    return lib.network(jax.tree.map(lambda leaf: leaf + 0.1, params), one)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("conserving", [False, True])
@pytest.mark.parametrize("method", lib.METHODS)
def test_what_is_built_in_holds_to_rounding(method, conserving):
    one = task(method=method, conserving=conserving)
    collision, f = untrained(one), lib._states(jax.random.key(2), one, 20)
    found = collision(f)
    np.testing.assert_allclose(collision(3 * f), 3 * found, rtol=1e-9, atol=1e-14)
    off = max(float(np.abs(lb.moved(found, g) - collision(lb.moved(f, g))).max()) for g in range(8))
    assert (off < 1e-14) == (method in ("averaged", "equivariant"))
    drift = float(np.abs(np.c_[found.sum(-1), found @ lb.VELOCITIES]).max())
    assert (drift < 1e-15) == conserving


def test_states_for_training():
    """Moments within their bounds, and beyond equilibrium nothing that has mass or momentum."""
    one = task(speed=0.07)
    f = lib._states(jax.random.key(3), one, 500)
    rho, u = lb.moments(f)
    assert 0.95 <= rho.min() < 0.96
    assert 1.04 < rho.max() <= 1.05
    assert 0.065 < np.linalg.norm(u, axis=-1).max() <= 0.07
    beyond = (f - lb.equilibrium(rho, u)) / (lb.WEIGHTS * rho[:, None])
    # Three of nine directions are projected out, which leaves two thirds of the variance, weighed with w.
    np.testing.assert_allclose(np.sqrt(np.mean(beyond**2 @ lb.WEIGHTS)), one.spread * np.sqrt(6 / 9), rtol=0.2)


def test_copies_are_all_eight():
    f = lib._states(jax.random.key(4), task(), 5)
    found = np.asarray(lib._copies(f)).reshape(8, 5, 9)
    for g in range(8):
        np.testing.assert_array_equal(found[g], lb.moved(f, g))


def test_parameters_and_products():
    for method, fields, expected in (("equivariant", 4, 150), ("plain", 4, 774), ("equivariant", 23, 777)):
        params = lib.init_network(jax.random.key(0), fields, equivariant=method == "equivariant")
        assert trees.size(params) == expected
    assert lib.products(task(method="averaged")) == 8 * lib.products(task())


@pytest.mark.extended
def test_an_arm():
    """More steps learn more; cells and metrics of one arm; stopped, it leaves nothing."""
    plan = lambda steps: types.SimpleNamespace(replicas=2, train_steps=steps)  # noqa: E731
    arm = types.SimpleNamespace(task=task(method="equivariant", conserving=True, learning_rate=0.03))
    run = lambda steps, stop=False: lib.run_arm(plan(steps), arm, jax.random.key(0), str, lambda: stop)  # noqa: E731
    assert run(10, stop=True) is None
    short, long = run(1), run(400)
    assert np.median(long.metrics["test/error"]) < 0.7 * np.median(short.metrics["test/error"])
    cells = long.summary["cells"]
    assert cells["violation"]["high"] < 1e-12
    assert cells["drift"]["high"] < 1e-12
    assert cells["floor"] < 0.05
    assert abs(cells["exact_rate"] - 1) < 0.02
    assert cells["parameters"] == 84


def test_arms_are_compared_with_the_plain_one_of_as_many_states():
    def arm(method, points, error, conserving="no"):
        cells = {"method": method, "points": points, "conserving": conserving}
        metrics = {"test/error": [error] * 5, "flow/error": [2 * error] * 5}
        return types.SimpleNamespace(summary={"cells": cells}, metrics=metrics)

    found = lib.compare({
        "plain": arm("plain", 10, 1.0), "few": arm("equivariant", 10, 0.5), "both": arm("plain", 10, 0.1, "yes"),
        "more": arm("plain", 20, 0.4), "many": arm("equivariant", 20, 0.1), "alone": arm("plain", 30, 1.0, "yes"),
    })  # fmt: skip
    assert {name: one["gain"]["value"] for name, one in found.items()} == {"few": 0.5, "both": 0.1, "many": 0.25}
    assert found["many"]["flow_gain"]["value"] == 0.25
