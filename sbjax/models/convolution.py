"""Two-dimensional convolution as XLA:CPU runs it fast.

The same bilinear map as `jax.lax.conv_general_dilated` (NHWC, HWIO, one group), differentiable any number of times in
both modes, with three things done otherwise. XLA:CPU
- brings a convolution into the layout its fast kernels want only at the top level of a program: the gradients of a
  convolution inside `scan` or `fori_loop` fall to a naive loop nest. Here they are emitted in that layout;
- is slow where a kernel as large as the map is contracted over the whole batch, that is, at every kernel gradient.
  Here it is summed over parts of the batch that stay in cache;
- turns `vmap` over kernels into a grouped convolution, again the naive loop nest. Here it becomes one convolution
  for each entry of the mapped axis.

Measured on 2 x86-64 cores, see the table at `_GROUPS`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_GROUPS = 16
_MIN_CONTRACTION = 1024


def conv2d(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "kh kw in out"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "batch height_out width_out out"]:
    """out[b, i, j, o] = sum_{u, v, c} x[b, i s + u - p, j s + v - p, c] kernel[u, v, c, o]."""
    x, kernel = _same_axes(x, kernel)
    return _conv_p.bind(x, kernel, strides=strides, padding=padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1))


def _same_axes(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Inside shard_map: let both operands vary over the union of their mesh axes, as the lax functions do.

    Joining an empty part of the other operand does it without the names that JAX changes between versions.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x, kernel
    empty = [lax.slice_in_dim(a, 0, 0) for a in (x, kernel)]
    return (
        jnp.concatenate([x, empty[1].reshape(0, *x.shape[1:])]),
        jnp.concatenate([kernel, empty[0].reshape(0, *kernel.shape[1:])]),
    )


def _plain(x: Array, kernel: Array, *, strides, padding, lhs_dilation, rhs_dilation) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=_LAYOUT,
    )


def _grouped_sum(x: Array, kernel: Array, **params) -> Array:
    """The same, summed over parts of the contracted axis where the kernel is larger than the result."""
    height, width, contracted, _ = kernel.shape
    out = jax.eval_shape(partial(_plain, **params), x, kernel)
    groups = 1
    if height * width > out.shape[1] * out.shape[2]:
        while 2 * groups <= _GROUPS and contracted % (2 * groups) == 0 and height * width * contracted >= 2 * groups * _MIN_CONTRACTION:
            groups *= 2
    if groups == 1:
        return _plain(x, kernel, **params)
    # The parts interleave: a batch sharded over devices stays sharded in each part.
    parts = (
        x.reshape(*x.shape[:3], -1, groups).transpose(4, 0, 1, 2, 3),
        kernel.reshape(height, width, -1, groups, kernel.shape[3]).transpose(3, 0, 1, 2, 4),
    )
    return lax.map(lambda part: _plain(*part, **params), parts).sum(0)


def _sizes(x, kernel, strides, padding, lhs_dilation, rhs_dilation):
    """For each axis: the input, kernel and output sizes with their dilations (the output's is the stride)."""
    for a in (0, 1):
        n = (x[1 + a] - 1) * lhs_dilation[a] + 1
        m = (kernel[a] - 1) * rhs_dilation[a] + 1
        o = (n + sum(padding[a]) - m) // strides[a] * strides[a] + 1
        yield n, m, o, padding[a][0]


def _abstract(x, kernel, **params):
    out = tuple((o - 1) // s + 1 for (_, _, o, _), s in zip(_sizes(x.shape, kernel.shape, **params), params["strides"]))
    return x.update(shape=(x.shape[0], *out, kernel.shape[3]), weak_type=False)


def _input_gradient(ct, x, kernel, *, strides, lhs_dilation, rhs_dilation, padding):
    sizes = _sizes(x.aval.shape, kernel.shape, strides, padding, lhs_dilation, rhs_dilation)
    return _conv_p.bind(
        ct,
        kernel[::-1, ::-1].swapaxes(2, 3),
        strides=lhs_dilation,
        padding=tuple((m - 1 - low, n - o + low) for n, m, o, low in sizes),
        lhs_dilation=strides,
        rhs_dilation=rhs_dilation,
    )


def _kernel_gradient(ct, x, kernel, *, strides, lhs_dilation, rhs_dilation, padding):
    sizes = _sizes(x.shape, kernel.aval.shape, strides, padding, lhs_dilation, rhs_dilation)
    by_channel = _conv_p.bind(
        x.transpose(3, 1, 2, 0),
        ct.transpose(1, 2, 0, 3),
        strides=rhs_dilation,
        padding=tuple((low, m - 1 + o - n - low) for n, m, o, low in sizes),
        lhs_dilation=lhs_dilation,
        rhs_dilation=strides,
    )
    return by_channel.transpose(1, 2, 0, 3)


def _batch(args, axes, **params):
    x, kernel = args
    bx, bk = axes
    bind = partial(_conv_p.bind, **params)
    if bk is None:
        x = jnp.moveaxis(x, bx, 0)
        out = bind(x.reshape(-1, *x.shape[2:]), kernel)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    if bx is None:
        kernel = jnp.moveaxis(kernel, bk, 3)
        out = bind(x, kernel.reshape(*kernel.shape[:3], -1))
        return out.reshape(*out.shape[:3], *kernel.shape[3:]), 3
    x, kernel = jnp.moveaxis(x, bx, 0), jnp.moveaxis(kernel, bk, 0)
    return jnp.stack([bind(a, k) for a, k in zip(x, kernel)]), 0


_conv_p = Primitive("sbjax_conv2d")
_conv_p.def_impl(jax.jit(_grouped_sum, static_argnames=("strides", "padding", "lhs_dilation", "rhs_dilation")))
_conv_p.def_abstract_eval(_abstract)
ad.defbilinear(_conv_p, _input_gradient, _kernel_gradient)
batching.primitive_batchers[_conv_p] = _batch
mlir.register_lowering(_conv_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_conv_p, mlir.lower_fun(_grouped_sum, multiple_results=False), platform="cpu")
