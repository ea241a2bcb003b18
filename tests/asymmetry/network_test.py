"""Asymmetric networks as modules: gradients, training, replicas, initialisation, gates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sbjax import trees
from sbjax.asymmetry import (
    Asymmetric,
    AsymmetrySpec,
    Gate,
    MaskSpec,
    check_same_constants,
    constants,
    effective,
    figlu,
    make_asymmetric,
    standard_from,
)
from sbjax.data.images import ImageData
from sbjax.models import CNN, MLP, GroupCNN, ResNet
from sbjax.optimizers import OPTIMIZERS, AdamW
from sbjax.tasks.images import make_image_task
from sbjax.training.fit import fit
from sbjax.training.placement import Placement

MODULE = MLP(classes=3, widths=(6,), norm="batch", activation="tanh")
W = AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(2, 2.0)), ("dense_1/kernel", MaskSpec(3, 0.5))))
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)), jnp.float32)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def net():
    return make_asymmetric(MODULE, W)


@pytest.fixture(scope="module")
def replicas(net):
    """Two replicas as the training loop makes them."""
    return jax.jit(jax.vmap(partial(net.init, train=False), (0, None)))(jax.random.split(KEY), X)


def test_replicas_share_constants_and_nothing_else(net, replicas):
    first, second = trees.take(replicas, 0), trees.take(replicas, 1)
    check_same_constants(first, second)
    made = constants(first["params"], W)
    masks = trees.flatten(made["trainable"])
    for name, leaf in trees.flatten(made).items():
        np.testing.assert_array_equal(trees.flatten(first["frozen"]["asymmetry"])[name], leaf)
    for name, mask in masks.items():
        ours, theirs = (np.asarray(trees.flatten(network["params"])[name]) for network in (first, second))
        assert (ours[mask] != theirs[mask]).all()
        assert not ours[~mask].any()


def test_trainable_entries_start_as_in_the_standard_network(net, replicas):
    standard = jax.jit(jax.vmap(MODULE.init, (0, None)))(jax.random.split(KEY), X)
    masks = trees.flatten(replicas["frozen"]["asymmetry"]["trainable"])
    for name, leaf in trees.flatten(standard["params"]).items():
        np.testing.assert_array_equal(
            trees.flatten(replicas["params"])[name], leaf * np.asarray(masks.get(name, 1), leaf.dtype)
        )


@pytest.mark.promotes("the bias correction of optax is a power of a count")
def test_training(net, replicas):
    """Under AdamW with decay constants never move, frozen entries have no gradient, everything else has one; the
    gradient is D times that of the standard network at the effective weights."""
    variables = trees.take(replicas, 0)
    masks = trees.flatten(variables["frozen"]["asymmetry"]["trainable"])
    optimizer = optax.adamw(0.01, weight_decay=0.1)

    def value(module, params, variables):
        logits, updates = module.apply(variables | {"params": params}, X, train=True, mutable=["batch_stats"])
        return (logits**2).mean() + logits[0, 0], updates

    @jax.jit
    def step(variables, state):
        grads, updates = jax.grad(partial(value, net), has_aux=True)(variables["params"], variables)
        direct, _ = jax.grad(partial(value, MODULE), has_aux=True)(effective(variables), standard_from(variables))
        change, state = optimizer.update(grads, state, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        return variables | updates | {"params": params}, state, grads, direct

    now, state = variables, optimizer.init(variables["params"])
    for _ in range(3):
        now, state, grads, direct = step(now, state)
        for name, grad in trees.flatten(grads).items():
            mask = np.asarray(masks.get(name, np.ones(grad.shape, bool)))
            expected = np.where(mask, trees.flatten(direct)[name], 0)
            np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
            assert not np.asarray(grad)[~mask].any()
            # The norm takes away what a hidden bias does.
            assert name == "dense_0/bias" or (np.asarray(grad)[mask] != 0).all(), name
    check_same_constants(variables, now)
    assert now.keys() == variables.keys() == {"params", "batch_stats", "frozen"}
    for name, leaf in trees.flatten(now["params"]).items():
        moved = np.asarray(leaf != trees.flatten(variables["params"])[name])
        assert (moved == np.asarray(masks.get(name, True))).all(), name


def test_same_function_as_the_standard_network_of_its_effective_weights(net, replicas):
    variables = trees.take(replicas, 0)
    np.testing.assert_array_equal(net.apply(variables, X), MODULE.apply(standard_from(variables), X))
    weights = {k: np.asarray(v, np.float64) for k, v in trees.flatten(effective(variables)).items()}
    hidden = np.tanh((np.asarray(X) @ weights["dense_0/kernel"] + weights["dense_0/bias"]) / np.sqrt(1 + 1e-5))
    expected = hidden @ weights["dense_1/kernel"] + weights["dense_1/bias"]
    np.testing.assert_allclose(net.apply(variables, X), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mutable", [True, "params", ["batch_stats", "frozen"]])
def test_constants_are_not_mutable(net, mutable):
    with pytest.raises(ValueError, match="'params' and 'frozen' cannot be mutable"):
        net.apply({"params": {}}, X, mutable=mutable)


def test_authors_initialisation():
    """Uniform on +-1/sqrt(fan-in of the full row) for kernel and bias of masked layers, the module's law elsewhere."""
    module = MLP(classes=400, widths=(300,))
    spec = AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(20)),), init="authors")
    x = jnp.ones((1, 100))
    shapes = jax.eval_shape(module.init, KEY, x)
    plain = {"params": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes["params"])}

    class Zeros:
        def init(self, rngs, x):
            return plain

    for rngs in (KEY, {"params": KEY, "dropout": jax.random.key(5)}):
        variables = Asymmetric(Zeros(), spec).init(rngs, x)
        mask = np.asarray(variables["frozen"]["asymmetry"]["trainable"]["dense_0"]["kernel"])
        layer = jax.tree.map(np.asarray, variables["params"]["dense_0"])
        kernel = layer["kernel"][mask]
        assert 0.099 < np.abs(kernel).max() < 0.1
        np.testing.assert_allclose(kernel.var(), 0.01 / 3, rtol=5 / np.sqrt(kernel.size))
        assert 0.09 < np.abs(layer["bias"]).max() < 0.1
        assert not any(leaf.any() for leaf in jax.tree.leaves(variables["params"]["dense_1"]))


