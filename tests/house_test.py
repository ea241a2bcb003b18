"""The structure of the package: who imports whom, who sees a configuration, and what an addition costs."""

import dataclasses
import importlib.util
import pathlib

import pytest

from sbjax.experiments import registry
from sbjax.frame.protocol import Experiment

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [
    {"runner"},
    {"config", "claims"},
    {"experiments"},
    {"frame"},
    {"report", "training", "optimizers"},
    {"bayes", "tasks", "models", "data", "physics", "metanets"},
    {"expansion", "asymmetry", "symmetry", "landscape", "metrics"},
    {"common"},
    {"trees", "rng"},
]


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", ROOT / "benchmarks" / "house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rooms_import_only_from_rooms_below(house):
    """Also within a floor no two rooms import each other."""
    level = {name: number for number, names in enumerate(FLOORS) for name in names}
    graph = house.rooms(house.imports(ROOT))
    assert {name.removeprefix("sbjax.") for name in graph} == set(level)
    upward = [
        f"{room} -> {other}"
        for room, out in graph.items()
        for other in out
        if level[other.removeprefix("sbjax.")] < level[room.removeprefix("sbjax.")]
    ]
    assert upward == []
    assert house.circles(graph) == []
    assert house.circles(house.imports(ROOT)) == []


def test_the_report_knows_no_experiment(house):
    for module, out in house.imports(ROOT).items():
        if module.startswith(("sbjax.report", "sbjax.frame")):
            assert not any(other.startswith("sbjax.experiments") for other in out), module


def test_a_configuration_stays_in_its_frame(house):
    """Functions below take plain arguments; the kind of a run is looked at in the registry alone."""
    found = house.measure(ROOT)
    assert found["functions outside frame/ that take settings"] == []
    assert found["tests of the kind of a run outside the registry"] == []


def test_rooms_floors_and_arrows_are_few(house):
    """A new room or arrow is a decision: raise a bound knowingly, or put the thing where it belongs."""
    found = house.measure(ROOT)
    assert found["rooms"] <= 24
    assert found["floors"] <= 11
    assert found["arrows"] <= 108


def test_every_module_is_of_a_size_to_read(house):
    longest = house.measure(ROOT)["longest modules"][0]
    assert longest[0] <= 360, longest


def test_every_kind_is_an_experiment_with_described_fields():
    from sbjax.common.options import MISSING, describe

    for kind in registry.KINDS:
        experiment = registry.find({"kind": kind})
        assert isinstance(experiment, Experiment)
        assert experiment.name == kind
        assert dataclasses.is_dataclass(experiment.fields)
        for name, spec in describe(experiment.fields).items():
            assert spec.help, f"{kind}.{name} has no line of help"
            assert spec.default is not MISSING, f"{kind}.{name} has no default"


def test_a_new_kind_costs_one_line_and_one_folder(monkeypatch, tmp_path):
    """A folder as a stranger would write it, and its line in the registry: nothing else is touched."""
    from sbjax import config as config_lib
    from sbjax.runner import run as runner

    folder = tmp_path / "sbjax_added" / "coins"
    folder.mkdir(parents=True)
    for part in (folder, folder.parent):
        (part / "__init__.py").write_text("")
    (folder / "experiment.py").write_text(ADDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.KINDS, "coins", "sbjax_added.coins.experiment")
    config = config_lib.base_config("coins")
    config.update(train_steps=4, replicas=6, reference="fair", arms={"fair": {}, "biased": {"task": {"bias": 0.9}}})
    outcome = runner.run(config, tmp_path / "run")
    assert outcome.status == "done"
    assert outcome.summary["arms"]["biased"]["last_metrics"]["coins/heads"]["median"] == pytest.approx(0.9)
    assert "Coins that were thrown" in outcome.report.read_text()
    with pytest.raises(config_lib.ConfigError, match=r"task.bias=1.5 must be >= 0, <= 1"):
        runner.run({"train_steps": 4, "arms": {"raw": {}}, "task": {"kind": "coins", "bias": 1.5}}, tmp_path / "no")


ADDED = """
import dataclasses

from sbjax.frame.protocol import Experiment
from sbjax.common.options import option
from sbjax.report.results import save_arms
from sbjax.report.sections import Section, Table


@dataclasses.dataclass(frozen=True)
class Fields:
    bias: float = option(0.5, "share of heads", least=0, most=1)


class Coins(Experiment):
    name = "coins"
    fields = Fields
    sections = ()

    def prepare(self, plan):
        return plan

    def run(self, prepared, folder, *, stop):
        plan = prepared
        for arm in plan.arms:
            folder.resume_metrics(arm.name, [])
            for step in (0, plan.train_steps):
                numbers = [arm.task.bias] * plan.replicas
                folder.report({"arm": arm.name, "step": step, "flops": 0.0, "coins/heads": numbers})
        names = [arm.name for arm in plan.arms]
        save_arms(folder.path, arms=names, reference=plan.reference, primary="coins/heads", goal="max",
                  parameters={}, flops_per_step={}, steps=dict.fromkeys(names, plan.train_steps),
                  about=plan.about_arms())
        return True

    def report(self, results, workdir):
        return [Section("Coins that were thrown", (Table(["arm"], [[arm] for arm in results.arms]),))]


EXPERIMENT = Coins()
"""
