"""Held-out numbers of classifiers, whatever they read: accuracy and loss of the validation and the test split."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sbjax.tasks.task import Average

VALIDATION, TEST, PADDING = 0, 1, 2

Split = tuple[np.ndarray, np.ndarray]  # inputs [n, ..], labels [n]


def evaluation_parts(
    validation: Split, test: Split, *, size: int, share: float = 1.0
) -> tuple[dict[str, np.ndarray], int]:
    """Both splits in one array, padded so that it is cut into equal parts of at most about `size` examples.

    Args:
        share: of each split that is taken, from the front.

    Returns:
        `{'eval_inputs', 'eval_labels', 'eval_split'}` with codes `VALIDATION`, `TEST`, `PADDING`, and how many parts.

    >>> split = np.zeros((3, 2)), np.zeros(3, int)
    >>> arrays, parts = evaluation_parts(split, split, size=4)
    >>> parts, arrays['eval_split'].tolist()
    (2, [0, 0, 0, 1, 1, 1])
    """
    counts = [max(1, round(share * len(labels))) for _, labels in (validation, test)]
    inputs = np.concatenate([validation[0][: counts[0]], test[0][: counts[1]]])
    labels = np.concatenate([validation[1][: counts[0]], test[1][: counts[1]]])
    split = np.repeat([VALIDATION, TEST], counts)
    parts = -(-len(inputs) // size)
    padding = parts * -(-len(inputs) // parts) - len(inputs)
    arrays = {
        "eval_inputs": np.concatenate([inputs, np.zeros((padding, *inputs.shape[1:]), inputs.dtype)]),
        "eval_labels": np.concatenate([labels, np.zeros(padding, labels.dtype)]),
        "eval_split": np.concatenate([split, np.full(padding, PADDING)]).astype(np.int8),
    }
    return arrays, parts


def part_of(arrays: dict[str, Array], part: Int[Array, ""], parts: int) -> dict[str, Array]:
    """The rows of one part of what `evaluation_parts` made."""
    size = len(arrays["eval_inputs"]) // parts
    names = ("eval_inputs", "eval_labels", "eval_split")
    return {name: jax.lax.dynamic_slice_in_dim(arrays[name], part * size, size) for name in names}


def averages(logits: Float[Array, "example classes"], rows: dict[str, Array]) -> dict[str, Average]:
    """Accuracy and cross-entropy of a part, by split: 'validation/accuracy', .., 'test/loss'."""
    labels, split = rows["eval_labels"], rows["eval_split"]
    per_example = {
        "accuracy": (logits.argmax(-1) == labels).astype(jnp.float32),
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
    }
    return {
        f"{name}/{metric}": Average(
            jnp.sum(jnp.where(split == code, value, 0.0)), jnp.sum(split == code, dtype=jnp.float32)
        )
        for name, code in (("validation", VALIDATION), ("test", TEST))
        for metric, value in per_example.items()
    }
