"""Every config answers `smoke`: all are built, one of each family is run to its report."""

import contextlib
import pathlib
import runpy

import jax
import pytest

from sbjax import config as config_lib
from sbjax import trees
from sbjax.frame import config as frame_config
from sbjax.physics.pdes import EQUATIONS
from sbjax.runner import run as experiment
from sbjax.runner.suite import members

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
MODELS = ("mlp", "cnn", "resnet18", "resnet20")
# Every model and every set once, on the set or with the model that costs least.
IMAGES = [*(f"digits,{model}" for model in MODELS), *(f"{dataset},mlp" for dataset in SHAPES)]


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_tfds):
    """Small sets under the names of the real ones, in TFDS' own layout."""
    folder = tmp_path_factory.mktemp("data")
    for name, shape in SHAPES.items():
        tiny_tfds.write_tiny_tfds(folder / "tfds", name=name, shape=shape, train=500, test=40)
    return {"data_dir": str(folder / "tfds"), "cache_dir": str(folder / "cache")}


def load(name, words, data, arms=None, **model):
    config = runpy.run_path(str(CONFIGS / name))["get_config"](words)
    if config.task.kind in ("images", "bayes", "zoo"):
        config.task.update(data)
    if arms:
        config.arms = {arm: config.arms[arm] for arm in arms}
    config.model.update(model)
    return config


def test_all_configs_are_known_here():
    assert {path.stem for path in CONFIGS.glob("*.py")} == {
        *("quickstart", "images", "designs", "pdes", "lmc", "mli", "qcd", "ising", "functions", "landscape"),
        *("linear_nets", "relu_minima", "involution", "hidden_symmetries", "duality", "attention", "lattice_collision"),
        *("figure1", "figure2", "speedrun", "text", "colour"),
        *("graphs", "identifiability", "bayes", "symmetry_along", "zoo", "metanets", "generative"),
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_word_gives_arms_or_a_sentence(path, monkeypatch):
    """Each by itself, large and as a smoke run."""
    known = []

    def parse(argument, choices, *, flags=("smoke",)):
        choices = {name: list(words) for name, words in choices.items()}
        known.extend([*(word for words in choices.values() for word in words), *flags])
        return frame_config.parse_words(argument, choices, flags=flags)

    monkeypatch.setattr(config_lib, "parse_words", parse)
    get_config = runpy.run_path(str(path))["get_config"]
    get_config()
    for word in dict.fromkeys(known):
        for words in (word, f"{word},smoke"):
            with contextlib.suppress(config_lib.ConfigError, SystemExit):  # a refusal, or a list of what there is
                assert words == "smoke,smoke" or get_config(words) is not None


@pytest.mark.parametrize("words", ["", "smoke"])
def test_quickstart_is_the_promised_comparison(words, data):
    config = load("quickstart.py", words, data)
    assert list(config_lib.check(config)["arms"]) == ["raw", "expanded", "nearest"]
    assert config.replicas == (2 if words else 10)
    assert config.task.dataset == "digits"


@pytest.mark.parametrize("words", ["", "decay", "smoke", "decay,smoke"])
def test_what_is_measured_along_training(words, data):
    plan = config_lib.read(load("symmetry_along.py", words, data))
    assert plan.monitor.kinds == "unmatched,matched,sharpness,breaking"
    decays = [arm.optimizer.options.weight_decay for arm in plan.arms]
    assert (decays == sorted(set(decays))) == ("decay" in words)
    assert plan.replicas == (2 if "smoke" in words else 10)


def test_zoos(data):
    """The size-matched arm has as many trained parameters as the asymmetric one; cifar10 is grey; published resnet8."""
    plan = config_lib.read(load("zoo.py", "fixed", data))
    assert [arm.name for arm in plan.arms] == ["standard", "w", "small", "fixed", "w_fixed"]
    built = experiment.prepare(config_lib.read(load("zoo.py", "smoke", data))).built.arms
    frozen = [arm.source.frozen.get("trainable", {}) for arm in built]
    trained = [
        arm.source.size - sum((~mask).sum() for mask in trees.flatten(f).values()) for arm, f in zip(built, frozen)
    ]
    assert [arm.source.size for arm in built] == [4970, 4970, 2540]
    assert trained == [4970, 2538, 2540]
    (arm, *_) = experiment.prepare(config_lib.read(load("zoo.py", "cifar10,smoke", data))).built.arms
    assert arm.source.input_shape == (8, 8, 1)
    resnet = config_lib.read(load("zoo.py", "resnet8,cifar10", data))
    assert (resnet.replicas, resnet.train_epochs, resnet.arms[0].task.learning_rate) == (5000, 40, (5e-3, 0.5))
    built = experiment.prepare(config_lib.read(load("zoo.py", "resnet8,digits,smoke", data))).built.arms
    assert [arm.source.size for arm in built] == [77754, 77754]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("words", IMAGES)
def test_every_image_config_builds(words, data):
    full = config_lib.check(load("images.py", words, data))
    assert list(full["arms"]) == ["raw", "expanded", "zero", "nearest", "bilinear"]
    arms = experiment.prepare(
        config_lib.read(load("images.py", f"{words},smoke", data, ("raw", "expanded")))
    ).built.arms
    raw, expanded = arms
    assert raw.task.batch_size == 8
    # Twice the resolution is four times the positions; the later layers of an MLP stay as they are.
    assert 1.5 < expanded.flops_per_step / raw.flops_per_step < 4.5


FAMILIES = ("resnet18", "resnet50", "densenet121", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("model", FAMILIES)
def test_every_network_of_the_first_figure_builds(model, data):
    """The control of the stem has the raw image and fewer weights, and costs what the expanded network does."""
    full = config_lib.check(load("figure1.py", f"cifar10,{model}", data))
    assert list(full["arms"]) == ["raw", "expanded", "zero", "nearest", "bilinear", "stem_control"]
    smoke = load("figure1.py", f"cifar10,{model},smoke", data, ("raw", "expanded", "stem_control"))
    arms = {arm.name: arm for arm in experiment.prepare(config_lib.read(smoke)).built.arms}
    taps = arms["raw"].parameters - arms["stem_control"].parameters
    width = {"resnet18": 16, "resnet50": 16, "densenet121": 16}.get(model, 8)
    assert taps == 3 * width * (40 if width == 16 else 8)
    raw, expanded, control = (arms[name].flops_per_step for name in ("raw", "expanded", "stem_control"))
    assert 1.2 < expanded / raw < 5
    assert 0.7 < control / expanded < 1.01


def test_suites_of_the_figures(data):
    column = members(load("figure1.py", "cifar10,all", data))
    assert sorted(column) == sorted(f"cifar10_{model}" for model in FAMILIES if model != "mobilenet_v3_large")
    assert [plan.settings["model"]["name"] for plan in column.values()] == [
        name.removeprefix("cifar10_") for name in column
    ]
    assert len(members(load("figure1.py", "all", data))) == 20
    second = members(load("figure2.py", "all,smoke", data))
    assert {plan.settings["task"]["dataset"] for plan in second.values()} >= {"dtd", "eurosat", "aircraft"}
    assert second["svhn"].settings["task"]["flip"] is False


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("figure1.py", "all,resnet50", "'all' and 'resnet50': give one"),
        ("figure1.py", "resnet50,stride1", "stem='stride1' is one of mobilenet_v3_small.*resnet50 has 'imagenet'"),
        ("figure2.py", "all,dtd", "'all' and 'dtd': give one"),
    ],
)
def test_words_of_the_figures_that_do_not_go_together(name, words, message, data):
    with pytest.raises(config_lib.ConfigError, match=message):
        load(name, words, data)


