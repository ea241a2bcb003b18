"""Flat fields to a choice: what is read, what is dropped, what is refused, and by which words."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.optimizers import OPTIMIZERS, SCHEDULES, field_specs, override, read_optimizer, union_fields

OFF = {"weight_decay": 0.0, "schedule": "constant", "warmup_share": 0.0}

USER = """
import dataclasses
import optax

@dataclasses.dataclass(frozen=True)
class Plain:
    momentum: float = 0.5
    def make(self, learning_rate):
        return optax.sgd(learning_rate, self.momentum)

class Fixed:
    scheduled = False
    deterministic = True
    def __init__(self, size: float = 0.25):
        self.size = size
    def make(self):
        return optax.scale(-self.size)
    def first_bias_unit(self, constants):
        return 7.0

def descent(learning_rate, *, factor: float = 1.0):
    return optax.sgd(lambda step: factor * learning_rate(step))

def unscheduled(size=0.5):
    return optax.scale(-size)

def loose(learning_rate, **options):
    return optax.sgd(learning_rate, **options)

def residual(learning_rate):
    def update(updates, state, params, *, residual_fn, **extra):
        assert "hyper" not in extra
        return -residual_fn(params), state
    return optax.GradientTransformationExtraArgs(optax.identity().init, update)

def wrong(learning_rate):
    return 3

def broken(learning_rate):
    raise KeyError("no")

def clashing(learning_rate, warmup_share=0.1):
    return optax.sgd(learning_rate)

class Empty:
    pass

NUMBER = 3

def ramp(learning_rate, train_steps, power: float = 1.0):
    return lambda step: learning_rate * (1 - step / train_steps) ** power
ramp.ends_at_zero = True
"""


@pytest.fixture
def user(tmp_path):
    """Import path of a part of the user's file."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(USER))
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


def read(**fields):
    choice, problems = read_optimizer(fields)
    assert problems == []
    return choice


def first_update(choice, *, steps=100, gradient=1.0, **extra):
    optimizer = choice.build(steps)
    w = jnp.ones(1)
    return float(optimizer.update(gradient * w, optimizer.init(w), w, **extra)[0][0])


def without(fields, name):
    return {key: value for key, value in fields.items() if key != name}


# What is read


def test_the_flat_fields_of_all():
    """The defaults are part of published runs."""
    assert union_fields() == {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "b1": 0.9,
        "b2": 0.999,
        "weight_decay": 5e-4,
        "clip_norm": 0.0,
        "norm_bias_scale": 64.0,
        "look_ahead_steps": 5,
        "look_ahead_decay": 0.95,
        "memory_size": 10,
        "precondition_every": 10,
        "schedule": "cosine",
        "warmup_share": 0.05,
        "first_factor": 0.2,
        "peak_share": 0.23,
        "last_factor": 0.07,
        "decay_every_steps": 0,
        "decay_factor": 0.1,
        "first_bias_scale": 1.0,
    }


