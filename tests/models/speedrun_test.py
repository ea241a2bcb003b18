"""The speed-run network and its training: published counts, what whitening does, and each part of the recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.data import images as images_lib
from sbjax.data.augment import alternate, random_crop_flip
from sbjax.models import make_model
from sbjax.models.speedrun import whitening_filters
from sbjax.optimizers import read_optimizer
from sbjax.tasks.images import make_image_task
from sbjax.tasks.views import over_views

KEY = jax.random.key(0)


def test_size_and_cost_are_the_published_ones():
    """118.1 million multiply-adds of an image, and 1.97 million parameters."""
    net = make_model("speedrun", classes=10)
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 32, 32, 3)))
    assert trees.size(shapes["params"]) == 1_971_352
    assert shapes["frozen"]["whitening"].shape == (2, 2, 3, 24)
    sides = [(31, "whitening"), (31, "conv_0_0"), (15, "conv_0_1"), (15, "conv_1_0"), (7, "conv_1_1"), (7, "conv_2_0")]
    sides += [(3, "conv_2_1"), (1, "head")]
    kernels = {
        name: layer["kernel"].size
        for name, layer in shapes["params"].items()
        if isinstance(layer, dict) and "kernel" in layer
    }
    cost = sum(side**2 * {"whitening": 288, **kernels}[name] for side, name in sides)
    assert round(cost / 1e6, 1) == 118.1


def test_filters_whiten_patches():
    """Responses to patches are uncorrelated with variance 1, where the images vary at all."""
    noise = np.random.default_rng(0).normal(size=(50, 12, 12, 3))
    images = noise + np.roll(noise, 1, axis=1) + noise.mean(-1, keepdims=True)
    filters = whitening_filters(images, epsilon=0.0)
    out = jax.lax.conv_general_dilated(
        jnp.asarray(images, jnp.float32),
        jnp.asarray(filters, jnp.float32),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    rows = np.asarray(out).reshape(-1, 24)
    np.testing.assert_allclose(rows[:, :12], -rows[:, 12:], atol=1e-5)
    np.testing.assert_allclose(rows[:, :12].T @ rows[:, :12] / len(rows), np.eye(12), atol=1e-3)


@pytest.mark.extended
def test_blocks_start_as_identities():
    net = make_model("speedrun", classes=10, channels=(32, 16))
    params = net.init(KEY, jnp.zeros((1, 16, 16, 3)))["params"]
    first = params["conv_0_0"]["kernel"]  # 24 -> 32
    x = jax.random.normal(KEY, (1, 8, 8, 24))
    y = jax.lax.conv_general_dilated(x, first, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_array_equal(y[..., :24], x)
    assert np.abs(y[..., 24:]).mean() > 0.01
    assert not params["conv_1_0"]["kernel"][0].any()  # 32 -> 16: all filters are identities
    assert "scale" not in params["norm_0_0"]


@pytest.fixture(scope="module")
def digits():
    return images_lib.load("digits", train_share=0.2)


@pytest.mark.extended
def test_the_first_layer_whitens_the_training_images_and_is_not_trained(digits):
    net = make_model("speedrun", classes=10, channels=(8,))
    task = make_image_task(digits, net, batch_size=32)
    variables = task.init(KEY)
    prepared = (digits.train_images / 255 - np.array(digits.mean)) / np.array(digits.std)
    np.testing.assert_allclose(variables["frozen"]["whitening"], whitening_filters(prepared), rtol=1e-3, atol=1e-3)
    batch = task.sample(task.data, KEY, jnp.int32(0))
    loss = jax.value_and_grad(lambda params: task.loss({**variables, "params": params}, batch, KEY), has_aux=True)
    (_, aux), grads = jax.jit(loss)(variables["params"])
    assert set(aux.updates) == {"batch_stats"}
    assert float(jnp.abs(grads["whitening_bias"]).sum()) > 0


def test_flips_alternate_and_crops_reflect():
    index = jnp.arange(64)
    sides = [alternate(index, step, key=KEY, epoch_steps=5) for step in range(15)]
    for step in range(15):
        np.testing.assert_array_equal(sides[step], sides[0] ^ (step // 5 % 2 == 1))
    assert 16 < int(sides[0].sum()) < 48
    images = np.random.default_rng(0).integers(0, 256, (6, 7, 5, 2)).astype(np.uint8)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    mirror = jnp.arange(6) % 2 == 1
    out = np.asarray(random_crop_flip(jnp.asarray(images), key=KEY, padding=2, reflect=True, mirror=mirror))
    for i in range(6):
        crops = [padded[i, a : a + 7, b : b + 5] for a in range(5) for b in range(5)]
        crops = [crop[:, ::-1] for crop in crops] if mirror[i] else crops
        assert any(np.array_equal(out[i], crop) for crop in crops)
    with pytest.raises(ValueError, match="cannot be reflected so far"):
        random_crop_flip(jnp.asarray(images), key=KEY, padding=5, reflect=True)


def test_alternating_flips_of_a_task_show_each_image_from_both_sides(digits):
    task = make_image_task(digits, make_model("mlp", classes=10), batch_size=100, flip=True, alternate_flips=True)
    assert task.epoch_steps == 2
    known = {image.tobytes(): (i, 0) for i, image in enumerate(digits.train_images)}
    known |= {image[:, ::-1].tobytes(): (i, 1) for i, image in enumerate(digits.train_images)}
    seen = {}
    for step in range(4):
        for image in np.asarray(task.sample(task.data, KEY, jnp.int32(step))["images"]):
            number, side = known[image.tobytes()]
            seen.setdefault(number, {})[step // 2] = side
    both = [sides for sides in seen.values() if len(sides) == 2]
    assert len(both) > 50
    assert all(sides[0] != sides[1] for sides in both)


def test_views_are_averaged():
    """Of linear logits, the mean over views is the logits of the mean view."""
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 1)).astype(np.uint8)
    weights = np.random.default_rng(1).normal(size=(36, 4))

    def logits(x):
        return jnp.asarray(x, jnp.float32).reshape(3, -1) @ weights

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect").astype(float)
    moved = [padded[:, :6, :6], padded[:, 2:, 2:]]
    views = {"one": images, "mirror": (images + images[:, :, ::-1].astype(float)) / 2}
    half = sum(view + view[:, :, ::-1] for view in moved) / 4
    views["shift"] = (views["mirror"] + half) / 2
    for name, view in views.items():
        np.testing.assert_allclose(over_views(logits, jnp.asarray(images), views=name), logits(view), rtol=1e-4)
    with pytest.raises(ValueError, match="views='two' is unknown"):
        make_image_task(images_lib.load("digits"), make_model("mlp", classes=10), views="two")


def test_the_optimiser_is_the_recipe_in_numpy():
    """Nesterov, decay of kernels, 64 times the rate for norm biases, a triangle, and look-ahead, over 13 steps."""
    fields = {
        "name": "look_ahead_sgd", "learning_rate": 0.02, "momentum": 0.85, "weight_decay": 0.01,
        "norm_bias_scale": 64.0, "look_ahead_steps": 5, "look_ahead_decay": 0.9, "schedule": "triangle",
        "peak_share": 0.25,
    }  # fmt: skip
    choice, problems = read_optimizer(fields)
    assert not problems
    steps = 13
    optimizer = choice.build(steps)
    params = {"conv": {"kernel": jnp.array([[1.0, -2.0]])}, "norm_0": {"bias": jnp.array([0.5])}}
    state = optimizer.init(params)
    flat = {"w": np.array([1.0, -2.0]), "b": np.array([0.5])}
    slow, velocity = {k: v.copy() for k, v in flat.items()}, {k: 0 * v for k, v in flat.items()}
    for step in range(steps):
        grads = {
            "conv": {"kernel": params["conv"]["kernel"] ** 2},
            "norm_0": {"bias": jnp.sin(params["norm_0"]["bias"])},
        }
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        rate = 0.02 * np.interp(step, [0, 3, steps], [0.2, 1.0, 0.07])
        for name, scale in (("w", 1.0), ("b", 64.0)):
            g = flat["w"] ** 2 + 0.01 * flat["w"] if name == "w" else np.sin(flat["b"])
            velocity[name] = 0.85 * velocity[name] + g
            flat[name] = flat[name] - scale * rate * (g + 0.85 * velocity[name])
        if (step + 1) % 5 == 0:
            a = 0.9**5 * ((step + 1) / steps) ** 3
            slow = {k: a * slow[k] + (1 - a) * flat[k] for k in flat}
            flat = {k: v.copy() for k, v in slow.items()}
    flat = slow
    np.testing.assert_allclose(params["conv"]["kernel"][0], flat["w"], rtol=2e-4)
    np.testing.assert_allclose(params["norm_0"]["bias"], flat["b"], rtol=2e-4)
