"""A kind of experiment in a file of your own: the parity of a few bits, learned from raw and expanded input.

python runs/train.py --config=docs/examples/my_experiment.py --workdir=/tmp/parity
python runs/report.py --workdir=/tmp/parity --trust
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax import config as config_lib
from sbjax import option, rng
from sbjax.expansion.transform import expand
from sbjax.frame.errors import told_as
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_model
from sbjax.report.sections import Section, Table
from sbjax.tasks.task import Aux, Average, Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`: each has a default, bounds and a line of help."""

    bits: int = option(4, "length of the input", least=2, most=12)
    batch_size: int = option(32, "examples in a step", least=1)


class Parity(TrainingExperiment):
    """Networks that learn whether a number of bits is odd."""

    name: ClassVar[str] = "parity"
    fields: ClassVar[type] = Fields
    smoke: ClassVar[dict] = {"task.bits": 3}

    def make_task(self, plan, arm, data, expansion):
        """Data and pure functions; `plan` has the fields of the run, `arm` those of the arm."""
        with told_as("model"):
            options = {**arm.model}
            module = make_model(options.pop("name"), classes=2, **options)
        bits, size = arm.task.bits, arm.task.batch_size
        numbers = np.arange(2**bits)
        x = np.float32(2 * ((numbers[:, None] >> np.arange(bits)) & 1) - 1)
        y = np.int32(np.prod(x, axis=1) < 0)
        held_out = np.arange(len(x)) % 4 == 0

        def logits(variables, x, **options):
            x = x if expansion is None else expand(expansion, x)
            return module.apply(variables, x, **options)

        def init(key):
            blank = jnp.zeros((1, bits))
            return module.init(key, blank if expansion is None else expand(expansion, blank), train=False)

        def sample(data, key, step):
            index = jax.random.randint(rng.step_key(rng.stream(key, "batch"), step), (size,), 0, len(data["train_x"]))
            return {"x": data["train_x"][index], "y": data["train_y"][index]}

        def loss(variables, batch, key):
            found = logits(variables, batch["x"], train=True, rngs={"dropout": key})
            value = optax.softmax_cross_entropy_with_integer_labels(found, batch["y"]).mean()
            return value, Aux({}, {"train/accuracy": (found.argmax(-1) == batch["y"]).mean(dtype=jnp.float32)})

        def evaluate(data, variables, part):
            right = logits(variables, data["test_x"], train=False).argmax(-1) == data["test_y"]
            return {"test/accuracy": Average(right.sum(dtype=jnp.float32), jnp.float32(len(right)))}

        return Task(
            data={
                "train_x": jnp.asarray(x[~held_out]),
                "train_y": jnp.asarray(y[~held_out]),
                "test_x": jnp.asarray(x[held_out]),
                "test_y": jnp.asarray(y[held_out]),
            },
            init=init,
            sample=sample,
            loss=loss,
            evaluate=evaluate,
            parts=1,
            batch_size=size,
            epoch_steps=None,
            primary="test/accuracy",
            selection="test/accuracy",  # nothing is chosen here: no checkpoint is kept for being the best
            goal="max",
            model=module,
        )

    def report(self, results, workdir):
        """What the report shows beside the comparison of arms that every run has."""
        rows = [[arm, str(results.parameters[arm])] for arm in results.arms]
        return [Section("Parity", (Table(["arm", "parameters"], rows),))]


EXPERIMENT = Parity()


def get_config(argument=None):
    """The configuration; the word `smoke` shrinks it."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config(f"{__file__}:EXPERIMENT")
    config.replicas = 5
    config.train_steps = 500
    config.model = {"name": "mlp", "widths": (16,), "norm": "none"}
    config.optimizer.update(name="adam", learning_rate=0.01, schedule="constant", warmup_share=0.0, weight_decay=0.0)
    config.arms = {
        "raw": {},
        "expanded": {"expansion": {"kind": "vector", "before": 1, "after": 1, "value": 1.0}},
    }
    return config_lib.shrink(config) if words["smoke"] else config
