"""Collocation points as pure functions of a key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sbjax import trees
from sbjax.common.names import check_choice
from sbjax.physics.equation import SIDES, Condition, Equation, on_face

SAMPLERS = ("uniform", "sobol", "lhs", "adaptive")
DESIGN_SEED = 0  # of the quasi-random designs; replicas differ by the random shift only


def unit_design(sampler: str, n: int, d: int) -> np.ndarray | None:
    """Quasi-random points in the unit cube for `draw_unit`, [n, d]; None for a sampler without a fixed design.

    'sobol' is a scrambled Sobol sequence, 'lhs' a Latin hypercube, both from `scipy.stats.qmc`.

    Raises:
        ValueError: an unknown sampler, or n < 1.
    """
    from scipy.stats import qmc  # imported here because it takes most of a second

    check_choice(sampler, SAMPLERS, what="sampler")
    if n < 1:
        raise ValueError(f"points={n} must be >= 1")
    if sampler == "sobol":  # a full power of two, truncated: scipy warns about other lengths
        return qmc.Sobol(d, rng=np.random.default_rng(DESIGN_SEED)).random_base2(max(n - 1, 1).bit_length())[:n]
    if sampler == "lhs":
        return qmc.LatinHypercube(d, rng=np.random.default_rng(DESIGN_SEED)).random(n)
    return None


def draw_unit(
    design: Float[Array, "n d"] | None, key: Key[Array, ""], shape: tuple[int, int], dtype: str
) -> Float[Array, "n d"]:
    """Points in the unit cube: i.i.d. uniform, or a design with one random shift modulo 1 (Cranley and Patterson)."""
    if design is None:
        return jax.random.uniform(key, shape, dtype)
    return (jnp.asarray(design, dtype) + jax.random.uniform(key, shape[1:], dtype)) % 1


def to_box(equation: Equation, unit: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Map points from the unit cube to the equation's domain."""
    lower, upper = (trees.along(jnp.asarray(bound, unit.dtype), unit) for bound in (equation.lower, equation.upper))
    return lower + (upper - lower) * unit


def face_points(equation: Equation, condition: Condition, n: int) -> int:
    """Number of points of a condition: n rounded up to a multiple of its faces; one per face in one dimension.

    The points of a periodic condition lie on its lower face, since each residual involves both faces.

    >>> from sbjax.physics.pdes import make_equation
    >>> heat, poisson = make_equation('heat'), make_equation('poisson')
    >>> face_points(heat, heat.conditions[0], 5), face_points(poisson, poisson.conditions[0], 5)
    (6, 2)
    """
    faces = len(_faces(condition))
    return faces if len(equation.coordinates) == 1 else -(-n // faces) * faces


def to_faces(equation: Equation, condition: Condition, unit: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Map points from the unit cube to the faces of a condition, an equal number on each."""
    faces = _faces(condition)
    points = to_box(equation, unit)
    size = len(points) // len(faces)
    return jnp.concatenate([on_face(equation, face, points[i * size :][:size]) for i, face in enumerate(faces)])


def is_initial(condition: Condition) -> bool:
    """Whether a condition is an initial condition, on the face t = lower bound."""
    return condition.faces == (("t", SIDES[0]),)


def draw_adaptive(
    residual: Callable[[Float[Array, "m d"]], Float[Array, " m"]],
    candidates: Float[Array, "m d"],
    key: Key[Array, ""],
    n: int,
    *,
    power: float = 1.0,
    floor: float = 1.0,
) -> Float[Array, "n d"]:
    """Draw n candidates without replacement, with probability proportional to |r|^power / mean(|r|^power) + floor.

    Source: residual-based adaptive distribution, Wu et al., arXiv 2207.10289, eq. 2 (k = 1, c = 1).
    """
    size = jnp.abs(residual(candidates)) ** power
    weight = size / jnp.maximum(jnp.mean(size), jnp.finfo(size.dtype).tiny) + floor
    # Gumbel top-k trick: the n largest of log p + Gumbel noise are a sample without replacement.
    _, chosen = jax.lax.top_k(jnp.log(weight) + jax.random.gumbel(key, size.shape, size.dtype), n)
    return candidates[chosen]


def _faces(condition):
    """Faces that get points: of a periodic condition, the lower one only."""
    return condition.faces[:1] if condition.kind == "periodic" else condition.faces
