"""Networks that know nothing of this package: how they are called, and what is refused before training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax.asymmetry import AsymmetrySpec, make_asymmetric
from sbjax.expansion.transform import VectorExpansion, expand
from sbjax.models.own import OwnField, OwnMasses, OwnModel, own_dtype
from sbjax.models.registry import make_field, make_model
from sbjax.physics.pdes import make_equation
from sbjax.tasks.field_partials import choose_mode
from sbjax.tasks.pinn import Points, make_pinn_task

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (4, 6, 6, 1))


class Plain(nn.Module):
    """No argument that tells training from evaluation."""

    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


class Modal(nn.Module):
    """Dropout and batch statistics."""

    classes: int = 3

    def head(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(x.reshape(len(x), -1))
        return nn.Dense(self.classes)(nn.Dropout(0.5, deterministic=not train)(x))


class Train(Modal):
    @nn.compact
    def __call__(self, x, train):
        return self.head(x, train)


class Training(Modal):
    @nn.compact
    def __call__(self, x, training=True):
        return self.head(x, training)


class Deterministic(Modal):
    @nn.compact
    def __call__(self, x, *, deterministic):
        return self.head(x, not deterministic)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("module", [Train(), Training(), Deterministic()], ids=lambda m: type(m).__name__)
def test_training_and_evaluation(module):
    model = OwnModel(module, 3)
    variables = model.init(KEY, IMAGES)
    calm = model.apply(variables, IMAGES, train=False)
    np.testing.assert_array_equal(calm, model.apply(variables, IMAGES))
    # By hand: statistics are 0 and 1 at the start, so that evaluation is the dense layer of nearly the pixels.
    kernel, flat = variables["params"]["Dense_0"]["kernel"], IMAGES.reshape(4, -1)
    np.testing.assert_allclose(calm, flat @ kernel, rtol=1e-3, atol=1e-4)
    noisy, state = model.apply(variables, IMAGES, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert (noisy != calm).any()
    mean = state["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * flat.mean(0), rtol=1e-3, atol=1e-6)


def test_without_modes_or_state():
    model = OwnModel(Plain(), 3)
    variables = model.init(KEY, IMAGES, train=False)
    logits, state = model.apply(variables, IMAGES, train=True, rngs={"dropout": KEY}, mutable=[])
    np.testing.assert_array_equal(logits, model.apply(variables, IMAGES, train=False))
    assert not state
    assert hash(model) == hash(OwnModel(Plain(), 3))


def test_half_precision_logits_are_widened():
    class Half(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, dtype="bfloat16")(x.reshape(len(x), -1))

    model = OwnModel(Half(), 3)
    assert model.apply(model.init(KEY, IMAGES), IMAGES).dtype == jnp.float32


def test_asymmetric_copies():
    """Frozen constants around a network of the user's own."""
    net = make_asymmetric(OwnModel(Plain(), 3), AsymmetrySpec("syre", sigma0=1.0))
    variables = net.init(KEY, IMAGES, train=False)
    plain = Plain().apply({"params": variables["params"]}, IMAGES)
    assert np.abs(net.apply(variables, IMAGES, train=False) - plain).max() > 0.1


def linen(call, **fields):
    """A module whose `__call__` is a function."""
    return type("Net", (nn.Module,), {"__call__": nn.compact(call), "__annotations__": {}, **fields})()


def grows(self, x, train=False):
    seen = self.variable("seen", "x", lambda: jnp.zeros(()))
    if train:
        seen.value = jnp.zeros(len(x))
    return nn.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda self, x: nn.Dense(4)(x.reshape(len(x), -1)),
            r"Net gives float32\[4, 4\] for .*\(4, 6, 6, 1\).*\[4, 3\]",
        ),
        (lambda self, x: nn.Dense(3)(x), r"Net gives float32\[4, 6, 6, 3\]"),
        (lambda self, x: jnp.zeros((len(x), 3), int), r"Net gives int32\[4, 3\].*floating \[batch, classes\]"),
        (lambda self, x: (nn.Dense(3)(x.reshape(len(x), -1)), 0), "gives a tuple where one array"),
        (
            lambda self, x: nn.Dense(3)(x @ jnp.ones((5, 2))),
            r"Net fails on an input of shape \(4, 6, 6, 1\): TypeError",
        ),
        (lambda self, x: nn.Dense(3)(nn.BatchNorm(False)(x.reshape(len(x), -1))), "ModifyScopeVariableError"),
        (lambda self, x: nn.Dense(3)(nn.Dropout(0.5, deterministic=False)(x.reshape(4, -1))), "needs PRNG|InvalidRng"),
        (grows, "changes the shape of its state"),
    ],
)
def test_refused_models(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(OwnModel(linen(call), 3).init, KEY, IMAGES)


def constant_state(self, x):
    return nn.Dense(3)(nn.BatchNorm(True)(x.reshape(len(x), -1)))


def test_state_needs_an_argument_train():
    with pytest.raises(ValueError, match=r"Net has state in 'batch_stats'.*add `train: bool = False`"):
        OwnModel(linen(constant_state), 3).init(KEY, IMAGES)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("def net(classes, width=4): return None", {}, "gives None, which is no Linen module"),
        ("def net(width=4): return None", {}, "takes no 'classes', the number of its outputs"),
        ("def net(classes, width=4): return None", {"widht": 3}, "^widht=3 is unknown, did you mean 'width'"),
        ("def net(classes, width=4): return None", {"width": "a"}, "^width='a' must be of type int, such as 4"),
        ("def net(classes, width): return None", {}, "^width is missing; give it"),
        ("def net(classes): raise RuntimeError('no GPU')", {}, "RuntimeError: no GPU"),
        ("import nothing_of_the_kind", {}, "importing '.*net.py' failed.*nothing_of_the_kind"),
    ],
)
def test_refused_definitions(tmp_path, source, options, message):
    (tmp_path / "net.py").write_text(source + "\n")
    with pytest.raises(ValueError, match=message):
        make_model(f"{tmp_path}/net.py:net", classes=3, **options)


