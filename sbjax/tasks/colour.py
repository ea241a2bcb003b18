"""Colourisation: a* and b* of every pixel from the lightness of the image, with the data set on the device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sbjax import rng
from sbjax.data.augment import random_crop_flip
from sbjax.data.colour_space import lab_to_srgb, srgb_to_lab
from sbjax.data.colours import ColourData, lightness_bin
from sbjax.data.shuffle import epoch_indices
from sbjax.expansion import transform as expansion_lib
from sbjax.metrics import colour as metrics
from sbjax.tasks import classification
from sbjax.tasks.colour_losses import ColourLoss
from sbjax.tasks.task import Aux, Average, Decibels, RootMean, Task

METRICS: dict[str, type[Average]] = {
    "ab_rmse": RootMean,
    "psnr_pooled": Decibels,
    "psnr_mean": Average,
    "ssim": Average,
    "colourfulness": Average,
}
"""What is told of predictions, and how numbers of images become one of a set."""
BASELINES = ("grey", "mean ab", "mean ab given L")
"""Predictions without a network: a = b = 0; the mean of the training pixels; their mean at the pixel's lightness."""


def make_colour_task(
    data: ColourData,
    module: nn.Module,
    colour_loss: ColourLoss,
    *,
    expansion: expansion_lib.Expansion | None = None,
    batch_size: int = 128,
    flip: bool = False,
    eval_batch_size: int = 250,
    eval_share: float = 1.0,
    probe_size: int = 64,
) -> Task:
    """Colourisation with the lightness as input.

    Images stay on the device as uint8. A step samples a batch without replacement within an epoch, mirrors it, takes it
    to CIELAB, standardises L* / 100 with mean and standard deviation of the training split, expands it and applies
    `module`. The loss is the mean over pixels of the image itself: where the expansion makes a larger map, over its
    data sites.

    Args:
        data: uint8 images [n, h, w, 3] in three splits, with their statistics.
        module: Linen module from float [B, h', w', c] to [B, h', w', colour_loss.outputs], or to [B, h, w, ..], the
            data sites; called with `train=`.
        colour_loss: see `sbjax.tasks.colour_losses`.
        expansion: of the lightness [h, w, 1]; None = as it is.
        batch_size: images in a batch, at most the size of the training split.
        flip: mirror images left to right with probability 1/2.
        eval_batch_size: images in an evaluation call; bounds memory only.
        eval_share: share of the validation and test split that is evaluated, taken from the front.
        probe_size: validation images on which `Task.outputs` returns a and b.

    Returns:
        A `Task` with 'ab_rmse', 'psnr_pooled', 'psnr_mean', 'ssim', 'colourfulness' and 'loss' of 'validation/' and
        'test/'. Predicted images have the true lightness, and are cut to [0, 1].

    Raises:
        ValueError: batch_size is not in [1, training images], the expansion does not fit, or the map has another shape.
    """
    images, statistics = data.images, data.statistics
    examples, shape = len(images.train_images), images.train_images.shape[1:]
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size={batch_size} must lie between 1 and the {examples} training images of {images.name!r}: "
            "lower it, or use a larger share of the training split"
        )
    moments = {"mean": statistics.lightness_mean, "std": statistics.lightness_std}
    expansion_lib.check_expansion(expansion, (*shape[:2], 1))
    held = (images.validation_images, images.validation_labels), (images.test_images, images.test_labels)
    evaluated, parts = classification.evaluation_parts(*held, size=eval_batch_size, share=eval_share)
    arrays = {**evaluated, "images": images.train_images, "probe": images.validation_images[:probe_size]}

    def prepare(lab):
        return expansion_lib.standardise(expansion, lab[..., :1] / 100, **moments)

    def predict(variables, lab, **options):
        """Outputs at the pixels of the image, and what else `apply` returns."""
        found = module.apply(variables, prepare(lab), **options)
        found, rest = found if options.get("mutable") is not None else (found, {})
        if found.shape[1:3] != lab.shape[1:3]:
            found = expansion_lib.contract(expansion, found)
        return found, rest

    def init(key):
        return module.init(key, prepare(jnp.zeros((1, *shape))), train=False)

    def sample(arrays, key, step):
        indices = epoch_indices(key, step, examples=examples, batch_size=batch_size)
        augment_key = rng.step_key(rng.stream(key, "augment"), step)
        return {"images": random_crop_flip(arrays["images"][indices], key=augment_key, padding=0, flip=flip)}

    def loss(variables, batch, key):
        # 'frozen' and 'hyper' are constants; other collections except 'params' are state that the forward pass updates.
        variables = {name: tree for name, tree in variables.items() if name != "hyper"}
        mutable = [name for name in variables if name not in ("params", "frozen")]
        lab = to_lab(batch["images"])
        found, updates = predict(variables, lab, train=True, rngs={"dropout": key}, mutable=mutable)
        return colour_loss.loss(found, lab[..., 1:]).mean(), Aux(dict(updates), {})

    def evaluate(arrays, variables, part):
        rows = classification.part_of(arrays, part, parts)
        rgb, lab = rows["eval_inputs"].astype(jnp.float32) / 255, to_lab(rows["eval_inputs"])
        found, _ = predict(variables, lab, train=False)
        per_image = image_numbers(colour_loss.ab(found), lab, rgb)
        per_image["loss"] = colour_loss.loss(found, lab[..., 1:]).mean((1, 2))
        return {
            f"{name}/{metric}": METRICS.get(metric, Average)(
                jnp.sum(jnp.where(rows["eval_split"] == code, values, 0.0)),
                jnp.sum(rows["eval_split"] == code, dtype=jnp.float32),
            )
            for name, code in (("validation", classification.VALIDATION), ("test", classification.TEST))
            for metric, values in per_image.items()
        }

    def outputs(arrays, variables):
        return colour_loss.ab(predict(variables, to_lab(arrays["probe"]), train=False)[0])

    _check_map(module, init, predict, shape, colour_loss.outputs)
    prepared = jax.eval_shape(prepare, jnp.zeros((1, *shape)))
    return Task(
        about=_about(data, prepared, colour_loss),
        data=jax.tree.map(jnp.asarray, arrays),
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate,
        parts=parts,
        batch_size=batch_size,
        epoch_steps=examples // batch_size,
        primary="test/ab_rmse",
        selection="validation/ab_rmse",
        goal="min",
        outputs=outputs,
        model=module,
    )


