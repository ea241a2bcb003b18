import functools
import pathlib
import sys
import types
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse
from flax import nnx
from flax.training.train_state import TrainState
from jax.experimental.sparse import BCOO, BCSR

from sbjax import marginal_distance, trees

KEY = jax.random.key(0)


class Layer(NamedTuple):
    kernel: np.ndarray
    bias: np.ndarray


class Module(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


def linen():
    return nn.Dense(3).init(KEY, jnp.ones((1, 2)))


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (linen(), ["params/bias", "params/kernel"]),
        (nnx.state(Module(), nnx.Param), ["dense/bias", "dense/kernel", "norm/bias", "norm/scale"]),
        ({"mlp/~/linear_0": {"w": np.ones(2), "b": np.ones(1)}}, ["mlp/~/linear_0/b", "mlp/~/linear_0/w"]),
        ([Layer(np.ones((2, 3)), np.ones(3)), (1.0, 2.0)], ["0/kernel", "0/bias", "1/0", "1/1"]),
        (jnp.ones(3), [""]),
        ({}, []),
    ],
    ids=["linen", "nnx", "haiku", "tuples", "bare", "nothing"],
)
def test_flat_names(tree, names):
    assert list(trees.flatten(tree)) == names
    for leaf, kept in zip(jax.tree.leaves(tree), trees.flatten(tree).values(), strict=True):
        np.testing.assert_array_equal(leaf, kept)


def test_floating_passes_over_what_is_no_weight():
    state = nnx.state(Module())
    assert {"dropout/rngs/count", "dropout/rngs/key"} <= trees.flatten(state).keys()
    assert not any("rngs" in name for name in trees.floating(state))
    tree = {"w": np.ones(2, np.float16), "x": 1.5, "n": 3, "flag": True, "i": np.arange(2), "key": KEY, "none": None}
    kept = trees.floating(tree)
    assert list(kept) == ["w", "x"]
    assert isinstance(kept["w"], jax.Array)
    assert kept["w"].dtype == jnp.float16
    assert kept["x"].dtype == np.float64


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, ["a/bias", "a/kernel", "b/kernel"]),
        ("*/kernel", ["a/kernel", "b/kernel"]),
        ("a/*", ["a/bias", "a/kernel"]),
        (["a/bias", "b/*"], ["a/bias", "b/kernel"]),
        (lambda name: "b/" in name, ["b/kernel"]),
        ("[ab]/kernel", ["a/kernel", "b/kernel"]),
    ],
)
def test_where(where, names):
    tree = {"a": {"kernel": np.ones(2), "bias": np.ones(2)}, "b": {"kernel": np.ones(2)}}
    assert list(trees.floating(tree, where)) == names
    assert [name for name in trees.flatten(tree) if trees.selects(where, name)] == names


@pytest.mark.parametrize(
    ("tree", "where", "words"),
    [
        ({"w": np.ones(2)}, "kernel*", r"mine has no floating leaf that where='kernel\*' selects; its leaves: 'w'"),
        ({"n": np.arange(2)}, None, "no floating leaf.*its leaves: 'n'"),
        ({"n": np.arange(2)}, None, r"leaf 'n' holds int64.*cast it, as by .astype\('float32'\)"),
        ({"n": np.array([True])}, None, "leaf 'n' holds bool"),
        ({}, None, "its leaves: none"),
        ({"w": np.ones(2, complex)}, None, "mine: leaf 'w' is complex"),
        ({"w": np.ones((2, 0), np.float32)}, None, r"mine: leaf 'w' of shape \(2, 0\) is empty; leave it out"),
        ({"w": np.ones(2), "name": "cnn"}, None, "leaf 'name' holds no numbers.*leave it out with `where`"),
        ({"w": np.ones(2), "f": object()}, None, "leaf 'f' holds no numbers"),
        ({"w": np.ones(2), "f": np.array([None])}, None, "leaf 'f' holds no numbers"),
        ({"w": np.ones(2), "f": np.ones(2, [("a", "f4")])}, None, "leaf 'f' holds no numbers"),
        ({"w": np.ones(2), "f": np.ones(2, "M8[s]")}, None, "leaf 'f' holds no numbers"),
        ({"w": {"qvalue": np.ones((2, 2), np.int8), "scale": np.ones(2)}}, None, "'w/qvalue' holds int8 .* quantised"),
        ({"a.qweight": np.ones((2, 2), np.int32), "b": np.ones(2)}, None, "'a.qweight' holds int32 .* quantised"),
        ({"w": BCOO.fromdense(jnp.eye(2))}, None, r"mine: leaf 'w' is a sparse array of jax \(BCOO\).*todense"),
        ({"a": [BCSR.fromdense(jnp.eye(2))]}, "a/*", r"leaf 'a/0' is a sparse array of jax \(BCSR\)"),
        (nn.Dense(3), None, r"mine is a module of Flax Linen \(Dense\), .*that module.init\(key, x\) returns"),
        ({"params": nn.Dense(3)}, None, "mine is a module of Flax Linen"),
        (nn.Dense(3).bind(linen()), None, "give its variables, module.variables"),
        (functools.partial(nn.Dense(3).apply, linen()), None, "mine is a functools.partial"),
        (jnp.tanh, None, "mine is a function; give the parameters"),
        (optax.adam(0.1), None, "mine is an optimiser of optax"),
        (optax.sgd(0.1).init(np.ones(2)), None, "mine is a state of optax without arrays"),
        (Module, None, "mine is the class Module and no module"),
        ("a.npz", None, "mine is the text 'a.npz'; read a file by sbjax.training.params_files.load_params"),
        (pathlib.Path("a.npz"), None, "mine is the text 'a.npz'"),
        (None, None, "mine is None"),
    ],
)
def test_floating_refuses(tree, where, words):
    with pytest.raises(ValueError, match=words):
        trees.floating(tree, where, what="mine")


