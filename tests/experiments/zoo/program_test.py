"""Training of a zoo against a loop by hand, one network at a time; and that networks do not see each other."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from sbjax import rng
from sbjax.data.shuffle import epoch_indices
from sbjax.experiments.zoo import laws as laws_lib
from sbjax.experiments.zoo import program
from sbjax.models import make_model

KEY, BATCH, EPOCHS = jax.random.key(3), 8, 3
MODULE = make_model("mlp", classes=3, widths=(5,), norm="none", activation="tanh", dropout=0.5)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = [jnp.asarray(random.normal(size=(n, 2, 2, 1)), jnp.float32) for n in (35, 12)]
    labels = [jnp.asarray(random.integers(0, 3, n), jnp.int32) for n in (35, 12)]
    return program.Data(images[0], labels[0], images[1], labels[1])


@pytest.fixture(scope="module")
def hyper():
    return {
        "learning_rate": np.float32([0.05, 0.1, 0.02, 0.05]),
        "weight_decay": np.float32([0.1, 0.0, 0.5, 0.1]),
        "init_scale": np.float32([1.0, 0.5, 2.0, 1.0]),
        "label_smoothing": np.float32([0.0, 0.2, 0.1, 0.0]),
        "dropout": np.float32([0.0, 0.0, 0.0, 0.3]),
        "epochs": np.int32([3, 1, 2, 3]),
    }


def trained(data, hyper, optimizer="adam", side_by_side=False, nets=None):
    made = program.make_program(MODULE, optimizer, key=KEY, epochs=EPOCHS, batch_size=BATCH, peak_epochs=1.0,
                                side_by_side=side_by_side)  # fmt: skip
    nets = np.arange(4) if nets is None else nets
    return jax.tree.map(np.asarray, made(data, nets, {name: values[nets] for name, values in hyper.items()}))


@pytest.fixture(scope="module")
def mapped(data, hyper):
    return trained(data, hyper)


def by_hand(data, hyper, net, optimizer):
    """Adam or momentum in numpy, on gradients of a loss that is written out."""
    own = {name: float(values[net]) for name, values in hyper.items()}
    variables = MODULE.init(rng.replica_stream(KEY, "init", net), data.train_images[:1], train=False)
    flat, unravel = jax.flatten_util.ravel_pytree(variables["params"])
    kernels = jax.flatten_util.ravel_pytree(jax.tree.map(lambda a: jnp.full(a.shape, a.ndim > 1), variables["params"]))[
        0
    ]
    w = np.asarray(flat, np.float64) * np.where(kernels, own["init_scale"], 1)

    @jax.jit
    def gradient(w, images, labels):
        def loss(w):
            logs = jax.nn.log_softmax(MODULE.apply({"params": unravel(w)}, images, train=False))
            s = own["label_smoothing"]
            return -jnp.mean((1 - s) * logs[jnp.arange(len(labels)), labels] + s * logs.mean(1))

        return jax.grad(loss)(w)

    m, v = np.zeros_like(w), np.zeros_like(w)
    steps = 35 // BATCH
    last = int(own["epochs"]) * steps
    for i in range(last):
        rows = epoch_indices(rng.replica_stream(KEY, "data", net), i, examples=35, batch_size=BATCH)
        g = np.asarray(gradient(jnp.asarray(w, jnp.float32), data.train_images[rows], data.train_labels[rows]), float)
        if optimizer == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            u = m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
        else:
            m = 0.9 * m + g
            u = m
        top = min(steps, last / 2)
        rate = own["learning_rate"] * min((i + 1) / top, (last - i) / max(last - top, 1))
        w = w - rate * (u + own["weight_decay"] * np.where(kernels, w, 0))
    logits = np.asarray(MODULE.apply({"params": unravel(jnp.asarray(w, jnp.float32))}, data.test_images, train=False))
    return w, np.mean(logits.argmax(1) == np.asarray(data.test_labels))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_each_network_is_the_one_that_a_loop_by_hand_trains(optimizer, data, hyper, mapped):
    found = mapped if optimizer == "adam" else trained(data, hyper, optimizer)
    for net in range(3):  # the last one has dropout
        own = jax.tree.map(lambda leaf, net=net: leaf[net], found.params)
        w, accuracy = by_hand(data, hyper, net, optimizer)
        np.testing.assert_allclose(jax.flatten_util.ravel_pytree(own)[0], w, atol=2e-5)
        assert found.accuracy[net, -1] == pytest.approx(accuracy)


def test_side_by_side_is_one_after_another(data, hyper, mapped):
    beside = trained(data, hyper, side_by_side=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), beside, mapped)


def test_a_network_does_not_see_those_beside_it(data, hyper, mapped):
    alone = trained(data, hyper, nets=np.array([2, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[[2, 0]]), alone, mapped)


def test_a_network_stands_still_after_its_last_epoch(mapped):
    assert np.ptp(mapped.loss[1]) == 0
    assert mapped.loss[2, 1] == mapped.loss[2, 2] != mapped.loss[2, 0]
    assert len(set(mapped.loss[0].tolist())) == 3


def test_dropout_is_each_networks_own(data, hyper, mapped):
    """Networks 0 and 3 differ in their numbers as well: so network 3 is compared with itself without dropout."""
    without = trained(data, hyper | {"dropout": np.zeros(4, np.float32)})
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:3], b[:3]), without, mapped)
    assert not np.array_equal(without.loss[3], mapped.loss[3])


def test_the_rate_of_dropout_may_be_traced():
    layer, x = nn.Dropout(0.5, deterministic=False), jnp.ones((200, 100))

    @jax.jit
    def dropped(rate):
        with nn.intercept_methods(program.dropout_of(rate)):
            return layer.apply({}, x, rngs={"dropout": KEY})

    for rate in (0.0, 0.2, 0.7):
        found = np.asarray(dropped(rate))
        zeros = int((found == 0).sum())
        assert scipy.stats.binomtest(zeros, found.size, max(rate, 1e-12)).pvalue > 1e-3 or rate == zeros == 0
        np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=1e-6)


def test_the_published_cnn_has_4970_parameters():
    module = make_model("cnn", classes=10, channels=(16, 16, 16), norm="none")
    shapes = jax.eval_shape(lambda: module.init(KEY, jnp.zeros((1, 8, 8, 1)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 4970


def test_numbers_are_drawn_from_their_laws():
    laws = laws_lib.Laws((1e-3, 1e-1), (1e-5, 1e-1), (0.5, 0.5), (0, 0.2), (0, 0.5), (4, 9), ("relu", "tanh"),
                         ("adam", "sgd", "rmsprop"))  # fmt: skip
    found = laws_lib.draw(KEY, np.arange(2000), laws)
    uniform = {
        "learning_rate": np.log10(found["learning_rate"]) / 2 + 1.5,
        "weight_decay": np.log10(found["weight_decay"]) / 4 + 1.25,
        "label_smoothing": found["label_smoothing"] / 0.2,
        "dropout": found["dropout"] / 0.5,
    }
    for values in uniform.values():
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    for name, number in (("epochs", 6), ("activation", 2), ("optimizer", 3)):
        counts = np.unique(found[name], return_counts=True)[1]
        assert len(counts) == number
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert set(found["init_scale"].tolist()) == {0.5}
    pairs = np.corrcoef(np.stack(list(uniform.values())))
    assert np.abs(pairs - np.eye(4)).max() < 0.1


def test_the_triangle():
    found = [float(program.triangle(jnp.int32(i), jnp.int32(10), 4.0)) for i in range(10)]
    np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6], rtol=1e-6)
    short = [float(program.triangle(jnp.int32(i), jnp.int32(4), 4.0)) for i in range(4)]
    np.testing.assert_allclose(short, [0.5, 1, 1, 0.5], rtol=1e-6)