def to_lab(images: UInt8[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """CIELAB of stored pixels, in float32."""
    return srgb_to_lab(jnp.asarray(images).astype(jnp.float32) / 255)


def coloured(ab: Float[Array, "*batch h w 2"], lab: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """sRGB of predicted a and b with the true lightness, cut to [0, 1]."""
    return jnp.clip(lab_to_srgb(jnp.concatenate([lab[..., :1], ab], axis=-1)), 0.0, 1.0)


def image_numbers(
    ab: Float[Array, "n h w 2"], lab: Float[Array, "n h w 3"], rgb: Float[Array, "n h w 3"]
) -> dict[str, Float[Array, " n"]]:
    """Of each image the numbers of `METRICS`, before their means over a set.

    Args:
        ab: predicted a and b.
        lab, rgb: the true image, rgb in [0, 1].
    """
    made = coloured(ab, lab)
    mse = metrics.squared_error(made, rgb)
    return {
        "ab_rmse": metrics.squared_error(ab, lab[..., 1:]),
        "psnr_pooled": mse,
        "psnr_mean": metrics.psnr(mse),
        "ssim": metrics.ssim(made, rgb),
        "colourfulness": metrics.colourfulness(made),
    }


def baseline_ab(name: str, data: ColourData, lab: Float[Array, "n h w 3"]) -> Float[Array, "n h w 2"]:
    """What one of `BASELINES` predicts."""
    statistics = data.statistics
    if name == "mean ab given L":
        return jnp.asarray(statistics.ab_given_lightness, lab.dtype)[lightness_bin(np.asarray(lab[..., 0]))]
    mean = np.zeros(2) if name == "grey" else statistics.ab_mean
    return jnp.broadcast_to(jnp.asarray(mean, lab.dtype), (*lab.shape[:-1], 2))


def baselines(data: ColourData, *, share: float = 1.0) -> dict[str, dict[str, float]]:
    """Numbers of `METRICS` on the test split, of each of `BASELINES` and of the truth.

    Args:
        share: of the test split that is taken, from the front, as `eval_share` of `make_colour_task`.
    """
    images = data.images.test_images
    images = images[: max(1, round(share * len(images)))]
    numbers = jax.jit(image_numbers)
    sums: dict[str, dict[str, float]] = {name: dict.fromkeys(METRICS, 0.0) for name in (*BASELINES, "truth")}
    for start in range(0, len(images), 500):  # bounds the memory
        part = images[start : start + 500]
        lab, rgb = to_lab(part), jnp.asarray(part, jnp.float32) / 255
        for name, total in sums.items():
            ab = lab[..., 1:] if name == "truth" else baseline_ab(name, data, lab)
            for metric, values in numbers(ab, lab, rgb).items():
                total[metric] += float(np.asarray(values, np.float64).sum())
    count = np.float64(len(images))
    return {
        name: {metric: float(METRICS[metric](np.float64(value), count).value) for metric, value in total.items()}
        for name, total in sums.items()
    }


def _check_map(module, init, predict, shape, outputs) -> None:
    found = jax.eval_shape(
        lambda: predict(init(jax.random.key(0)), jnp.zeros((1, *shape)), train=False)[0],
    )
    if found.shape != (1, *shape[:2], outputs):
        raise ValueError(
            f"{type(module).__name__} gives a map of shape {found.shape[1:]} for images of {shape[:2]}: "
            f"{(*shape[:2], outputs)} is needed, or a map of the sides of its input"
        )


def _about(data: ColourData, prepared, colour_loss: ColourLoss) -> tuple[tuple[str, str], ...]:
    """What the network takes and gives, see `Task.about`."""
    mean, std = data.statistics.lightness_mean, data.statistics.lightness_std
    height, width = data.images.train_images.shape[1:3]
    taken = (
        f"{prepared.dtype} [n, {', '.join(map(str, prepared.shape[1:]))}]: lightness L* / 100 [n, {height}, {width}, 1]"
        f", minus {mean:.4g}, over {std:.4g}, expanded as below"
    )
    given = "a and b of CIELAB over 110" if colour_loss.outputs == 2 else "logits of classes of colour"
    return ("input", taken), ("output", f"[n, {height}, {width}, {colour_loss.outputs}]: {given}")
