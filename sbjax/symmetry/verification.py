"""Whether a permutation spec is one: the function must not change under it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Spec, check_spec, permute

# By the bits of the narrowest float in the function. A wrong spec changes outputs by about their own size.
_TOLERANCE = {64: 1e-9, 32: 1e-4, 16: 0.1}


def verify(
    spec: Spec, apply_fn: Callable, variables: PyTree, *inputs: PyTree, key: Key[Array, ""], trials: int = 3
) -> float:
    """The largest change of the outputs under random permutations; an error where it is more than round-off.

    The change is max |f(permuted) - f| / max |f|, of each output array, at random parameters and inputs in float64. Not
    at the given ones: biases that are zero, scales that are one and inputs without contrast would hide errors. Signs
    and scales of the given arrays are kept, so that variances stay positive. Integers stay as they are, but for those
    that move, whose entries are shuffled.

    The tolerance is 1e-9, or 1e-4 or 0.1 for functions that compute in 32 or 16 bits whatever they are given.

    Args:
        spec: any.
        apply_fn: pure function of (variables, *inputs), deterministic.
        variables: the tree that the spec was made for: arrays or `jax.ShapeDtypeStruct`s.
        inputs: examples, likewise.
        key: of the random values and permutations.
        trials: numbers of random permutations.

    Raises:
        ValueError: a permutation changes the function (it is named); the spec does not fit the variables; the outputs
            are not finite, or not finite numbers of trials.

    >>> from sbjax.symmetry.spec import spec_from_axes
    >>> params = {'a': jnp.zeros((3, 4)), 'bias': jnp.zeros(4), 'b': jnp.zeros((4, 2))}
    >>> apply = lambda params, x: jnp.tanh(x @ params['a'] + params['bias']) @ params['b']
    >>> spec = spec_from_axes({'a': (None, 'p'), 'bias': ('p',), 'b': ('p', None)}, params)
    >>> verify(spec, apply, params, jnp.ones(3), key=jax.random.key(0)) < 1e-14
    True
    """
    if trials < 1:
        raise ValueError(f"trials={trials} must be >= 1")
    check_spec(spec, variables)
    if not spec.sizes:
        return 0.0
    seed = np.asarray(jax.random.key_data(key)).tolist()
    with jax.enable_x64(True):
        try:
            return _verify(spec, apply_fn, variables, inputs, seed, trials, np.float64)
        except TypeError:  # a function that holds arrays of its own dtype in a loop, say
            pass
    return _verify(spec, apply_fn, variables, inputs, seed, trials, None)


def _verify(spec, apply_fn, variables, inputs, seed, trials, dtype) -> float:
    generator = np.random.default_rng(seed)
    moved = {move.leaf for moves in spec.moves.values() for move in moves}
    for spread in (1.0, 0.1):
        draw = lambda name, value, spread=spread: _draw(generator, name, value, spread, name in moved, dtype)  # noqa: E731
        drawn = _map(draw, variables)
        examples = tuple(_map(lambda _, value, draw=draw: draw("", value), x) for x in inputs)
        traced = jax.jit(lambda variables, examples: apply_fn(variables, *examples)).trace(drawn, examples)
        compiled = traced.lower().compile()
        evaluate = lambda tree: _numbers(compiled(tree, examples))  # noqa: E731, B023
        reference = evaluate(drawn)
        if all(np.isfinite(output).all() for output in reference):
            break
    else:
        raise ValueError(
            "the outputs of apply_fn are not finite at random variables of the signs and scales of those given, so "
            "that the spec cannot be verified; give variables and inputs around which they are finite"
        )
    tolerance = _TOLERANCE[_narrowest_bits(traced.jaxpr.jaxpr)]

    def change(names) -> float:
        orders = {name: _shuffled(generator, spec.sizes[name]) for name in names}
        return _distance(reference, evaluate(permute(spec, drawn, orders)))

    worst = max(change(spec.sizes) for _ in range(trials))
    if worst <= tolerance:
        return worst
    alone = {name: max(change([name]) for _ in range(trials)) for name in spec.sizes}
    broken = {name: size for name, size in alone.items() if not size <= tolerance}
    where = "; ".join(
        f"permutation {name!r} changes the function by {size:.1e} of its outputs (moves: "
        + ", ".join(f"{move.leaf}[{move.axis}]" for move in spec.moves[name])
        + ")"
        for name, size in broken.items()
    )
    raise ValueError(
        f"{where or 'together the permutations change the function'}; the largest change is {worst:.1e}, the tolerance "
        f"{tolerance:.0e}: compare the moves with the layers that read and write the units"
    )


def _shuffled(generator, n: int) -> np.ndarray:
    """A random permutation other than the identity, which would show nothing."""
    order = generator.permutation(n)
    while n > 1 and (order == np.arange(n)).all():
        order = generator.permutation(n)
    return order


def _map(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    named = trees.flatten(tree)
    return jax.tree.unflatten(jax.tree.structure(tree), [function(name, value) for name, value in named.items()])


def _draw(generator, name: str, value: Any, spread: float, moved: bool, dtype: Any) -> Any:
    """Random values of the sign and the size of those given; of a plausible size where only a shape is."""
    abstract = isinstance(value, jax.ShapeDtypeStruct)
    shape = jnp.shape(value)
    given = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if jnp.issubdtype(given, jax.dtypes.extended):
        return jax.random.key(0, impl=jax.random.key_impl(value)) if abstract else value
    if not jnp.issubdtype(given, jnp.inexact):
        value = np.zeros(shape, given) if abstract else np.asarray(value)
        return generator.permutation(value.ravel()).reshape(shape) if moved else value
    wide = np.complex128 if jnp.issubdtype(given, jnp.complexfloating) else np.float64
    old = np.zeros(shape) if abstract else np.asarray(value).astype(wide)
    if abstract and name.rpartition("/")[2] == "var":  # the running variances of Flax
        old = np.ones(shape)
    scale = np.sqrt(np.mean(np.abs(old) ** 2)) if old.size else 0.0
    if spread < 1:
        new = old + spread * (scale or 1.0) * generator.uniform(-1, 1, shape) * (np.abs(old) if scale else 1.0)
    elif scale and wide is np.float64 and (old.min() >= 0 or old.max() <= 0):
        new = np.mean(old) * generator.uniform(0.5, 1.5, shape)
    else:
        new = (scale or 1 / np.sqrt(np.prod(shape[:-1]) if abstract else 2)) * generator.standard_normal(shape)
    narrow = given if dtype is None else wide
    return np.asarray(new).astype(narrow)


def _numbers(outputs: PyTree) -> list[np.ndarray]:
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return [np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64) for leaf in leaves]


def _distance(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """The largest difference of two lists of arrays, each in units of its largest entry; NaN counts as infinite."""
    largest = 0.0
    for a, b in zip(before, after):
        if a.size:
            difference = np.abs(a - b).max() / (np.abs(a).max() or 1.0)
            largest = max(largest, float("inf") if np.isnan(difference) else float(difference))
    return largest


def _narrowest_bits(jaxpr) -> int:
    """Bits of the narrowest float in a jaxpr, 16 for anything below that."""
    bits = 64
    for equation in jaxpr.eqns:
        for var in equation.outvars:
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.inexact):
                bits = min(bits, max(16, jnp.finfo(dtype).bits))
        for inner in jaxprs_in_params(equation.params):
            bits = min(bits, _narrowest_bits(inner))
    return bits
