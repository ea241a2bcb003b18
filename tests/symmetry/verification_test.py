"""Verification of permutation specs: right ones pass to round-off, wrong ones are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.symmetry._widened import evaluate
from sbjax.symmetry.permutation import Spec
from sbjax.symmetry.spec import derive_spec, spec_from_axes
from sbjax.symmetry.verification import verify

KEY = jax.random.key(0)
AXES = {"a": (None, "p"), "bias": ("p",), "b": ("p", "q"), "c": ("q", None)}
SHAPES = {"a": (3, 4), "bias": (4,), "b": (4, 4), "c": (4, 2)}
ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def perceptron(p, x):
    h = x @ p["a"]
    return jnp.tanh(jnp.tanh(h + trees.along(p["bias"], h)) @ p["b"]) @ p["c"]


def test_a_right_spec_passes_in_double_precision():
    """From shapes alone too."""
    spec = spec_from_axes(AXES, ZEROS)
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in SHAPES.items()}
    assert 0 < verify(spec, perceptron, ZEROS, np.zeros(3), key=KEY) < 1e-13
    assert 0 < verify(spec, perceptron, shapes, jax.ShapeDtypeStruct((3,), np.float32), key=KEY, trials=1) < 1e-13
    assert verify(Spec({}, {}, {}), perceptron, ZEROS, np.zeros(3), key=KEY) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bias": (None,)}, ["p"]),  # a forgotten bias, which is zero in the given parameters
        ({"b": ("p", "p")}, ["p", "q"]),  # one name for two layers
        ({"b": ("q", "p")}, ["p", "q"]),
        ({"c": (None, None)}, ["q"]),
    ],
)
def test_planted_errors_are_named(change, named):
    spec = spec_from_axes(AXES | change, ZEROS)
    with pytest.raises(ValueError, match=r"changes the function by") as caught:
        verify(spec, perceptron, ZEROS, np.zeros(3), key=KEY, trials=1)
    assert [name for name in ("p", "q") if f"permutation {name!r} changes" in str(caught.value)] == named


class Normed(nn.Module):
    """In the precision given, whatever the arrays are."""

    dtype: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, dtype=self.dtype, name="first")(x)
        x = nn.BatchNorm(use_running_average=True, dtype=self.dtype, name="norm")(x)
        return nn.Dense(2, dtype=self.dtype, name="second")(jnp.tanh(x))


@pytest.mark.parametrize(
    "dtype",
    ["float32", pytest.param("bfloat16", marks=pytest.mark.promotes("BatchNorm of Flax takes its means in float32"))],
)
def test_statistics_and_narrow_floats(dtype):
    """Running variances stay positive, forgotten statistics are seen, and casts do not make the test coarse."""
    module, x = Normed(dtype), jnp.zeros((3, 5))
    variables = jax.eval_shape(module.init, KEY, x)
    spec = derive_spec(module.apply, variables, x, verify=False)
    assert verify(spec, module.apply, variables, x, key=KEY) < 1e-13
    forgotten = tuple(move for move in spec.moves["first"] if not move.leaf.endswith("mean"))
    assert len(forgotten) == len(spec.moves["first"]) - 1
    with pytest.raises(ValueError, match=r"permutation 'first' changes the function by .*norm/scale\[0\]"):
        verify(spec._replace(moves={"first": forgotten}), module.apply, variables, x, key=KEY)


def narrow(p, x):
    """Everything at once that insists on float32: casts, loops, scatters, a callback if asked for."""
    h = jnp.where(p["mask"], x @ p["a"], 0.0).astype(jnp.float32)
    h = jax.lax.scan(lambda h, _: (jnp.sin(h) * p["scale"], None), h, None, length=2)[0]
    h = jax.lax.fori_loop(0, 2, lambda i, h: jax.lax.cond(i > 0, jnp.sin, jnp.cos, h), h)
    h = jnp.zeros(4, jnp.float32).at[:].add(h) + jnp.linalg.norm(jax.lax.reduce_precision(h, 8, 7))
    return jax.nn.relu(h) @ p["b"]


def called_back(p, x):
    y = narrow(p, x)
    return jax.pure_callback(lambda y: np.asarray(y), jax.ShapeDtypeStruct(y.shape, np.float32), y)


@pytest.mark.parametrize(("apply", "most"), [(narrow, 1e-13), (called_back, 1e-5)])
def test_functions_in_single_precision(apply, most):
    """In double precision where that can be, with masks that move shuffled."""
    tree = {"a": np.ones((3, 4)), "scale": np.ones(4), "b": np.ones((4, 2))}
    tree = {name: leaf.astype(np.float32) for name, leaf in tree.items()}
    tree["mask"] = np.array([True, False, True, True])
    axes = {"a": (None, "p"), "mask": ("p",), "scale": ("p",), "b": ("p", None)}
    x = np.ones(3, np.float32)
    assert 0 <= verify(spec_from_axes(axes, tree), apply, tree, x, key=KEY) < most
    for name, shape in (("mask", (None,)), ("scale", (None,))):
        with pytest.raises(ValueError, match="permutation 'p' changes the function"):
            verify(spec_from_axes(axes | {name: shape}, tree), apply, tree, x, key=KEY)


def test_values_are_those_of_the_function(x64):
    """In double precision throughout, evaluation of the jaxpr is the function itself."""
    rng = np.random.default_rng(0)
    p = {
        "a": rng.normal(size=(3, 4)),
        "mask": np.ones(4, bool),
        "scale": rng.normal(size=4),
        "b": rng.normal(size=(4, 2)),
    }
    double = lambda p, x: jax.nn.relu(jax.lax.map(jnp.sin, x @ p["a"]) * p["scale"]) @ p["b"]  # noqa: E731
    x = rng.normal(size=3)
    closed = jax.make_jaxpr(double)(p, x)
    (result,) = evaluate(closed, jax.tree.leaves((p, x)))
    np.testing.assert_array_equal(result, double(p, x))
    single = jax.make_jaxpr(lambda p, x: double(*jax.tree.map(lambda a: a.astype("float32"), (p, x))))(p, x)
    np.testing.assert_allclose(evaluate(single, jax.tree.leaves((p, x)))[0], double(p, x), rtol=1e-14)


@pytest.mark.promotes("noise is drawn in the precision of jax, not of the weights")
def test_integers_and_keys(x64):
    """Indices of nodes, counters and keys among the variables stay what they are, in either mode of jax."""
    tree = ZEROS | {"order": np.array([2, 0, 1]), "count": 3, "key": jax.random.key(3)}

    def apply(p, x):
        noise = jax.random.normal(p["key"], x.shape)
        return perceptron(p, (x + noise)[p["order"]]) * p["count"]

    for mode in (True, False):
        with jax.enable_x64(mode):
            spec = derive_spec(apply, tree, np.zeros(3))
            assert spec.sizes == {"order": 3, "a": 4, "b": 4}  # rows of a kernel may change with the indices


def test_bad_input():
    spec = spec_from_axes(AXES, ZEROS)
    with pytest.raises(ValueError, match="trials=0"):
        verify(spec, perceptron, ZEROS, np.zeros(3), key=KEY, trials=0)
    with pytest.raises(ValueError, match="outputs of apply_fn are not finite"):
        verify(spec, lambda p, x: jnp.log(-jnp.abs(perceptron(p, x))), ZEROS, np.zeros(3), key=KEY)
    with pytest.raises(ValueError, match="acts on leaf 'bias', which is not there"):
        verify(spec, perceptron, {name: ZEROS[name] for name in "abc"}, np.zeros(3), key=KEY)