@pytest.mark.parametrize("off", [{}, OFF], ids=["defaults", "off"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_read_from_the_flat_union(name, off):
    """With all fields at their defaults or off; what is read is what was written, and reads as the same again."""
    choice = read(**{**union_fields(), **off, "name": name})
    assert choice.fields().keys() == field_specs({"name": name, **off}).keys() - (
        {"nesterov"} if not choice.fields().get("momentum", 1) else set()
    )
    assert read(**choice.fields()) == choice
    assert read(**{"memory_size": None, "momentum": None, **choice.fields()}) == choice  # None = not given
    assert (choice.schedule is None) == (not OPTIMIZERS[name].scheduled)
    assert choice.ends_at_zero == (choice.schedule is not None and not off)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_read(name):
    more = {"decay_every_steps": 7, "decay_factor": 0.5} if name == "step" else {}
    choice = read(schedule=name, **more)
    more |= {"peak_share": 0.23} if name == "triangle" else {"warmup_share": 0.05}
    assert choice.fields().items() >= {"schedule": name, **more}.items()
    assert read(**choice.fields()) == choice
    first = choice.build(50).update(jnp.ones(1), choice.build(50).init(jnp.ones(1)), jnp.ones(1))[0]
    assert (first == 0) == (name != "triangle")  # warm-up


def test_learning_rate_schedule_and_length_reach_the_updates():
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_share": 0.0}
    optimizer = read(**plain, learning_rate=0.5).build(4)
    w, state, found = jnp.ones(1), optimizer.init(jnp.ones(1)), []
    for _ in range(4):
        update, state = optimizer.update(w, state, w)
        found.append(-float(update[0]))
    np.testing.assert_allclose(found, 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "scale"), [("sgd", 3.0), ("lbfgs", 3.0), ("gauss_newton", 3.0), ("adam", 5.0), ("soap", 5.0)]
)
def test_scale_of_the_first_bias(name, scale):
    choice = read(name=name, first_bias_scale=0.0)
    assert choice.bias_scale([2.0, -2.0]) == pytest.approx(scale)
    assert read(name=name, first_bias_scale=4.0).bias_scale(None) == 4.0
    params = {"dense_0": {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}, "dense_1": {"bias": jnp.ones(1)}}
    state = choice.build(9, folded_constants=[2.0, -2.0]).init(params)
    assert jax.tree.map(float, state.scale) == {
        "dense_0": {"kernel": 1.0, "bias": pytest.approx(scale)},
        "dense_1": {"bias": 1.0},
    }
    with pytest.raises(ValueError, match="first_bias_scale=0 matches the bias to a folded expansion and there is none"):
        choice.build(9)
    with pytest.raises(ValueError, match="no layer dense_0 with a bias"):
        choice.build(9, folded_constants=[1.0]).init({"conv": jnp.ones(3)})


def test_an_arm_that_names_another_optimizer():
    shared = {"name": "sgd", "momentum": 0.5, "learning_rate": 0.2, "schedule": "step", "decay_every_steps": 5}
    assert override(shared, {"learning_rate": 1.0}) == {**shared, "learning_rate": 1.0}
    assert override(shared, {"name": "adam", "b1": 0.5}) == without({**shared, "name": "adam", "b1": 0.5}, "momentum")
    assert override(shared, {"name": "lbfgs"}) == {"name": "lbfgs"}
    changed = {**shared, "schedule": "cosine"}
    assert override(shared, {"schedule": "cosine"}) == without(changed, "decay_every_steps")
    assert override(shared, {"name": "adam", "momentum": 0.5})["momentum"] == 0.5  # the arm's own is refused later
    assert override(shared, {"name": "adm"}) == {**shared, "name": "adm"}


# What is refused


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "sdg"}, "optimizer.name='sdg' is unknown, did you mean 'sgd'?; known: sgd, look_ahead_sgd, adam"),
        ({"name": 3}, "optimizer.name=3 is unknown"),
        ({"schedule": "cosin"}, "optimizer.schedule='cosin' is unknown, did you mean 'cosine'"),
        ({"momentun": 0.5}, "optimizer.momentun=0.5 is unknown, did you mean 'momentum'"),
        ({"learning_rate": -0.1}, "optimizer.learning_rate=-0.1 must be >= 0"),
        ({"learning_rate": "fast"}, "optimizer.learning_rate='fast' must be of type float"),
        ({"momentum": 1.0}, "optimizer.momentum=1.0 must be >= 0, < 1"),
        ({"warmup_share": 1.0}, "optimizer.warmup_share=1.0 must be >= 0, < 1"),
        ({"first_bias_scale": -1.0}, "optimizer.first_bias_scale=-1.0 must be >= 0"),
        ({"schedule": "step"}, "optimizer.decay_every_steps is missing; give it"),
        ({"schedule": "step", "decay_every_steps": 0}, "optimizer.decay_every_steps=0 must be >= 1"),
        (
            {"schedule": "step", "decay_every_steps": 5, "decay_factor": -1.0},
            "optimizer.decay_factor=-1.0 must be > 0, <= 1",
        ),
        ({"name": "lbfgs", "memory_size": -5}, "optimizer.memory_size=-5 must be >= 1"),
        (
            {"momentum": 0.0, "nesterov": True, "name": "adam", "b1": 0.5, "memory_size": 3},
            "optimizer.memory_size=3 has no effect with optimizer.name='adam': it is read by lbfgs; leave it out",
        ),
        (
            {"name": "adam", "momentum": 0.5},
            "optimizer.momentum=0.5 has no effect with optimizer.name='adam': it is read by sgd, look_ahead_sgd; "
            "leave it out",
        ),
        (
            {"name": "adam", "weight_decay": 0.1},
            "optimizer.weight_decay=0.1 has no effect with optimizer.name='adam': it is read by sgd, look_ahead_sgd, "
            "adamw, soap; leave it out",
        ),
        (
            {"decay_factor": 0.5},
            "optimizer.decay_factor=0.5 has no effect with optimizer.schedule='cosine': it is read by step",
        ),
        (
            {"name": "lbfgs", "learning_rate": 1e-3},
            "optimizer.learning_rate=0.001 has no effect with optimizer.name='lbfgs', which finds its own step length; "
            "leave it out",
        ),
        ({"name": "gauss_newton", "schedule": "step"}, "optimizer.schedule='step' has no effect with optimizer.name="),
        ({"name": "ssbfgs", "warmup_share": 0.5}, "optimizer.warmup_share=0.5 has no effect with optimizer.name="),
        ({"name": "lbfgs", "clip_norm": 1.0}, "optimizer.clip_norm=1.0 has no effect with optimizer.name='lbfgs'"),
    ],
)
def test_refusals_name_field_value_and_remedy(fields, problem):
    choice, (found,) = read_optimizer(fields)
    assert choice is None
    assert found.startswith(problem)


