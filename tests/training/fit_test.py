"""The loop: interruption, failure, history."""

import jax
import numpy as np
import pytest

from sbjax import trees
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.monitor import Monitor, make_replica_monitor
from sbjax.optimizers import Adam
from sbjax.training import fit as fit_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.placement import Mapping

RUN = {"steps": 30, "replicas": 3, "reports": 5, "saves": 3, "mapping": Mapping(devices=1)}


def fit(task, *, checkpoints=None, hooks=None, **changes):
    adam = Adam().make(0.05)
    return fit_lib.fit(task, adam, key=jax.random.key(1), checkpoints=checkpoints, hooks=hooks, **(RUN | changes))


def stop_after(count):
    asked = iter(range(10**9))
    return lambda: next(asked) >= count


def same_bytes(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.fixture(scope="module", autouse=True)
def fast_pulses():
    """Many short pulses, so that an interruption falls between reports."""
    before, fit_lib.PULSE_SECONDS = fit_lib.PULSE_SECONDS, 1e-9
    yield
    fit_lib.PULSE_SECONDS = before


@pytest.mark.parametrize(
    "mapping", [pytest.param(Mapping(devices=1), marks=pytest.mark.extended), Mapping("sequential", "loop", devices=2)]
)
def test_interrupted_and_resumed_is_byte_identical(toys, tmp_path, mapping):
    """Stopped again and again, also between two reports, where the running sums are part of the state."""
    task = toys.classification(toys.Dense(dropout=0.3))
    whole = fit(task, mapping=mapping)
    stops = []
    for count in (4, 9, 3, 10**6):
        part = fit(
            task, mapping=mapping, checkpoints=Checkpoints(tmp_path), hooks=fit_lib.Hooks(stop=stop_after(count))
        )
        stops.append(part.step)
    assert stops[-1] == 30
    assert any(step % 6 for step in stops)
    assert same_bytes(part.variables, whole.variables)
    assert part.history == whole.history


def test_history(toys):
    fitted = fit(toys.classification())
    assert [record["step"] for record in fitted.history] == [0, 6, 12, 18, 24, 30]
    assert set(fitted.history[0]) == {"step", "train/accuracy", "train/loss", "test/accuracy"}
    assert fitted.history[0]["train/loss"] == [None] * 3  # no step yet
    last = fitted.history[-1]
    assert all(0 <= value <= 1 for value in last["test/accuracy"])
    assert np.mean(last["train/loss"]) < np.mean(fitted.history[1]["train/loss"])
    assert fitted.programs == 1


def test_report_is_the_mean_over_its_interval(toys):
    """Reports at every step average to the reports of longer intervals."""
    task = toys.classification()
    coarse, fine = fit(task, reports=5), fit(task, reports=30)
    for record in coarse.history[1:]:
        steps = [r["train/loss"] for r in fine.history if record["step"] - 6 < r["step"] <= record["step"]]
        np.testing.assert_allclose(record["train/loss"], np.mean(steps, axis=0), rtol=1e-5)


def test_a_non_finite_replica_stops_alone(toys, tmp_path):
    seen = []
    hooks = fit_lib.Hooks(on_failure=lambda failure, evidence: seen.append((failure, evidence)))
    clean = fit(toys.classification(), replicas=4)
    fitted = fit(toys.classification(poison=7), replicas=4, hooks=hooks, checkpoints=Checkpoints(tmp_path))
    stopped = {failure.replica for failure in fitted.failures}
    assert stopped == {failure.replica for failure, _ in seen}
    assert 0 < len(stopped) < 4
    for replica in range(4):
        mine, theirs = (trees.take(f.variables, replica) for f in (fitted, clean))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mine))
        assert same_bytes(mine, theirs) == (replica not in stopped)
        values = [record["test/accuracy"][replica] for record in fitted.history]
        assert (None in values) == (replica in stopped)
    failure, evidence = seen[0]
    assert failure.step == 7
    assert failure.what == "train/loss is nan"
    assert np.isnan(evidence["batch/images"]).any()
    assert "variables/params/Dense_0/kernel" in evidence
    again = fit(toys.classification(poison=7), replicas=4, checkpoints=Checkpoints(tmp_path))
    assert again.failures == fitted.failures


def test_finished_run_is_not_trained_again(toys, tmp_path):
    first = fit(toys.classification(), checkpoints=Checkpoints(tmp_path))
    pulses = []
    hooks = fit_lib.Hooks(on_pulse=lambda *args: pulses.append(args))
    again = fit(toys.classification(), checkpoints=Checkpoints(tmp_path), hooks=hooks)
    assert pulses == []
    assert same_bytes(first.variables, again.variables)
    assert first.history == again.history