def test_modules_of_pytorch_are_told(monkeypatch):
    class Net:
        def __call__(self, x):
            return x

    monkeypatch.setitem(sys.modules, "torch.nn", types.SimpleNamespace(Module=Net))
    with pytest.raises(ValueError, match=r"module of PyTorch \(Net\); give .*named_parameters"):
        trees.floating(Net())


def test_states_of_optimisers_are_no_weights():
    params = {"w": jnp.ones(2)}
    state = optax.adam(0.1).init(params)
    assert list(trees.floating((params, state))) == ["0/w"]
    assert list(trees.floating({"net": params, "moments": state})) == ["net/w"]
    assert list(trees.floating(state)) == ["0/mu/w", "0/nu/w"]  # where nothing else is there
    assert list(trees.floating(optax.LookaheadParams(params, params))) == ["fast/w", "slow/w"]


def test_what_is_deleted_or_sparse_among_replicas_is_told():
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(ValueError, match="leaf 'w' was deleted, as by a step"):
        trees.floating({"w": gone})
    with pytest.raises(ValueError, match=r"stacked\[0\]: leaf 'w' is a sparse array"):
        trees.replicas([{"w": BCOO.fromdense(jnp.eye(3)[:n])} for n in (1, 2)])
    assert list(trees.floating({"w": BCOO.fromdense(jnp.eye(2)), "b": np.ones(2)}, "b")) == ["b"]


class Tensor:
    """An array of another library."""

    dtype, shape = "torch.float32", (2, 3)

    def __array__(self, dtype=None, copy=None):
        return np.ones(self.shape, np.float32)


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (Tensor(), "Tensor of tests"),
        (np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3)), "masked array"),
        (scipy.sparse.eye(3).tocsr(), "csr_matrix of scipy"),
        (jax.ShapeDtypeStruct((2, 3), np.float32), "ShapeDtypeStruct of jax"),
    ],
)
def test_arrays_of_other_libraries_are_refused(leaf, kind):
    for refused in (lambda: trees.floating({"w": leaf}), lambda: trees.replicas([{"w": leaf, "b": np.ones(5)}] * 2)):
        with pytest.raises(ValueError, match=f"w' is a {kind}; give one of numpy or jax"):
            refused()


def test_check_finite_names_the_leaf():
    bad = {"a": jnp.ones(3), "b": jnp.array([1.0, np.nan, -np.inf]), "c": jnp.array([np.nan])}
    with pytest.raises(ValueError, match="mine: leaf 'b' has 2 entries that are NaN or infinite; drop"):
        trees.check_finite(bad, "mine")
    trees.check_finite({"half": jnp.ones(3, jnp.bfloat16)})


def test_check_finite_tests_constants_but_no_tracers_inside_jit():
    constant = {"c": jnp.array([jnp.nan])}
    jax.jit(lambda x: trees.check_finite({"x": x}))(jnp.array([jnp.nan]))
    with pytest.raises(ValueError, match="leaf 'c'"):
        jax.jit(lambda x: trees.check_finite(constant))(1.0)