@pytest.mark.parametrize("kind", ["syre", "fixed_bias"])
def test_other_kinds_reach_the_function(kind):
    module = MLP(classes=3, widths=(6,), activation="identity")
    net = make_asymmetric(module, AsymmetrySpec(kind))
    variables = jax.jit(net.init)(KEY, X)
    fixed = variables["frozen"]["asymmetry"]["fixed"]
    zero = variables | {"params": jax.tree.map(jnp.zeros_like, variables["params"])}
    if kind == "syre":  # at theta = 0 the network of theta0
        expected = MODULE.clone(norm="none", activation="identity").apply({"params": fixed}, X)
        np.testing.assert_array_equal(net.apply(zero, X), expected)
        assert np.abs(expected).max() > 0
    else:
        kernel, before = variables["params"]["dense_1"]["kernel"], module.apply({"params": variables["params"]}, X)
        expected = before + (fixed["dense_0"]["bias"] @ kernel)[None]
        np.testing.assert_allclose(net.apply(variables, X), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "shape"), [(nn.Dense(4), (5, 6)), (nn.Conv(4, (3, 3)), (2, 4, 4, 3))], ids=["dense", "conv"]
)
def test_layers_of_flax(module, shape):
    """W-asymmetric Dense and Conv alone: the layer at F + D * W, and nothing but the trainable entries moves."""
    net = make_asymmetric(module, AsymmetrySpec("w", masks=(("kernel", MaskSpec(5, 0.5)),)))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    variables = jax.jit(net.init)(KEY, x)
    kernel, made = variables["params"]["kernel"], variables["frozen"]["asymmetry"]
    fixed, trainable = (np.asarray(made[part]["kernel"]) for part in ("fixed", "trainable"))
    assert (~trainable).reshape(-1, 4).sum(0).tolist() == [5] * 4
    whole = {"kernel": np.where(trainable, kernel, fixed), "bias": variables["params"]["bias"]}

    @jax.jit
    def gradients(params, whole):
        def loss(module, variables):
            return (module.apply(variables, x) ** 2).sum()

        ours = jax.grad(lambda params: loss(net, variables | {"params": params}))(params)
        return ours, jax.grad(lambda params: loss(module, {"params": params}))(whole)

    ours, expected = gradients(variables["params"], whole)
    np.testing.assert_allclose(ours["kernel"], np.where(trainable, expected["kernel"], 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours["bias"], expected["bias"], rtol=1e-5, atol=1e-5)
    # What stands in frozen entries is never read.
    junk = {**variables["params"], "kernel": jnp.where(trainable, kernel, 7.0)}
    jax.tree.map(np.testing.assert_array_equal, gradients(junk, whole)[0], ours)


def test_standard_is_the_module_itself():
    assert make_asymmetric(MODULE, AsymmetrySpec()) is MODULE


def test_figlu_against_numpy_and_a_convolution():
    draw = np.random.default_rng(0)
    x, mixing = draw.normal(size=(2, 3, 4, 5)), draw.normal(size=(5, 5))
    expected = x / (1 + np.exp(-np.einsum("bhwj,ji->bhwi", x, mixing)))
    with jax.enable_x64(True):
        np.testing.assert_allclose(figlu(jnp.asarray(x), jnp.asarray(mixing)), expected, rtol=0, atol=1e-14)
        gates = jax.lax.conv_general_dilated(
            jnp.asarray(x), mixing[None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(nn.sigmoid(gates) * x, expected, rtol=0, atol=1e-14)


def test_sigma_network_is_not_equivariant_and_trains_no_gate():
    """Permuting hidden units of W changes the function, unless the gate's matrix goes with them."""
    net = make_asymmetric(MLP(classes=3, widths=(6,)), AsymmetrySpec("sigma", gate_scale=1.0, mask_seed=4))
    init = jax.jit(net.init)
    variables = init(KEY, X)
    mixing = variables["frozen"]["act_0"]["mixing"]
    np.testing.assert_array_equal(mixing, Gate(1.0, 4).matrix("act_0", 6).astype(np.float32))
    check_same_constants(variables, init(jax.random.key(7), X))
    order = np.array([1, 0, 3, 2, 5, 4])
    params = variables["params"]
    moved = {
        "dense_0": jax.tree.map(lambda leaf: leaf[..., order], params["dense_0"]),
        "dense_1": params["dense_1"] | {"kernel": params["dense_1"]["kernel"][order]},
    }
    apply = jax.jit(net.apply)
    before = apply(variables, X)
    assert np.abs(apply(variables | {"params": moved}, X) - before).max() > 0.01
    together = {"params": moved, "frozen": {"act_0": {"mixing": mixing[order][:, order]}}}
    np.testing.assert_allclose(apply(together, X), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "sizes"),
    [
        (CNN(classes=3, channels=(4, 8)), {"act_0": 4, "act_1": 8}),
        (
            ResNet(classes=3, stages=(1, 1), base=4),
            {"act_stem": 4} | {f"stage_{s}_block_0/act_{i}": 4 * (s + 1) for s in (0, 1) for i in (0, 1)},
        ),
    ],
    ids=["cnn", "resnet"],
)
def test_a_gate_for_every_activation(module, sizes):
    net = make_asymmetric(module, AsymmetrySpec("sigma"))
    x = jnp.ones((1, 8, 8, 3))
    plain, gated = (jax.eval_shape(m.init, KEY, x) for m in (module, net))
    assert plain["params"] == gated["params"]
    found = {name: leaf.shape for name, leaf in trees.flatten(gated["frozen"]).items()}
    assert found == {f"{name}/mixing": (size, size) for name, size in sizes.items()}
    first, second = (Gate().matrix(f"stage_0_block_0/act_{i}", 400) for i in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(first.std(), 1 / 20, rtol=0.02)


def test_w_and_sigma_together():
    module = make_asymmetric(MLP(classes=3, widths=(6,)), AsymmetrySpec("sigma"))
    net = make_asymmetric(module, W)
    variables = jax.eval_shape(net.init, KEY, X)
    assert variables["frozen"].keys() == {"act_0", "asymmetry"}
    assert jax.eval_shape(net.apply, variables, X).shape == (8, 3)
    assert standard_from(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), variables))["frozen"].keys() == {"act_0"}


def test_sigma_needs_a_module_with_a_gate():
    with pytest.raises(ValueError, match=r"kind='sigma' needs a model .* not GroupCNN"):
        make_asymmetric(GroupCNN(classes=3, group="p4", channels=(2,)), AsymmetrySpec("sigma"))


@pytest.mark.parametrize("kind", ["w", "sigma"])
def test_float64_and_bfloat16(kind, x64):
    spec = W if kind == "w" else AsymmetrySpec(kind)
    for dtype, kept in (("float64", "float64"), ("bfloat16", "float32")):
        net = make_asymmetric(MLP(classes=3, widths=(6,), dtype=dtype), spec)
        variables = jax.eval_shape(net.init, KEY, X)
        dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(variables)} - {"bool"}
        assert dtypes == {kept}
        assert jax.eval_shape(net.apply, variables, X).dtype.name == kept