def replica_monitor():
    return make_replica_monitor(["marginal", "unmatched"], key=jax.random.key(5))


def counting_monitor():
    """The same with a number that depends on all updates."""
    distances = replica_monitor()
    return Monitor(
        init=lambda variables: {"distances": distances.init(variables), "steps": np.zeros(31, np.int32)},
        update=lambda state, step, variables: {
            "distances": distances.update(state["distances"], step, variables),
            "steps": state["steps"] + (np.arange(31) == step),
        },
        summarise=lambda state: (
            distances.summarise(state["distances"])
            | {"count/steps": Estimate(*map(float, [*np.flatnonzero(state["steps"])[[0, -1]], state["steps"].sum()]))}
        ),
    )


def measures(record):
    return {name: x for name, x in record.items() if isinstance(x, dict)}


MEASURED = (0, 10, 12, 30)


@pytest.fixture(scope="module")
def monitored(toys):
    """A run that was never stopped, and what its hook was told."""
    spent = []
    hooks = fit_lib.Hooks(on_spent=lambda what, seconds: spent.append(what))
    return fit(toys.classification(), monitor=replica_monitor(), monitor_steps=MEASURED, hooks=hooks), spent


def test_monitor_reports_at_its_steps_and_only_there(toys, monitored):
    fitted, spent = monitored
    plain = fit(toys.classification())
    assert same_bytes(fitted.variables, plain.variables)
    assert spent.count("measure") == len(MEASURED)
    assert [record["step"] for record in fitted.history] == [0, 6, 10, 12, 18, 24, 30]
    names = [
        f"replica_distance/{kind}{form}{reading}"
        for kind in ("marginal", "unmatched")
        for form in ("", "_scale_free")
        for reading in ("", "_null", "_excess")
    ]
    for record in fitted.history:
        assert list(measures(record)) == (names if record["step"] in MEASURED else [])
        assert set(record) - set(names) == set(plain.history[0])
    assert fitted.history[-1]["test/accuracy"] == plain.history[-1]["test/accuracy"]
    monitor = replica_monitor()
    for name, estimate in monitor.summarise(monitor.update(None, 30, fitted.variables)).items():
        # Three replicas are too few for an interval.
        assert fitted.history[-1][name] == {"value": estimate.value, "low": None, "high": None}
    distances = [record["replica_distance/unmatched"]["value"] for record in fitted.history if measures(record)]
    assert len(set(distances)) == 4


def test_interrupted_and_resumed_with_a_monitor_is_byte_identical(toys, tmp_path, monitored):
    for count in (9, 10**6):
        part = fit(
            toys.classification(),
            checkpoints=Checkpoints(tmp_path),
            hooks=fit_lib.Hooks(stop=stop_after(count)),
            monitor=counting_monitor(),
            monitor_steps=MEASURED,
        )
    assert same_bytes(part.variables, monitored[0].variables)
    assert part.history[-1]["count/steps"] == {"value": 0, "low": 30, "high": len(MEASURED)}
    assert [{k: v for k, v in r.items() if k != "count/steps"} for r in part.history] == monitored[0].history


def test_monitor_sees_only_replicas_that_run(toys):
    monitor = replica_monitor()
    fitted = fit(toys.classification(poison=7), replicas=6, monitor=monitor, monitor_steps=(30,))
    running = np.setdiff1d(np.arange(6), [failure.replica for failure in fitted.failures])
    assert 2 <= len(running) < 6
    for name, estimate in monitor.summarise(monitor.update(None, 30, trees.take(fitted.variables, running))).items():
        assert fitted.history[-1][name]["value"] == estimate.value


def test_one_replica_has_no_distance(toys):
    fitted = fit(toys.classification(), replicas=1, monitor=replica_monitor(), monitor_steps=(0, 30))
    assert not any(map(measures, fitted.history))


@pytest.mark.parametrize(("steps", "outside"), [((0, 31), r"\[31\]"), ((-1, 5, 40), r"\[-1, 40\]")])
def test_monitor_steps_outside_the_training(toys, steps, outside):
    with pytest.raises(ValueError, match=f"monitor_steps={outside} lie outside the training of 30 steps"):
        fit(toys.classification(), monitor=replica_monitor(), monitor_steps=steps)


def test_boundaries():
    for steps in (1, 7, 100):
        for count in (1, 3, 7, 200):
            found = fit_lib.boundaries(steps, count)
            assert found[-1] == steps
            assert len(found) == min(count, steps)
            assert found[0] >= 1
            assert max(np.diff([0, *found])) - min(np.diff([0, *found])) <= 1


@pytest.mark.parametrize("field", ["steps", "replicas", "reports"])
def test_refusals(toys, field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        fit(toys.classification(), **{field: 0})
