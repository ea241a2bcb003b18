"""The lattice Boltzmann method in two dimensions with nine velocities (D2Q9), and collisions with its symmetry.

Populations f [.., 9] belong to the velocities `VELOCITIES`, at rest, along the axes, along the diagonals. A step is a
collision at every node, f -> f + C(f), and a shift of each population by its velocity. The collision of Bhatnagar,
Gross and Krook is C(f) = (f_eq - f) / tau with

    f_eq,i = w_i rho (1 + 3 c_i.u + 9/2 (c_i.u)^2 - 3/2 u.u),   rho = sum f_i,   rho u = sum c_i f_i,

whose flow has the kinematic viscosity (tau - 1/2) / 3 in units of the lattice.

The eight symmetries of the square permute the velocities: rest, four axes, four diagonals, three orbits. A linear map
of populations that commutes with all of them has 15 free entries instead of 81, one for each orbit of pairs; a constant
has 3. An entrywise function commutes with permutations, so layers of such maps give collisions with the symmetry of the
lattice. Mass and momentum are conserved if the update is projected, see `conserving`, which keeps the symmetry.

Sources: Qian, d'Humieres, Lallemand 1992 (the method); arXiv 2405.13850 (layers equivariant with respect to the
lattice; the construction here is ours).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sbjax import trees

VELOCITIES = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, 1], [-1, -1], [1, -1]])
"""c [9, 2]."""

WEIGHTS = np.array([4 / 9, *[1 / 9] * 4, *[1 / 36] * 4])
"""w [9], with sum w = 1, sum w c = 0, sum w c c = 1 / 3."""

Q = len(VELOCITIES)

Collision = Callable[[Array], Array]
"""Populations [.., 9] -> their update [.., 9]."""


def _symmetries() -> tuple[np.ndarray, np.ndarray]:
    """The matrices of the square's symmetries, and where each one takes the velocities."""
    turn, mirror = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])
    matrices = np.stack([np.linalg.matrix_power(turn, k) @ m for m in (np.eye(2, dtype=int), mirror) for k in range(4)])
    moved = np.einsum("gab,qb->gqa", matrices, VELOCITIES)
    return matrices, (moved[:, :, None] == VELOCITIES).all(-1).argmax(-1)


SYMMETRIES, PERMUTATIONS = _symmetries()
"""Matrices [8, 2, 2], and permutations [8, 9]: velocity i goes to velocity PERMUTATIONS[g, i]."""


def _orbits(indices: np.ndarray) -> np.ndarray:
    """Numbers of the orbits of D4 on tuples of velocities, in the order of their first members."""
    images = np.stack([p[indices] for p in PERMUTATIONS])
    flat = np.ravel_multi_index(tuple(np.moveaxis(images, -1, 0)), (Q,) * indices.shape[-1])
    return np.unique(flat.min(0), return_inverse=True)[1].reshape(indices.shape[:-1])


PAIRS = _orbits(np.stack(np.meshgrid(np.arange(Q), np.arange(Q), indexing="ij"), -1))
"""Orbit 0 .. 14 of each pair of velocities [9, 9]: entries of a commuting map that are equal."""

SINGLES = _orbits(np.arange(Q)[:, None])
"""Orbit 0 .. 2 of each velocity [9]."""


