"""The loop: interruption, failure, history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.monitor import Monitor, make_replica_monitor
from sbjax.optimizers import Adam, Lbfgs, Sgd
from sbjax.optimizers.schedules import Step
from sbjax.training import fit as fit_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.checkpoint_files import CheckpointError
from sbjax.training.load import load_variables
from sbjax.training.placement import Placement

RUN = {"steps": 30, "replicas": 3, "reports": 5, "saves": 3, "placement": Placement(devices=1)}


def fit(task, *, checkpoints=None, hooks=None, optimizer=None, **changes):
    optimizer = optimizer or Adam().make(0.05)
    return fit_lib.fit(task, optimizer, key=jax.random.key(1), checkpoints=checkpoints, hooks=hooks, **(RUN | changes))


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
    "placement",
    [pytest.param(Placement(devices=1), marks=pytest.mark.extended), Placement("sequential", "loop", devices=2)],
)
def test_interrupted_and_resumed_is_byte_identical(toys, tmp_path, placement):
    """Stopped again and again, also between two reports, where the running sums are part of the state."""
    task = toys.classification(toys.Dense(dropout=0.3))
    whole = fit(task, placement=placement)
    stops = []
    for count in (4, 9, 3, 10**6):
        part = fit(
            task, placement=placement, checkpoints=Checkpoints(tmp_path), hooks=fit_lib.Hooks(stop=stop_after(count))
        )
        stops.append(part.step)
    assert stops[-1] == 30
    assert any(step % 6 for step in stops)
    assert same_bytes(part.variables, whole.variables)
    assert part.history == whole.history


@pytest.mark.extended
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


@pytest.mark.extended
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


def numbers_monitor():
    """A number of each replica beside distances."""
    return replica_monitor()._replace(
        numbers=lambda variables: {"own/size": np.array([np.abs(leaf).sum() for leaf in _kernels(variables)])}
    )


def _kernels(variables):
    return jax.tree.leaves(variables["params"])[-1]


def test_numbers_of_each_replica_stand_beside_the_losses_and_resume(toys, tmp_path, monitored):
    for count in (9, 10**6):
        hooks = fit_lib.Hooks(stop=stop_after(count))
        options = {"monitor": numbers_monitor(), "monitor_steps": MEASURED}
        part = fit(toys.classification(), checkpoints=Checkpoints(tmp_path), hooks=hooks, **options)
    assert same_bytes(part.variables, monitored[0].variables)
    own = [record.pop("own/size", None) for record in part.history]
    assert part.history == monitored[0].history
    assert [found is not None for found in own] == [record["step"] in MEASURED for record in part.history]
    assert own[-1] == [np.abs(leaf).sum() for leaf in _kernels(part.variables)]


@pytest.mark.extended
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


def same_fit(a, b):
    return same_bytes(a.variables, b.variables) and a.history == b.history and a.failures == b.failures


def steps_on_disk(folder):
    return sorted(int(path.stem) for path in folder.glob("*.sha256"))


def fails_apart(toys):
    """Replicas fail one after another, at steps of their own, several between two reports."""
    task = toys.classification()

    def sample(data, key, step):
        batch = task.sample(data, key, step)
        bad = step == 7 + jax.random.bits(key) % 8
        return {**batch, "images": jnp.where(bad, jnp.nan, batch["images"])}

    return task._replace(sample=sample)


@pytest.mark.extended
@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["dropout", "failing"])
def test_saves_by_time_change_no_byte(toys, tmp_path, kind):
    task = toys.classification(toys.Dense(dropout=0.3)) if kind == "dropout" else fails_apart(toys)
    found, steps = [], []
    for seconds in (0, 1e-9):
        checkpoints, seen = Checkpoints(tmp_path / str(seconds), keep_best=1), set()
        hooks = fit_lib.Hooks(on_pulse=lambda *_, c=checkpoints, seen=seen: seen.update(steps_on_disk(c.folder)))
        found.append(fit(task, checkpoints=checkpoints, hooks=hooks, replicas=5, save_seconds=seconds))
        checkpoints.close()
        steps.append(seen)
    assert same_fit(*found)
    assert all(step % 6 == 0 for step in steps[0])
    assert {step for step in steps[1] if step % 6}  # between two reports
    one, other = tmp_path / "0", tmp_path / "1e-09"
    assert steps_on_disk(one) == steps_on_disk(other)
    assert load_variables(one)[1] == load_variables(other)[1]
    if kind == "failing":
        first = [failure.step for failure in found[0].failures if failure.step < 12]
        assert len(set(first)) > 1  # several in one interval, in the order of replicas
        assert first != sorted(first)


def test_a_long_time_saves_with_reports_only(toys, tmp_path):
    spent = []
    fit(
        toys.classification(), save_seconds=1e6, saves=2, checkpoints=Checkpoints(tmp_path, keep=9),
        hooks=fit_lib.Hooks(on_spent=lambda what, seconds: spent.append(what)),
    )  # fmt: skip
    assert steps_on_disk(tmp_path) == [18, 30]
    assert spent.count("save") == 3  # and the wait for the last one


def decaying():
    schedule = Step(warmup_share=0.0, decay_every_steps=8, decay_factor=0.5)
    return Adam().make(schedule.make(0.05, 30))


def lbfgs(steps):
    return fit_lib.Phase(Lbfgs().make(), steps)


def nowhere(task):
    """Every replica fails in the first step."""

    def loss(*args):
        value, aux = task.loss(*args)
        return jnp.nan * value, aux

    return task._replace(loss=loss)


def sgd(steps):
    return fit_lib.Phase(Sgd().make(0.05), steps)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("case", ["with a monitor", "second phase", "all have failed before the second phase"])
def test_extending_a_finished_run(toys, tmp_path, case):
    """Restored from its last checkpoint, stopped on the way, it ends as one that was made so long from the start."""
    task = toys.classification()
    task = nowhere(task) if case.startswith("all") else task
    measured = (0, 10, 30) if case == "with a monitor" else ()
    second = None if measured else lbfgs(10) if case == "second phase" else sgd(10)

    def train(folder=None, *, more=(), **changes):
        checkpoints = folder and Checkpoints(folder, keep=9)
        options = {"monitor": replica_monitor(), "monitor_steps": (*measured, *more)} if measured else {}
        options |= {"steps": 20, "second_phase": second} if second else {}
        fitted = fit(task, optimizer=decaying(), checkpoints=checkpoints, **options | changes)
        if folder:
            checkpoints.close()
        return fitted

    plain = train(tmp_path)
    assert steps_on_disk(tmp_path)[-1] == plain.step == 30
    whole = train(extend_steps=18, more=(40,))
    if not case.startswith("all"):
        part = train(tmp_path, extend_steps=18, more=(40,), hooks=fit_lib.Hooks(stop=stop_after(4)))
        assert 30 < part.step < 48
    extended = train(tmp_path, extend_steps=18, more=(40,))
    assert same_fit(extended, whole)
    assert extended.step == 48
    assert extended.history[: len(plain.history)] == plain.history
    new = [record["step"] for record in extended.history[len(plain.history) :]]
    assert new == [36, *([40] if measured else []), 42, 48]
    # The optimiser goes on as if its phase had been planned so long: the rate halves every 8 steps.
    longer = {"steps": 48} if measured else {"second_phase": second._replace(steps=28)}
    assert same_bytes(extended.variables, train(more=(40,), **longer).variables)
    with pytest.raises(CheckpointError, match=r"step 48, beyond the 30 steps of this run. Extend the run by 18 steps"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "^steps=0 must"),
        ({"replicas": 0}, "^replicas=0 must"),
        ({"reports": 0}, "^reports=0 must"),
        ({"second_phase": lbfgs(0)}, "^second_phase.steps=0 must"),
        ({"extend_steps": -2}, "^extend_steps=-2 must"),
        ({"save_seconds": -1.0}, "^save_seconds=-1.0 must"),
        ({"save_seconds": float("nan")}, "^save_seconds=nan must"),
        ({"monitor_steps": (-1, 5, 31)}, r"^monitor_steps=\[-1, 31\] lie outside the training of 30 steps"),
    ],
)
def test_refusals(toys, options, words):
    with pytest.raises(ValueError, match=words):
        fit(toys.classification(), **options)
