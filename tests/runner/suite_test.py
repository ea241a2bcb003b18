"""Several equations from one config: each a run of its own, resumed one by one, and one report."""

import json
import math
import pathlib
import runpy
import subprocess
import sys
import time

import jax
import pytest

from sbjax import config as config_lib
from sbjax.frame.arms import precision
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as run_lib
from sbjax.runner import suite

ROOT = pathlib.Path(__file__).parents[2]


def two_equations():
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("all,smoke")
    config.suite = {name: config.suite[name] for name in ("poisson", "euler_beam")}
    for name in config.suite:
        config.suite[name].arms = {arm: config.suite[name].arms[arm] for arm in ("raw", "ones")}
    config.model.widths = (6, 6)
    config.second_phase.steps = 0
    return config


def test_members_are_complete_configurations():
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("all")
    found = suite.members(config)
    assert len(found) == 15
    assert found["heat"].task.equation == "heat"
    assert found["heat"].task.points == 2000
    assert [arm.name for arm in found["heat"].arms] == ["raw", "expanded", "ones", "matched_bias", "widened"]
    # One coordinate less is fewer weights to make up for.
    widths = [found[name].arms[-1].model["widths"] for name in ("poisson", "heat")]
    assert [tuple(w) for w in widths] == [(36, 32, 32), (36, 32, 32)]


def test_an_entry_that_cannot_be_run_is_named(tmp_path):
    config = two_equations()
    config.suite.poisson.task.equation = "poison"
    with pytest.raises(ConfigError, match="'poison' is unknown, did you mean 'poisson'"):
        suite.run(config, tmp_path / "never")
    config.suite.poisson.task = {"equatoin": "poisson"}
    with pytest.raises(ConfigError, match=r"suite.poisson: task.equatoin='poisson' is unknown"):
        suite.members(config)
    assert not (tmp_path / "never").exists()


@pytest.mark.extended
@pytest.mark.slow
def test_a_suite_goes_on_where_it_stopped(tmp_path):
    """The second run of a suite that has one of two equations trains the other one alone."""
    config, folder = two_equations(), tmp_path / "suite"
    alone = suite.members(config)["poisson"]
    run_lib.run_plan(alone, folder / "poisson")
    before = (folder / "poisson" / "metrics.jsonl").stat().st_mtime_ns
    outcome = suite.run(config, folder)
    assert outcome.status == "done"
    assert (folder / "poisson" / "metrics.jsonl").stat().st_mtime_ns == before
    assert "euler_beam" in outcome.table
    page = outcome.report.read_text()
    assert 'href="poisson/report.html"' in page
    for name in ("poisson", "euler_beam"):
        assert {path.stem for path in (folder / name / "grids").iterdir()} == {"raw", "ones"}
    # The report script knows a suite, and what it writes again is the same.
    bytes_before = outcome.report.read_bytes()
    run = subprocess.run(
        [sys.executable, ROOT / "runs" / "report.py", f"--workdir={folder}"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert outcome.report.read_bytes() == bytes_before
    suite.report(folder, classical=True)
    seconds = json.loads((folder / "classical.json").read_text())
    assert 0 < seconds["poisson"]["1e-07"] < 1
    assert '<th scope="col">classical</th>' in outcome.report.read_text()
    # So does the report of one of them alone.
    assert '<th scope="col">classical</th>' in suite.report(folder / "poisson", classical=True)[1].read_text()


def test_a_classical_solver_is_for_equations(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"task": {"kind": "images"}}}))
    with pytest.raises(ConfigError, match=r"--classical: the run in .* is about no equation.*leave it out"):
        suite.report(tmp_path, classical=True)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nothing"):
        suite.report(tmp_path / "nothing", classical=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"task.equation": "burger"}, "'burger' is unknown, did you mean 'burgers'"),
        ({"task.points": 0}, "points=0 must be >= 1"),
        ({"task.boundary_points": 0}, "boundary_points=0 must be >= 1"),
        ({"task.coefficients": "nu=-1"}, "burgers.nu=-1.0 must be finite and > 0"),
        (
            {"task.equation": "klein_gordon", "task.coefficients": "final=0"},
            "klein_gordon.final=0.0 must be finite and > 0",
        ),
        (
            {"task.weights": "equation=nan"},
            "task.weights='equation=nan': the weight of 'equation' must be a number > 0",
        ),
        ({"task.weights": "equation=-1"}, "the weight of 'equation' must be a number > 0"),
        ({"task.sampler": "sobl"}, "sampler='sobl' is unknown, did you mean 'sobol'"),
        ({"task.weights": "initial=2"}, "'initial' is no term of the loss, did you mean 'initial_u'"),
        ({"second_phase.name": "sbroyden"}, "'sbroyden' is unknown, did you mean 'ssbroyden'"),
    ],
)
def test_bad_input_is_refused_fast_and_leaves_nothing(tmp_path, flags, words):
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("burgers")
    config.update_from_flattened_dict(flags)
    began = time.process_time()  # what else the machine does is not the point
    with pytest.raises(ConfigError, match=words):
        suite.run(config, tmp_path / "run")
    assert time.process_time() - began < 5
    assert not (tmp_path / "run").exists()


def test_near_names_in_the_words_of_the_config():
    get_config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]
    with pytest.raises(ConfigError, match="'burger' is unknown, did you mean 'burgers'"):
        get_config("burger,quick")


@pytest.mark.parametrize(("name", "unit"), [("adam", 1 + 4 * math.pi), ("sgd", math.sqrt(1 + 4 * math.pi**2))])
def test_the_matched_arm_follows_the_optimiser(name, unit):
    """A flag that changes the optimiser changes the control with it."""
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("poisson,smoke")
    config.optimizer.name, config.model.widths = name, (4,)
    config.arms = {"raw": {}, "matched_bias": config.arms.matched_bias}
    plan = config_lib.read(config)
    with precision(plan.precision):
        _, arm = run_lib.prepare(plan).built.arms
        params = arm.task.init(jax.random.key(0))["params"]
        first, finish = (phase.optimizer.init(params).scale["dense_0"]["bias"] for phase in arm.phases)
    assert (float(first), float(finish)) == pytest.approx((unit, math.sqrt(1 + 4 * math.pi**2)))
