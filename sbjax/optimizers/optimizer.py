"""Optimisers and learning-rate schedules by name."""

import jax
import optax
from jaxtyping import PyTree

from sbjax.names import near
from sbjax.optimizers.gauss_newton import gauss_newton
from sbjax.optimizers.population import population_adamw
from sbjax.optimizers.quasi_newton import self_scaled
from sbjax.optimizers.soap import soap

OPTIMIZERS = ("sgd", "adam", "adamw", "soap", "lbfgs", "ssbroyden", "ssbfgs", "gauss_newton")
LINE_SEARCHED = {
    "lbfgs": lambda memory_size: optax.lbfgs(memory_size=memory_size),
    "ssbroyden": lambda memory_size: self_scaled("broyden"),
    "ssbfgs": lambda memory_size: self_scaled("bfgs"),
}
SCHEDULES = ("constant", "cosine", "step")


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    train_steps: int,
    warmup_steps: int = 0,
    decay_every_steps: int = 0,
    decay_factor: float = 0.1,
) -> optax.Schedule:
    """Learning rate against step.

    After a linear warm-up from 0 over `warmup_steps`, 'constant' stays at `learning_rate`, 'cosine' goes to 0 at
    `train_steps` by half a cosine, and 'step' multiplies by `decay_factor` every `decay_every_steps`.

    Raises:
        ValueError: unknown name; negative learning rate; warm-up longer than the run; 'step' without an interval.

    >>> round(float(make_schedule('cosine', 0.1, train_steps=100)(50)), 6)
    0.05
    """
    if name not in SCHEDULES:
        raise ValueError(
            f"optimizer.schedule={name!r} is unknown{near(name, SCHEDULES)}; known: {', '.join(SCHEDULES)}"
        )
    if not learning_rate >= 0:
        raise ValueError(f"optimizer.learning_rate={learning_rate} must be a number >= 0")
    if not 0 <= warmup_steps <= train_steps:
        raise ValueError(
            f"optimizer.warmup_share: {warmup_steps} warm-up steps do not fit {train_steps} training steps; use 0 to 1"
        )
    after = train_steps - warmup_steps
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, max(after, 1))
    else:
        if decay_every_steps < 1:
            raise ValueError(
                f"optimizer.decay_every_steps={decay_every_steps} must be >= 1 with optimizer.schedule='step'"
            )
        schedule = optax.exponential_decay(learning_rate, decay_every_steps, decay_factor, staircase=True)
    if warmup_steps:
        ramp = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        schedule = optax.join_schedules([ramp, schedule], [warmup_steps])
    return schedule


def make_optimizer(
    name: str,
    learning_rate: float | optax.Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    memory_size: int = 10,
    precondition_every: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that may always be called with `value`, `grad`, `value_fn` and `residual_fn`.

    'sgd' adds weight_decay * w to the gradient before the momentum (L2 penalty); 'adamw' and 'soap' decay apart from
    the gradient; 'adam' has no decay. Decay acts on kernels only (arrays of two or more axes), not on biases and norm
    parameters. The first step of 'soap' sets its bases and moves nothing. 'lbfgs', 'ssbroyden' and 'ssbfgs'
    (self-scaled, dense: small networks in float64) take their step from a zoom line search and ignore the learning
    rate. So does 'gauss_newton' (Levenberg-Marquardt), which needs `residual_fn`, params -> residuals [m] with
    loss = sum r^2, and reads nothing else.

    Args:
        clip_norm: clip the gradient to this global norm first; 0 = no clipping.
        memory_size: pairs that L-BFGS keeps.
        precondition_every: steps between refreshes of the bases of SOAP, for which b1 = b2 = 0.95 are usual.

    Raises:
        ValueError: unknown name; a decay the optimiser has no place for; a value out of range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer.name={name!r} is unknown{near(name, OPTIMIZERS)}; known: {', '.join(OPTIMIZERS)}")
    for field, value, low, high in (
        ("momentum", momentum, 0, 1),
        ("b1", b1, 0, 1),
        ("b2", b2, 0, 1),
        ("weight_decay", weight_decay, 0, float("inf")),
        ("clip_norm", clip_norm, 0, float("inf")),
    ):
        if not low <= value < high:
            raise ValueError(f"optimizer.{field}={value} must lie in [{low}, {high})")
    if precondition_every < 1:
        raise ValueError(f"optimizer.precondition_every={precondition_every} must be >= 1 step")
    own_step = name in LINE_SEARCHED or name == "gauss_newton"
    if weight_decay and (name == "adam" or own_step):
        raise ValueError(
            f"optimizer.weight_decay={weight_decay} has no effect with optimizer.name={name!r}; "
            "set it to 0, or use adamw"
        )
    if clip_norm and own_step:
        what = "line search" if name in LINE_SEARCHED else "step"
        raise ValueError(f"optimizer.clip_norm={clip_norm} would break the {what} of {name}; set it to 0")
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "sgd":
        decay = [optax.add_decayed_weights(weight_decay, mask=kernels)] if weight_decay else []
        chain = [*clip, *decay, optax.sgd(learning_rate, momentum or None, nesterov)]
    elif name == "adam":
        chain = [*clip, optax.adam(learning_rate, b1, b2)]
    elif name == "adamw":
        chain = [*clip, population_adamw(learning_rate, b1, b2, weight_decay, mask=kernels)]
    elif name == "soap":
        chain = [*clip, soap(learning_rate, b1, b2, weight_decay, precondition_every, mask=kernels)]
    elif name == "gauss_newton":
        chain = [gauss_newton()]
    else:
        chain = [_without_residuals(LINE_SEARCHED[name](memory_size))]
    return optax.with_extra_args_support(optax.chain(*chain))


def kernels(params: PyTree) -> PyTree:
    """Mask of the arrays that weight decay acts on: those of two or more axes."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _without_residuals(optimizer: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """optax's line search refuses arguments that it does not know."""

    def update(updates, state, params=None, *, residual_fn=None, hyper=None, **extra):
        del residual_fn, hyper
        return optimizer.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
