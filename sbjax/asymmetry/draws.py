"""Named streams of fixed random numbers: pure functions of (seed, name), identical in every process and replica."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    """Philox generator with the key SHA-256('seed/name') mod 2^128.

    numpy instead of jax, so that constants are concrete inside `jax.jit`, `vmap` and `eval_shape`, can be validated
    there, and do not depend on any replica's key.

    >>> generator(0, 'dense_0/kernel').integers(1000, size=3).tolist()
    [15, 987, 68]
    >>> generator(0, 'dense_1/kernel').integers(1000, size=3).tolist()
    [191, 696, 557]
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def fan_in(shape: Sequence[int]) -> int:
    """Fan-in of a kernel [*window, in, out]; for a vector, its length.

    >>> fan_in((3, 3, 16, 32)), fan_in((784, 512)), fan_in((7,))
    (144, 784, 7)
    """
    return max(1, math.prod(shape[:-1] if len(shape) > 1 else shape))


def check_seed(field: str, seed: int) -> None:
    """Check that a seed is a whole number.

    Raises:
        ValueError: naming the field.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"{field}={seed!r} must be a whole number: it fixes the frozen constants")


def check_number(field: str, value: float, *, positive: bool = False) -> None:
    """Check that a number is finite and >= 0 (> 0 if `positive`).

    Raises:
        ValueError: naming the field.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        raise ValueError(f"{field}={value!r} must be a finite number {'> 0' if positive else '>= 0'}")
