"""Optimising in other units: w = s * beta, one factor an array."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


class RescaledState(NamedTuple):
    """Factors and the inner state.

    Attributes:
        scale: tree of scalars s, of the dtypes of params.
        inner: state of the optimiser of beta.
    """

    scale: PyTree
    inner: PyTree


def rescaled(
    optimizer: optax.GradientTransformation, scale: PyTree | Callable[[PyTree], PyTree]
) -> optax.GradientTransformationExtraArgs:
    """Run `optimizer` on beta = w / s instead of on w.

        params, gradient, updates of beta:  w / s,  s * dL/dw,  and the update of w is s * that of beta.

    `value_fn(w)` and `residual_fn(w)` become functions of beta, `grad` is scaled as the gradient is, and other extra
    arguments are passed on. A step of SGD on an array is thereby multiplied by s^2, one of Adam by s; Gauss-Newton
    steps without damping do not change.

    Args:
        optimizer: any optax transformation.
        scale: tree of positive scalars with the structure of params, or a function params -> such a tree, called once
            by `init`. The factors are part of the state.

    Raises:
        ValueError: by `init`: another structure; a factor that is no scalar, not finite or not positive (values are
            tested outside `jit` and `vmap` only).

    >>> optimizer = rescaled(optax.sgd(0.1), {'a': 1.0, 'b': 3.0})
    >>> w = {'a': jnp.ones(1), 'b': jnp.ones(1)}
    >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
    >>> {name: round(float(u[0]), 6) for name, u in updates.items()}
    {'a': -0.1, 'b': -0.9}

    Source: Yang and Hu, arXiv 2011.14522, where such factors and learning rates make up a parametrisation.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> RescaledState:
        factors = _checked(scale(params) if callable(scale) else scale, params)
        return RescaledState(factors, optimizer.init(_divide(params, factors)))

    def update(updates, state, params=None, **extra):
        s = state.scale
        if "grad" in extra:
            extra["grad"] = _multiply(extra["grad"], s)
        for name in {"value_fn", "residual_fn"} & extra.keys():
            if extra[name] is not None:  # a task without residuals
                extra[name] = _of_beta(extra[name], s)
        beta = None if params is None else _divide(params, s)
        updates, inner = optimizer.update(_multiply(updates, s), state.inner, beta, **extra)
        return _multiply(updates, s), RescaledState(s, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _multiply(tree, scale):
    return jax.tree.map(jnp.multiply, tree, scale)


def _divide(tree, scale):
    return jax.tree.map(jnp.divide, tree, scale)


def _of_beta(function, scale):
    return lambda beta, *args, **kwargs: function(_multiply(beta, scale), *args, **kwargs)


def _checked(scale: PyTree, params: PyTree) -> PyTree:
    have, want = jax.tree.structure(scale), jax.tree.structure(params)
    if have != want:
        raise ValueError(f"scale of `rescaled` has the structure {have}, but the parameters have {want}")

    def check(path, leaf, s):
        name = jax.tree_util.keystr(path) or "the array"
        if jnp.shape(s):
            raise ValueError(f"scale of {name} has shape {jnp.shape(s)}; give one positive number an array")
        if not isinstance(s, jax.core.Tracer) and not 0 < float(s) < float("inf"):
            raise ValueError(f"scale of {name} is {float(s)}; it must be positive and finite")
        # A buffer of its own: the training step gives its buffers up.
        return jnp.array(s, leaf.dtype)

    return jax.tree_util.tree_map_with_path(check, params, scale)