def moments(f: Float[Array, "*batch 9"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch 2"]]:
    """Density and velocity.

    >>> rho, u = moments(jnp.asarray(WEIGHTS) * 2)
    >>> round(float(rho), 5), bool(jnp.abs(u).max() < 1e-6)
    (2.0, True)
    """
    _check_last(f, Q)
    rho = f.sum(-1)
    return rho, f @ jnp.asarray(VELOCITIES, f.dtype) / rho[..., None]


def equilibrium(rho: Float[Array, "*batch"], u: Float[Array, "*batch 2"]) -> Float[Array, "*batch 9"]:
    """Populations of second order in the velocity that have this density and velocity.

    >>> found = moments(equilibrium(jnp.array(1.5), jnp.array([0.1, -0.05])))
    >>> [bool(jnp.allclose(a, b, atol=1e-6)) for a, b in zip(found, (1.5, jnp.array([0.1, -0.05])))]
    [True, True]
    """
    along = u @ jnp.asarray(VELOCITIES.T, u.dtype)
    square = jnp.sum(u**2, -1, keepdims=True)
    weights = trees.along(jnp.asarray(WEIGHTS, u.dtype), along)
    return rho[..., None] * weights * (1 + 3 * along + 4.5 * along**2 - 1.5 * square)


def relaxation(f: Float[Array, "*batch 9"], tau: float) -> Float[Array, "*batch 9"]:
    """The update (f_eq - f) / tau of Bhatnagar, Gross and Krook.

    Args:
        f: populations.
        tau: relaxation time in steps, above 1/2.

    Raises:
        ValueError: tau <= 1/2, which has no positive viscosity.

    >>> bool(jnp.abs(relaxation(equilibrium(jnp.array(1.0), jnp.zeros(2)), 0.8)).max() < 1e-7)
    True
    """
    return (equilibrium(*moments(f)) - f) / check_tau(tau)


def viscosity(tau: float) -> float:
    """(tau - 1/2) / 3, in units of the lattice.

    >>> round(viscosity(0.8), 6)
    0.1
    """
    return (check_tau(tau) - 0.5) / 3


def check_tau(tau: float) -> float:
    """Refuse a relaxation time without positive viscosity.

    Raises:
        ValueError: tau <= 1/2.
    """
    if not tau > 0.5:
        raise ValueError(f"tau={tau} must be > 0.5: the viscosity is (tau - 1/2) / 3")
    return tau


def stream(f: Float[Array, "*batch x y 9"]) -> Float[Array, "*batch x y 9"]:
    """Every population one node along its velocity, on a periodic grid.

    >>> f = jnp.zeros((3, 3, 9)).at[0, 0, 5].set(1.0)
    >>> [int(i[0]) for i in jnp.nonzero(stream(f))]
    [1, 1, 5]
    """
    _check_last(f, Q)
    return jnp.stack([jnp.roll(f[..., i], c, (-2, -1)) for i, c in enumerate(VELOCITIES.tolist())], -1)


def simulate(f: Float[Array, "*batch x y 9"], collision: Collision, steps: int) -> Float[Array, "*batch x y 9"]:
    """Populations after `steps` collisions and shifts.

    >>> rest = jnp.broadcast_to(jnp.asarray(WEIGHTS), (4, 4, 9))
    >>> bool(jnp.allclose(simulate(rest, lambda f: relaxation(f, 0.8), 5), rest, atol=1e-6))
    True
    """
    if not isinstance(steps, jax.core.Tracer) and steps < 0:
        raise ValueError(f"steps={steps} must be >= 0")
    return jax.lax.fori_loop(0, steps, lambda _, f: stream(f + collision(f)), f)


def taylor_green(n: int, speed: float, tau: float) -> Float[Array, "x y 9"]:
    """Populations of a decaying vortex on n x n nodes, with the first order of what they have beyond equilibrium.

    u = speed (-cos kx sin ky, sin kx cos ky), k = 2 pi / n, in the Navier-Stokes equations times exp(-2 nu k^2 t), with
    the pressure in the density: rho = 1 - 3/4 speed^2 (cos 2kx + cos 2ky). Beyond equilibrium populations are
    -3 tau rho w_i c_i c_i : grad u.

    Args:
        n: nodes a side.
        speed: largest velocity, well below the speed of sound 1 / sqrt(3).
        tau: relaxation time.

    Raises:
        ValueError: n < 2, a speed below 0 or above that of sound, as `relaxation`.
    """
    if n < 2 or n != int(n):
        raise ValueError(f"n={n} must be >= 2, and whole")
    if not 0 <= speed < 3**-0.5:
        raise ValueError(f"speed={speed} must be >= 0 and below {3**-0.5:.3f}, the speed of sound")
    k = 2 * jnp.pi / n
    x = k * jnp.arange(n, dtype=float)
    x, y = jnp.meshgrid(x, x, indexing="ij")
    u = speed * jnp.stack([-jnp.cos(x) * jnp.sin(y), jnp.sin(x) * jnp.cos(y)], -1)
    rho = 1 - 0.75 * speed**2 * (jnp.cos(2 * x) + jnp.cos(2 * y))
    stretch = speed * k * jnp.sin(x) * jnp.sin(y)  # du_x/dx = -du_y/dy; du_x/dy + du_y/dx = 0
    c, weights = jnp.asarray(VELOCITIES, u.dtype), jnp.asarray(WEIGHTS, u.dtype)
    beyond = stretch[..., None] * trees.along(c[:, 0] ** 2 - c[:, 1] ** 2, u)
    return equilibrium(rho, u) - 3 * check_tau(tau) * rho[..., None] * trees.along(weights, u) * beyond


def conserving(update: Float[Array, "*batch 9"]) -> Float[Array, "*batch 9"]:
    """The update without its mass and momentum: d_i - w_i (sum d + 3 c_i . sum c d).

    The projection that is orthogonal for the scalar product sum a_i b_i / w_i; it commutes with the symmetries.

    >>> kept = conserving(jnp.arange(9.0))
    >>> bool(np.abs([kept.sum(), *(kept @ VELOCITIES)]).max() < 1e-5)
    True
    """
    _check_last(update, Q, "update")
    c = jnp.asarray(VELOCITIES, update.dtype)
    mass, momentum = update.sum(-1, keepdims=True), update @ c
    return update - trees.along(jnp.asarray(WEIGHTS, update.dtype), update) * (mass + 3 * momentum @ c.T)


def equivariant_kernel(weights: Float[Array, "o i 15"]) -> Float[Array, "9i 9o"]:
    """The kernel of a dense layer from i to o fields of populations that commutes with the symmetries of the lattice.

    Inputs and outputs are [fields, 9] flattened; entry (a, b) between populations is the weight of the orbit of (a, b).

    >>> equivariant_kernel(jnp.arange(15.0).reshape(1, 1, 15)).shape
    (9, 9)
    """
    _check_last(weights, int(PAIRS.max()) + 1, "weights")
    outputs, inputs, _ = weights.shape
    return jnp.einsum("oiab->iboa", weights[..., PAIRS]).reshape(Q * inputs, Q * outputs)


def equivariant_bias(weights: Float[Array, "o 3"]) -> Float[Array, "9o"]:
    """The bias of such a layer: one number for each orbit of velocities.

    >>> equivariant_bias(jnp.array([[1.0, 2.0, 3.0]])).tolist()
    [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    """
    _check_last(weights, int(SINGLES.max()) + 1, "weights")
    return weights[..., SINGLES].reshape(-1)


def moved(f: Float[Array, "*batch 9"], symmetry: Int[Array, ""] | int) -> Float[Array, "*batch 9"]:
    """The populations of the turned or mirrored state: what had the velocity c has the velocity g c.

    >>> moved(jnp.arange(9), 1).tolist()  # a quarter turn
    [0, 4, 1, 2, 3, 8, 5, 6, 7]
    """
    _check_last(f, Q)
    if isinstance(symmetry, int) and not 0 <= symmetry < len(PERMUTATIONS):
        raise ValueError(f"symmetry={symmetry} must lie between 0 and {len(PERMUTATIONS) - 1}")
    return jnp.take(f, jnp.asarray(np.argsort(PERMUTATIONS, -1))[symmetry], axis=-1)


def averaged(collision: Collision) -> Collision:
    """The mean of g^-1 C(g f) over the eight symmetries: any collision, made equivariant at eight times the cost.

    >>> skew = averaged(lambda f: f * jnp.arange(9.0))
    >>> skew(jnp.ones(9)).tolist()
    [0.0, 2.5, 2.5, 2.5, 2.5, 6.5, 6.5, 6.5, 6.5]
    """
    forth = np.argsort(PERMUTATIONS, -1)

    def mean(f):
        _check_last(f, Q)
        turned = jnp.stack([f[..., p] for p in forth])
        return sum(one[..., p] for one, p in zip(collision(turned), PERMUTATIONS)) / len(PERMUTATIONS)

    return mean


def _check_last(array, size, what="f"):
    """Indices beyond an axis would be read as others, without a word."""
    if array.shape[-1] != size:
        raise ValueError(f"{what} has shape {array.shape}: give {size} entries in the last axis")
