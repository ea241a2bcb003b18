"""Two-dimensional convolution that is fast on XLA:CPU.

Same bilinear map as `jax.lax.conv_general_dilated`, differentiable to any order in both modes. It avoids five slow
paths of XLA:CPU:

- XLA converts convolutions to the layout of its fast kernels only at the top level of a program; gradients inside
  `scan`, `fori_loop` or `lax.map` run as a naive loop nest. Here they are emitted in that layout.
- A kernel gradient contracts over the whole batch with a window as large as the map. Here it is summed over parts of
  the batch that fit in cache.
- `vmap` over kernels gives a grouped convolution, which is a naive loop nest again. Here convolutions run one by one.
- If a map is smaller than the kernel, XLA swaps the two and runs the reversed window as a loop nest. Here the map is
  padded explicitly first, and taps that never meet the map are left out: 5x5 on a map of 2x2 is 3x3, 3x3 on a single
  cell a matrix product.
- Convolutions with groups are loop nests as well. Here groups run one by one, and those of single channels by
  `sbjax.models.depthwise`.

Milliseconds on 2 x86-64 cores (jax 0.10.1, float32, batch 128, SGD with momentum); PyTorch 2.13 (NCHW) trains
replicas one after another:

                                                  lax    here   PyTorch
    ResNet-20, 32x32x3, one step                  650     350       245
      a step inside `fori_loop`                             340
      10 replicas, one dispatch each             6450    3610      2450
      10 replicas, `lax.map` of the step                   3260      2450
      10 replicas, `vmap` of the step                      5300      2450
    small CNN (32, 64, 64), 28x28x1, one step      63      39        38
      a step inside `fori_loop`                  2120      32
      10 replicas, one dispatch each              660     420       380
      10 replicas, `lax.map` of the step                    310       380
      10 replicas, `vmap` of the step            1210     570       380
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from sbjax.models.depthwise import depthwise

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_UNDILATED = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1)}

# More than 8 groups do not help on ResNet-20 and increase compilation time (4, 8, 16 groups: 370, 343, 353 ms per step,
# 3.4, 5.2, 7.3 s to the first step); for contractions shorter than 1024 extra additions cost more than the cache gains.
_GROUPS = 8
_MIN_CONTRACTION = 1024


def conv2d(
    x: Float[Array, "batch height width in"],
    kernel: Float[Array, "kh kw in_of_a_group out"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
    implementation: str = "auto",
) -> Float[Array, "batch height_out width_out out"]:
    """y[b, i, j, o] = sum_{u, v, c} x[b, s_0 i + u - p_0, s_1 j + v - p_1, c] kernel[u, v, c, o].

    With groups, output channel o reads the input channels of its group only: c runs over `in_of_a_group` channels from
    (o // (out / groups)) in_of_a_group on. As many groups as channels make a depthwise convolution.

    Args:
      x: images [batch, height, width, in], of the kernel's dtype.
      kernel: [kh, kw, in / groups, out].
      strides: (s_0, s_1).
      padding: zeros before (p) and after, for each of the two axes.
      groups: number of groups, a divisor of both numbers of channels.
      implementation: 'xla': `jax.lax.conv_general_dilated`; 'cpu': this module; 'auto': 'cpu' if the default backend is
        the CPU, else that of `jax.lax`. All but 'xla' leave out taps that meet zeros alone, and take 1x1 kernels as
        matrix products.

    Returns:
      [batch, height_out, width_out, out] with height_out = (height + before + after - kh) // s_0 + 1.

    Raises:
      ValueError: ranks, channels, groups or dtypes that do not fit; an unknown implementation.

    >>> y = conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), padding=((1, 1), (1, 1)))
    >>> y.shape, float(y[0, 1, 1, 0]), float(y[0, 0, 0, 0])
    ((1, 4, 4, 5), 18.0, 8.0)
    >>> conv2d(jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 1, 6)), groups=6)[0, 0, 0].tolist()
    [9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    """
    if groups < 1:
        raise ValueError(f"groups={groups} must be >= 1")
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != groups * kernel.shape[2]:
        raise ValueError(
            f"x has shape {x.shape} and kernel {kernel.shape}: give [batch, height, width, in] and [kh, kw, in, out] "
            + (
                "with the same number of input channels"
                if groups == 1
                else f"with in / {groups} channels in the kernel"
            )
        )
    if kernel.shape[3] % groups:
        raise ValueError(f"groups={groups} does not divide the {kernel.shape[3]} output channels of the kernel")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x has dtype {x.dtype} and kernel {kernel.dtype}: cast one to the other's")
    if implementation not in ("auto", "cpu", "xla"):
        raise ValueError(f"implementation={implementation!r} is unknown: give 'auto', 'cpu' or 'xla'")
    params = {"strides": strides, "padding": padding}
    if implementation == "xla":
        return _plain(x, kernel, **params, **_UNDILATED, groups=groups)
    kernel, params["padding"] = _used_taps(x, kernel, **params)
    if groups == 1 and kernel.shape[:2] == (1, 1) and params["padding"] == ((0, 0), (0, 0)):
        # Slice and multiply: ten times faster on XLA:CPU than a strided 1x1 convolution.
        return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
    if implementation == "auto" and jax.default_backend() != "cpu":
        return _plain(x, kernel, **params, **_UNDILATED, groups=groups)
    x, kernel = _same_axes(x, kernel)
    bind = partial(_conv_p.bind, **params, **_UNDILATED)
    if groups == 1:
        return bind(x, kernel)
    if groups == x.shape[3]:
        several = kernel.shape[3] // groups
        return depthwise(x if several == 1 else jnp.repeat(x, several, 3), kernel[:, :, 0], **params)
    xs, kernels = x.reshape(*x.shape[:3], groups, -1), kernel.reshape(*kernel.shape[:3], groups, -1)
    y = jax.vmap(bind, (3, 3), 3)(xs, kernels)
    return y.reshape(*y.shape[:3], -1)


def _used_taps(x: Array, kernel: Array, *, strides, padding) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """The kernel without rows and columns that meet zeros alone, and the padding that goes with it."""
    ranges, ends = [], []
    for n, m, s, (low, high) in zip(x.shape[1:3], kernel.shape[:2], strides, padding):
        starts = range(-low, n + high - m + 1, s)  # of the window
        used = [u for u in range(m) if any(0 <= start + u < n for start in starts)]
        first, last = (used[0], used[-1]) if used else (0, m - 1)
        ranges.append(slice(first, last + 1))
        ends.append((low - first, high - (m - 1 - last)))
    if any(min(pair) < 0 for pair in ends):  # with strides that pass by a border
        return kernel, padding
    whole = kernel.shape[:2] == tuple(part.stop - part.start for part in ranges)
    return kernel if whole else kernel[*ranges], tuple(ends)


def _same_axes(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Inside shard_map: make both operands vary over the union of their mesh axes, as functions of jax.lax do.

    Concatenating an empty slice of the other operand achieves this without API that changes between versions of JAX.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x, kernel
    empty = [lax.slice_in_dim(a, 0, 0) for a in (x, kernel)]
    return (
        jnp.concatenate([x, empty[1].reshape(0, *x.shape[1:])]),
        jnp.concatenate([kernel, empty[0].reshape(0, *kernel.shape[1:])]),
    )


def _plain(x: Array, kernel: Array, *, strides, padding, lhs_dilation, rhs_dilation, groups=1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _on_cpu(x: Array, kernel: Array, **params) -> Array:
    """`_plain` with explicit padding for tiny maps, and a sum over parts of the contraction for kernel gradients."""
    height, width, contracted, features = kernel.shape
    if height * width > x.shape[1] * x.shape[2]:
        # The barrier prevents XLA from fusing the padding back into the convolution.
        config = [(low, high, d - 1) for (low, high), d in zip(params["padding"], params["lhs_dilation"])]
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *config, (0, 0, 0))))
        params |= {"padding": ((0, 0), (0, 0)), "lhs_dilation": (1, 1)}
    (*_, out_height, _), (*_, out_width, _) = _sizes(x.shape, kernel.shape, **params)
    groups = 1
    if height * width > out_height * out_width:
        most = min(_GROUPS, height * width * contracted // _MIN_CONTRACTION)
        groups = max(g for g in range(1, max(most, 1) + 1) if contracted % g == 0)
    if groups == 1:
        return _plain(x, kernel, **params)
    # Interleaved parts keep a batch that is sharded over devices sharded in each part.
    xs = x.reshape(*x.shape[:3], -1, groups).transpose(4, 0, 1, 2, 3)
    kernels = kernel.reshape(height, width, -1, groups, features).transpose(3, 0, 1, 2, 4)
    return sum(_plain(xs[g], kernels[g], **params) for g in range(groups))


def _sizes(x, kernel, strides, padding, lhs_dilation, rhs_dilation):
    """Sizes for each axis: (dilated input, dilated kernel, output dilated by its stride, zeros before)."""
    for axis, (low, high) in enumerate(padding):
        n = (x[1 + axis] - 1) * lhs_dilation[axis] + 1
        m = (kernel[axis] - 1) * rhs_dilation[axis] + 1
        yield n, m, (n + low + high - m) // strides[axis] * strides[axis] + 1, low


def _abstract(x, kernel, *, strides, **params):
    sizes = _sizes(x.shape, kernel.shape, strides, **params)
    out = [(o - 1) // s + 1 for (_, _, o, _), s in zip(sizes, strides)]
    return x.update(shape=(x.shape[0], *out, kernel.shape[3]), weak_type=False)


# Both gradients are convolutions with strides and dilations exchanged.
def _input_gradient(ct, x, kernel, *, strides, padding, lhs_dilation, rhs_dilation):
    sizes = _sizes(x.aval.shape, kernel.shape, strides, padding, lhs_dilation, rhs_dilation)
    return _conv_p.bind(
        ct,
        kernel[::-1, ::-1].swapaxes(2, 3),
        strides=lhs_dilation,
        padding=tuple((m - 1 - low, n - o + low) for n, m, o, low in sizes),
        lhs_dilation=strides,
        rhs_dilation=rhs_dilation,
    )


def _kernel_gradient(ct, x, kernel, *, strides, padding, lhs_dilation, rhs_dilation):
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


def _batch(operands, axes, **params):
    (x, kernel), (x_axis, kernel_axis) = operands, axes
    bind = partial(_conv_p.bind, **params)
    if kernel_axis is None:
        x = jnp.moveaxis(x, x_axis, 0)
        y = bind(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    if x_axis is None:
        kernel = jnp.moveaxis(kernel, kernel_axis, 3)
        y = bind(x, kernel.reshape(*kernel.shape[:3], -1))
        return y.reshape(*y.shape[:3], *kernel.shape[3:]), 3
    # Unrolling is 20 % faster, but ten replicas of a ResNet-20 then take more than a minute to compile.
    pairs = jnp.moveaxis(x, x_axis, 0), jnp.moveaxis(kernel, kernel_axis, 0)
    return lax.map(lambda pair: bind(*pair), pairs), 0


_conv_p = Primitive("sbjax_conv2d")
_conv_p.def_impl(jax.jit(_on_cpu, static_argnames=("strides", "padding", "lhs_dilation", "rhs_dilation")))
_conv_p.def_abstract_eval(_abstract)
ad.defbilinear(_conv_p, _input_gradient, _kernel_gradient)
batching.primitive_batchers[_conv_p] = _batch
mlir.register_lowering(_conv_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_conv_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
