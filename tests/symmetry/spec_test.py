"""Specs of the networks here, and specs written by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from sbjax.models import make_model
from sbjax.symmetry.permutation import Move, permute
from sbjax.symmetry.spec import derive_spec, spec_from_axes

KEY = jax.random.key(0)


def model(name, **options):
    """Its `apply`, the shapes of its variables and an input."""
    module = make_model(name, classes=3, **options)
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    return module.apply, jax.eval_shape(module.init, KEY, x), x


def test_perceptron():
    """With the statistics of its batch norm, and verified."""
    spec = derive_spec(*model("mlp", widths=(6, 5), norm="batch"))
    assert spec.sizes == {"dense_0": 6, "dense_1": 5}
    for i in (0, 1):
        norms = [f"batch_stats/norm_{i}/mean", f"batch_stats/norm_{i}/var", f"params/norm_{i}/scale"]
        vectors = [Move(name, 0) for name in (*norms, f"params/norm_{i}/bias", f"params/dense_{i}/bias")]
        kernels = [Move(f"params/dense_{i}/kernel", 1), Move(f"params/dense_{i + 1}/kernel", 0)]
        assert set(spec.moves[f"dense_{i}"]) == {*vectors, *kernels}
        assert len(spec.moves[f"dense_{i}"]) == 7
    assert spec.fixed == {
        "params/dense_0/kernel[0]": "input",
        "params/dense_2/kernel[1]": "output",
        "params/dense_2/bias[0]": "output",
    }


class Net(nnx.Module):
    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.a, self.norm = nnx.Linear(4, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.dropout, self.b = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.b(self.dropout(nnx.relu(self.norm(self.a(x)))))


def test_modules_without_their_parameters_are_told():
    dense = linen.Dense(3)
    for call in (dense.apply, lambda net, x: net(x)):
        with pytest.raises(ValueError, match=r"variables is a module of Flax Linen \(Dense\), .*module.init\(key, x\)"):
            derive_spec(call, dense, jnp.ones(4))


def test_whole_modules():
    """Of NNX, with the statistics of its norm, also while it writes them; of Equinox, with functions as leaves."""
    net, x = Net(), jnp.ones((2, 4))
    writing = derive_spec(lambda net, x: net.norm(net.a(x)) @ jnp.ones((8, 2)), net, x, verify=False)
    assert Move("norm/mean", 0) in derive_spec(lambda net, x: net(x), (net.eval(), net)[1], x).moves["a"]
    assert writing.sizes.keys() <= {"a"}
    net = eqx.nn.MLP(4, 3, 8, 2, key=KEY)
    spec = derive_spec(lambda net, x: net(x), net, jnp.ones(4))
    assert spec.sizes == {"layers/0": 8, "layers/1": 8}
    order = {name: np.arange(n)[::-1] for name, n in spec.sizes.items()}
    np.testing.assert_allclose(permute(spec, net, order)(jnp.ones(4)), net(jnp.ones(4)), rtol=1e-5)


def residual_names(stages, blocks):
    """One permutation of a stage's stream, and one of the inner units of each block."""
    streams = {"conv_stem": 0} | {f"stage_{stage}_block_0/conv_1": stage for stage in range(1, stages)}
    inner = {f"stage_{stage}_block_{block}/conv_0": stage for stage in range(stages) for block in range(blocks)}
    return streams | inner


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
def test_resnet20(norm):
    spec = derive_spec(*model("resnet20", norm=norm, width=0.25), verify=False)
    sizes = {name: 4 * 2**stage for name, stage in residual_names(3, 3).items()}
    if norm == "group":  # two channels a group
        pairs = [(f"{name}.{i}", n) for name, size in sizes.items() for i, n in enumerate((size // 2, 2))]
        assert spec.sizes == dict(pairs)
        assert Move("params/head/kernel", 0, 1, 2) in spec.moves["stage_2_block_0/conv_1.0"]
        assert Move("params/head/kernel", 0, 8, 1) in spec.moves["stage_2_block_0/conv_1.1"]
        return
    assert spec.sizes == sizes
    kernels = {name: {} for name in sizes}
    for name, moves in spec.moves.items():
        kernels[name] = {(move.leaf[7:], move.axis) for move in moves if move.leaf.endswith("kernel")}
    first, last = "stage_1_block_0", "stage_1_block_2"
    assert kernels[f"{last}/conv_0"] == {(f"{last}/conv_0/kernel", 3), (f"{last}/conv_1/kernel", 2)}
    written = {(f"stage_1_block_{block}/conv_1/kernel", 3) for block in range(3)} | {
        (f"{first}/conv_shortcut/kernel", 3)
    }
    read = {(f"stage_1_block_{block}/conv_0/kernel", 2) for block in (1, 2)}
    read |= {(f"stage_2_block_0/{name}/kernel", 2) for name in ("conv_0", "conv_shortcut")}
    assert kernels[f"{first}/conv_1"] == written | read
    per_norm = {"batch": 4, "layer": 2, "none": 1}[norm]  # without a norm the convolutions have a bias
    assert len(spec.moves[f"{last}/conv_0"]) == 2 + per_norm
    assert len(spec.moves[f"{first}/conv_1"]) == 8 + 4 * per_norm


def test_padded_shortcut():
    """The channels that are added are units of their own: those before and those behind the ones of the last stage."""
    spec = derive_spec(*model("resnet20", shortcut="identity", width=0.25), verify=False)
    inner = {name: 4 * 2**stage for name, stage in residual_names(3, 3).items() if "conv_0" in name}
    added = {f"stage_{stage}_block_0/conv_1.{side}": 2 * stage for stage in (1, 2) for side in (0, 1)}
    assert spec.sizes == inner | added | {"conv_stem": 4}
    kernel = "params/stage_2_block_0/conv_1/kernel"
    assert Move(kernel, 3, before=6, after=6) in spec.moves["conv_stem"]
    assert Move(kernel, 3, before=14) not in spec.moves["stage_2_block_0/conv_1.1"]
    assert Move(kernel, 3, before=12) in spec.moves["stage_2_block_0/conv_1.1"]


@pytest.mark.extended
@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "p4cnn", "resnet20", "resnet18"])
def test_models_are_verified(name, norm):
    options = {"width": 0.25} if "resnet" in name else {}
    assert len(derive_spec(*model(name, norm=norm, **options)).sizes) >= 2


HAND = {"a": (None, "p"), "bias": ("p",), "b": ("p", "q"), "c": ("q", None)}
TREE = {"a": np.zeros((3, 4)), "bias": np.zeros(4), "b": np.zeros((4, 4)), "c": np.zeros((4, 2))}


def test_spec_by_hand():
    apply = lambda p, x: jnp.sin(jnp.sin(x @ p["a"] + p["bias"]) @ p["b"]) @ p["c"]  # noqa: E731
    spec = spec_from_axes(HAND, TREE, apply, np.zeros(3))
    found = derive_spec(apply, TREE, np.zeros(3), verify=False)
    assert spec.sizes == {"p": 4, "q": 4}
    assert [{*spec.moves["p"]}, {*spec.moves["q"]}] == [{*found.moves["a"]}, {*found.moves["b"]}]
    assert spec.fixed == {"a[0]": "not named", "c[1]": "not named"}
    assert found.fixed == {"a[0]": "input", "c[1]": "output"}
    with pytest.raises(ValueError, match="permutation 'p' changes the function"):  # a duplicated name
        spec_from_axes(HAND | {"b": ("p", "p")}, TREE, apply, np.zeros(3))


def test_bad_input():
    with pytest.raises(ValueError, match=r"no leaf 'bais', did you mean 'bias'"):
        spec_from_axes({"bais": ("p",)}, TREE)
    with pytest.raises(ValueError, match=r"'b' has shape \(4, 4\): give a name or None for each axis"):
        spec_from_axes({"b": ("p",)}, TREE)
    with pytest.raises(ValueError, match=r"'p' names axis 1 of 'c' of size 2 and axis 1 of 'a' of size 4"):
        spec_from_axes(HAND | {"c": ("q", "p")}, TREE)


def test_unused_and_empty_arrays_are_explained():
    """Neither becomes a permutation, and what is only printed does not fix anything."""

    def apply(p, x):
        h = jnp.sin(x @ p["a"])
        jax.debug.print("{}", h)
        return h @ p["b"] + p["none"].sum()

    tree = {"a": np.zeros((3, 4)), "b": np.zeros((4, 1)), "none": np.zeros((0, 2)), "unused": np.zeros(5)}
    spec = derive_spec(apply, tree, np.zeros(3), verify=False)
    assert spec.sizes == {"a": 4}
    assert spec.fixed["unused[0]"] == "not used by the function"
    assert spec.fixed["b[1]"] == "size 1"
    assert spec.fixed["none[0]"] == spec.fixed["none[1]"] == "empty"
