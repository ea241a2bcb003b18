"""Functions with f(T x) = p f(x) for an affine involution T and p = 1 or -1, by construction.

T x = A x + b with T T x = x, that is A A = 1 and A b = -b. Any function g gives (g(x) + p g(T x)) / 2, which has the
symmetry and is g where g had it: the projector. On it nothing is lost, since it shrinks no distance to such functions:
what g's are dense in all functions give projections that are dense in those with the symmetry. With p = -1 they vanish
where T x = x.

Source: arXiv 2106.12891 (the constructions here are ours; the paper's layers were not at hand).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax import trees

SIGNS = (1, -1)

Map = Callable[[Array], Array]


class Involution(NamedTuple):
    """x -> A x + b on the last axis.

    Attributes:
        matrix: A [d, d], with A A = 1.
        shift: b [d], with A b = -b.
    """

    matrix: Float[np.ndarray, "d d"]
    shift: Float[np.ndarray, "d"]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """T x. Permutations and changes of sign without a shift are exact to the last bit.

        Raises:
            ValueError: another number of entries.
        """
        x = jnp.asarray(x)
        if x.shape[-1:] != self.shift.shape:
            raise ValueError(f"x has shape {x.shape}: this involution is of {len(self.shift)} entries")
        moved = self._exact(x)
        if moved is not None:
            return moved
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)
        return jnp.matmul(x, jnp.asarray(self.matrix.T, x.dtype)) + trees.along(jnp.asarray(self.shift, x.dtype), x)

    def _exact(self, x):
        nonzero = self.matrix != 0
        if self.shift.any() or not (nonzero.sum(1) == 1).all() or not (np.abs(self.matrix[nonzero]) == 1).all():
            return None
        return x[..., nonzero.argmax(1)] * trees.along(jnp.asarray(self.matrix.sum(1), x.dtype), x)


def make_involution(matrix: Any, shift: Any = None, *, tolerance: float = 1e-12) -> Involution:
    """An involution, checked.

    Args:
        matrix: A [d, d].
        shift: b [d]; None for 0.
        tolerance: of A A = 1 and A b = -b, relative to the largest entries.

    Raises:
        ValueError: not square, of other sizes, or no involution.

    >>> swap = make_involution([[0, 1], [1, 0]])
    >>> swap(jnp.array([1.0, 2.0])).tolist()
    [2.0, 1.0]
    >>> make_involution([[0, 1], [-1, 0]])
    Traceback (most recent call last):
        ...
    ValueError: matrix squared differs from the identity by 2: an involution has A A = 1
    """
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"matrix has shape {matrix.shape}: give [d, d] with d >= 1")
    shift = np.zeros(len(matrix)) if shift is None else np.asarray(shift, float)
    if shift.shape != (len(matrix),):
        raise ValueError(f"shift has shape {shift.shape}: give [{len(matrix)}]")
    off = np.abs(matrix @ matrix - np.eye(len(matrix))).max()
    if not off <= tolerance * max(1.0, np.abs(matrix).max() ** 2):
        raise ValueError(f"matrix squared differs from the identity by {off:.3g}: an involution has A A = 1")
    off = np.abs(matrix @ shift + shift).max()
    if not off <= tolerance * max(1.0, np.abs(matrix).max() * np.abs(shift).max()):
        raise ValueError(f"A b + b is {off:.3g}: an involution has A b = -b")
    return Involution(matrix, shift)


def oblique_reflection(normal: Any, direction: Any, offset: float = 0.0) -> Involution:
    """The reflection along `direction` at the hyperplane normal . x = offset.

    >>> oblique_reflection([1.0, 0.0], [1.0, 1.0], 1.0)(jnp.array([1.0, 5.0])).tolist()  # on the plane
    [1.0, 5.0]

    Raises:
        ValueError: a direction within the hyperplane.
    """
    normal, direction = np.asarray(normal, float), np.asarray(direction, float)
    along = normal @ direction
    if not abs(along) > 0:
        raise ValueError("direction lies in the hyperplane: no reflection along it")
    matrix = np.eye(len(normal)) - 2 * np.outer(direction, normal) / along
    return make_involution(matrix, 2 * offset * direction / along, tolerance=1e-9)


def projected(function: Map, involution: Map, sign: int = 1) -> Map:
    """x -> (g(x) + p g(T x)) / 2, with as many parameters as g and two of its passes.

    Where T is exact in floating point (changes of sign, permutations, flips of images) so is the symmetry.

    Args:
        function: g, of anything that T takes.
        involution: T, an `Involution` or any function with T T x = x, such as `flip`.
        sign: p.

    Raises:
        ValueError: sign is not 1 or -1, or an `Involution` made by hand that is none.

    >>> odd = projected(jnp.exp, lambda x: -x, -1)
    >>> bool(jnp.allclose(odd(1.0), jnp.sinh(1.0)))
    True
    """
    check_sign(sign)
    if isinstance(involution, Involution):
        _check(involution)

    def symmetric(x):
        return (function(x) + sign * function(involution(x))) / 2

    return symmetric


def tied_units(
    kernel: Float[Array, "d m"],
    bias: Float[Array, "m"],
    readout: Float[Array, "m o"],
    involution: Involution,
    sign: int,
) -> tuple[Float[Array, "d 2m"], Float[Array, "2m"], Float[Array, "2m o"]]:
    """The projector of one hidden layer as an ordinary layer of twice the width: units in pairs with tied weights.

    phi(x W + c) a + p phi(T x W + c) a, halved: the second half has the kernel A^T W and the bias c + b W.

    Raises:
        ValueError: sign is not 1 or -1, no involution, or shapes that do not fit.

    >>> turned = tied_units(jnp.ones((1, 1)), jnp.zeros(1), jnp.ones((1, 1)), make_involution([[-1.0]]), -1)
    >>> [part.ravel().tolist() for part in turned]
    [[1.0, -1.0], [0.0, 0.0], [0.5, -0.5]]
    """
    check_sign(sign)
    _check(involution)
    d, m = len(involution.shift), jnp.shape(kernel)[-1]
    if (jnp.shape(kernel), jnp.shape(bias), jnp.shape(readout)[:1]) != ((d, m), (m,), (m,)):
        raise ValueError(
            f"kernel, bias and readout have shapes {jnp.shape(kernel)}, {jnp.shape(bias)} and {jnp.shape(readout)}: "
            f"give [{d}, m], [m] and [m, o]"
        )
    matrix, shift = (jnp.asarray(part, kernel.dtype) for part in involution)
    kernels = jnp.concatenate([kernel, matrix.T @ kernel], axis=1)
    biases = jnp.concatenate([bias, bias + shift @ kernel])
    return kernels, biases, jnp.concatenate([readout, sign * readout]) / 2


def paired_layer(
    same: Float[Array, "n m"], crossed: Float[Array, "n m"], bias: Float[Array, "m"]
) -> tuple[Float[Array, "2n 2m"], Float[Array, "2m"]]:
    """A layer between units in pairs that T exchanges: [h, h'] goes to [h A + h' B + c, h' A + h B + c].

    With `tied_units` before it, any number of these, and the readout [a, p a] / 2 after them, the network has the
    symmetry; with B = 0 it is the projector of a deep network.

    >>> kernel, bias = paired_layer(jnp.ones((1, 1)), jnp.full((1, 1), 2.0), jnp.zeros(1))
    >>> kernel.tolist(), bias.tolist()
    ([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0])
    """
    if not jnp.shape(same) == jnp.shape(crossed) == (jnp.shape(same)[0], *jnp.shape(bias)):
        raise ValueError(
            f"same, crossed and bias have shapes {jnp.shape(same)}, {jnp.shape(crossed)} and {jnp.shape(bias)}: give "
            "[n, m], [n, m] and [m]"
        )
    return jnp.block([[same, crossed], [crossed, same]]), jnp.concatenate([bias, bias])


def flip(axis: int) -> Map:
    """The reflection of images [.., h, w, c] along an axis: -3 is up and down, -2 left and right.

    Raises:
        ValueError: another axis.

    >>> flip(-2)(jnp.arange(3.0).reshape(1, 3, 1)).ravel().tolist()
    [2.0, 1.0, 0.0]
    """
    if axis not in (-3, -2):
        raise ValueError(f"axis={axis} must be -3, up and down, or -2, left and right")
    return lambda images: jnp.flip(images, axis)


def flipped_kernel(kernel: Float[Array, "h w i o"], axis: int, sign: int = 1) -> Float[Array, "h w i o"]:
    """(k + p flip(k)) / 2, the kernels whose convolution of a flipped image is p times the flipped convolution.

    Args:
        kernel: of a convolution, height and width first.
        axis: 0 for height, 1 for width.
        sign: p.

    >>> flipped_kernel(jnp.array([[[[1.0]], [[3.0]]]]), 1).ravel().tolist()
    [2.0, 2.0]
    """
    check_sign(sign)
    if axis not in (0, 1) or jnp.ndim(kernel) < 3:
        raise ValueError(f"axis={axis} must be 0 or 1, of a kernel [h, w, i, o]; it has shape {jnp.shape(kernel)}")
    return (kernel + sign * jnp.flip(kernel, axis)) / 2


def _check(involution):
    if not isinstance(involution, Involution):
        raise ValueError(f"involution is a {type(involution).__name__}: make one with make_involution")
    make_involution(*involution, tolerance=1e-4)  # whatever it was made with: entries may be of float32


def check_sign(sign: int) -> None:
    """Refuse a sign that is neither 1 nor -1."""
    if sign not in SIGNS:
        raise ValueError(f"sign={sign!r} must be 1 or -1")
