"""Small tasks for tests: real learning problems that compile in a second."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax.tasks.task import Aux, Average, Task


class Dense(nn.Module):
    """Two dense layers with dropout."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = jnp.tanh(nn.Dense(8)(x.reshape(len(x), -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(2)(x)


class Convolution(nn.Module):
    """One convolution and batch norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(2)(x.mean((1, 2)))


def classification(module=None, *, batch_size=8, examples=64, poison=None) -> Task:
    """Which half of a 4x4 image is brighter. `poison=(replica_free_step)` turns the loss of that step into NaN."""
    module = module or Dense()
    images = np.random.default_rng(0).normal(size=(examples, 4, 4, 1)).astype(np.float32)
    labels = (images[:, :2].sum((1, 2, 3)) > images[:, 2:].sum((1, 2, 3))).astype(np.int32)
    data = {"images": jnp.asarray(images), "labels": jnp.asarray(labels)}

    def sample(data, key, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, examples // 2)
        # Only replicas whose stream draws it are poisoned: a value in the data, not a flag in the code.
        bad = (step == poison) & (jax.random.bits(key) % 2 == 0) if poison is not None else False
        return {"images": jnp.where(bad, jnp.nan, data["images"][rows]), "labels": data["labels"][rows]}

    def loss(variables, batch, key):
        logits, updates = module.apply(
            variables, batch["images"], train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
        correct = (logits.argmax(-1) == batch["labels"]).mean(dtype=jnp.float32)
        return value, Aux(dict(updates), {"train/accuracy": correct})

    def evaluate(data, variables, part):
        rows = examples // 2 + part * (examples // 4) + jnp.arange(examples // 4)
        logits = module.apply(variables, data["images"][rows])
        correct = logits.argmax(-1) == data["labels"][rows]
        average = Average(correct.sum(dtype=jnp.float32), jnp.float32(len(rows)))
        return {"test/accuracy": average}

    return Task(
        data=data,
        init=lambda key: dict(module.init(key, jnp.zeros((1, 4, 4, 1)))),
        sample=sample,
        loss=loss,
        evaluate=evaluate,
        parts=2,
        batch_size=batch_size,
        epoch_steps=examples // 2 // batch_size,
        primary="test/accuracy",
        selection="validation/accuracy",
        goal="max",
    )