@pytest.mark.extended
@pytest.mark.parametrize("placement", ["vmap", "map", "sequential"])
def test_training_loop_keeps_the_constants(placement):
    """Two replicas of W + sigma in the training loop, whatever the placement: one set of constants, unmoved."""
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 1), np.uint8)
    labels = np.arange(64, dtype=np.int32) % 3
    held = (images[:8], labels[:8])
    data = ImageData("random", 3, images, labels, *held, *held, (0.5,), (0.25,))
    net = make_asymmetric(make_asymmetric(MODULE, AsymmetrySpec("sigma")), W)
    task = make_image_task(data, net, batch_size=16)
    fitted = fit(
        task,
        AdamW(weight_decay=0.1).make(0.01),
        steps=5,
        replicas=2,
        key=KEY,
        reports=1,
        placement=Placement(replicas=placement),
    )
    start = task.init(KEY)
    ends = [trees.take(fitted.variables, replica) for replica in (0, 1)]
    check_same_constants(start, *ends)
    mask = np.asarray(start["frozen"]["asymmetry"]["trainable"]["dense_0"]["kernel"])
    first, second = (np.asarray(end["params"]["dense_0"]["kernel"]) for end in ends)
    assert (first[mask] != second[mask]).all()
    assert not first[~mask].any()


