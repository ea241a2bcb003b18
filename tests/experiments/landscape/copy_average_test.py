"""Ends of students narrower than their teacher, told apart, reached by gradient flow and by an independent search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from sbjax import config as config_lib
from sbjax.experiments.landscape import copy_average, copy_average_report
from sbjax.experiments.landscape.arm_results import ArmResult, save_arm
from sbjax.landscape.copy_average import copy_average_loss, copy_average_student
from sbjax.optimizers.gradient_flow import Flow


def mixed(student, rng):
    """The same function: neurons in another order, some with both signs turned, teacher neurons renamed."""
    n, k = student["w"].shape
    order, sign = rng.permutation(n), rng.choice([-1, 1], (n, 1))
    w = student["w"][order][:, rng.permutation(k)]
    return {"w": np.pad(sign * w, ((0, 0), (0, 2))), "a": sign * student["a"][order]}


@pytest.mark.parametrize("sizes", [(4,), (3, 1), (2, 2), (2, 1, 1), (3, 2, 1), (1, 4, 1)])
def test_copy_average_points_are_known_in_any_order(sizes):
    rng, k = np.random.default_rng(0), sum(sizes)
    parts = tuple(sorted(sizes, reverse=True))
    best = parts == (k - len(sizes) + 1,) + (1,) * (len(sizes) - 1)
    for _ in range(5):
        student = mixed(copy_average_student(sizes), rng)
        kind = copy_average.BEST if best else copy_average.OTHER
        assert copy_average.end_of(student, k, 1e-12) == (kind, parts)
        moved = {"w": student["w"], "a": student["a"] + 1e-3}
        assert copy_average.end_of(moved, k, 1e-12).kind not in (copy_average.BEST, copy_average.OTHER)
        assert copy_average.end_of(student, k, 1e-3) == (copy_average.UNFINISHED, ())
        assert copy_average.end_of(student, k, np.nan).kind == copy_average.UNFINISHED


def test_rough_copies_have_a_teacher_neuron_each():
    w = np.array([[0.9, 0.1, 0.3, 0.0], [0.1, -0.9, 0.3, 0.0]])
    student = {"w": w, "a": np.array([[1.2], [-1.2]])}
    assert copy_average.end_of(student, 3, 0.0).kind == copy_average.ROUGH
    both = {"w": np.stack([w[0], 0.5 * w[0]]), "a": student["a"]}
    assert copy_average.end_of(both, 3, 0.0).kind == copy_average.ELSE


def plan_of(x64=True, **task):
    config = config_lib.shrink(config_lib.base_config("landscape", "copy_average"))
    config.precision.x64, config.train_steps, config.replicas = x64, 20, 6
    config.reference, config.arms = "a", {"a": {}}
    config.task.update(students=1, teachers=3, extra_inputs=1, flow_time=300.0)
    config.task.update(task)
    return config_lib.read(config)


def euler_flow(loss_fn, params, times):
    """Stands in for `gradient_flow`, of which the implicit method takes longer to compile than all else here.

    It gives up before the last time, as the other one may.
    """
    slope = jax.grad(loss_fn)
    pace = np.diff(times) / 250

    def between(params, step):
        def move(_, params):
            return jax.tree.map(lambda leaf, g: leaf - step * g, params, slope(params))

        params = jax.lax.fori_loop(0, 250, move, params)
        return params, params

    _, later = jax.lax.scan(between, params, jnp.asarray(pace))
    joined = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]).at[-1].set(jnp.inf), params, later)
    return Flow(joined, jnp.zeros((), int), jnp.ones((), bool))


@pytest.fixture(scope="module", params=["euler", pytest.param("kvaerno", marks=pytest.mark.extended)])
def arm(request):
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        if request.param == "euler":
            patch.setattr(copy_average, "gradient_flow", euler_flow)
        plan = plan_of()
        found = copy_average.run_arm(plan, plan.arms[0], jax.random.key(0), lambda text: None, lambda: False)
        starts = copy_average.init_students(jax.random.key(0), 6, 1, 4)
        return found, jax.tree.map(np.asarray, starts)


def one_neuron_loss(p):
    """Of a neuron p = (w, a) against three, written out."""
    w, a = p[:4], p[4]
    size = 1 + w @ w
    crossed = np.arcsin(w[:3] / np.sqrt(2 * size)).sum()
    return 2 / np.pi * (a**2 * np.arcsin(w @ w / size) - 2 * a * crossed + 3 * np.pi / 6)


@pytest.mark.extended
def test_flow_ends_where_an_independent_search_does(arm):
    """One neuron against three has no other minimum than the average of all."""
    found, starts = arm
    for seed in range(2):
        start = np.r_[starts["w"][seed, 0], starts["a"][seed, 0]]
        searched = scipy.optimize.minimize(one_neuron_loss, start)
        assert found.arrays["loss"][seed] == pytest.approx(searched.fun, abs=1e-9)
        assert found.arrays["losses"][seed, 0] == pytest.approx(one_neuron_loss(start), abs=1e-12)
    np.testing.assert_allclose(found.arrays["loss"], copy_average_loss(1, 3), atol=1e-13)
    assert found.arrays["gradient"].max() < 1e-12
    assert found.summary["kinds"][copy_average.BEST]["count"] == 6
    (level,) = found.summary["levels"]
    assert (level["count"], level["negative"], level["sizes"]) == (6, 0, [3])
    last = set(found.arrays["last"].tolist())
    assert (found.summary["given_up"], last) in ((6, {39}), (0, {40}))
    # The flow goes downhill.
    assert (np.diff(found.arrays["losses"][:, :40], axis=1) < 1e-9).all()


@pytest.mark.extended
def test_tables_and_figure(arm, tmp_path):
    found, _ = arm
    save_arm(tmp_path, "a", found)
    lost = np.full(6, np.nan)
    ends = itertools.repeat(copy_average.End(copy_average.UNFINISHED, ()), 6)
    summary = {**found.summary, "levels": copy_average.levels(lost, list(ends), np.zeros(6, int))}
    save_arm(tmp_path, "b", ArmResult(found.metrics, summary, {**found.arrays, "loss": lost, "kind": np.full(6, 4)}))
    results = type("Results", (), {"arms": ("a", "b", "unfinished")})
    (section,) = copy_average_report.report(results, tmp_path)
    shares, levels = section.tables
    assert shares.rows[0][:3] == ("a", "6", "1 [0.54, 1]")
    exact = f"{copy_average_loss(1, 3):.9f}"
    assert levels.rows[0] == ("a", copy_average.BEST, "3", exact, exact, "6", "0")
    assert levels.rows[1][:2] == ("b", "none converged")
    assert (tmp_path / "figures" / "copy_average.png").read_bytes() == section.figures[0].png


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"students": 3}, "task.students=3 must lie between 1 and task.teachers=3 - 1"),
        ({"extra_inputs": -1}, "task.extra_inputs=-1"),
        ({"flow_time": 0.0}, "task.flow_time=0.0"),
    ],
)
def test_refusals(task, message):
    with pytest.raises(config_lib.ConfigError, match=message):
        copy_average.EXPERIMENT.prepare(plan_of(**task))


def test_single_precision_is_refused():
    with pytest.raises(config_lib.ConfigError, match=r"set precision.x64=True"):
        copy_average.EXPERIMENT.prepare(plan_of(x64=False))