@pytest.mark.extended
def test_every_design_builds(data):
    """p4 has as many parameters as the plain network, and what changes no layer has exactly as many."""
    arms = {
        arm.name: arm for arm in experiment.prepare(config_lib.read(load("designs.py", "mnist,smoke", data))).built.arms
    }
    assert len(arms) == 15
    assert next(iter(arms)) == "plain"
    for name in ("p4", "wrong"):
        assert abs(arms[name].parameters / arms["plain"].parameters - 1) < 0.03
    for name in ("dropout_60", "group_norm", "layer_norm", "tanh", "expanded", "zero", "nearest"):
        assert arms[name].parameters == arms["plain"].parameters
    assert arms["plain"].monitor_steps == (0, 4)  # 10 % of four steps is step 0


def test_brief_and_rotated_designs(data):
    full, brief = (config_lib.check(load("designs.py", words, data)) for words in ("mnist", "mnist,brief,rotated"))
    assert brief["task"]["train_share"] == 0.1 * full["task"]["train_share"]
    assert brief["task"]["quarter_turns"] is not full["task"]["quarter_turns"]
    assert list(brief["arms"]) == list(full["arms"])


@pytest.mark.parametrize("words", ["mnist", pytest.param("cifar10", marks=pytest.mark.extended), "digits"])
def test_networks_of_the_connectivity_configs(words, data):
    """Published numbers of trainable parameters, and controls of the same size."""
    full = config_lib.check(load("lmc.py", words, data))
    assert next(iter(full["arms"])) == "standard"
    assert full["interpolation"]["published"].get("w") == {"mnist": [-0.012, 0.0], "cifar10": [0.934, 0.72]}.get(words)
    smoke = load("lmc.py", f"{words},smoke", data, ("standard", "w", "narrow", "from_w", "sigma"))
    arms = {arm.name: arm.parameters for arm in experiment.prepare(config_lib.read(smoke)).built.arms}
    published = {"mnist": (935_434, 834_570), "cifar10": (272_474, 230_026)}
    if words in published:
        assert (arms["standard"], arms["w"]) == published[words]
    assert arms["from_w"] == arms["sigma"] == arms["standard"]
    assert abs(arms["narrow"] / arms["w"] - 1) < (0.05 if words == "cifar10" else 0.01)


