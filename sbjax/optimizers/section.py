"""From the flat fields of a config section to a typed choice of optimiser, learning rate and schedule.

Fields: `name`, `first_bias_scale` and the options of the optimiser; of one that reads a learning rate also
`learning_rate`, `schedule` and the options of the schedule.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from sbjax.common import options
from sbjax.common.names import shown
from sbjax.common.options import Spec
from sbjax.optimizers import lookup
from sbjax.optimizers.base import Optimizer, Schedule
from sbjax.optimizers.registry import OPTIMIZERS, SCHEDULES
from sbjax.optimizers.rescaled import rescaled


@dataclasses.dataclass(frozen=True)
class OptimizerChoice:
    """An optimiser with all that it reads.

    Attributes:
        name: in `OPTIMIZERS`, or an import path.
        options: the optimiser with its own options.
        learning_rate, schedule: None for an optimiser that finds its own step length.
        first_bias_scale: unit of the bias of the first dense layer; 0 = see `bias_scale`.
    """

    name: str
    options: Optimizer
    learning_rate: float | None
    schedule: Schedule | None
    first_bias_scale: float = 1.0

    @property
    def ends_at_zero(self) -> bool:
        """The learning rate is 0 at the last step: a finished run cannot be extended."""
        return self.schedule is not None and self.schedule.ends_at_zero

    def fields(self) -> dict[str, Any]:
        """The flat fields that are read; `read_optimizer` gives this choice back from them."""
        found = {"name": self.name, **self.options.values(), "first_bias_scale": self.first_bias_scale}
        if self.schedule is not None:
            found |= {"learning_rate": self.learning_rate, "schedule": self.schedule.name, **self.schedule.values()}
        return found

    def bias_scale(self, folded_constants: Sequence[float] | None) -> float:
        """`first_bias_scale`, or for 0 the optimiser's `first_bias_unit` of the constants of a folded expansion.

        Raises:
            ValueError: 0 without a folded expansion, or with an optimiser that knows no such unit.
        """
        if self.first_bias_scale:
            return self.first_bias_scale
        if folded_constants is None:
            raise ValueError(
                "first_bias_scale=0 matches the bias to a folded expansion and there is none; fold one, or give a "
                "scale > 0"
            )
        return self.options.first_bias_unit([float(c) for c in folded_constants])

    def build(
        self, train_steps: int, *, folded_constants: Sequence[float] | None = None
    ) -> optax.GradientTransformationExtraArgs:
        """The optax transformation.

        Args:
            train_steps: the length of the schedule.
            folded_constants: of the expansion that was folded into the network's start, if there is one.

        Raises:
            ValueError: as `bias_scale`; by `init`, a first layer without bias where a scale is set.

        >>> choice, _ = read_optimizer({'name': 'sgd', 'momentum': 0.0, 'weight_decay': 0.0, 'warmup_share': 0.0})
        >>> optimizer = choice.build(100)
        >>> w = jax.numpy.ones(1)
        >>> optimizer.update(w, optimizer.init(w), w)[0].tolist()
        [-0.10000000149011612]
        """
        scale = self.bias_scale(folded_constants)
        if self.schedule is None:
            optimizer = self.options.make()
        else:
            optimizer = self.options.make(self.schedule.make(self.learning_rate, train_steps))
        optimizer = optimizer if scale == 1 else rescaled(optimizer, functools.partial(_first_bias, scale=scale))
        return self.options.over(optimizer, train_steps)


def read_optimizer(fields: Mapping[str, Any], *, where: str = "optimizer") -> tuple[OptimizerChoice | None, list[str]]:
    """The choice that flat fields make, or None; and what is wrong with them.

    A field that is None is not given. One that another optimiser or schedule reads is left out if it has its default or
    says 'off' (no momentum, a constant schedule); any other value is a mistake. An option of a user's own that has the
    name of a built-in one keeps its own default where the section holds the built-in default, as base configs do.

    Args:
        fields: by name; missing ones have their defaults.
        where: what errors call the section.

    >>> choice, problems = read_optimizer({'name': 'adam', 'learning_rate': 1e-3, 'momentum': 0.0})
    >>> choice.options
    Adam(b1=0.9, b2=0.999, clip_norm=0.0)
    >>> read_optimizer({'name': 'adam', 'momentum': 0.5})[1]
    ["optimizer.momentum=0.5 has no effect with optimizer.name='adam': it is read by sgd, look_ahead_sgd; leave it out"]
    """
    prefix = f"{where}." if where else ""
    given = {name: value for name, value in fields.items() if value is not None}
    found, problems = lookup.find(given, prefix)
    if found is None:
        return None, problems
    unknown = {name: value for name, value in fields.items() if name not in found.specs and not lookup.is_known(name)}
    fitting = {}
    for name, value in {**given, **unknown}.items():
        if found.is_users(name) and lookup.is_default(name, value):
            continue
        if name in found.specs or not lookup.is_known(name):
            fitting[name] = value
        elif not lookup.is_neutral(name, value):
            problems.append(f"{prefix}{name}={shown(value)} {found.no_effect(name, prefix)}; leave it out")
    values, wrong = options.check(found.specs, fitting, where=where)
    problems += wrong
    if problems:
        return None, problems
    try:
        made = found.optimizer.made_of(values)
        schedule = None if found.schedule is None else found.schedule.made_of(values)
    except ValueError as error:
        return None, [f"{where}: {error}" if where else str(error)]
    learning_rate = None if schedule is None else values["learning_rate"]
    return OptimizerChoice(values["name"], made, learning_rate, schedule, values["first_bias_scale"]), []


def override(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Shared fields with an arm's own on top.

    Where the arm names another optimiser or schedule, shared fields that its choice does not read are left out: they
    were meant for the other one.

    >>> override({'name': 'sgd', 'momentum': 0.5, 'learning_rate': 0.2}, {'name': 'adam'})
    {'name': 'adam', 'learning_rate': 0.2}
    """
    merged = {**shared, **own}
    found, _ = lookup.find({name: value for name, value in merged.items() if value is not None}, "")
    if found is None or all(merged.get(name) == shared.get(name) for name in ("name", "schedule")):
        return merged
    return {name: value for name, value in merged.items() if name in own or name in found.specs}