def test_all_problems_at_once_under_the_section_s_name():
    fields = {"name": "adam", "momentum": 0.5, "b1": 2.0, "learning_rat": 1.0}
    _, problems = read_optimizer(fields, where="finish")
    assert len(problems) == 3
    assert all(problem.startswith("finish.") for problem in problems)
    assert read_optimizer(fields, where="")[1][0].startswith("momentum=0.5 has no effect with name='adam'")
    with pytest.raises(ValueError, match=r"^name='sdg' is unknown"):
        field_specs({"name": "sdg"})


# A user's own


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("Plain", {}, 0.1),
        ("Plain", {"momentum": 0.0}, 0.1),
        ("Fixed", {"size": 2}, 2.0),
        ("descent", {"factor": 3.0}, 0.3),
        ("unscheduled", {}, 0.5),
    ],
)
def test_a_users_own_optimizer(user, name, options, step):
    given = {"name": user(name), **options}
    scheduled = name not in ("Fixed", "unscheduled")
    choice = read(**given, **(OFF if scheduled else {}))
    assert choice.fields().items() >= given.items()
    assert (choice.schedule is not None) == scheduled
    assert choice.options.deterministic == (name == "Fixed")
    assert read(**choice.fields()) == choice
    assert first_update(choice) == pytest.approx(-step)
    assert first_update(choice, value=1.0, hyper={}, residual_fn=None) == pytest.approx(-step)


def test_a_users_own_keeps_its_defaults_in_the_flat_union(user):
    """Base configs hold momentum=0.9, which nobody asked for."""
    fields = {**union_fields(), "name": user("Plain")}
    assert read(**fields).options.values() == {"momentum": 0.5}
    assert read(**{**fields, "momentum": 0.0}).options.values() == {"momentum": 0.0}
    assert read(**{**union_fields(), "name": "optax:lion"}).options.values().items() >= {"b2": 0.99}.items()


def test_a_user_s_optimizer_of_residuals(user):
    choice = read(name=user("residual"), **OFF)
    assert first_update(choice, residual_fn=lambda w: 2 * w, hyper={}) == -2.0


def test_a_users_own_schedule(user):
    choice = read(momentum=0.0, weight_decay=0.0, learning_rate=0.5, schedule=user("ramp"), power=2.0)
    assert choice.ends_at_zero
    assert choice.fields()["schedule"] == user("ramp")
    assert read(**choice.fields()) == choice
    assert float(choice.schedule.make(0.5, 100)(50)) == pytest.approx(0.125)
    assert first_update(choice) == pytest.approx(-0.5)


def test_the_first_bias_of_a_users_own(user):
    assert read(name=user("Fixed"), first_bias_scale=0.0).bias_scale([1.0]) == 7.0
    with pytest.raises(ValueError, match="descent' does not say its unit of the first bias; give a scale > 0"):
        read(name=user("descent"), first_bias_scale=0.0).bias_scale([1.0])


def test_functions_of_optax_by_name():
    choice = read(name="optax:lion", learning_rate=0.01, b2=0.9, **OFF)
    assert choice.fields()["b1"] == 0.9
    assert first_update(choice) == pytest.approx(-0.01)
    theirs = optax.lion(0.01, b2=0.9, weight_decay=0.0)
    assert first_update(choice) == float(theirs.update(jnp.ones(1), theirs.init(jnp.ones(1)), jnp.ones(1))[0][0])


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("Plain", {"momentun": 0.5}, "optimizer.momentun=0.5 is unknown, did you mean 'momentum'"),
        ("Plain", {"momentum": "a"}, "optimizer.momentum='a' must be of type float"),
        ("Plain", {"b1": 0.5}, "optimizer.b1=0.5 has no effect with optimizer.name="),
        ("unscheduled", {"learning_rate": 3.0}, "optimizer.learning_rate=3.0 has no effect with optimizer.name="),
        ("missing", {}, "has no 'missing'"),
        ("loose", {}, "takes any keyword, so that misspelt ones could not be told; name its options"),
        ("wrong", {}, "gives 3; it must give an optax.GradientTransformation"),
        ("broken", {}, "failed: KeyError: 'no'"),
        ("clashing", {}, "has an option 'warmup_share', which the section has already; rename it"),
        ("Empty", {}, "it must be a class with make(learning_rate), or a function of learning_rate and its options"),
        ("NUMBER", {}, "is 3; it must be a class with make(learning_rate)"),
    ],
)
def test_a_users_own_that_does_not_fit(user, name, fields, problem):
    choice, (found,) = read_optimizer({"name": user(name), **fields})
    assert choice is None
    assert found.startswith("optimizer")
    assert problem in found


def test_there_is_no_such_file():
    assert "there is no file" in read_optimizer({"name": "nowhere.py:Lion"})[1][0]
    assert "there is no module" in read_optimizer({"schedule": "nowhere_at_all:ramp"})[1][0]
