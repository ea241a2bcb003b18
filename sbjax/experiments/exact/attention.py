"""Gauge symmetry of attention, of transformers and of continuous networks, in four parts.

`dimensions`: continuous symmetries of a whole transformer, by the rank of its Jacobian against the closed count.
`planted`: a gauge at random is planted into a copy, and matching must find it. `barriers`: networks trained on the
digits, and the loss on lines between them, as they are and matched modulo parts of the group. `flows`: reparametrised
neural differential equations.

Sources: arXiv 2402.02362, 2606.17830, 2506.22712, 2606.31963.
"""

import dataclasses

import jax

from sbjax import trees
from sbjax.common.options import one_of, option
from sbjax.experiments.exact import attention_barriers, attention_flows, attention_parts
from sbjax.experiments.exact.experiment import ExactExperiment
from sbjax.frame.errors import ConfigError
from sbjax.models.transformer import ACTIVATIONS, rope_frequencies

PARTS = {
    "dimensions": attention_parts.dimensions,
    "planted": attention_parts.planted,
    "barriers": attention_barriers.run,
    "flows": attention_flows.run,
}
_NETWORK = {"part": one_of("dimensions", "planted", "barriers")}
_TRAINED = {"part": one_of("barriers")}
_ROPE = {**_NETWORK, "positions": one_of("rope")}


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("attention", "which experiment with closed forms")
    part: str = option("dimensions", "what is done", choices=tuple(PARTS))
    norm: str = option("rms", "of the transformer", choices=("rms", "layer"), only=_NETWORK)
    eps: float = option(1e-6, "of the norms", least=0, most=1, only=_NETWORK)
    activation: str = option("relu", "of its dense layers", choices=tuple(ACTIVATIONS), only=_NETWORK)
    positions: str = option("learned", "how tokens know their place", choices=("learned", "rope"), only=_NETWORK)
    rope_base: float = option(100.0, "of the frequencies; 1 = all the same", least=1, most=1e6, only=_ROPE)
    bias: bool = option(False, "biases in all layers", only=_NETWORK)
    width: int = option(32, "of the residual stream", least=4, most=512, only=_NETWORK)
    size: int = option(8, "of a head", least=2, most=128, only=_NETWORK)
    heads: int = option(4, "of attention", least=1, most=32, only=_NETWORK)
    depth: int = option(2, "blocks", least=1, most=12, only=_NETWORK)
    hidden: int = option(64, "units of the dense layers of a block", least=1, most=4096, only=_NETWORK)
    noise: float = option(0.0, "added to the copy, over the spread of each array", least=0, most=1,
                          only={"part": one_of("planted")})  # fmt: skip
    batch_size: int = option(64, "of training", least=1, most=1437, only=_TRAINED)
    learning_rate: float = option(3e-3, "of Adam, falling to zero", above=0, most=1, only=_TRAINED)
    learned_steps: int = option(200, "of Adam on the gauge, from the matched one", least=1, most=10**5, only=_TRAINED)
    learned_rate: float = option(1e-2, "of Adam on the gauge", above=0, most=1, only=_TRAINED)
    points: int = option(11, "on a line", least=3, most=1001, only=_TRAINED)
    change: str = option("linear", "what is changed in a flow", choices=attention_flows.CHANGES,
                         only={"part": one_of("flows")})  # fmt: skip
    sigma: str = option("tanh", "activation of the field", choices=tuple(attention_flows.SIGMAS),
                        only={"part": one_of("flows")})  # fmt: skip


def check(plan, arm):
    """Refuse what cannot be counted or paired.

    Raises:
        ConfigError: single precision; an odd size of heads with RoPE; one network; an even number of points.
    """
    task = arm.task
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False: ranks and planted transforms need double precision; set it to True")
    if task.part in ("dimensions", "planted", "barriers") and task.positions == "rope":
        try:
            rope_frequencies(task.size)
        except ValueError as error:
            raise ConfigError(f"task.{error}") from error
    if task.part == "barriers":
        if plan.replicas < 2 or plan.replicas % 2:
            raise ConfigError(f"replicas={plan.replicas} must be even: barriers are taken between disjoint pairs")
        if task.points % 2 == 0:
            raise ConfigError(f"task.points={task.points} must be odd, so that the middle of the line is one of them")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    if task.part == "flows":
        return {}
    net, _ = attention_parts.network(task)
    inputs = jax.ShapeDtypeStruct((1, 5, task.size + 1), "float32")
    size = trees.size(jax.eval_shape(net.init, jax.random.key(0), inputs)["params"])
    if task.part == "dimensions":
        return {"a Jacobian": 8 * size**2}
    return {"networks": 8 * size * (2 if task.part == "planted" else 3 * plan.replicas)}


def run_arm(plan, arm, key, log, stop):
    """The part that the arm names."""
    return PARTS[arm.task.part](plan, arm.task, key, log, stop)


COLUMNS = {
    **attention_parts.COLUMNS,
    **attention_barriers.COLUMNS,
    **attention_flows.COLUMNS,
}

EXPERIMENT = ExactExperiment(
    Fields,
    title="Gauge symmetry of attention and of continuous networks",
    columns=COLUMNS,
    note="Barriers: cross entropy of held-out digits, most above the chord; medians over disjoint pairs with 95 % "
    "bootstrap intervals. Counts with 95 % Wilson intervals in percent.",
    digits=3,
    primary="exact/error",
    smoke={},  # parts have different fields: the config makes them small
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
)
