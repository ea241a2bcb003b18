"""Propagation rules: axes of the results of a primitive from the axes of its operands.

A rule takes a jaxpr equation and the axes of its operands, joins or fixes factors as needed, and returns the axes of
the results. Invariant: if all operands are permuted according to their factors, the results are permuted according to
theirs. `unknown` satisfies it for any primitive by fixing everything.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sbjax.symmetry._factors import CONSTANT, Axes, axes, axis, fix, size
from sbjax.symmetry._joining import join, regroup

Rule = Callable[[Any, list[Axes]], list[Axes]]


def join_all(first: Axes, *others: Axes) -> Axes:
    """Join corresponding axes of arrays of equal shape."""
    return functools.reduce(lambda a, b: tuple(map(join, a, b)), others, first)


def unknown(equation: Any, operands: list[Axes]) -> list[Axes]:
    """Rule for any primitive: fix all axes of operands and results."""
    reason = f"could not be followed: {equation.primitive.name}"
    for operand in operands:
        for factors in operand:
            fix(factors, reason)
    return [axes(var.aval.shape, reason) for var in equation.outvars]


def _pass(equation, operands):
    return operands


def _print(equation, operands):
    # Debug output does not influence the results, so its operands need not be fixed.
    return [axes(var.aval.shape, equation.primitive.name) for var in equation.outvars]


def _elementwise(equation, operands):
    shape = equation.outvars[0].aval.shape
    stretched = [axes(shape, CONSTANT)]
    for var, operand in zip(equation.invars, operands):
        own = var.aval.shape or (1,) * len(shape)
        if len(own) != len(shape) or any(n not in (1, m) for n, m in zip(own, shape)):
            return unknown(equation, operands)
        operand = operand or ((),) * len(shape)
        stretched.append([a if n == m else axis(m, CONSTANT) for n, m, a in zip(own, shape, operand)])
    return [join_all(*stretched)] * len(equation.outvars)


def _broadcast(equation, operands):
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    result = list(axes(shape, CONSTANT))
    for n, factors, place in zip(equation.invars[0].aval.shape, operands[0], places):
        if n == shape[place]:
            result[place] = factors
    return [tuple(result)]


def _tile(equation, operands):
    return [tuple((*axis(n, CONSTANT), *factors) for n, factors in zip(equation.params["reps"], operands[0]))]


def _reshape(equation, operands):
    if equation.params.get("dimensions") is not None:
        return unknown(equation, operands)
    return [regroup([factor for factors in operands[0] for factor in factors], equation.params["new_sizes"])]


def _transpose(equation, operands):
    return [tuple(operands[0][place] for place in equation.params["permutation"])]


def _squeeze(equation, operands):
    dropped = {place % len(operands[0]) for place in equation.params["dimensions"]}
    return [tuple(factors for place, factors in enumerate(operands[0]) if place not in dropped)]


def _iota(equation, operands):
    result = list(axes(equation.params["shape"], CONSTANT))
    place = equation.params["dimension"]
    result[place] = axis(equation.params["shape"][place], "iota")
    return [tuple(result)]


def _reduce(equation, operands):
    return [tuple(factors for place, factors in enumerate(operands[0]) if place not in equation.params["axes"])]


def _arg_reduce(equation, operands):
    # The index of the extremum depends on the order.
    for place in equation.params["axes"]:
        fix(operands[0][place], equation.primitive.name)
    return _reduce(equation, operands)


def _cumulate(equation, operands):
    return [order_matters(operands[0], [equation.params["axis"]], equation.primitive.name)]


def _reverse(equation, operands):
    return [order_matters(operands[0], equation.params["dimensions"], "rev")]


def _sort(equation, operands):
    place = equation.params["dimension"]
    joined = join_all(*operands)
    if len(operands) > 1:
        fix(joined[place], "sort")
    # Sorting a single array is invariant under permutations of its entries; sorting along with others is not.
    result = replace(joined, place, axis(equation.outvars[0].aval.shape[place], "sort"))
    return [result] * len(operands)


def _fourier(equation, operands):
    rank = len(operands[0])
    places = range(rank - len(equation.params["fft_lengths"]), rank)
    return [order_matters(operands[0], places, "fft", equation.outvars[0].aval.shape)]


def _top_k(equation, operands):
    place = equation.params.get("axis", -1) % len(operands[0])
    fix(operands[0][place], "top_k")
    result = replace(operands[0], place, axis(equation.params["k"], "top_k"))
    return [result] * len(equation.outvars)


def _reduce_window(equation, operands):
    params, rank = equation.params, len(operands[0])
    dilated = [params.get(name) or (1,) * rank for name in ("base_dilation", "window_dilation")]
    settings = zip(params["window_dimensions"], params["window_strides"], *dilated, params["padding"])
    moved = [place for place, (*ones, pad) in enumerate(settings) if {*ones} != {1} or tuple(pad) != (0, 0)]
    return [order_matters(operands[0], moved, "pooling", equation.outvars[0].aval.shape)]


def _dot(equation, operands):
    lhs, rhs = operands
    (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = equation.params["dimension_numbers"]
    for i, j in zip(lhs_sum, rhs_sum):
        join(lhs[i], rhs[j])
    batch = [join(lhs[i], rhs[j]) for i, j in zip(lhs_batch, rhs_batch)]
    free = [factors for i, factors in enumerate(lhs) if i not in (*lhs_sum, *lhs_batch)]
    free += [factors for j, factors in enumerate(rhs) if j not in (*rhs_sum, *rhs_batch)]
    return [(*batch, *free)]


def _convolution(equation, operands):
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    if equation.params["batch_group_count"] != 1:
        return unknown(equation, operands)
    return _windows(equation, operands, numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec, groups)


def _conv2d(equation, operands):
    return _windows(equation, operands, (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2), 1)


def _depthwise(equation, operands):
    """Sets and channels of a map and of its kernel are the same; see `sbjax.models.depthwise`."""
    (sets, batch, *space, channels), (k_sets, *window, k_channels) = operands
    for factors in (*space, *window):
        fix(factors, "window of a convolution")
    rows, columns = (axis(n, "window of a convolution") for n in equation.outvars[0].aval.shape[2:4])
    return [(join(sets, k_sets), batch, rows, columns, join(channels, k_channels))]


def _windows(equation, operands, lhs_spec, rhs_spec, out_spec, groups):
    """y[b, (g, o), ..] = sum_{i, window} x[b, (g, i), ..] kernel[(g, o), i, window]; specs begin batch, feature."""
    (batch, x_features, *space), (k_out, k_in, *window) = (
        [operand[place] for place in spec] for operand, spec in zip(operands, (lhs_spec, rhs_spec))
    )
    x_group, x_in = regroup(x_features, (groups, size(x_features) // groups))
    k_group, k_out = regroup(k_out, (groups, size(k_out) // groups))
    join(x_in, k_in)
    for factors in (*space, *window):
        fix(factors, "window of a convolution")
    shape = equation.outvars[0].aval.shape
    result = [axis(n, "window of a convolution") for n in shape]
    result[out_spec[0]] = batch
    result[out_spec[1]] = (*join(x_group, k_group), *k_out)
    return [tuple(result)]


def replace(old: Axes, place: int | np.integer, new: Sequence) -> Axes:
    """Replace the axis at a position."""
    return (*old[:place], new, *old[place + 1 :])


def order_matters(operand: Axes, places: Sequence[int], reason: str, shape: Sequence[int] | None = None) -> Axes:
    """Axes of a result that depends on the order of entries along `places`: those are fixed, the others passed on."""
    result = list(operand)
    for place in places:
        fix(operand[place], reason)
        result[place] = axis(size(operand[place]) if shape is None else shape[place], reason)
    return tuple(result)


# fmt: off
ELEMENTWISE = [
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e",
    "bessel_i1e", "bitcast_convert_type", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type",
    "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge",
    "gt", "igamma", "igamma_grad_a", "igammac", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "polygamma",
    "population_count", "pow", "real", "reduce_precision", "regularized_incomplete_beta", "rem", "round", "rsqrt",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
]
# fmt: on
PASSED = ["device_put", "optimization_barrier", "pvary", "sharding_constraint"]

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(PASSED, _pass),
    **dict.fromkeys(["debug_callback", "debug_print"], _print),
    **{f"reduce_{name}": _reduce for name in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **dict.fromkeys(["argmax", "argmin"], _arg_reduce),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], _cumulate),
    **{f"reduce_window_{name}": _reduce_window for name in ("sum", "max", "min")},
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "fft": _fourier,
    "iota": _iota,
    "reshape": _reshape,
    "rev": _reverse,
    "sbjax_conv2d": _conv2d,
    "sbjax_depthwise": _depthwise,
    "sort": _sort,
    "squeeze": _squeeze,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
}
