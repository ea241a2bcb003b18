"""What an optimiser and a schedule are: frozen dataclasses of their own options that make optax objects."""

import abc
import contextlib
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sbjax.common import options


@dataclasses.dataclass(frozen=True)
class Part(abc.ABC):
    """A frozen dataclass whose fields are its options, made by `sbjax.common.options.option`.

    Raises:
        ValueError: a value out of its bounds.
    """

    name: ClassVar[str]

    def __post_init__(self):
        specs = options.describe(type(self))
        _, problems = options.check(specs, {field: getattr(self, field) for field in specs}, where="")
        if problems:
            raise ValueError("; ".join(problems))

    def values(self) -> dict[str, Any]:
        """The options that are read, by name."""
        return options.values_of(self)


@dataclasses.dataclass(frozen=True)
class Optimizer(Part):
    """An optimiser and its options; `make` gives the optax transformation.

    Attributes:
        name: in configs.
        scheduled: it reads a learning rate. Methods with a step length of their own do not.
        reads_population: it reads the factors `hyper` of `sbjax.optimizers.population`.
        needs_residuals: it reads `residual_fn`, which only losses that are sums of squares have.
        deterministic: the objective must stay the same from step to step.
        one_gradient: a step costs one loss and its gradient. Line searches and Jacobians cost more, which is not
            counted, so that runs with them are not read at equal FLOPs.
    """

    scheduled: ClassVar[bool] = True
    reads_population: ClassVar[bool] = False
    needs_residuals: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    one_gradient: ClassVar[bool] = True

    @abc.abstractmethod
    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        """The transformation; `update` may always be given `value`, `grad`, `value_fn`, `residual_fn` and `hyper`."""

    def over(self, optimizer: optax.GradientTransformationExtraArgs, train_steps: int) -> Any:
        """What `make` gave, with all that has to know how long the training is."""
        del train_steps
        return optimizer

    def first_bias_unit(self, constants: Sequence[float]) -> float:
        """Scale of the first bias with which a network with folded constants trains as the expanded one does.

        With constants c the bias of the expanded network is b = b_0 + sum_j c_j w_j. In general that is another path;
        methods that know a scale say it: see `length_unit` and `step_unit`.

        Raises:
            ValueError: the method knows none.
        """
        del constants
        name = getattr(self, "name", type(self).__name__)
        raise ValueError(f"first_bias_scale=0: {name!r} does not say its unit of the first bias; give a scale > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(Part):
    """A learning rate against the step; `make` gives the optax schedule.

    Attributes:
        name: in configs.
        ends_at_zero: the rate is 0 at the last step, so that a finished run cannot be extended.
    """

    ends_at_zero: ClassVar[bool] = False

    @abc.abstractmethod
    def make(self, learning_rate: float, train_steps: int) -> optax.Schedule:
        """Step -> learning rate, for a training of so many steps."""


def length_unit(constants: Sequence[float]) -> float:
    """sqrt(1 + sum c_j^2): for methods that only know lengths and angles of gradients.

    For gradient descent, L-BFGS, quasi-Newton and Gauss-Newton that is exact.

    >>> length_unit([1.0, 1.0, 1.0])
    2.0
    """
    return math.sqrt(1 + sum(c**2 for c in constants))


def step_unit(constants: Sequence[float]) -> float:
    """1 + sum |c_j|: for methods with steps of one size in every weight, so that b moves so many times as far as b_0.

    For Adam that is exact up to its epsilon; for AdamW and SOAP it is near.

    >>> step_unit([1.0, 1.0, 1.0])
    4.0
    """
    return 1 + sum(map(abs, constants))


# Options that several optimisers have. The default of a name is the same in all of them.


def b1_option() -> Any:
    return options.option(0.9, "share of the running mean of gradients that a step keeps", least=0, below=1)


def b2_option() -> Any:
    return options.option(0.999, "share of the running mean of their squares that a step keeps", least=0, below=1)


def weight_decay_option() -> Any:
    return options.option(5e-4, "decay of kernels, which are arrays of two or more axes", least=0, off=0.0)


def clip_norm_option() -> Any:
    return options.option(0.0, "largest global norm of the gradient; 0 = no clipping", least=0, off=0.0)


def chained(
    *transformations: optax.GradientTransformation, clip_norm: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """The transformations in a row, after clipping if there is any; extra arguments are ignored by those without."""
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.with_extra_args_support(optax.chain(*clip, *transformations))


def kernels(params: PyTree) -> PyTree:
    """Mask of the arrays that weight decay acts on: those of two or more axes.

    >>> import jax.numpy as jnp
    >>> kernels({'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)})
    {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def calls_the_loss(optimizer: optax.GradientTransformationExtraArgs) -> bool:
    """Whether `update` calls `value_fn` or `residual_fn`: then a step costs more than the gradient it is given.

    Found by tracing it with two small arrays; what cannot be traced so counts as not calling.

    >>> calls_the_loss(optax.sgd(0.1)), calls_the_loss(optax.lbfgs())
    (False, True)
    """
    called = []

    def residual_fn(params):
        called.append(params)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])

    def step(params, **extra):
        extra |= {"value": jnp.zeros(()), "grad": params, "value_fn": lambda p: jnp.sum(residual_fn(p) ** 2)}
        update = optax.with_extra_args_support(optimizer).update
        return update(params, optimizer.init(params), params, **extra)

    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    for extra in ({"residual_fn": residual_fn}, {}):  # line searches of optax refuse what they do not know
        with contextlib.suppress(Exception):  # the user's own code may raise anything
            jax.eval_shape(functools.partial(step, **extra), params)
    return bool(called)


def with_arguments(
    optimizer: optax.GradientTransformation, names: Sequence[str]
) -> optax.GradientTransformationExtraArgs:
    """Passes on the extra arguments of these names alone: optax's line searches refuse what they do not know."""
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        return optimizer.update(updates, state, params, **{name: extra[name] for name in names if name in extra})

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