@pytest.mark.extended
def test_networks_of_the_interpolation_config(data):
    arms = {
        arm.name: arm.parameters
        for arm in experiment.prepare(config_lib.read(load("mli.py", "smoke", data))).built.arms
    }
    assert arms == {"standard": 78_042, "sigma": 78_042, "w": 60_634}


@pytest.mark.extended
@pytest.mark.parametrize("words", ["mlp8,digits", "resnet20"])
def test_networks_of_the_variational_config(words, data):
    """Settings as published, and published numbers of trained parameters."""
    full = config_lib.check(load("bayes.py", words, data))
    assert list(full["arms"]) == ["standard", "w", "kappa_0", "from_w", "less_noise", "w_kl_1"]
    published = {"resnet20": (-12.0, 1.0, 8.0, 250, "normal"), "mlp8,digits": (-10.0, 0.01, 1.0, 100, "uniform")}
    names = ("log_variance", "prior_precision", "multiplier", "batch_size", "start")
    assert tuple(full["task"][name] for name in names) == published[words]
    assert (full["task"]["rank"], full["task"]["samples"], full["train_steps"], full["replicas"]) == (4, 25, 10_000, 10)
    smoke = load("bayes.py", f"{words},smoke", data)
    arms = {arm.name: arm.parameters for arm in experiment.prepare(config_lib.read(smoke)).built.arms}
    if words == "resnet20":
        assert (arms["standard"], arms["w"]) == (1_356_098, 1_143_858)
    assert arms["w"] == arms["kappa_0"] == arms["w_kl_1"] < arms["standard"] == arms["from_w"] == arms["less_noise"]


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_both_arms_of_a_variational_comparison_have_the_norm_that_is_asked_for(norm, data):
    plan = config_lib.read(load("bayes.py", f"resnet110,{norm}", data))
    assert {(arm.model["norm"], arm.model["name"]) for arm in plan.arms} == {(norm, "resnet110")}


EQUATION_WORDS = [
    *((name, "quick") for name in EQUATIONS if name != "allen_cahn"),
    *((name, scale) for name in ("poisson", "burgers", "poisson_nd") for scale in ("standard", "accurate")),
]


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("name", "scale"), EQUATION_WORDS)
def test_every_equation_builds(name, scale, x64):
    """Allen and Cahn's takes a second for its reference and is run elsewhere."""
    config = load("pdes.py", f"{name},{scale},smoke", {})
    plan = config_lib.read(config)
    arms = {arm.name: plan.experiment.task_of(plan, arm.name) for arm in plan.arms}
    count = {arm: trees.size(jax.eval_shape(task.init, jax.random.key(0))["params"]) for arm, task in arms.items()}
    if scale == "accurate":
        assert list(arms) == ["raw"]
        return
    width = config.model.widths[0]
    assert count["matched_bias"] == count["raw"]
    assert count["expanded"] == count["ones"] == count["raw"] + 4 * width
    assert abs(count["widened"] - count["expanded"]) <= (width + 8) / 2 + 1


def test_the_list_of_equations(capsys):
    with pytest.raises(SystemExit) as stop:
        load("pdes.py", "list", {})
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for name in EQUATIONS:
        assert f"\n{name} " in f"\n{printed}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "arms", "model"),
    [
        pytest.param("quickstart.py", "smoke", ("raw", "expanded"), {}, marks=pytest.mark.extended),
        ("images.py", "mnist,mlp,smoke", ("raw", "zero"), {}),
        pytest.param("images.py", "fashion_mnist,cnn,smoke", ("raw", "bilinear"), {}, marks=pytest.mark.extended),
        pytest.param("images.py", "cifar10,resnet20,smoke", ("raw",), {"width": 0.25}, marks=pytest.mark.extended),
        pytest.param("images.py", "digits,resnet18,smoke", ("raw",), {"width": 0.25}, marks=pytest.mark.extended),
        pytest.param("figure1.py", "cifar10,mobilenet_v3_small,smoke", None, {}, marks=pytest.mark.extended),
        pytest.param("pdes.py", "kovasznay,smoke", None, {}, marks=pytest.mark.extended),
    ],
)
def test_smoke_runs_to_its_report(name, words, arms, model, data, tmp_path):
    """All arms of a config: tests/experiment_test.py and, of the quickstart, tests/docs_test.py."""
    outcome = experiment.run(load(name, words, data, arms, **model), tmp_path / "run")
    assert outcome.status == "done"
    assert outcome.report.stat().st_size > 10_000
    assert "raw" in outcome.table
