"""The colour task: numbers of a set against loops, losses, expansion and data sites, what is refused."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.data import images as images_lib
from sbjax.data.colour_space import srgb_to_lab
from sbjax.data.colours import classes_of_colour, with_statistics
from sbjax.expansion.transform import ImageExpansion, VectorExpansion
from sbjax.metrics.interpolation import over_parts
from sbjax.models import UNet
from sbjax.tasks import colour as lib
from sbjax.tasks.colour_losses import LOSSES, make_colour_loss
from sbjax.tasks.task import Average, Decibels, RootMean

TOY = f"{Path(__file__).parents[1] / 'toy_colours.py'}"
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
    return with_statistics(images_lib.load(f"{TOY}:load"))


def make(data, *, loss="l2", expansion=None, sites=None, **given):
    colour_loss = make_colour_loss(loss, data.statistics)
    module = UNet(colour_loss.outputs, width=4, depth=2, sites=sites)
    return lib.make_colour_task(
        data, module, colour_loss, expansion=expansion, **{"batch_size": 8, "eval_batch_size": 30, **given}
    )


def evaluated(task, variables):
    evaluate = jax.jit(task.evaluate)
    parts = [evaluate(task.data, variables, jnp.int32(part)) for part in range(task.parts)]
    return {name: float(jax.tree.map(lambda *x: sum(x), *(p[name] for p in parts)).value) for name in parts[0]}


def test_numbers_of_a_set_are_those_of_all_its_pixels(data):
    """In parts of unequal content: roots and logarithms are taken of the whole."""
    task = make(data)
    assert task.parts > 2
    variables = jax.jit(task.init)(KEY)
    found = evaluated(task, variables)
    images = data.images.test_images
    rgb, lab = images / 255, srgb_to_lab(images / 255)
    ab = np.asarray(jax.jit(task.outputs)({"probe": jnp.asarray(images)}, variables), np.float64)
    made = np.asarray(lib.coloured(jnp.asarray(ab, jnp.float32), jnp.asarray(lab, jnp.float32)), np.float64)
    mse = ((made - rgb) ** 2).mean((1, 2, 3))
    assert found["test/ab_rmse"] == pytest.approx(np.sqrt(((ab - lab[..., 1:]) ** 2).mean()), rel=1e-4)
    assert found["test/loss"] == pytest.approx(((ab - lab[..., 1:]) ** 2).mean() / 110**2, rel=1e-4)
    assert found["test/psnr_pooled"] == pytest.approx(-10 * np.log10(mse.mean()), rel=1e-4)
    assert found["test/psnr_mean"] == pytest.approx(np.mean(-10 * np.log10(mse)), rel=1e-4)
    through_lines = jax.jit(over_parts(task.evaluate, task.data, task.parts))(variables)
    assert {name: float(value) for name, value in through_lines.items()} == pytest.approx(found, rel=1e-4)


@pytest.mark.extended
def test_predictions_without_a_network_in_a_loop(data):
    found = lib.baselines(data, share=0.5)
    images = data.images.test_images[:30]
    lab, train = srgb_to_lab(images / 255), srgb_to_lab(data.images.train_images / 255)
    mean = train[..., 1:].reshape(-1, 2).mean(0)
    assert found["grey"]["ab_rmse"] == pytest.approx(np.sqrt((lab[..., 1:] ** 2).mean()), rel=1e-4)
    assert found["mean ab"]["ab_rmse"] == pytest.approx(np.sqrt(((lab[..., 1:] - mean) ** 2).mean()), rel=1e-4)
    error = 0.0
    for pixel in lab.reshape(-1, 3):
        alike = train[np.round(train[..., 0] / 5) == np.round(pixel[0] / 5)]
        error += ((alike[:, 1:].mean(0) - pixel[1:]) ** 2).sum()
    assert found["mean ab given L"]["ab_rmse"] == pytest.approx(np.sqrt(error / lab[..., 1:].size), rel=1e-3)
    assert found["grey"]["colourfulness"] == pytest.approx(0, abs=1e-2)
    assert found["truth"]["ab_rmse"] == 0
    assert found["truth"]["ssim"] == pytest.approx(1, abs=1e-5)
    # Stored pixels are whole numbers: what comes back from CIELAB is right to rounding.
    assert found["truth"]["psnr_mean"] > 90


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_pixel_by_pixel(data, loss, x64):
    colour_loss = make_colour_loss(loss, data.statistics)
    rng = np.random.default_rng(0)
    ab, found = rng.uniform(-60, 60, (3, 2)), rng.normal(size=(3, colour_loss.outputs))
    each = colour_loss.loss(jnp.asarray(found), jnp.asarray(ab))
    read = colour_loss.ab(jnp.asarray(found))
    if loss != "bins":
        error = found - ab / 110
        np.testing.assert_allclose(each, (error**2 if loss == "l2" else abs(error)).mean(1))
        np.testing.assert_allclose(read, 110 * found)
        return
    centres, shares = classes_of_colour(), data.statistics.shares
    weights = 1 / (0.5 * shares + 0.5 / 261)
    weights /= (weights * shares).sum()
    for pixel, logits, value, mean in zip(ab, found, each, read):
        d2 = ((centres - pixel) ** 2).sum(1)
        target = np.exp(-d2 / 50) / np.exp(-d2 / 50).sum()
        probability = np.exp(logits) / np.exp(logits).sum()
        assert value == pytest.approx(-weights[d2.argmin()] * (target * np.log(probability)).sum())
        annealed = probability ** (1 / 0.38)
        np.testing.assert_allclose(mean, centres.T @ annealed / annealed.sum())


def test_rare_colours_weigh_more(data):
    classes = make_colour_loss("bins", data.statistics)
    shares = data.statistics.shares
    assert (classes.weights * shares).sum() == pytest.approx(1)
    assert classes.weights[shares == 0].min() > 2 * classes.weights[shares.argmax()]
    alike = make_colour_loss("bins", data.statistics, mixture=1.0)
    np.testing.assert_allclose(alike.weights, 1.0)


EXPANSIONS = {
    "image": (ImageExpansion(2, 0.5), (16, 16, 1)),
    "nearest": (ImageExpansion(2, "nearest"), (16, 16, 1)),
    "channel": (VectorExpansion(0, 1, 0.5), (8, 8, 2)),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", EXPANSIONS)
def test_the_loss_is_taken_at_the_pixels_of_the_image(data, kind):
    """Whether the network gives the whole map or its data sites; a channel leaves the map as it is."""
    expansion, shape = EXPANSIONS[kind]
    grows = shape[0] > 8
    whole, sited = make(data, expansion=expansion), make(data, expansion=expansion, sites=expansion if grows else None)
    variables = jax.jit(whole.init)(KEY)
    assert variables["params"]["conv_down_0_0"]["kernel"].shape[2] == shape[2]
    batch = whole.sample(whole.data, KEY, jnp.int32(3))
    assert batch["images"].dtype == jnp.uint8
    (value, _), (other, _) = (jax.jit(task.loss)(variables, batch, KEY) for task in (whole, sited))
    assert float(value) == pytest.approx(float(other), rel=1e-6)
    assert jax.eval_shape(whole.outputs, whole.data, variables).shape == (40, 8, 8, 2)


def test_a_constant_network_has_the_numbers_of_a_constant_prediction(data):

    class Constant(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, x, train=False):
            bias = self.param("bias", nn.initializers.zeros, (2,))
            return jnp.broadcast_to(bias, (*x.shape[:-1], 2))

    task = lib.make_colour_task(data, Constant(2), make_colour_loss("l2", data.statistics), eval_batch_size=100)
    numbers = lib.baselines(data)
    for mean, name in ((np.zeros(2), "grey"), (data.statistics.ab_mean, "mean ab")):
        found = evaluated(task, {"params": {"bias": jnp.asarray(mean / 110, jnp.float32)}})
        wanted = {f"test/{metric}": value for metric, value in numbers[name].items()}
        assert {metric: found[metric] for metric in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.extended
def test_a_network_tells_colours_that_lightness_does_not(data):
    """Far below the mean given the lightness: stripes that lie are red, those that stand green."""
    task = make(data, batch_size=40, flip=True)
    optimizer = optax.adam(1e-2)
    variables = jax.jit(task.init)(KEY)
    state = optimizer.init(variables["params"])

    @jax.jit
    def step(variables, state, i):
        batch = task.sample(task.data, KEY, i)

        def loss(params):
            return task.loss({**variables, "params": params}, batch, KEY)

        (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **aux.updates}, state

    for i in range(60):
        variables, state = step(variables, state, jnp.int32(i))
    best = lib.baselines(data)["mean ab given L"]["ab_rmse"]
    assert best > 15
    assert evaluated(task, variables)["test/ab_rmse"] < 0.5 * best


def test_averages_of_parts():
    parts = [(8.0, 2.0), (1.0, 1.0)]
    for kind, wanted in ((Average, 3.0), (RootMean, 3**0.5), (Decibels, -10 * np.log10(3.0))):
        for number in (np.float32, jnp.float32):
            total = jax.tree.map(lambda *x: sum(x), *(kind(number(a), number(b)) for a, b in parts))
            assert type(total) is kind
            assert float(total.value) == pytest.approx(wanted)
    assert Decibels(np.zeros(2), np.ones(2)).value.tolist() == [np.inf, np.inf]


class Halved(nn.Module):
    """Gives a map of half the sides."""

    outputs: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.outputs)(x[:, ::2, ::2])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 10_000}, "batch_size=10000 must lie between 1 and the 400 training images"),
        ({"module": Halved(2)}, r"Halved gives a map of shape \(4, 4, 2\) for images of \(8, 8\): \(8, 8, 2\) is"),
        ({"module": UNet(3, width=4, depth=2)}, r"UNet gives a map of shape \(8, 8, 3\)"),
        ({"expansion": ImageExpansion(2, (0.5, 0.5))}, r"fill=\(0.5, 0.5\) has 2 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(data, given, said):
    given = {"module": UNet(2, width=4, depth=2), **given}
    with pytest.raises(ValueError, match=said):
        lib.make_colour_task(data, given.pop("module"), make_colour_loss("l2", data.statistics), **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "huber"}, "loss='huber' must be one of l2, l1, bins"),
        ({"name": "bins", "mixture": 0.0}, "mixture=0.0 must lie in"),
        ({"name": "bins", "temperature": 0.0}, "temperature=0.0 must be > 0"),
    ],
)
def test_losses_that_do_not_exist(data, given, said):
    with pytest.raises(ValueError, match=said):
        make_colour_loss(statistics=data.statistics, **given)


@pytest.mark.extended
def test_predictions_without_a_network_on_cifar10():
    """As an independent program measured them, on the first 2,000 test images; its statistics are of other training
    images. The mean PSNR of grey depends on `PSNR_FLOOR`: 22 of the images are exactly grey."""
    try:
        data = with_statistics(images_lib.load("cifar10", train_share=1 / 15))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        pytest.skip(f"CIFAR-10 is not here: {error}")
    found = lib.baselines(data, share=0.2)
    wanted = {
        "grey": (13.42, 21.95, 25.53),
        "mean ab": (12.83, 22.27, 24.82),
        "mean ab given L": (12.70, 22.35, 24.97),
    }
    for name, (ab_rmse, pooled, mean) in wanted.items():
        assert found[name]["ab_rmse"] == pytest.approx(ab_rmse, abs=0.02)
        assert found[name]["psnr_pooled"] == pytest.approx(pooled, abs=0.02)
        assert found[name]["psnr_mean"] == pytest.approx(mean, abs=0.01 if name == "grey" else 0.1)
    assert found["truth"]["colourfulness"] == pytest.approx(30.8, abs=0.1)
    first = data.images.test_images[:2000]
    is_grey = (first == first[..., :1]).all((1, 2, 3))
    assert is_grey.sum() == 22
    rest = data._replace(images=data.images._replace(test_images=first[~is_grey]))
    assert lib.baselines(rest)["grey"]["psnr_mean"] == pytest.approx(24.70, abs=0.02)


def test_the_lightness_of_the_toy_says_nothing_of_its_colours(data):
    """A guard on the other tests."""
    given = data.statistics.ab_given_lightness
    assert np.abs(given[:, 0]).max() < 20
