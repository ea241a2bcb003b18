"""Classification of vectors, with the data on the device, and lines between networks."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sbjax.data.shuffle import epoch_indices
from sbjax.data.vectors import VectorData
from sbjax.metrics.interpolation import recalibrate_batch_stats
from sbjax.tasks import classification
from sbjax.tasks.task import Aux, Average, Lines, Task


def make_vector_task(
    data: VectorData,
    module: Any,
    *,
    batch_size: int = 128,
    eval_batch_size: int = 5000,
    probe_size: int = 256,
    line_examples: int = 5000,
) -> Task:
    """Classification with the cross-entropy loss.

    Args:
        data: vectors [n, d] and labels in three splits.
        module: from [B, d] to logits [B, classes], called with `train=`.
        batch_size: examples in a step, at most those of the training split.
        eval_batch_size: examples in an evaluation call; bounds memory only.
        probe_size: validation examples on which `Task.outputs` returns logits.
        line_examples: training examples on which losses between networks are evaluated and layers are watched.

    Returns:
        A `Task` with metrics 'validation/accuracy', 'validation/loss', 'test/accuracy', 'test/loss'.

    Raises:
        ValueError: a batch larger than the training split.
    """
    inputs, labels = data.train
    examples = len(inputs)
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the {examples} training examples: lower it")
    evaluated, parts = classification.evaluation_parts(data.validation, data.test, size=eval_batch_size)
    arrays = {**evaluated, "inputs": inputs, "labels": labels, "probe": data.validation[0][:probe_size]}

    def init(key):
        return module.init(key, jnp.zeros((1, inputs.shape[1])), train=False)

    def sample(arrays, key, step):
        rows = epoch_indices(key, step, examples=examples, batch_size=batch_size)
        return {"inputs": arrays["inputs"][rows], "labels": arrays["labels"][rows]}

    def loss(variables, batch, key):
        variables = {name: tree for name, tree in variables.items() if name != "hyper"}
        mutable = [name for name in variables if name not in ("params", "frozen")]
        rngs = {"dropout": key}
        logits, updates = module.apply(variables, batch["inputs"], train=True, rngs=rngs, mutable=mutable)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        correct = logits.argmax(-1) == batch["labels"]
        return value, Aux(dict(updates), {"train/accuracy": correct.mean(dtype=jnp.float32)})

    def evaluate(arrays, variables, part):
        rows = classification.part_of(arrays, part, parts)
        return classification.averages(module.apply(variables, rows["eval_inputs"], train=False), rows)

    line_parts = -(-min(line_examples, examples) // eval_batch_size)
    line_size = min(line_examples, examples) // line_parts

    def evaluate_line(arrays, variables, part):
        def rows(name):
            return jax.lax.dynamic_slice_in_dim(arrays[name], part * line_size, line_size)

        logits, labels = module.apply(variables, rows("inputs"), train=False), rows("labels")
        per_example = {
            "train/loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
            "train/accuracy": (logits.argmax(-1) == labels).astype(jnp.float32),
        }
        return {name: Average(value.sum(), jnp.float32(line_size)) for name, value in per_example.items()}

    def train_pass(variables, batch):
        noise = {"dropout": jax.random.key(0)}
        return module.apply(variables, batch, train=True, rngs=noise, mutable=["batch_stats"])

    def recalibrate(arrays):
        rows = arrays["inputs"][: line_parts * line_size]
        return recalibrate_batch_stats(train_pass, rows.reshape(line_parts, line_size, -1))

    return Task(
        about=(
            ("input", f"float32 [n, {inputs.shape[1]}]: {data.name}"),
            ("output", f"logits [n, {data.classes}]"),
        ),
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
        outputs=lambda arrays, variables: module.apply(variables, arrays["probe"], train=False),
        lines=Lines(
            evaluate=evaluate_line,
            parts=line_parts,
            recalibrate=recalibrate,
            apply=lambda variables, x: module.apply(variables, x, train=False),
            inputs=lambda arrays: arrays["inputs"][:2],
        ),
        model=module,
    )