def test_replica_rows():
    tree = {"kernel": np.arange(24.0).reshape(2, 3, 4), "scale": np.arange(2.0), "step": np.arange(5)}
    rows = trees.replica_rows(tree)
    assert {name: row.shape for name, row in rows.items()} == {"kernel": (2, 12), "scale": (2, 1)}
    np.testing.assert_array_equal(rows["kernel"][1], np.arange(12, 24))


SQUARE = {"w": np.ones((8, 8), np.float32), "b": np.ones(8, np.float32)}
LAYERS = [(np.ones((5, 2, 3)), np.ones((5, 3))), (np.ones((5, 3, 1)),)]
WIDTHS = [{"k": np.ones((3, n)), "o": np.ones((3, 2))} for n in (4, 5)]


@pytest.mark.parametrize(
    "tree",
    [LAYERS, tuple(LAYERS), [np.ones((5, 2)), np.ones((5, 3))], Layer(*np.ones((2, 2, 3))), {"a": LAYERS}, WIDTHS[0]],
)
def test_what_is_one_stacked_tree(tree):
    assert trees.replicas(tree) is tree


def test_lists_that_are_replicas():
    net = [np.ones((2, 3), np.float32), np.ones(3, np.float32)]
    assert jax.tree.map(jnp.shape, trees.replicas([net, net, net])) == [(3, 2, 3), (3, 3)]
    with pytest.raises(
        ValueError, match=r"list of 3 trees .* begin with an axis of 8: give sbjax.trees.stack\(nets\) if"
    ):
        trees.replicas([SQUARE] * 3, what="nets")
    with pytest.raises(ValueError, match="tuple of 2 trees"):
        trees.replicas((np.ones((3, 4)), np.ones((3, 4))))


def test_states_of_a_training_are_replicas():
    """Each has its own optimiser and function, which are no leaves."""
    params = [{"kernel": np.full((2, 3), i, np.float32), "bias": np.zeros(3, np.float32)} for i in range(2)]
    states = [TrainState.create(apply_fn=lambda x: x, params=tree, tx=optax.adam(0.1)) for tree in params]
    stacked = trees.replicas(states)
    assert stacked.tx is states[0].tx
    np.testing.assert_array_equal(stacked.params["kernel"][:, 0, 0], [0, 1])


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([SQUARE], r"nets is a list of one tree, and .* at least 2 replicas: give nets\[0\] if that is stacked"),
        ((np.ones((3, 4)),), r"tuple of one tree.*\{'layer_0': nets\[0\], ..\}, if it is one layer"),
        (WIDTHS, r"same names and other shapes, as of 'k': \(3, 4\) and \(3, 5\); give trees .* named layers"),
        ([SQUARE, SQUARE, SQUARE | {"b": np.ones(9)}], r"list of 3 trees .* as of 'b': \(8,\) and \(9,\)"),
    ],
)
def test_lists_that_could_be_either(tree, words):
    with pytest.raises(ValueError, match=words):
        trees.replicas(tree, what="nets")


def test_parameters_have_no_functions_and_no_settings():
    net = eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.3)])
    assert list(trees.floating(net)) == ["layers/0/weight", "layers/0/bias"]
    assert list(trees.flatten(trees.parameters(net))) == ["layers/0/weight", "layers/0/bias"]
    assert list(trees.floating({"w": np.ones(2), "act": jnp.tanh})) == ["w"]


@pytest.mark.parametrize(
    ("tree", "sizes"),
    [
        ({"a": np.ones((1, 3))}, r"\[1\]"),
        ({"a": np.ones((2, 3)), "b": np.ones((4, 3))}, r"\[2, 4\]"),
        ({"a": np.ones((2, 3)), "b": 1.0}, r"\[0, 2\]"),
    ],
)
def test_replica_rows_refuses(tree, sizes):
    with pytest.raises(ValueError, match=f"at least 2 replicas in every leaf, got sizes {sizes}; stack the trees"):
        trees.replica_rows(tree)


def test_words_in_lists_of_trees_are_told_by_their_leaf_and_can_be_left_out():
    nets = [{"w": np.full(3, float(i)), "name": "net"} for i in range(2)]
    with pytest.raises(ValueError, match=r"leaf 'name' holds no numbers .*leave it out with `where`"):
        marginal_distance(nets)
    assert marginal_distance(nets, where="w").raw.total.distance.value == pytest.approx(1.0)
