"""Classification of texts, with the data on the device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax.data import strata
from sbjax.data.shuffle import epoch_indices
from sbjax.data.texts import TextData
from sbjax.expansion.folding import fold as fold_expansion
from sbjax.expansion.kinds import VectorExpansion
from sbjax.tasks import classification
from sbjax.tasks.task import Aux, Task


def make_text_task(
    data: TextData,
    module: nn.Module,
    *,
    batch_size: int = 64,
    eval_batch_size: int = 1000,
    fold_expansion_in: bool = False,
    probe_size: int = 256,
) -> Task:
    """Text classification with the cross-entropy loss.

    Args:
        data: places in a vocabulary [n, length] and labels, in three splits.
        module: from tokens [B, length] to logits [B, classes], called with `train=`; see `sbjax.models.text`.
        batch_size: texts in a step, at most those of the training split.
        eval_batch_size: texts in an evaluation call; bounds memory only.
        fold_expansion_in: train on raw embeddings, starting from a head into which the constants of the module's
            `VectorExpansion` were folded: the matched-bias control of a bag of embeddings, for which a constant
            feature is a bias of the head.
        probe_size: validation texts on which `Task.outputs` returns logits, of every class: a set may be sorted.

    Returns:
        A `Task` with metrics 'validation/accuracy', 'validation/loss', 'test/accuracy', 'test/loss'.

    Raises:
        ValueError: a batch larger than the training split, or constants that are no bias of the head.
    """
    examples = len(data.train_labels)
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size={batch_size} must lie between 1 and the {examples} training texts of {data.name!r}: lower it, "
            "or use a larger share of the training split"
        )
    started = module
    if fold_expansion_in:
        if not isinstance(module.expansion, VectorExpansion) or type(module).__name__ != "BagOfEmbeddings":
            raise ValueError(
                "fold=True: constants are a bias of the head in model.name='bag' with expansion.kind='vector' alone"
            )
        module = module.clone(expansion=None)
    held = (data.validation_tokens, data.validation_labels), (data.test_tokens, data.test_labels)
    evaluated, parts = classification.evaluation_parts(*held, size=eval_batch_size)
    arrays = {**evaluated, "tokens": data.train_tokens, "labels": data.train_labels}
    arrays["probe"] = data.validation_tokens[_every_class(data.validation_labels)[:probe_size]]

    def init(key):
        variables = started.init(key, jnp.ones((1, data.train_tokens.shape[1]), jnp.int32), train=False)
        if not fold_expansion_in:
            return variables
        return {**variables, "params": fold_expansion(started.expansion, variables["params"], layer=started.head)}

    def sample(arrays, key, step):
        rows = epoch_indices(key, step, examples=examples, batch_size=batch_size)
        return {"tokens": arrays["tokens"][rows], "labels": arrays["labels"][rows]}

    def loss(variables, batch, key):
        logits = module.apply(variables, batch["tokens"], train=True, rngs={"dropout": key})
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        correct = logits.argmax(-1) == batch["labels"]
        return value, Aux({}, {"train/accuracy": correct.mean(dtype=jnp.float32)})

    def evaluate(arrays, variables, part):
        rows = classification.part_of(arrays, part, parts)
        return classification.averages(module.apply(variables, rows["eval_inputs"], train=False), rows)

    def log_probabilities(arrays, variables, part):
        rows = classification.part_of(arrays, part, parts)
        return jax.nn.log_softmax(module.apply(variables, rows["eval_inputs"], train=False))

    return Task(
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
        log_probabilities=log_probabilities,
        model=module,
    )


def _every_class(labels):
    """An order of which every first part holds the classes in their proportions."""
    return strata.spread(labels, strata.mix(np.arange(len(labels))))
