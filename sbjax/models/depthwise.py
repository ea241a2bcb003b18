"""Depthwise convolution that is fast on XLA:CPU: sums of shifted products instead of a convolution with many groups.

XLA:CPU computes a convolution with as many groups as channels as a loop nest. Here the forward pass and the gradient of
the input are k x k shifted copies of the map, each times one row of the kernel, which XLA fuses into one vectorised
loop. The gradient of the kernel is k x k sums over images and positions; one reduction a tap reads both maps k x k
times and reduces columns, so here products of one image after another are added up in arrays of the size of a map, for
all taps in one loop body, and those are summed over positions at the end.

Processor milliseconds (jax 0.10.1, float32, batch 16, x86-64), of `lax` with `feature_group_count` and here:

    map, channels, kernel, stride    forward      both gradients
    32, 96, 3, 1                     29    0.8      54    2.7
    16, 144, 5, 1                    16    0.6      38    2.0
    8, 240, 5, 1                      7    0.3      21    0.9
    32, 96, 3, 2                      7    0.4      91    1.9
    2, 576, 5, 1                      5    0.1      32    0.3

Beyond the cache it is bound by memory: 32, 96, 3, 1 with batch 128 takes 44 and 87.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from sbjax import trees

# Bytes of what is added up in a loop over images, which should stay in the cache of a core.
_CACHE = 2**20


def depthwise(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "kh kw channels"], *, strides, padding
) -> Float[Array, "batch height_out width_out channels"]:
    """y[b, i, j, c] = sum_{u, v} x[b, s_0 i + u - p_0, s_1 j + v - p_1, c] kernel[u, v, c]; see `conv2d`."""
    return _depthwise_p.bind(x[None], kernel[None], strides=strides, padding=padding, dilation=(1, 1))[0]


# Both primitives have an axis of sets in front, each with a kernel of its own, which is what `vmap` adds to.
# Maps are [set, batch, height, width, channels], kernels [set, kh, kw, channels].


def _dilated(x: Array, padding, dilation) -> Array:
    """Zeros between rows and columns, and around the map."""
    config = [(low, high, d - 1) for (low, high), d in zip(padding, dilation)]
    if all(entry == (0, 0, 0) for entry in config):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *config, (0, 0, 0)))


def _shifts(x: Array, window, strides, size):
    """Parts of a padded map that one tap after the other sees."""
    for u in range(window[0]):
        for v in range(window[1]):
            ends = [start + (n - 1) * s + 1 for start, n, s in zip((u, v), size, strides)]
            yield x[:, :, u : ends[0] : strides[0], v : ends[1] : strides[1]]


def _forward(x: Array, kernel: Array, *, strides, padding, dilation) -> Array:
    size, window = _out_size(x.shape, kernel.shape[1:3], strides, padding, dilation), kernel.shape[1:3]
    taps = kernel.reshape(kernel.shape[0], -1, 1, 1, 1, kernel.shape[3])
    shifts = _shifts(_dilated(x, padding, dilation), window, strides, size)
    # In float32 from bfloat16: XLA:CPU would round every partial sum.
    wide = trees.wide_dtype(x.dtype)
    return sum(part.astype(wide) * taps[:, i].astype(wide) for i, part in enumerate(shifts)).astype(x.dtype)


def _kernel_sums(x: Array, ct: Array, *, window, strides, padding, dilation) -> Array:
    """dk[u, v, c] = sum_{b, i, j} x[b, s_0 i + u - p_0, s_1 j + v - p_1, c] ct[b, i, j, c], for each set."""
    sets, images, rows, columns, channels = ct.shape
    wide = trees.wide_dtype(x.dtype)
    x = _dilated(x, padding, dilation)
    # A batch that is sharded over devices stays so: the loop runs over the images of each part.
    parts = math.gcd(images, jax.device_count())
    x, ct = (a.reshape(sets, parts, images // parts, *a.shape[2:]) for a in (x, ct))
    # A few rows at a time, so that what is added up stays in cache.
    taps = window[0] * window[1]
    most = max(1, _CACHE // (taps * sets * parts * columns * channels * wide.itemsize))
    block = max(n for n in range(1, min(rows, most) + 1) if rows % n == 0)
    tall = (block - 1) * strides[0] + window[0]

    def add(i, sums):
        image, row = i // (rows // block), i % (rows // block) * block
        given = lax.dynamic_slice(x, (0, 0, image, row * strides[0], 0, 0), (sets, parts, 1, tall, *x.shape[4:]))
        back = lax.dynamic_slice(ct, (0, 0, image, row, 0, 0), (sets, parts, 1, block, columns, channels))
        shifts = _shifts(given[:, :, 0], window, strides, (block, columns))
        back = back[:, :, 0].astype(wide)
        return [total + part.astype(wide) * back for total, part in zip(sums, shifts, strict=True)]

    nothing = x[:0].sum() + ct[:0].sum()  # zero, which varies over the axes that those do inside shard_map
    start = [jnp.zeros((sets, parts, block, columns, channels), wide) + nothing.astype(wide)] * taps
    sums = lax.fori_loop(0, images // parts * (rows // block), add, start)
    return jnp.stack([s.sum((1, 2, 3)) for s in sums], 1).reshape(sets, *window, channels).astype(x.dtype)


def _grouped(x: Array, kernel: Array, *, strides, padding, dilation) -> Array:
    """`_forward` as one convolution, for other devices."""
    sets, images, *_, channels = x.shape
    y = lax.conv_general_dilated(
        jnp.moveaxis(x, 0, 3).reshape(images, *x.shape[2:4], -1),
        jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], 1, -1),
        strides,
        padding,
        lhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=sets * channels,
    )
    return jnp.moveaxis(y.reshape(*y.shape[:3], sets, channels), 3, 0)


def _out_size(shape, window, strides, padding, dilation):
    sizes = zip(shape[2:4], window, strides, padding, dilation)
    return tuple(((n - 1) * d + 1 + low + high - m) // s + 1 for n, m, s, (low, high), d in sizes)


def _abstract(x, kernel, *, strides, padding, dilation):
    size = _out_size(x.shape, kernel.shape[1:3], strides, padding, dilation)
    return x.update(shape=(*x.shape[:2], *size, x.shape[4]), weak_type=False)


def _abstract_sums(x, ct, *, window, **params):
    return x.update(shape=(x.shape[0], *window, x.shape[4]), weak_type=False)


def _transposed(ct, kernel, size, *, strides, padding, dilation):
    """Gradient of a map of the given size: again a depthwise convolution, with strides and zeros exchanged."""
    ends = []
    for n, m, s, (low, high), d in zip(size, kernel.shape[1:3], strides, padding, dilation):
        n = (n - 1) * d + 1
        out = (n + low + high - m) // s * s + 1
        ends.append((m - 1 - low, n - out + low))
    return _depthwise_p.bind(ct, kernel[:, ::-1, ::-1], strides=dilation, padding=tuple(ends), dilation=strides)


def _map_gradient(ct, x, kernel, **params):
    return _transposed(ct, kernel, x.aval.shape[2:4], **params)


def _kernel_gradient(ct, x, kernel, **params):
    return _sums_p.bind(x, ct, window=kernel.aval.shape[1:3], **params)


def _sums_map_gradient(ct, x, back, *, window, **params):
    return _transposed(back, ct, x.aval.shape[2:4], **params)


def _sums_back_gradient(ct, x, back, *, window, **params):
    return _depthwise_p.bind(x, ct, **params)


def _batch_with(primitive, maps):
    """Sets are merged; where one operand is not batched, it is repeated, or the batch of images is what grows."""

    def batch(operands, axes, **params):
        size = next(a.shape[axis] for a, axis in zip(operands, axes) if axis is not None)
        if maps == 1 and axes[1] is None and operands[1].shape[0] == 1:
            x = jnp.moveaxis(operands[0], axes[0], 1)
            y = primitive.bind(x.reshape(1, -1, *x.shape[3:]), operands[1], **params)
            return y.reshape(1, size, -1, *y.shape[2:]), 1
        full = [
            jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
            for a, axis in zip(operands, axes)
        ]
        y = primitive.bind(*(a.reshape(-1, *a.shape[2:]) for a in full), **params)
        return y.reshape(size, -1, *y.shape[1:]), 0

    return batch


_depthwise_p, _sums_p = Primitive("sbjax_depthwise"), Primitive("sbjax_depthwise_sums")
_STATIC = ("strides", "padding", "dilation")
_depthwise_p.def_impl(jax.jit(_forward, static_argnames=_STATIC))
_sums_p.def_impl(jax.jit(_kernel_sums, static_argnames=("window", *_STATIC)))
_depthwise_p.def_abstract_eval(_abstract)
_sums_p.def_abstract_eval(_abstract_sums)
ad.defbilinear(_depthwise_p, _map_gradient, _kernel_gradient)
ad.defbilinear(_sums_p, _sums_map_gradient, _sums_back_gradient)
batching.primitive_batchers[_depthwise_p] = _batch_with(_depthwise_p, 1)
batching.primitive_batchers[_sums_p] = _batch_with(_sums_p, 2)
mlir.register_lowering(_depthwise_p, mlir.lower_fun(_grouped, multiple_results=False))
mlir.register_lowering(_depthwise_p, mlir.lower_fun(_forward, multiple_results=False), platform="cpu")
mlir.register_lowering(_sums_p, mlir.lower_fun(_kernel_sums, multiple_results=False))
