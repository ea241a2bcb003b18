"""Fifty steps of ResNet-18 have the losses that PyTorch has, from the same weights, with the same batches."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.models import from_torchvision, make_model
from sbjax.optimizers import Sgd

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("torch_training_fixture", HERE / "torch_training_fixture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses(recipe, stem, dtype):
    net = make_model("resnet18", classes=10, stem=stem, width=recipe.CHANNELS / 64, dtype=dtype)
    images, labels = recipe.batches_of(stem)
    variables = from_torchvision(recipe.state_of(stem), net)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    optimizer = Sgd(momentum=recipe.MOMENTUM, weight_decay=recipe.DECAY).make(recipe.RATES[dtype])

    @jax.jit
    def step(variables, state, images, labels):
        def loss_fn(params):
            logits, updates = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, state = optimizer.update(grads, state, variables["params"])
        return {"params": optax.apply_updates(variables["params"], updates), **stats}, state, loss

    found, state = [], optimizer.init(variables["params"])
    for x, y in zip(images, labels):
        variables, state, loss = step(variables, state, jnp.asarray(x, dtype), jnp.asarray(y))
        found.append(float(loss))
    return np.array(found)


@pytest.mark.extended
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-8)])
def test_losses_are_those_of_pytorch(recipe, stem, dtype, tolerance):
    with np.load(HERE / "torch_training.npz") as file:
        expected = file[f"{stem}_{dtype}"]
    if dtype == "float64":  # the rate of float32 is too small to learn much, see the script
        assert expected[-10:].mean() < 0.7 * expected[:10].mean()
    with jax.enable_x64(dtype == "float64"):
        found = losses(recipe, stem, dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