def union_fields() -> dict[str, Any]:
    """All fields of the optimisers and schedules that there are, with defaults; those without have their 'off'."""
    found = {"name": lookup.NAME.default, "learning_rate": lookup.LEARNING_RATE.default}
    for table in (OPTIMIZERS, SCHEDULES):
        for part in table.values():
            for name, spec in options.describe(part).items():
                found[name] = spec.off if spec.default is options.MISSING else spec.default
    return {**found, "schedule": lookup.SCHEDULE.default, "first_bias_scale": lookup.FIRST_BIAS_SCALE.default}


def field_specs(fields: Mapping[str, Any]) -> dict[str, Spec]:
    """The fields that are read where `name` and `schedule` are these.

    Raises:
        ValueError: an unknown name.

    >>> list(field_specs({'name': 'lbfgs'}))
    ['name', 'memory_size', 'first_bias_scale']
    """
    found, problems = lookup.find(fields, "")
    if found is None:
        raise ValueError("; ".join(problems))
    return found.specs


def _first_bias(params: PyTree, *, scale: float) -> PyTree:
    """`scale` at the bias of the first dense layer, 1 elsewhere."""
    if not isinstance(params, Mapping) or "bias" not in params.get("dense_0", {}):
        raise ValueError(f"first_bias_scale={scale:g}: the model has no layer dense_0 with a bias; set it to 1")
    scales = jax.tree.map(lambda leaf: 1.0, params)
    return scales | {"dense_0": scales["dense_0"] | {"bias": scale}}
