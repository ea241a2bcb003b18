"""Where an equation and its conditions are asked to hold: collocation points as pure functions of a key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sbjax.names import near
from sbjax.physics.equation import SIDES, Condition, Equation, on_face

SAMPLERS = ("uniform", "sobol", "lhs", "adaptive")
DESIGN_SEED = 0  # of the quasi-random designs; what differs between replicas is their shift


def unit_design(sampler: str, n: int, d: int) -> np.ndarray | None:
    """Points in the unit cube that `draw_unit` shifts: [n, d], or None where it draws afresh.

    'sobol' is a scrambled Sobol sequence, 'lhs' a Latin hypercube, both of `scipy.stats.qmc`.

    Raises:
        ValueError: an unknown sampler, or no points.
    """
    from scipy.stats import qmc  # loaded by its first use: it takes most of a second

    if sampler not in SAMPLERS:
        raise ValueError(f"task.sampler={sampler!r} is unknown{near(sampler, SAMPLERS)}; known: {', '.join(SAMPLERS)}")
    if n < 1:
        raise ValueError(f"points={n} must be >= 1: without points nothing is asked of the network")
    if sampler == "sobol":  # the whole sequence of a power of two, cut: scipy warns of other lengths
        return qmc.Sobol(d, rng=np.random.default_rng(DESIGN_SEED)).random_base2(max(n - 1, 1).bit_length())[:n]
    if sampler == "lhs":
        return qmc.LatinHypercube(d, rng=np.random.default_rng(DESIGN_SEED)).random(n)
    return None


def draw_unit(
    design: Float[Array, "n d"] | None, key: Key[Array, ""], shape: tuple[int, int], dtype: str
) -> Float[Array, "n d"]:
    """Points in the unit cube: uniform, or the design shifted as a whole modulo 1 (Cranley and Patterson 1976)."""
    if design is None:
        return jax.random.uniform(key, shape, dtype)
    return (jnp.asarray(design, dtype) + jax.random.uniform(key, shape[1:], dtype)) % 1


def to_box(equation: Equation, unit: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """From the unit cube to the equation's domain."""
    lower, upper = (jnp.asarray(bound, unit.dtype) for bound in (equation.lower, equation.upper))
    return lower + (upper - lower) * unit


def face_points(equation: Equation, condition: Condition, n: int) -> int:
    """How many points a condition has: n, as a multiple of its faces; one a face where a face is a single point.

    A periodic condition looks from each point at both faces, so its points lie on the lower one.

    >>> from sbjax.physics.pdes import make_equation
    >>> heat, poisson = make_equation('heat'), make_equation('poisson')
    >>> face_points(heat, heat.conditions[0], 5), face_points(poisson, poisson.conditions[0], 5)
    (6, 2)
    """
    faces = len(_faces(condition))
    return faces if len(equation.coordinates) == 1 else -(-n // faces) * faces


def to_faces(equation: Equation, condition: Condition, unit: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """From the unit cube to the faces of a condition, an equal share on each."""
    faces = _faces(condition)
    points = to_box(equation, unit)
    size = len(points) // len(faces)
    return jnp.concatenate([on_face(equation, face, points[i * size :][:size]) for i, face in enumerate(faces)])


def is_initial(condition: Condition) -> bool:
    """Whether a condition is about the first instant."""
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
    """n of the candidates, without replacement, with probability proportional to |r|^power / mean(|r|^power) + floor.

    Source: residual-based adaptive distribution, Wu et al., arXiv 2207.10289, eq. 2 (k = 1, c = 1).
    """
    size = jnp.abs(residual(candidates)) ** power
    weight = size / jnp.maximum(jnp.mean(size), jnp.finfo(size.dtype).tiny) + floor
    # The n largest of log p + Gumbel noise are a draw without replacement.
    _, chosen = jax.lax.top_k(jnp.log(weight) + jax.random.gumbel(key, size.shape, size.dtype), n)
    return candidates[chosen]


def _faces(condition):
    return condition.faces[:1] if condition.kind == "periodic" else condition.faces