def test_a_function_of_any_options(tmp_path):
    (tmp_path / "net.py").write_text(
        "from flax import linen as nn\ndef net(**given): return nn.Dense(given['classes'] + given['more'])\n"
    )
    assert make_model(f"{tmp_path}/net.py:net", classes=3, more=2).module.features == 5


# Fields


class Sines(nn.Module):
    unknowns: int = 1

    @nn.compact
    def __call__(self, x):
        assert x.ndim == 2  # always a batch of points
        return nn.Dense(self.unknowns)(jnp.sin(nn.Dense(8)(x)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2)])
@pytest.mark.parametrize("expansion", [None, VectorExpansion(1, 2)])
def test_a_field_at_points_of_any_shape(shape, expansion):
    field = OwnField(Sines(2), 2, (0.0, 0.0), (1.0, 1.0), expansion)
    variables = field.init(KEY, jnp.zeros(2))
    x = jax.random.normal(jax.random.key(2), shape)
    expected = Sines(2).apply(variables, expand(expansion, x).reshape(-1, 2 if expansion is None else 5))
    np.testing.assert_allclose(field.apply(variables, x), expected.reshape(*shape[:-1], 2), rtol=1e-6)
    assert field.apply({**variables, "points": jnp.zeros(3)}, x).shape == (*shape[:-1], 2)


@pytest.mark.extended
def test_a_field_in_an_equation():
    """Residuals by the generic modes agree, and those that need a perceptron are refused."""
    equation = make_equation("poisson")
    field = OwnField(Sines(), 1, equation.lower, equation.upper, VectorExpansion(1, 1))
    make = partial(make_pinn_task, equation, points=Points(12, 4, 4), test_points=16)
    values = []
    for mode in ("auto", "nested", "forward_over_reverse", "forward", "taylor"):
        task = make(field, derivatives=mode)
        variables = task.init(KEY)
        values.append(float(task.loss(variables, task.sample(task.data, KEY, jnp.int32(0)), KEY)[0]))
    np.testing.assert_allclose(values, values[0], rtol=1e-3)
    assert choose_mode("auto", equation, field) == "forward"
    with pytest.raises(ValueError, match=r"'mlp' is not possible.*not the perceptron of this package"):
        make(field, derivatives="mlp")
    with pytest.raises(ValueError, match="the expansion cannot be folded into Sines"):
        make(field, fold=True)


def test_an_expansion_of_ones_own_in_the_perceptron():
    """Only a VectorExpansion can be written into the first layer: all others are differentiated as they stand."""

    class Square:
        def expand(self, x):
            return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)

        def contract(self, y):
            return y[..., :-1]

    equation = make_equation("poisson")
    field = make_field("field", unknowns=1, lower=equation.lower, upper=equation.upper, expansion=Square())
    assert choose_mode("auto", equation, field) != "mlp"
    with pytest.raises(ValueError, match="its expansion is not a VectorExpansion"):
        choose_mode("mlp", equation, field)


def test_refused_fields():
    for module, message in (
        (Sines(2), r"Sines gives float32\[1, 2\].*\[n, unknowns\] = \[1, 1\]"),
        (linen(lambda self, x: nn.Dense(1)(nn.BatchNorm(True)(x))), "Net has variables in 'batch_stats'"),
    ):
        with pytest.raises(ValueError, match=message):
            OwnField(module, 1, (0.0,), (1.0,)).init(KEY, jnp.zeros(1))
    with pytest.raises(ValueError, match="dtype='float64' must be 'float32', or 'float64' with x64=True"):
        own_dtype(nn.Dense(1, dtype="float64"), x64=False)
    assert own_dtype(Sines(), x64=True) == "float32"


def test_masses():
    masses = OwnMasses(Sines(3), 3, (0.0,), (1.0,), VectorExpansion(0, 1))
    variables = masses.init(KEY, jnp.ones(1))
    T = jnp.linspace(0.1, 0.4, 6)
    expected = Sines(3).apply(variables, jnp.stack([T, jnp.full(6, jnp.pi)], -1))
    np.testing.assert_allclose(masses.apply(variables, T.reshape(2, 3)), expected.reshape(2, 3, 3), rtol=1e-6)
    assert masses.apply(variables, T[0]).shape == (3,)
