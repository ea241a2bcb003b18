"""Image classification; augmentation and expansion are part of the step, and so is indexing of a set in memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import UInt8

from sbjax import rng
from sbjax.data.augment import alternate, random_crop_flip
from sbjax.data.images import ImageData
from sbjax.data.shuffle import epoch_indices
from sbjax.data.streaming import ImageStream
from sbjax.expansion import transform as expansion_lib
from sbjax.metrics.interpolation import recalibrate_batch_stats
from sbjax.tasks import classification
from sbjax.tasks.streamed import ImageFeed
from sbjax.tasks.task import Aux, Average, Lines, Task
from sbjax.tasks.views import check_views, over_views

_FIRST = 5000  # training images that a network may take its start from


def make_image_task(
    data: ImageData | ImageStream,
    module: nn.Module,
    *,
    expansion: expansion_lib.Expansion | None = None,
    batch_size: int = 128,
    crop_padding: int = 0,
    flip: bool = False,
    alternate_flips: bool = False,
    reflect: bool = False,
    views: str = "one",
    label_smoothing: float = 0.0,
    eval_batch_size: int = 500,
    eval_share: float = 1.0,
    probe_size: int = 256,
    line_examples: int = 5000,
    unknown: UInt8[np.ndarray, "n height width channel"] | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Task:
    """Image classification with the cross-entropy loss.

    Images stay on the device as uint8. A step samples a batch without replacement within an epoch, crops and flips it,
    standardises it with mean and standard deviation of the training split, expands it and applies `module`. Crops and
    flips act on raw pixels, before the expansion, so that all arms see the same augmented images.

    An `ImageStream` stays on disk: see `sbjax.tasks.streamed`. All replicas then read the same batches, each with its
    own crops and flips.

    Args:
        data: uint8 images [n, H, W, C] and labels, in three splits, in memory or on disk.
        module: Linen module from float [B, H', W', C] to logits [B, classes], called with `train=`.
        expansion: input expansion; None = raw images.
        batch_size: examples in a batch, at most the size of the training split.
        crop_padding: zero padding of the random crop in raw pixels; 0 = no crop.
        flip: mirror images left to right with probability 1/2.
        alternate_flips: and in every epoch to the other side than in the one before, see `augment.alternate`.
        reflect: the crop's padding is the image's own border, not zeros.
        views: of which logits are averaged in evaluations: 'one', the image; 'mirror', and its mirror image; 'shift',
            both, and both moved by a pixel up and left, and down and right, of half the weight.
        label_smoothing: in [0, 1).
        eval_batch_size: examples per evaluation call; affects memory only.
        eval_share: share of the validation and test split that is evaluated, taken from the front.
        probe_size: number of validation images on which `Task.outputs` returns logits.
        line_examples: training examples on which losses between networks are evaluated; only of a set in memory.
        unknown: images of none of the classes, of the same shape; kept as `data['unknown']` for what is measured
            after the training.
        seed: of the order of examples of a stream; in memory every replica has an order of its own, by its key.
        workers: processes that decode a stream; 0 = one fewer than there are cores.

    Returns:
        A `Task` with metrics 'validation/accuracy', 'validation/loss', 'test/accuracy', 'test/loss'.

    Raises:
        ValueError: if batch_size is not in [1, training examples], or the expansion or `unknown` do not fit the
            images.
    """
    streamed = isinstance(data, ImageStream)
    examples = len(data.train if streamed else data.train_labels)
    shape = data.shape if streamed else data.train_images.shape[1:]
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size={batch_size} must lie between 1 and the {examples} training examples of {data.name!r}: "
            "lower it, or use a larger share of the training split"
        )
    if crop_padding > max(side := shape[:2]):
        raise ValueError(f"crop_padding={crop_padding}: crops of images of {side} would miss them; lower it")
    if expansion is not None:
        expansion_lib.check_expansion(expansion, shape)
        expansion = expansion_lib.resolve(expansion, mean=data.mean, std=data.std)
    given = {"eval_batch_size": eval_batch_size, "eval_share": eval_share}
    check_views(views)
    if streamed and alternate_flips:
        raise ValueError("alternate_flips=True follows each image from epoch to epoch, which a stream cannot; leave it")
    feed = ImageFeed(data, batch_size=batch_size, seed=seed, workers=workers, **given) if streamed else None
    if feed is not None:
        arrays, parts = {**feed.arrays, "probe": data.validation.first(probe_size)}, feed.parts
    else:
        held = (data.validation_images, data.validation_labels), (data.test_images, data.test_labels)
        evaluated, parts = classification.evaluation_parts(*held, size=eval_batch_size, share=eval_share)
        arrays = {**evaluated, "images": data.train_images, "labels": data.train_labels}
        arrays["probe"] = data.validation_images[:probe_size]
    if unknown is not None:
        if unknown.shape[1:] != shape:
            raise ValueError(
                f"unknown: images of {unknown.shape[1:]} beside {data.name!r} of {shape}; give "
                "some of the same size and channels"
            )
        arrays["unknown"] = unknown

    def prepare(images):
        return expansion_lib.prepare(expansion, images, mean=data.mean, std=data.std)

    start = _start(module, prepare, data.train.first(_FIRST) if streamed else data.train_images[:_FIRST])

    def init(key):
        blank = jnp.zeros((1, *shape), jnp.uint8)
        variables = module.init(key, prepare(blank), train=False)
        return variables if start is None else {**variables, **start}

    def sample(arrays, key, step):
        images, labels = arrays["images"], arrays["labels"]
        if not streamed:
            indices = epoch_indices(key, step, examples=examples, batch_size=batch_size)
            images, labels = images[indices], labels[indices]
        mirror = None
        if alternate_flips:
            sides = rng.stream(key, "flips")
            mirror = alternate(indices, step, key=sides, epoch_steps=examples // batch_size)
        augmented = random_crop_flip(
            images,
            key=rng.step_key(rng.stream(key, "augment"), step),
            padding=crop_padding,
            flip=flip,
            reflect=reflect,
            mirror=mirror,
        )
        return {"images": augmented, "labels": labels}

    def smoothing(hyper):
        return hyper.get("label_smoothing", label_smoothing)

    def loss(variables, batch, key):
        # 'frozen' and 'hyper' are constants; other collections except 'params' are state that the forward pass updates.
        hyper = variables.get("hyper", {})
        variables = {name: tree for name, tree in variables.items() if name != "hyper"}
        mutable = [name for name in variables if name not in ("params", "frozen")]
        logits, updates = module.apply(
            variables, prepare(batch["images"]), train=True, rngs={"dropout": key}, mutable=mutable
        )
        targets = optax.smooth_labels(jax.nn.one_hot(batch["labels"], data.classes), smoothing(hyper))
        value = optax.softmax_cross_entropy(logits, targets).mean()
        correct = logits.argmax(-1) == batch["labels"]
        return value, Aux(dict(updates), {"train/accuracy": correct.mean(dtype=jnp.float32)})

    def logits(variables, images):
        def of_view(view):
            return module.apply(variables, prepare(view), train=False)

        return over_views(of_view, images, views=views)

    def evaluate(arrays, variables, part):
        rows = arrays if streamed else classification.part_of(arrays, part, parts)
        return classification.averages(logits(variables, rows["eval_inputs"]), rows)

    def log_probabilities(arrays, variables, part):
        rows = classification.part_of(arrays, part, parts)
        return jax.nn.log_softmax(logits(variables, rows["eval_inputs"]))

    def outputs(arrays, variables):
        return module.apply(variables, prepare(arrays["probe"]), train=False)

    line_parts = -(-min(line_examples, examples) // eval_batch_size)
    line_size = min(line_examples, examples) // line_parts

    def evaluate_line(arrays, variables, part):
        def rows(name):
            return jax.lax.dynamic_slice_in_dim(arrays[name], part * line_size, line_size)

        logits, labels = module.apply(variables, prepare(rows("images")), train=False), rows("labels")
        smooth = smoothing(variables.get("hyper", {}))
        targets = optax.smooth_labels(jax.nn.one_hot(labels, data.classes), smooth)
        per_example = {
            "train/loss": optax.softmax_cross_entropy(logits, targets),
            "train/accuracy": (logits.argmax(-1) == labels).astype(jnp.float32),
        }
        return {name: Average(value.sum(), jnp.float32(line_size)) for name, value in per_example.items()}

    def train_pass(variables, images):
        noise = {"dropout": jax.random.key(0)}
        return module.apply(variables, prepare(images), train=True, rngs=noise, mutable=["batch_stats"])

    def recalibrate(arrays):
        images = arrays["images"][: line_parts * line_size]
        batches = images.reshape(line_parts, line_size, *images.shape[1:])
        return recalibrate_batch_stats(train_pass, batches, unroll=line_parts)

    lines = Lines(
        evaluate=evaluate_line,
        parts=line_parts,
        recalibrate=recalibrate,
        apply=lambda variables, x: module.apply(variables, x, train=False),
        inputs=lambda arrays: prepare(arrays["images"][:2]),
    )
    return Task(
        about=_about(data, shape, jax.eval_shape(prepare, jnp.zeros((1, *shape), jnp.uint8))),
        data=jax.tree.map(jnp.asarray, arrays),
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate,
        parts=parts,
        batch_size=batch_size,
        epoch_steps=examples // batch_size,
        primary="test/accuracy",
        selection="validation/accuracy",
        goal="max",
        outputs=outputs,
        lines=None if streamed else lines,
        log_probabilities=None if streamed else log_probabilities,
        model=module,
        stream=feed,
    )


def _start(module, prepare, images):
    """Collections of variables that a network takes from the first training images; None of most."""
    if not hasattr(module, "from_images"):
        return None
    inputs = np.asarray(prepare(jnp.asarray(images)))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(inputs[:1]), train=False))
    found = module.from_images(dict(variables), inputs)
    return {name: tree for name, tree in found.items() if tree is not variables[name]}


def _about(data: ImageData | ImageStream, image, prepared) -> tuple[tuple[str, str], ...]:
    """What the network takes and gives, see `Task.about`."""
    numbers = lambda values: ", ".join(f"{x:.4g}" for x in values)  # noqa: E731
    height, width, channels = image
    shape = ", ".join(map(str, prepared.shape[1:]))
    taken = (
        f"{prepared.dtype} [n, {shape}]: images [n, {height}, {width}, {channels}] divided by 255, minus the mean "
        f"({numbers(data.mean)}), over the standard deviation ({numbers(data.std)}) of each channel, expanded as below"
    )
    names = f": {', '.join(f'{i} = {name}' for i, name in enumerate(data.class_names))}" if data.class_names else ""
    return ("input", taken), ("output", f"logits [n, {data.classes}]"), ("classes", f"{data.classes}{names}")
