"""The kinds of expansion: what `sbjax.expansion.transform` hands on. Import them from there."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from sbjax.common.options import describe, option

FILLS = ("mean", "noise", "nearest", "bilinear")
SEQUENCE_FILLS = ("nearest", "noise")


@runtime_checkable
class Expansion(Protocol):
    """What an expansion is: two methods on arrays with any number of leading (batch) axes, both pure and traceable.

    Those below are frozen dataclasses, and so should one of your own be: an attribute `order`, 'before' or 'after', is
    read by `sbjax.expansion.transform.prepare`, everything else is its own.
    """

    def expand(self, x: Array) -> Array:
        """The data and the constants, in the dtype of the data."""
        ...

    def contract(self, y: Array) -> Array:
        """The data alone: `contract(expand(x))` is x."""
        ...


@dataclass(frozen=True)
class ImageExpansion:
    """[..., H, W, C] -> [..., H*K, W*K, C]: data at offset + K*i of both axes, `fill` everywhere else.

    Arrays are floating (the dtype is kept) or uint8 (a fill v in [0, 1] becomes round(255 v)).

    Args:
      factor: K >= 1; 1 is the identity.
      fill: what the new pixels hold:
        a number, or a tuple with one number a channel;
        'mean': the training data's mean, made concrete by `resolve`;
        'noise': one draw of U(0, 1) of shape (H*K, W*K, C), the same for every example and every call;
        'nearest': every pixel becomes a block of K x K pixels;
        'bilinear': output u reads the source at (u - offset) / K, clamped at the border, so that the data
        sites hold the data exactly. The last two add no constant: they are the controls for resolution.
      offset: first data site, 0 .. K-1.
      order: whether `prepare` expands 'before' or 'after' it standardises; `expand` does not look at it.
      seed: the 'noise' is drawn from `jax.random.key(seed)`.

    Raises:
      ValueError, TypeError: a field is out of range or of the wrong type.

    >>> import jax.numpy as jnp
    >>> from sbjax.expansion.transform import expand
    >>> expand(ImageExpansion(2, fill=9), jnp.array([[[1.], [2.]]]))[..., 0].tolist()
    [[1.0, 9.0, 2.0, 9.0], [9.0, 9.0, 9.0, 9.0]]

    Source: arXiv 2409.06402.
    """

    factor: int = option(2, "K: each side becomes K times as long", least=1, most=1000)
    fill: float | tuple[float, ...] | str = option(
        0.5, f"what the new pixels hold: a number, one a channel ('0.5,0.4,0.3'), {', '.join(FILLS)}", like=None
    )
    offset: int = option(0, "first data site, 0 .. K-1", least=0)
    order: str = option("before", "expand before or after the images are standardised", choices=("before", "after"))
    seed: int = option(0, "of the noise", least=0)

    def __post_init__(self):
        _check_fields(self)
        _check_sites(self.factor, self.offset)
        if isinstance(self.fill, str):
            _check_choice("fill", self.fill, FILLS, " or numbers")
        else:
            _check_numbers("fill", self.fill)

    def expand(self, x: Array) -> Array:
        if x.ndim < 3 or not (x.dtype == jnp.uint8 or jnp.issubdtype(x.dtype, jnp.floating)):
            raise _unfit(self, x, "floating or uint8 arrays [..., H, W, C]")
        if isinstance(self.fill, tuple) and len(self.fill) != x.shape[-1]:
            raise ValueError(
                f"fill={self.fill} has {len(self.fill)} numbers, but the array of shape {x.shape} has "
                f"{x.shape[-1]} channels: give one number, or one a channel."
            )
        if self.fill == "mean":
            raise ValueError(
                "fill='mean' has no value yet: call `resolve(expansion, mean=.., std=..)` with the mean and "
                "standard deviation of the training data, and use the expansion it returns."
            )
        if self.factor == 1:
            return x
        if isinstance(self.fill, Real):
            return self._spread(x, _cast("fill", self.fill, x.dtype))
        rows, columns = (jnp.arange(n * self.factor) % self.factor == self.offset for n in (x.shape[-3], x.shape[-2]))
        sites = rows.reshape(-1, 1, 1) & columns.reshape(1, -1, 1)
        return jnp.where(sites, self._spread(x, np.zeros((), x.dtype)), self._background(x))

    def _spread(self, x: Array, value: np.ndarray) -> Array:
        gap = (self.offset, self.factor - 1 - self.offset, self.factor - 1)
        return lax.pad(x, value, [(0, 0, 0)] * (x.ndim - 3) + [gap, gap, (0, 0, 0)])

    def _background(self, x: Array) -> Array:
        """What the new pixels hold, broadcastable to the expanded shape and in its dtype."""
        if isinstance(self.fill, tuple):
            return jnp.asarray(_cast("fill", self.fill, x.dtype))
        if self.fill == "nearest":
            return jnp.repeat(jnp.repeat(x, self.factor, axis=-3), self.factor, axis=-2)
        if self.fill == "noise":
            # Drawn in single precision whatever the dtype, so that all dtypes see the same noise.
            shape = (x.shape[-3] * self.factor, x.shape[-2] * self.factor, x.shape[-1])
            noise = jax.random.uniform(jax.random.key(self.seed), shape, jnp.float32)
            return _to_dtype(noise * 255 if x.dtype == jnp.uint8 else noise, x.dtype)
        wide = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
        for axis in (-3, -2):
            wide = _interpolate(wide, axis, self.factor, self.offset)
        return _to_dtype(wide, x.dtype)

    def contract(self, y: Array) -> Array:
        if y.ndim < 3 or y.shape[-3] % self.factor or y.shape[-2] % self.factor:
            raise _unfit(self, y, f"expanded arrays [..., H*{self.factor}, W*{self.factor}, C]")
        sites = slice(self.offset, None, self.factor)
        return y[..., sites, sites, :]


@dataclass(frozen=True)
class VectorExpansion:
    """[..., d] -> [..., before + d + after]: constants on both sides of the data, in its floating dtype.

    The default is the 5-dimensional form [pi, pi, x, pi, pi] of a scalar; `VectorExpansion(0, 4, 1.0)` is
    [x, 1, 1, 1, 1]. Expand inside the network function, so that derivatives are with respect to the data
    alone.

    Args:
      before, after: how many constants, >= 0.
      value: their value, or a tuple of before + after numbers.

    Raises:
      ValueError, TypeError: a field is out of range or of the wrong type.

    >>> import jax.numpy as jnp
    >>> from sbjax.expansion.transform import expand
    >>> expand(VectorExpansion(1, 2, (7., 8., 9.)), jnp.array([0.5])).tolist()
    [7.0, 0.5, 8.0, 9.0]

    Source: arXiv 2602.17952.
    """

    before: int = option(2, "how many constants stand before the data", least=0, most=10**4)
    after: int = option(2, "how many stand after it", least=0, most=10**4)
    value: float | tuple[float, ...] = option(math.pi, "their value, or before + after values ('1,2,3,4')", like=None)

    def __post_init__(self):
        _check_fields(self)
        _check_numbers("value", self.value, length=self.before + self.after)

    @property
    def constants(self) -> tuple[float, ...]:
        """All before + after constants, in the order they stand in."""
        return self.value if isinstance(self.value, tuple) else (self.value,) * (self.before + self.after)

    def expand(self, x: Array) -> Array:
        if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise _unfit(self, x, "floating arrays [..., d]")
        constants = jnp.asarray(_cast("value", self.constants, x.dtype))
        left, right = (jnp.broadcast_to(c, (*x.shape[:-1], c.size)) for c in jnp.split(constants, [self.before]))
        return jnp.concatenate([left, x, right], axis=-1)

    def contract(self, y: Array) -> Array:
        if y.ndim < 1 or y.shape[-1] <= self.before + self.after:
            raise _unfit(self, y, f"expanded arrays [..., {self.before} + d + {self.after}]")
        return y[..., self.before : y.shape[-1] - self.after]


@dataclass(frozen=True)
class SequenceExpansion:
    """[..., L, d] -> [..., L, d*K] (axis='feature') or [..., L*K, d] (axis='token'); data at offset + K*i.

    Arrays are floating (embeddings; the dtype is kept) or integer but not uint8: token ids
    [..., L] -> [..., L*K], which need axis='token' and a whole number as fill.

    Args:
      factor: K >= 1; 1 is the identity.
      fill: what the new entries hold: a number; 'nearest', copies of the entry before them; 'noise', of floating
        arrays, one draw of U(0, 1) for each of the K - 1 new tokens (or K - 1 new entries of each feature), the same at
        every place, for every example and every call. The last two are controls.
      axis: 'feature' or 'token'.
      offset: first data site, 0 .. K-1.

    Raises:
      ValueError, TypeError: a field is out of range or of the wrong type.

    >>> import jax.numpy as jnp
    >>> from sbjax.expansion.transform import expand
    >>> expand(SequenceExpansion(2, fill=0, axis='token'), jnp.array([5, 6, 7])).tolist()
    [5, 0, 6, 0, 7, 0]
    """

    factor: int = option(2, "K: the axis becomes K times as long", least=1, most=10**4)
    fill: float | str = option(0.5, "what the new entries hold: a number, nearest, noise", like=None)
    axis: str = option("feature", "which axis grows", choices=("feature", "token"))
    offset: int = option(0, "first data site, 0 .. K-1", least=0)
    seed: int = option(0, "of the noise", least=0)

    def __post_init__(self):
        _check_fields(self)
        _check_sites(self.factor, self.offset)
        if isinstance(self.fill, str):
            _check_choice("fill", self.fill, SEQUENCE_FILLS, " or a number")
        else:
            _check_number("fill", self.fill)

    def _axis(self, x: Array) -> int:
        """The axis that grows, counted from the front."""
        if jnp.issubdtype(x.dtype, jnp.integer) and x.dtype != jnp.uint8:
            if self.axis != "token":
                raise ValueError(f"axis='{self.axis}' does not fit token ids ({x.dtype}): use axis='token'.")
            axis = x.ndim - 1
        elif jnp.issubdtype(x.dtype, jnp.floating) and x.ndim >= 2:
            axis = x.ndim - (2 if self.axis == "token" else 1)
        else:
            axis = -1
        if axis < 0:
            raise _unfit(self, x, "floating arrays [..., L, d] or integer token ids [..., L] (not uint8)")
        return axis

    def expand(self, x: Array) -> Array:
        axis = self._axis(x)
        if isinstance(self.fill, str):
            return self._filled(x, axis)
        gaps = [(0, 0, 0)] * x.ndim
        gaps[axis] = (self.offset, self.factor - 1 - self.offset, self.factor - 1)
        return lax.pad(x, _cast("fill", self.fill, x.dtype), gaps)

    def _filled(self, x: Array, axis: int) -> Array:
        copies = jnp.repeat(x, self.factor, axis)
        if self.fill == "nearest":
            return copies
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"fill='noise' is for embeddings, not for token ids ({x.dtype}): use a whole number.")
        # One token's worth of noise, or one for each feature, in single precision whatever the dtype.
        width = x.shape[-1] if self.axis == "token" else x.shape[-1] * self.factor
        shape = (self.factor, width) if self.axis == "token" else (width,)
        noise = jax.random.uniform(jax.random.key(self.seed), shape, jnp.float32).astype(x.dtype)
        place = jnp.arange(copies.shape[axis]) % self.factor
        noise = noise[place] if self.axis == "token" else noise
        sites = (place == self.offset).reshape((-1, 1) if self.axis == "token" else (-1,))
        noise, sites = (a.reshape((1,) * (copies.ndim - a.ndim) + a.shape) for a in (noise, sites))
        return jnp.where(sites, copies, noise)

    def contract(self, y: Array) -> Array:
        axis = self._axis(y)
        if y.shape[axis] % self.factor:
            raise _unfit(self, y, f"expanded arrays, axis {axis} a multiple of {self.factor} long")
        return lax.slice_in_dim(y, self.offset, None, self.factor, axis)


def _interpolate(x: Array, axis: int, factor: int, offset: int) -> Array:
    """Linear interpolation of one axis at (u - offset) / factor, clamped at the border."""
    size = x.shape[axis]
    position = np.clip((np.arange(size * factor) - offset) / factor, 0, size - 1)
    low = np.floor(position).astype(np.int32)
    weight = (position - low).astype(x.dtype).reshape([-1 if i == x.ndim + axis else 1 for i in range(x.ndim)])
    start, end = (jnp.take(x, i, axis, mode="clip") for i in (low, np.minimum(low + 1, size - 1)))
    return start + weight * (end - start)


def _to_dtype(x: Array, dtype: np.dtype) -> Array:
    return (jnp.round(x) if dtype == jnp.uint8 else x).astype(dtype)


def _cast(field: str, value: float | tuple[float, ...], dtype: np.dtype) -> np.ndarray:
    """Numbers in the dtype of the data; the brightness v of a uint8 image is round(255 v)."""
    numbers = np.asarray(value, np.float64)
    if dtype == jnp.uint8:
        if np.any((numbers < 0) | (numbers > 1)):
            raise ValueError(
                f"{field}={value} is outside [0, 1], which uint8 images need: choose it there, or use floats."
            )
        return np.asarray(np.round(255 * numbers), dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        if numbers != np.round(numbers):
            raise ValueError(f"{field}={value} is no token id: integer arrays need a whole number.")
        limits: Any = jnp.iinfo(dtype)
    else:
        limits = jnp.finfo(dtype)
    if np.any((numbers < float(limits.min)) | (numbers > float(limits.max))):
        raise ValueError(f"{field}={value} does not fit {dtype}: choose it in [{limits.min}, {limits.max}].")
    return numbers.astype(dtype)


def _unfit(expansion: Any, x: Array, takes: str) -> ValueError:
    return ValueError(
        f"{type(expansion).__name__} takes {takes}, not an array of shape {x.shape} and dtype {x.dtype}: "
        "reshape or cast it, or leave it alone with None in the prefix tree."
    )


def _check_fields(expansion: Any) -> None:
    """Whole numbers and words, by their options."""
    for field, spec in describe(type(expansion)).items():
        if spec.choices is not None:
            _check_choice(field, getattr(expansion, field), spec.choices)
        elif isinstance(spec.default, int):
            _check_integer(field, getattr(expansion, field), int(spec.least or 0))


def _check_sites(factor: int, offset: int) -> None:
    if offset >= factor:
        raise ValueError(f"offset={offset} leaves the cell of a data site: choose 0 .. factor - 1 = {factor - 1}.")


def _check_integer(field: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{field}={value!r} is no integer: give an integer >= {least}.")
    if value < least:
        raise ValueError(f"{field}={value} is too small: give an integer >= {least}.")


def _check_choice(field: str, value: Any, choices: tuple[str, ...], others: str = "") -> None:
    if value not in choices:
        raise ValueError(f"{field}={value!r} is unknown: choose one of {', '.join(map(repr, choices))}{others}.")


def _check_number(field: str, value: Any, remedy: str = "give a finite number") -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{field}={value!r} is no number: {remedy}.")
    if not math.isfinite(value):
        raise ValueError(f"{field}={value} is not finite: {remedy}.")


def _check_numbers(field: str, value: Any, length: int | None = None) -> None:
    """One number, or a tuple of them: `length` where it is given, else at least one."""
    for number in value if isinstance(value, tuple) else (value,):
        _check_number(field, number, "give a finite number or a tuple of finite numbers")
    if value == () or (isinstance(value, tuple) and length not in (None, len(value))):
        many = "one a channel" if length is None else length
        raise ValueError(f"{field}={value} has {len(value)} numbers: give one number, or {many}.")
