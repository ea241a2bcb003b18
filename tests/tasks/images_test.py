"""The image task: pure sampling, augmentation before expansion, exact evaluation, one golden step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.data import images as images_lib
from sbjax.expansion.transform import ImageExpansion, expand
from sbjax.models import make_model
from sbjax.tasks.classification import TEST, VALIDATION
from sbjax.tasks.images import make_image_task

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def digits():
    return images_lib.load("digits")


def make(data, **options):
    return make_image_task(data, make_model("mlp", classes=10, widths=(16,)), **{"batch_size": 64, **options})


def total(task, variables):
    parts = [task.evaluate(task.data, variables, jnp.int32(part)) for part in range(task.parts)]
    return {name: float(sum(p[name].total for p in parts) / sum(p[name].weight for p in parts)) for name in parts[0]}


def test_an_epoch_draws_every_image_at_most_once(digits):
    index = np.arange(200, dtype=np.uint8).reshape(-1, 1, 1, 1)
    data = digits._replace(train_images=np.tile(index, (1, 8, 8, 1)), train_labels=np.arange(200, dtype=np.int32) % 10)
    task = make(data)
    batches = [task.sample(task.data, KEY, jnp.int32(step)) for step in range(task.epoch_steps)]
    drawn = np.concatenate([batch["images"][:, 0, 0, 0] for batch in batches])
    assert len(drawn) == len(set(drawn.tolist())) == 192
    assert batches[0]["images"].dtype == jnp.uint8
    np.testing.assert_array_equal(np.concatenate([batch["labels"] for batch in batches]), drawn % 10)


def test_a_share_of_a_split_is_its_front_with_its_labels(digits):
    """Every image has a number of its own, its label is the last digit; the splits differ in length."""

    def split(start, count):
        numbers = np.arange(start, start + count, dtype=np.uint8)
        return np.tile(numbers.reshape(-1, 1, 1, 1), (1, 8, 8, 1)), numbers.astype(np.int32) % 10

    (train, y), (validation, y_validation), (test, y_test) = split(0, 64), split(100, 23), split(150, 31)
    data = digits._replace(
        train_images=train, train_labels=y, validation_images=validation, validation_labels=y_validation,
        test_images=test, test_labels=y_test,
    )  # fmt: skip
    task = make(data, eval_share=0.4, eval_batch_size=8, probe_size=5)
    numbers, labels, codes = (np.asarray(task.data[f"eval_{name}"]) for name in ("inputs", "labels", "split"))
    numbers = numbers[:, 0, 0, 0]
    for code, expected in ((VALIDATION, range(100, 109)), (TEST, range(150, 162))):
        assert numbers[codes == code].tolist() == list(expected)
        assert labels[codes == code].tolist() == [number % 10 for number in expected]
    assert task.data["probe"][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104]


def test_augmentation_comes_before_expansion_and_is_the_same_for_all_arms(digits):
    expansion = ImageExpansion(2, 0.5)
    raw, expanded = (
        make(digits, crop_padding=1, flip=True),
        make(digits, expansion=expansion, crop_padding=1, flip=True),
    )
    a, b = (task.sample(task.data, KEY, jnp.int32(3)) for task in (raw, expanded))
    np.testing.assert_array_equal(a["images"], b["images"])
    assert a["images"].shape == (64, 8, 8, 1)
    plain = make(digits).sample(raw.data, KEY, jnp.int32(3))
    np.testing.assert_array_equal(plain["labels"], a["labels"])
    assert (plain["images"] != a["images"]).any()


@pytest.mark.parametrize("order", ["before", "after"])
def test_loss_is_cross_entropy_of_the_expanded_standardised_images(digits, order):
    expansion = ImageExpansion(2, 0.5, order=order)
    task = make(digits, expansion=expansion)
    variables = task.init(KEY)
    batch = task.sample(task.data, KEY, jnp.int32(0))
    pixels, mean, std = batch["images"] / 255.0, jnp.array(digits.mean), jnp.array(digits.std)
    x = (expand(expansion, pixels) - mean) / std if order == "before" else expand(expansion, (pixels - mean) / std)
    logits = make_model("mlp", classes=10, widths=(16,)).apply(variables, x)
    expected = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(64), batch["labels"]])
    value, aux = task.loss(variables, batch, KEY)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(aux.scalars["train/accuracy"], np.mean(logits.argmax(-1) == batch["labels"]), rtol=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("eval_batch_size", [1000, 77, 50])
def test_evaluation_does_not_depend_on_its_parts(digits, eval_batch_size):
    task = make(digits, eval_batch_size=eval_batch_size)
    variables = task.init(KEY)
    numbers = total(task, variables)
    model = make_model("mlp", classes=10, widths=(16,))
    for split in ("validation", "test"):
        pixels, labels = getattr(digits, f"{split}_images"), getattr(digits, f"{split}_labels")
        x = ((pixels / 255.0 - np.array(digits.mean)) / np.array(digits.std)).astype(np.float32)
        logits = model.apply(variables, jnp.asarray(x))
        assert numbers[f"{split}/accuracy"] == pytest.approx(float(np.mean(logits.argmax(-1) == labels)), abs=1e-6)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        assert numbers[f"{split}/loss"] == pytest.approx(float(loss), rel=1e-5)


def test_evaluated_share_is_the_first_of_each_split(digits):
    task = make(digits, eval_share=0.1)
    weights = {name: float(a.weight) for name, a in task.evaluate(task.data, task.init(KEY), jnp.int32(0)).items()}
    assert weights["test/accuracy"] == 36
    assert weights["validation/accuracy"] == 14


def test_mean_fill_is_invisible_after_standardisation(digits):
    """Pixels filled with the mean are zero to the network, as with fill 0 after standardisation."""
    batch = make(digits).sample(make(digits).data, KEY, jnp.int32(0))
    a, b = (
        make(digits, expansion=ImageExpansion(2, fill, order=order))
        for fill, order in (("mean", "before"), (0.0, "after"))
    )
    variables = a.init(KEY)
    np.testing.assert_allclose(a.loss(variables, batch, KEY)[0], b.loss(variables, batch, KEY)[0], rtol=1e-5)


GOLDEN = {"loss": 2.507484, "gradient": 3.370710, "parameters": 19.10174}


def test_golden_step(digits):
    """One SGD step of the quickstart's expanded arm.

    Update the numbers only where the training was changed on purpose (initialisation, order of batches, augmentation,
    loss, model) and say so in CHANGELOG.md: every result of ours depends on them.
    """
    task = make_image_task(digits, make_model("cnn", classes=10), expansion=ImageExpansion(2, 0.5), batch_size=64)
    variables = jax.jit(task.init)(KEY)
    batch = task.sample(task.data, KEY, jnp.int32(0))

    def loss(params):
        return task.loss({**variables, "params": params}, batch, KEY)

    (value, _), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    params = jax.tree.map(lambda w, g: w - 0.1 * g, variables["params"], grads)
    found = {"loss": value, "gradient": optax.tree.norm(grads), "parameters": optax.tree.norm(params)}
    assert {name: float(number) for name, number in found.items()} == pytest.approx(GOLDEN, rel=1e-4)


@pytest.mark.parametrize("batch_size", [0, 1295])
def test_impossible_batches(digits, batch_size):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} must lie between 1 and the 1294"):
        make(digits, batch_size=batch_size)