@pytest.mark.extended  # by default `tests/training/step_test.py` is enough
@pytest.mark.parametrize(("name", "rate"), [("adamw", 0.01), ("soap", 0.01), ("lbfgs", 1.0)])
def test_weights_held_whole_train_as_the_others(name, rate, x64):
    """A rolled loop holds F + D * W; one dispatch a step does not. No optimiser moves what is masked."""
    images = np.random.default_rng(0).integers(0, 256, (16, 2, 2, 1), np.uint8)
    labels = np.arange(16, dtype=np.int32) % 3
    data = ImageData("random", 3, images, labels, images, labels, images, labels, (0.5,), (0.25,))
    net = make_asymmetric(MLP(classes=3, widths=(6,), dtype="float64"), W)
    task = make_image_task(data, net, batch_size=16)
    decay = {"adamw": {"weight_decay": 0.1}, "soap": {"weight_decay": 0.0}}.get(name, {})
    optimizer = OPTIMIZERS[name](**decay).make(rate)
    rolled, single = (
        trees.take(
            fit(task, optimizer, steps=5, replicas=1, key=KEY, reports=1, placement=Placement(steps=steps)).variables, 0
        )
        for steps in ("scan", "loop")
    )
    check_same_constants(task.init(KEY), rolled, single)
    mask = np.asarray(rolled["frozen"]["asymmetry"]["trainable"]["dense_0"]["kernel"])
    assert not np.asarray(rolled["params"]["dense_0"]["kernel"])[~mask].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), rolled, single)
