"""Look-ahead: every few steps the parameters move to an average of themselves and a slow copy."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from sbjax.common.options import option
from sbjax.optimizers.base import Optimizer, chained, clip_norm_option, kernels, length_unit, weight_decay_option


@dataclasses.dataclass(frozen=True)
class LookAheadSgd(Optimizer):
    """Nesterov's descent as `Sgd`, faster for the biases of normalisations, with `look_ahead`.

    The optimiser of the public speed-run recipe for CIFAR-10, arXiv 2404.00498. `make` knows nothing of the length of
    the training, and so leaves look-ahead out; `over` adds it.

    >>> sgd = LookAheadSgd(momentum=0.0, weight_decay=0.0, norm_bias_scale=8.0).make(0.5)
    >>> params = {'norm_0': {'bias': jnp.ones(1)}, 'conv': {'kernel': jnp.ones((1, 1))}}
    >>> updates, _ = sgd.update(params, sgd.init(params), params)
    >>> updates['norm_0']['bias'].tolist(), updates['conv']['kernel'].tolist()
    ([-4.0], [[-0.5]])
    """

    name: ClassVar[str] = "look_ahead_sgd"
    first_bias_unit = staticmethod(length_unit)

    momentum: float = option(0.9, "share of the last step that is kept", least=0, below=1, off=0.0)
    weight_decay: float = weight_decay_option()
    clip_norm: float = clip_norm_option()
    norm_bias_scale: float = option(64.0, "multiplies the learning rate of biases of normalisations", above=0)
    look_ahead_steps: int = option(5, "steps between two averages with the slow copy", least=1)
    look_ahead_decay: float = option(0.95, "of the slow copy in a step at the end", least=0, below=1)

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        decay = [optax.add_decayed_weights(self.weight_decay, mask=kernels)] if self.weight_decay else []
        descent = optax.sgd(learning_rate, self.momentum or None, nesterov=bool(self.momentum))
        faster = optax.masked(optax.scale(self.norm_bias_scale), norm_biases)
        return chained(*decay, descent, faster, clip_norm=self.clip_norm)

    def over(
        self, optimizer: optax.GradientTransformationExtraArgs, train_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        given = {"every_steps": self.look_ahead_steps, "decay": self.look_ahead_decay}
        return look_ahead(optimizer, **given, train_steps=max(1, train_steps))


def norm_biases(params: PyTree) -> PyTree:
    """Mask of the arrays 'bias' of layers whose name begins with 'norm'.

    >>> norm_biases({'norm_0': {'bias': 0, 'scale': 0}, 'dense': {'bias': 0}})
    {'dense': {'bias': False}, 'norm_0': {'bias': True, 'scale': False}}
    """

    def chosen(path, _):
        names = [str(getattr(part, "key", part)) for part in path]
        return names[-1:] == ["bias"] and len(names) > 1 and names[-2].startswith("norm")

    return jax.tree_util.tree_map_with_path(chosen, params)


class LookAheadState(NamedTuple):
    """Of the inner optimiser, the slow copy, and how many steps were made."""

    inner: Any
    slow: PyTree
    count: Int[Array, ""]


def look_ahead(
    optimizer: optax.GradientTransformation, *, every_steps: int, decay: float, train_steps: int
) -> optax.GradientTransformationExtraArgs:
    """slow <- a slow + (1 - a) params every `every_steps` steps, and params <- slow; a rises from 0 to `decay`^every.

    At step t of T, a = decay^every (t / T)^3; after the last step params <- slow, so a training ends at an average.
    Zhang et al., arXiv 1907.08610, with the growing average of public speed-run recipes for CIFAR-10.

    Args:
        optimizer: what makes the steps in between.
        every_steps: at least 1.
        decay: in [0, 1).
        train_steps: T.

    Raises:
        ValueError: values out of their bounds; by `update`, without the parameters.

    >>> sgd = look_ahead(optax.sgd(1.0), every_steps=2, decay=0.5, train_steps=4)
    >>> w = jnp.ones(1)
    >>> state = sgd.init(w)
    >>> for _ in range(4):
    ...     updates, state = sgd.update(jnp.ones(1), state, w)
    ...     w = w + updates
    >>> w.tolist()              # 1/32 1 + 31/32 (-1) = -0.9375 after two steps, then 1/4 (-0.9375) + 3/4 (-2.9375)
    [-2.4375]
    """
    if every_steps < 1 or train_steps < 1 or not 0 <= decay < 1:
        raise ValueError(
            f"every_steps={every_steps} and train_steps={train_steps} must be >= 1, and decay={decay} in [0, 1)"
        )
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return LookAheadState(optimizer.init(params), jax.tree.map(jnp.asarray, params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("look_ahead averages parameters: give them to update")
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        count = state.count + 1
        last = count >= train_steps
        whole = count % every_steps == 0
        kept = jnp.where(whole, decay**every_steps * (count / train_steps) ** 3, 1.0)
        due = whole | last

        def average(slow, param, step):
            mean = kept.astype(slow.dtype) * slow + (1 - kept).astype(slow.dtype) * (param + step)
            return jnp.where(due, mean, slow)

        slow = jax.tree.map(average, state.slow, params, updates)
        updates = jax.tree.map(lambda s, p, u: jnp.where(due, s - p, u), slow, params, updates)
        return updates, LookAheadState(inner, slow, count)

    return optax.GradientTransformationExtraArgs(init, update)
