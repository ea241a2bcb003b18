"""Symmetry of the functions that random networks compute, read off their correlators.

An ensemble of networks f(x) = sum_n a_n relu(w_n . x), x in R^d, f in R^o, with w_n ~ N(0, 1 / d) and a_ni independent
of it, Gaussian with mean mu_i and variance 1 / N over N units. A symmetry of the density over functions is one of all
its n-point functions E f_i(x_1) .. f_j(x_n), and the other way. With mu = 0 they are invariant under every rotation
of the outputs, at every width; mu != 0 leaves the rotations about mu only. With t the angle between x and y,

    kappa(x, y) = E relu(w.x) relu(w.y) = |x| |y| (sin t + (pi - t) cos t) / (2 pi d),      m(x) = |x| / sqrt(2 pi d),
    E f_i(x) f_j(y) = delta_ij kappa(x, y) + mu_i mu_j (N kappa(x, y) + N (N - 1) m(x) m(y)).

Source: arXiv 2106.00694; the formulas at finite width are worked out here, from the kernels of Cho and Saul (2009).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

CHUNK = 10_000  # networks that are sampled at once


def unit_kernel(x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"]) -> Float[np.ndarray, "n m"]:
    """kappa(x, y) of one unit.

    >>> unit_kernel(np.eye(2), np.eye(2)).round(6).tolist()
    [[0.25, 0.079577], [0.079577, 0.25]]
    """
    t, sizes = _angles(x, y)
    return sizes * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi * np.shape(x)[-1])


def unit_mean(x: Float[ArrayLike, "n d"]) -> Float[np.ndarray, "n"]:
    """m(x) = E relu(w.x).

    >>> unit_mean(np.eye(2)).round(6).tolist()
    [0.282095, 0.282095]
    """
    return np.linalg.norm(x, axis=-1) / np.sqrt(2 * np.pi * np.shape(x)[-1])


def squares_kernel(x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"]) -> Float[np.ndarray, "n m"]:
    """E relu(w.x)^2 relu(w.y)^2 = |x|^2 |y|^2 (3 sin t cos t + (pi - t) (1 + 2 cos^2 t)) / (2 pi d^2).

    >>> squares_kernel(np.eye(1), np.eye(1)).tolist()  # half of E w^4
    [[1.5]]
    """
    t, sizes = _angles(x, y)
    angular = 3 * np.sin(t) * np.cos(t) + (np.pi - t) * (1 + 2 * np.cos(t) ** 2)
    return sizes**2 * angular / (2 * np.pi * np.shape(x)[-1] ** 2)


def two_point(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"], *, means: Float[ArrayLike, "o"], width: int
) -> Float[np.ndarray, "o o n m"]:
    """E f_i(x) f_j(y) of networks with `width` units whose readouts have these means, exactly.

    Raises:
        ValueError: width < 1, or inputs of two sizes.

    >>> found = two_point(np.eye(2), np.eye(2), means=[0.0, 0.0], width=7)
    >>> bool((found[0, 0] == unit_kernel(np.eye(2), np.eye(2))).all()), float(np.abs(found[0, 1]).max())
    (True, 0.0)
    """
    _check_width(width)
    if np.shape(x)[-1] != np.shape(y)[-1]:
        raise ValueError(f"x and y have {np.shape(x)[-1]} and {np.shape(y)[-1]} entries a point: give as many")
    means, kernel = np.asarray(means, float), unit_kernel(x, y)
    shifted = width * kernel + width * (width - 1) * np.outer(unit_mean(x), unit_mean(y))
    tensors = np.eye(len(means)), np.outer(means, means)
    return np.multiply.outer(tensors[0], kernel) + np.multiply.outer(tensors[1], shifted)


def connected_four_point(
    x: Float[ArrayLike, "d"], y: Float[ArrayLike, "d"], *, outputs: int, width: int
) -> Float[np.ndarray, "o o o o"]:
    """E f_i(x) f_j(x) f_k(y) f_l(y) without its three products of two-point functions, with means of 0, exactly.

    (delta_ij delta_kl Cov(g_x^2, g_y^2) + (delta_ik delta_jl + delta_il delta_jk) Var(g_x g_y)) / N with g_x =
    relu(w.x): it falls as 1 / N, and functions become Gaussian.

    Raises:
        ValueError: width or outputs < 1, or other than one point each of one size.

    >>> float(connected_four_point([1.0], [1.0], outputs=1, width=5).item())  # 3 (3 / 2 - 1 / 4) / 5
    0.75
    """
    _check_width(width)
    if np.ndim(x) != 1 or np.shape(x) != np.shape(y) or outputs < 1:
        raise ValueError(f"x and y have shapes {np.shape(x)}, {np.shape(y)}, outputs={outputs}: give [d], [d] and >= 1")
    x, y = np.atleast_2d(np.asarray(x, float)), np.atleast_2d(np.asarray(y, float))
    squares = squares_kernel(x, y).item()
    same = squares - unit_kernel(x, x).item() * unit_kernel(y, y).item()
    mixed = squares - unit_kernel(x, y).item() ** 2
    one = np.eye(outputs)
    pairings = [np.einsum(f"{p},{q}->ijkl", one, one) for p, q in (("ij", "kl"), ("ik", "jl"), ("il", "jk"))]
    return (same * pairings[0] + mixed * (pairings[1] + pairings[2])) / width


def sample_outputs(
    key: Key[Array, ""], x: Float[Array, "n d"], *, networks: int, means: Float[ArrayLike, "o"], width: int
) -> Float[np.ndarray, "network o n"]:
    """f(x) of networks drawn from the ensemble.

    >>> sample_outputs(jax.random.key(0), jnp.eye(3), networks=5, means=[0.0, 0.0], width=8).shape
    (5, 2, 3)
    """
    if networks < 1 or width < 1:
        raise ValueError(f"networks={networks} and width={width} must be >= 1")
    x, means = jnp.asarray(x, float), jnp.asarray(means, float)
    if x.ndim != 2 or means.ndim != 1:
        raise ValueError(f"x has shape {x.shape} and means {means.shape}: give points [n, d] and means [o]")
    starts = range(0, networks, CHUNK)
    parts = [
        _sampled(jax.random.fold_in(key, start), x, means, min(CHUNK, networks - start), width) for start in starts
    ]
    return np.concatenate([np.asarray(part, float) for part in parts])


def haar_rotation(key: Key[Array, ""], size: int) -> Float[Array, "o o"]:
    """A rotation of R^o, uniform on SO(o) (Haar).

    >>> rotation = haar_rotation(jax.random.key(0), 3)
    >>> bool(jnp.allclose(rotation @ rotation.T, jnp.eye(3), atol=1e-5)), round(float(jnp.linalg.det(rotation)), 4)
    (True, 1.0)
    """
    if size < 1:
        raise ValueError(f"size={size} must be >= 1")
    found = jax.random.orthogonal(key, size)
    return found.at[:, 0].multiply(jnp.sign(jnp.linalg.det(found)))


def products(outputs: Float[np.ndarray, "network o n"]) -> Float[np.ndarray, "network o o n n"]:
    """f_i(x) f_j(y) of every network: their mean is the two-point function."""
    return np.einsum("sin,sjm->sijnm", outputs, outputs)


def scores(samples: Float[np.ndarray, "network *shape"], expected: Float[ArrayLike, "*shape"] = 0.0):
    """Mean of samples minus what is expected, in standard errors of the mean.

    Entries that do not vary are 0 where they are what is expected.

    Raises:
        ValueError: fewer than two samples.

    >>> scores(np.array([[0.0], [2.0]]), [0.0]).round(6).tolist()
    [1.0]
    """
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} samples have no standard error: give two or more")
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    away = samples.mean(0) - np.asarray(expected)
    return away / np.where(error > 0, error, np.where(np.abs(away) > 1e-9, 1e-9, 1.0))


def rotation_scores(outputs: Float[np.ndarray, "network o n"], rotation: Float[ArrayLike, "o o"]):
    """Two-point function of R f minus that of f, in standard errors: [o, o, n, n].

    Both from the same networks, whose products are subtracted one by one: what is left varies less.

    Raises:
        ValueError: no rotation or reflection of these outputs.
    """
    turn = np.asarray(rotation, float)
    if turn.shape != (np.shape(outputs)[1],) * 2 or not np.abs(turn @ turn.T - np.eye(len(turn))).max() < 1e-4:
        raise ValueError(f"rotation of shape {turn.shape} must be orthogonal, of {np.shape(outputs)[1]} outputs")
    rotated = np.einsum("ij,sjn->sin", np.asarray(rotation, float), outputs)
    return scores(products(rotated) - products(outputs))


@partial(jax.jit, static_argnums=(3, 4))
def _sampled(key, x, means, networks, width):
    first, second = jax.random.split(key)
    d, o = x.shape[1], len(means)
    hidden = jax.random.normal(first, (networks, width, d), x.dtype) / np.sqrt(d)
    readout = jax.random.normal(second, (networks, o, width), x.dtype) / np.sqrt(width) + means[None, :, None]
    return jnp.einsum("son,snp->sop", readout, jax.nn.relu(jnp.einsum("snd,pd->snp", hidden, x)))


def _check_width(width):
    if width < 1 or width != int(width):
        raise ValueError(f"width={width} must be >= 1, and whole")


def _angles(x, y):
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y have shapes {x.shape} and {y.shape}: give points [n, d] and [m, d]")
    sizes = np.linalg.norm(x, axis=-1)[:, None] * np.linalg.norm(y, axis=-1)[None, :]
    cosines = (x @ y.T) / np.where(sizes > 0, sizes, 1.0)
    return np.arccos(np.clip(cosines, -1.0, 1.0)), sizes
