"""Verification of permutation specs: right ones pass to round-off, wrong ones are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.symmetry.permutation import Spec
from sbjax.symmetry.spec import derive_spec, spec_from_axes
from sbjax.symmetry.verification import verify

KEY = jax.random.key(0)
AXES = {"a": (None, "p"), "bias": ("p",), "b": ("p", "q"), "c": ("q", None)}
SHAPES = {"a": (3, 4), "bias": (4,), "b": (4, 4), "c": (4, 2)}
ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def perceptron(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"] + p["bias"]) @ p["b"]) @ p["c"]


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


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 1e-9, 1e-5), ("bfloat16", 0, 0.05)])
def test_statistics_and_narrow_floats(dtype, least, most):
    """Running variances stay positive; round-off is that of the narrowest float; forgotten statistics are seen."""
    module, x = Normed(dtype), jnp.zeros((3, 5))
    variables = jax.eval_shape(module.init, KEY, x)
    spec = derive_spec(module.apply, variables, x, verify=False)
    assert least <= verify(spec, module.apply, variables, x, key=KEY) < most
    forgotten = tuple(move for move in spec.moves["first"] if not move.leaf.endswith("mean"))
    assert len(forgotten) == len(spec.moves["first"]) - 1
    with pytest.raises(ValueError, match=r"permutation 'first' changes the function by .*'*norm/scale\[0\]"):
        verify(spec._replace(moves={"first": forgotten}), module.apply, variables, x, key=KEY)


def test_integers_and_fixed_dtypes():
    """Masks that move are shuffled, and a loop that insists on its dtype is verified in that."""

    def apply(p, x):
        h = jnp.where(p["mask"], x @ p["a"], 0.0)
        h = jax.lax.scan(lambda h, _: (jnp.sin(h) * p["scale"], None), h.astype(jnp.float32), None, length=2)[0]
        return h @ p["b"]

    tree = {
        "a": np.ones((3, 4)),
        "mask": np.array([True, False, True, True]),
        "scale": np.ones(4),
        "b": np.ones((4, 2)),
    }
    tree = {name: leaf if name == "mask" else leaf.astype(np.float32) for name, leaf in tree.items()}
    axes = {"a": (None, "p"), "mask": ("p",), "scale": ("p",), "b": ("p", None)}
    x = np.ones(3, np.float32)
    assert 0 <= verify(spec_from_axes(axes, tree), apply, tree, x, key=KEY) < 1e-5
    with pytest.raises(ValueError, match="permutation 'p' changes the function"):
        verify(spec_from_axes(axes | {"mask": (None,)}, tree), apply, tree, x, key=KEY)


def test_bad_input():
    spec = spec_from_axes(AXES, ZEROS)
    with pytest.raises(ValueError, match="trials=0"):
        verify(spec, perceptron, ZEROS, np.zeros(3), key=KEY, trials=0)
    with pytest.raises(ValueError, match="outputs of apply_fn are not finite"):
        verify(spec, lambda p, x: jnp.log(-jnp.abs(perceptron(p, x))), ZEROS, np.zeros(3), key=KEY)
    with pytest.raises(ValueError, match="acts on leaf 'bias', which is not there"):
        verify(spec, perceptron, {name: ZEROS[name] for name in "abc"}, np.zeros(3), key=KEY)
