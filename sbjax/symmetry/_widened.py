"""Evaluate a jaxpr with all floats widened to float64.

Networks cast to their own dtype, so float64 inputs alone do not reduce round-off.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array

from sbjax.symmetry._tracing import FOLLOWED, called, scan_ends

# Primitives that can be widened: their results have the dtype of the operands or one given by a parameter in `_DTYPES`.
_LINEAR_ALGEBRA = {"cholesky", "eigh", "fft", "householder_product", "lu", "qr", "svd", "triangular_solve"}
_WIDE = (FOLLOWED | _LINEAR_ALGEBRA) - {"bitcast_convert_type"}
_DTYPES = ("dtype", "new_dtype", "out_dtype", "preferred_element_type")


def evaluate(closed: ClosedJaxpr, arguments: Sequence[Array]) -> list[Array]:
    """Results of a jaxpr with all floats widened to float64; requires `jax.enable_x64`."""
    jaxpr = closed.jaxpr
    known = {var: _widen(value) for var, value in zip(jaxpr.constvars, closed.consts)}
    known |= {var: _widen(value) for var, value in zip(jaxpr.invars, arguments)}

    def read(var):
        return _widen(np.asarray(var.val, var.aval.dtype)) if isinstance(var, Literal) else known[var]

    for equation in jaxpr.eqns:
        known.update(zip(equation.outvars, _results(equation, [read(var) for var in equation.invars])))
    return [read(var) for var in jaxpr.outvars]


def narrowest_bits(jaxpr: Jaxpr) -> int:
    """Bits of the narrowest float that `evaluate` cannot widen: 64, 32 or 16 (16 also for narrower ones).

    >>> narrowest_bits(jax.make_jaxpr(lambda x: x.astype('bfloat16') + 1)(jnp.ones(2, 'float32')).jaxpr)
    64
    """
    bits = 64
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = called(equation)
        if inner is not None or name in _LOOPS:
            inside = [inner] if inner is not None else _LOOPS[name][1](equation.params)
            bits = min([bits, *(narrowest_bits(closed.jaxpr) for closed in inside)])
        elif name not in _WIDE:
            dtypes = [getattr(var.aval, "dtype", jnp.int32) for var in (*equation.invars, *equation.outvars)]
            bits = min([bits, *(max(16, jnp.finfo(dtype).bits) for dtype in dtypes if _is_float(dtype))])
    return bits


def _results(equation: Any, operands: list[Array]) -> Sequence[Array]:
    name, params = equation.primitive.name, equation.params
    if (inner := called(equation)) is not None:
        return evaluate(inner, operands)
    if name in _LOOPS:
        return _LOOPS[name][0](params, operands)
    if name == "reduce_precision":
        return operands
    if name in _WIDE:
        params = params | {key: _wide(params[key]) for key in _DTYPES if params.get(key) is not None}
        if name == "dot_general" and isinstance(params["precision"], lax.DotAlgorithm | lax.DotAlgorithmPreset):
            params["precision"] = None
        if params.get("update_jaxpr") is not None:  # scatter: function that combines two scalars
            params["update_jaxpr"] = _widen_update(params, operands[0].dtype)
    else:
        dtypes = [getattr(var.aval, "dtype", None) for var in equation.invars]
        operands = [x.astype(dtype) if dtype and _is_float(dtype) else x for x, dtype in zip(operands, dtypes)]
    bound = equation.primitive.get_bind_params(params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # depends on the version of jax
    results = equation.primitive.bind(*functions, *operands, **params)
    return [_widen(result) for result in (results if equation.primitive.multiple_results else [results])]


def _widen_update(params: dict, dtype: Any) -> Jaxpr | ClosedJaxpr:
    update = params["update_jaxpr"]
    closed = ClosedJaxpr(update, params["update_consts"]) if isinstance(update, Jaxpr) else update
    scalar = jax.ShapeDtypeStruct((), dtype)
    wide = jax.make_jaxpr(lambda a, b: evaluate(closed, [a, b])[0])(scalar, scalar)
    return wide.jaxpr if isinstance(update, Jaxpr) else wide


def _scan(params, operands):
    first, last = scan_ends(params)

    def body(carry, rows):
        results = evaluate(params["jaxpr"], [*operands[:first], *carry, *rows])
        return results[: len(carry)], results[len(carry) :]

    carry, rows = lax.scan(
        body, operands[first:last], operands[last:], length=params["length"], reverse=params["reverse"]
    )
    return [*carry, *rows]


def _while(params, operands):
    tested, total = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    return lax.while_loop(
        lambda carry: evaluate(params["cond_jaxpr"], [*operands[:tested], *carry])[0],
        lambda carry: evaluate(params["body_jaxpr"], [*operands[tested:total], *carry]),
        operands[total:],
    )


def _cond(params, operands):
    branches = [lambda *rest, branch=branch: evaluate(branch, rest) for branch in params["branches"]]
    return lax.switch(operands[0], branches, *operands[1:])


_LOOPS = {
    "cond": (_cond, lambda params: params["branches"]),
    "scan": (_scan, lambda params: [params["jaxpr"]]),
    "while": (_while, lambda params: [params["cond_jaxpr"], params["body_jaxpr"]]),
}


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def _wide(dtype: Any) -> Any:
    if not _is_float(dtype):
        return dtype
    return np.dtype("complex128" if jnp.issubdtype(dtype, jnp.complexfloating) else "float64")


def _widen(value: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    return value.astype(_wide(dtype)) if dtype is not None and _is_float(dtype) else value
