"""Numerical verification of permutation specs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.common import devices
from sbjax.symmetry import _widened as widened
from sbjax.symmetry._modules import split
from sbjax.symmetry.permutation import Spec, check_spec, permute

# Relative tolerance by bits of the narrowest float in the computation. A wrong spec causes changes of order 1.
_TOLERANCE = {64: 1e-9, 32: 1e-4, 16: 0.1}


def verify(
    spec: Spec, apply_fn: Callable, variables: PyTree, *inputs: PyTree, key: Key[Array, ""], trials: int = 3
) -> float:
    """Check that random permutations leave a function unchanged; returns the largest relative change of its outputs.

    The change is max |f(permuted) - f| / max |f| of each output array, at random parameters and inputs in float64. The
    given values are not used, since zero biases, unit scales and constant inputs would hide errors; only their signs
    and scales are kept, so that variances stay positive. Integer arrays are kept, or shuffled if a permutation moves
    them.

    Casts to float32 or bfloat16 inside the network are widened to float64, and the tolerance is 1e-9. If an operation
    cannot be widened (`bitcast_convert_type`, `pure_callback`), it is 1e-4 or 0.1, depending on its dtype.

    Args:
        spec: the spec to verify.
        apply_fn: pure, deterministic function of (variables, *inputs).
        variables: the tree or module the spec was made for: arrays or `jax.ShapeDtypeStruct`s.
        inputs: example inputs, arrays or `jax.ShapeDtypeStruct`s.
        key: for random values and permutations.
        trials: number of random permutations.

    Raises:
        ValueError: a permutation changes the function (the message names it); the spec does not fit the variables;
            outputs are not finite; trials < 1.

    >>> from sbjax.symmetry.spec import spec_from_axes
    >>> params = {'a': jnp.zeros((3, 4)), 'bias': jnp.zeros(4), 'b': jnp.zeros((4, 2))}
    >>> apply = lambda params, x: jnp.tanh(x @ params['a'] + params['bias']) @ params['b']
    >>> spec = spec_from_axes({'a': (None, 'p'), 'bias': ('p',), 'b': ('p', None)}, params)
    >>> verify(spec, apply, params, jnp.ones(3), key=jax.random.key(0)) < 1e-14
    True
    """
    if trials < 1:
        raise ValueError(f"trials={trials} must be >= 1")
    apply_fn, variables = split(apply_fn, variables)
    check_spec(spec, variables)
    if not spec.sizes:
        return 0.0
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    closed = jax.make_jaxpr(apply_fn)(variables, *inputs)
    with devices.double():
        return _verify(spec, closed, variables, inputs, generator, trials)


def _verify(spec, closed, variables, inputs, generator, trials) -> float:
    moved = {move.leaf for moves in spec.moves.values() for move in moves}
    leaves, structure = jax.tree.flatten(variables)
    names = [*trees.flatten(variables), *[""] * len(jax.tree.leaves(inputs))]
    given = list(zip(names, [*leaves, *jax.tree.leaves(inputs)], closed.in_avals))
    compiled = jax.jit(functools.partial(widened.evaluate, closed))
    evaluate = lambda tree: _numbers(compiled([*jax.tree.leaves(tree), *examples]))  # noqa: E731
    for spread in (1.0, 0.1):
        values = [_draw(generator, *entry, spread=spread, shuffled=entry[0] in moved) for entry in given]
        drawn, examples = jax.tree.unflatten(structure, values[: len(leaves)]), values[len(leaves) :]
        reference = evaluate(drawn)
        if all(np.isfinite(output).all() for output in reference):
            break
    else:
        raise ValueError(
            "the outputs of apply_fn are not finite at random variables with the signs and scales of the given ones, "
            "so the spec cannot be verified; give variables and inputs around which outputs are finite"
        )
    tolerance = _TOLERANCE[widened.narrowest_bits(closed.jaxpr)]

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
    """A random permutation other than the identity."""
    order = generator.permutation(n)
    while n > 1 and (order == np.arange(n)).all():
        order = generator.permutation(n)
    return order


def _draw(generator, name: str, value: Any, aval: Any, *, spread: float, shuffled: bool) -> Any:
    """Random values with sign and scale of the given array; with a plausible scale if only a shape is given."""
    abstract, shape, dtype = isinstance(value, jax.ShapeDtypeStruct), aval.shape, aval.dtype
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return jax.random.key(0) if abstract else value
    if not jnp.issubdtype(dtype, jnp.inexact):
        value = np.zeros(shape, dtype) if abstract else np.asarray(value).astype(dtype)
        return generator.permutation(value.ravel()).reshape(shape) if shuffled else value
    wide = np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
    old = np.zeros(shape) if abstract else np.asarray(value).astype(wide)
    if abstract and name.rpartition("/")[2] == "var":  # the running variances of Flax
        old = np.ones(shape)
    scale = np.sqrt(np.mean(np.abs(old) ** 2)) if old.size else 0.0
    if spread < 1:
        return old + spread * generator.uniform(-1, 1, shape) * (np.abs(old) if scale else 1.0)
    if scale and wide is np.float64 and (old.min() >= 0 or old.max() <= 0):
        return np.mean(old) * generator.uniform(0.5, 1.5, shape)
    size = scale or 1 / np.sqrt(max(1, np.prod(shape[:-1])) if abstract else 2)
    return (size * generator.standard_normal(shape)).astype(wide)


def _numbers(outputs: PyTree) -> list[np.ndarray]:
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return [np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64) for leaf in leaves]


def _distance(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """Largest difference between two lists of arrays, each relative to its largest entry; NaN counts as infinite."""
    largest = 0.0
    for a, b in zip(before, after):
        if a.size:
            difference = np.abs(a - b).max() / (np.abs(a).max() or 1.0)
            largest = max(largest, float("inf") if np.isnan(difference) else float(difference))
    return largest
