"""Propagation rules (see `sbjax.symmetry._rules`) for slicing, concatenation, gather, scatter and the like."""

import itertools

from sbjax.symmetry._factors import CONSTANT, axis, concatenated, fix, size
from sbjax.symmetry._joining import can_be_cut, cut, join, regroup
from sbjax.symmetry._rules import Rule, join_all, order_matters, replace


def _slice(equation, operands):
    """Ranges of a concatenation are taken out again. Selecting one of several equal blocks, or every s-th entry, fixes
    one factor of the axis and keeps the other: this is how gates or heads computed by a single kernel are separated.
    Other slices fix the axis.
    """
    params = equation.params
    shape = equation.invars[0].aval.shape
    strides = params["strides"] or (1,) * len(shape)
    result = []
    for n, factors, start, limit, stride in zip(
        shape, operands[0], params["start_indices"], params["limit_indices"], strides
    ):
        kept = -(-(limit - start) // stride)
        if kept == n:
            result.append(factors)
        elif stride == 1 and all(can_be_cut(factors, place) for place in (start, limit)):
            result.append(_range(factors, start, limit))
        elif stride == 1 and n % kept == 0 and start % kept == 0:
            blocks, inside = regroup(factors, (n // kept, kept))
            fix(blocks, "slice")
            result.append(inside)
        elif kept * stride == n:
            kept_factors, phases = regroup(factors, (kept, stride))
            fix(phases, "slice")
            result.append(kept_factors)
        else:
            fix(factors, "slice")
            result.append(axis(kept, "slice"))
    return [tuple(result)]


def _range(factors, start, limit):
    """The entries start .. limit - 1 of an axis."""
    first, _ = cut(factors, limit)
    return cut(first, start)[1][0] if start else first


def _split(equation, operands):
    """Equal parts are permuted alike, unless they are ranges of a concatenation; unequal ones each for itself."""
    place, sizes = equation.params["axis"], equation.params["sizes"]
    factors = operands[0][place]
    ends = list(itertools.accumulate(sizes))
    if len(set(sizes)) == 1 and not all(can_be_cut(factors, end) for end in ends):
        blocks, inside = regroup(factors, (len(sizes), sizes[0]))
        fix(blocks, "split")
        return [replace(operands[0], place, inside)] * len(sizes)
    return [replace(operands[0], place, _range(factors, end - n, end)) for n, end in zip(sizes, ends)]


def _concatenate(equation, operands):
    place = equation.params["dimension"]
    joined = join_all(*(replace(operand, place, ()) for operand in operands))
    return [replace(joined, place, concatenated([operand[place] for operand in operands]))]


def _stack(equation, operands):
    joined, place = join_all(*operands), equation.params["axis"]
    return [(*joined[:place], axis(len(operands), "stack"), *joined[place:])]


def _pad(equation, operands):
    """Zeros beside an axis are ranges of their own."""
    result = list(operands[0])
    for place, (low, high, inside) in enumerate(equation.params["padding_config"]):
        if inside or min(low, high) < 0:
            fix(operands[0][place], "pad")
            result[place] = axis(equation.outvars[0].aval.shape[place], "pad")
        elif low or high:
            zeros = [[axis(n, CONSTANT)] if n else [] for n in (low, high)]
            result[place] = concatenated([*zeros[0], operands[0][place], *zeros[1]], "pad")
    return [tuple(result)]


def _dynamic_slice(equation, operands):
    shape, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
    cut = [place for place, (n, kept) in enumerate(zip(shape, sizes)) if kept != n]
    return [order_matters(operands[0], cut, "dynamic_slice", sizes)]


def _dynamic_update_slice(equation, operands):
    whole, part = (var.aval.shape for var in equation.invars[:2])
    result = []
    for n, m, old, new in zip(whole, part, *operands[:2]):
        if n == m:
            result.append(join(old, new))
            continue
        for factors in (old, new):
            fix(factors, "dynamic_update_slice")
        result.append(axis(n, "dynamic_update_slice"))
    return [tuple(result)]


def _gather(equation, operands):
    """result[batch, window] = operand[indices[batch]][window]; axes that are taken whole keep their factors."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, indices = operands
    fix(indices[-1], "gather")
    window = []
    for place, factors in enumerate(operand):
        if place in numbers.operand_batching_dims:
            partner = numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(place)]
            join(factors, indices[partner])
        elif place not in numbers.start_index_map and sizes[place] == size(factors):
            if place not in numbers.collapsed_slice_dims:
                window.append(factors)
        else:
            fix(factors, "gather")
            if place not in numbers.collapsed_slice_dims:
                window.append(axis(sizes[place], "gather"))
    window, batch = iter(window), iter(indices[:-1])
    rank = len(equation.outvars[0].aval.shape)
    return [tuple(next(window) if place in numbers.offset_dims else next(batch) for place in range(rank))]


def _scatter(equation, operands):
    """Updates [batch, window] are combined with operand[indices[batch]][window]."""
    name, numbers = equation.primitive.name, equation.params["dimension_numbers"]
    operand, indices, updates = operands
    fix(indices[-1], name)
    batch = [factors for place, factors in enumerate(updates) if place not in numbers.update_window_dims]
    batch = join_all(tuple(batch), tuple(indices[:-1]))
    if name == "scatter":  # with repeated indices the last update wins, so their order matters
        for factors in batch:
            fix(factors, name)
    window = iter([updates[place] for place in numbers.update_window_dims])
    result = []
    for place, factors in enumerate(operand):
        if place in numbers.operand_batching_dims:
            partner = numbers.scatter_indices_batching_dims[numbers.operand_batching_dims.index(place)]
            result.append(join(factors, batch[partner]))
            continue
        update = None if place in numbers.inserted_window_dims else next(window)
        whole = update is not None and size(update) == size(factors)
        if whole and place not in numbers.scatter_dims_to_operand_dims:
            result.append(join(factors, update))
            continue
        for part in (factors, update or ()):
            fix(part, name)
        result.append(axis(size(factors), name))
    return [tuple(result)]


def _unstack(equation, operands):
    place = equation.params["axis"]
    fix(operands[0][place], "unstack")
    return [(*operands[0][:place], *operands[0][place + 1 :])] * len(equation.outvars)


INDEXING_RULES: dict[str, Rule] = {
    **{f"scatter-{name}": _scatter for name in ("add", "sub", "mul", "min", "max")},
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "scatter": _scatter,
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
}
