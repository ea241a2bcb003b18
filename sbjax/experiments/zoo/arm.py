"""An arm of a zoo: what its networks are, and the laws that they draw from."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sbjax import trees
from sbjax.asymmetry.options import build_asymmetric
from sbjax.asymmetry.weights import fingerprint
from sbjax.common import options as options_lib
from sbjax.experiments.zoo import laws, program
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.estimate import check_memory
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.models import make_model
from sbjax.models.registry import model_specs


class Source(NamedTuple):
    """What the networks of a zoo are, as its card has it."""

    kind: str
    model: Mapping[str, Any]
    classes: int
    input_shape: tuple[int, ...]
    asymmetry: Mapping[str, Any]
    frozen: Mapping[str, Any]
    fingerprint: str
    size: int


class Arm(NamedTuple):
    """An arm that is ready.

    Attributes:
        plan: its sections.
        source: what its networks are.
        laws: of their hyper-parameters.
        data: images of all arms.
        make: `activation -> module`.
    """

    plan: ArmPlan
    source: Source
    laws: laws.Laws
    data: program.Data
    make: Callable[[str], Any]

    @property
    def name(self) -> str:
        """As its plan's."""
        return self.plan.name

    @property
    def steps(self) -> int:
        """Of the longest training."""
        return self.laws.epochs[1] * (len(self.data.train_labels) // self.plan.task.batch_size)

    @property
    def flops_per_step(self) -> float:
        """Not counted: networks differ in their steps."""
        return 0.0


def make_arm(plan: Plan, arm: ArmPlan, classes: int, data: program.Data) -> Arm:
    """One arm, its networks tried on shapes.

    Raises:
        ConfigError: a network or masks that cannot be; dropout or activations without effect; too large a batch.
    """
    task, given = arm.task, dict(arm.model)
    asymmetry = given.pop("asymmetry", None) or {}
    if task.batch_size > len(data.train_labels):
        raise ConfigError(
            f"task.batch_size={task.batch_size} must be at most the {len(data.train_labels)} training examples; lower "
            "it"
        )
    drawn = _drawn(arm)

    def make(activation: str) -> Any:
        # The rate is each network's own; any but 0 makes the layer be there.
        own = {"activation": activation, "dropout": max(task.dropout)}
        options = {**given, **{name: own[name] for name in drawn if own[name]}}
        with told_as("model"):
            return build_asymmetric(make_model(options.pop("name"), classes=classes, **options), asymmetry)

    least = max(1, math.ceil(task.epochs_share * plan.train_epochs))
    own = laws.Laws(
        **{name: getattr(task, name) for name in (*laws.LOGARITHMIC, *laws.UNIFORM, "activations", "optimizers")},
        epochs=(least, int(plan.train_epochs)),
    )
    with told_as("model"):
        shapes = [
            jax.eval_shape(functools.partial(make(word).init, train=False), jax.random.key(0), data.train_images[:1])
            for word in task.activations
        ]
    sizes = [{name: leaf.shape for name, leaf in trees.flatten(one["params"]).items()} for one in shapes]
    if any(other != sizes[0] for other in sizes[1:]):
        raise ConfigError(f"task.activations={task.activations!r}: networks differ in their parameters; make two zoos")
    size = sum(map(math.prod, sizes[0].values()))
    check_memory(
        {"networks of a block": 4 * 3 * size * min(task.block, plan.replicas)}, {"task": options_lib.values_of(task)}
    )
    frozen = {}
    if "frozen" in shapes[0]:
        module = make(task.activations[0])
        frozen = jax.jit(lambda key: module.init(key, data.train_images[:1], train=False)["frozen"])(jax.random.key(0))
        frozen = jax.tree.map(np.asarray, frozen)
        if set(frozen) != {"asymmetry"}:
            raise ConfigError("model.asymmetry: a zoo keeps W, syre and fixed biases; FiGLU has matrices of its own")
    source = Source(
        kind=arm.name,
        model=given | {name: {"activation": task.activations[0], "dropout": 0.0}[name] for name in drawn},
        classes=classes,
        input_shape=tuple(data.train_images.shape[1:]),
        asymmetry=asymmetry,
        frozen=frozen.get("asymmetry", {}),
        fingerprint=fingerprint(frozen) if frozen else "",
        size=size,
    )
    return Arm(arm, source, own, data, make)


def _drawn(arm: ArmPlan) -> list[str]:
    """Options of the network that each one draws, of 'activation' and 'dropout'.

    Raises:
        ConfigError: one that is given besides, or that the network does not have.
    """
    with told_as("model"):
        known = model_specs(arm.model["name"])
    for field, other in (("activation", "activations"), ("dropout", "dropout")):
        if field in arm.model:
            raise ConfigError(f"model.{field} has no effect: task.{other} says it; leave it out")
    if "dropout" not in known and any(arm.task.dropout):
        raise ConfigError(f"task.dropout={arm.task.dropout}: model.name={arm.model['name']!r} has none; give (0, 0)")
    if "activation" not in known and len(arm.task.activations) > 1:
        raise ConfigError(
            f"task.activations={arm.task.activations}: model.name={arm.model['name']!r} has no option 'activation'; "
            "give one word, which is then not used"
        )
    return [name for name in ("activation", "dropout") if name in known]
