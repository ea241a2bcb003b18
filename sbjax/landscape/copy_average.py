"""Narrow erf students of a wider orthonormal teacher: population loss in closed form, copy-average critical points.

Teacher f*(x) = sum_{j <= k} s(e_j . x), student f(x) = sum_{i <= n} a_i s(w_i . x) with n < k, s(z) = erf(z / sqrt 2),
x standard normal. The loss is E (f - f*)^2, without 1/2. Parameters are {'w': [n, d], 'a': [n, 1]}.

Source: Simsek, Bendjeddou, Gerstner, Brea, arXiv 2311.01644.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def erf_kernel(u: Float[Array, "n d"], v: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """E s(u . x) s(v . x) = (2 / pi) arcsin(u . v / sqrt((1 + |u|^2) (1 + |v|^2))) for all pairs of rows.

    >>> round(float(erf_kernel(jnp.ones((1, 1)), jnp.ones((1, 1)))[0, 0]), 4)  # arcsin(1/2) = pi / 6
    0.3333

    Source: Williams 1997, NIPS 9.
    """
    sizes = jnp.sqrt((1 + jnp.sum(u**2, -1))[:, None] * (1 + jnp.sum(v**2, -1))[None])
    return 2 / math.pi * jnp.arcsin(u @ v.T / sizes)


def population_loss(
    student: dict[str, Float[Array, "..."]], teacher: dict[str, Float[Array, "..."]]
) -> Float[Array, ""]:
    """E |f(x) - f*(x)|^2 for standard normal x, exact: a^T K a - 2 a^T K* a* + a*^T K** a*, summed over outputs.

    Args:
        student: {'w': [n, d], 'a': [n, out]}.
        teacher: {'w': [k, d], 'a': [k, out]}.

    Raises:
        ValueError: inputs or outputs of different dimension.

    >>> one = {'w': jnp.eye(2), 'a': jnp.ones((2, 1))}
    >>> float(population_loss(one, one))
    0.0
    """
    for name in ("w", "a"):
        if student[name].shape[1] != teacher[name].shape[1]:
            raise ValueError(
                f"{name} of the student has {student[name].shape[1]} columns and the teacher's "
                f"{teacher[name].shape[1]}: give both the same inputs and outputs"
            )
    w = jnp.concatenate([student["w"], teacher["w"]])
    a = jnp.concatenate([student["a"], -teacher["a"]])
    return jnp.sum(a * (erf_kernel(w, w) @ a))


def orthonormal_teacher(k: int, d: int | None = None) -> dict[str, np.ndarray]:
    """Teacher with w_j = e_j in d >= k dimensions (default k) and outgoing weights 1.

    Raises:
        ValueError: k < 1 or d < k.

    >>> orthonormal_teacher(2, 3)['w'].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    d = k if d is None else d
    if not 1 <= k <= d:
        raise ValueError(f"k={k} must lie between 1 and the dimension d={d}, which limits the orthonormal vectors")
    return {"w": np.eye(k, d), "a": np.ones((k, 1))}


def copy_average_student(sizes: Sequence[int], d: int | None = None) -> dict[str, np.ndarray]:
    """The critical point at which student neuron i represents sizes[i] consecutive teacher neurons.

    A neuron that averages q teacher neurons has w = sum_j e_j / sqrt(q (2 q - 1)) and a = q; for q = 1 it is a copy.
    Every partition gives a critical point; (k - n + 1, 1, .., 1) has the smallest loss.

    Args:
        sizes: number of teacher neurons for each student neuron; their sum is k.
        d: input dimension; None = k.

    Raises:
        ValueError: a size < 1; as `orthonormal_teacher`.

    >>> copy_average_student([1, 2])['w'].round(3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.408, 0.408]]
    """
    if not len(sizes) or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)} must be numbers >= 1, one per student neuron")
    basis = orthonormal_teacher(sum(sizes), d)["w"]
    ends = np.cumsum([0, *sizes])
    w = [basis[start : start + q].sum(0) / math.sqrt(q * (2 * q - 1)) for start, q in zip(ends, sizes)]
    return {"w": np.stack(w), "a": np.array(sizes, float)[:, None]}


def average_loss(q: int) -> float:
    """Minimal loss of one student neuron for q teacher neurons: (2 / pi) (q pi / 6 - q^2 arcsin(1 / (2 q))).

    >>> [round(average_loss(q), 6) for q in (1, 2, 3)]
    [0.0, 0.023222, 0.040593]
    """
    if q < 1:
        raise ValueError(f"q={q} must be >= 1")
    return 2 / math.pi * max(0.0, q * math.pi / 6 - q**2 * math.asin(1 / (2 * q)))


def copy_average_loss(n: int, k: int) -> float:
    """Loss of the best copy-average point of n student neurons, `average_loss(k - n + 1)`.

    Raises:
        ValueError: not 1 <= n <= k.

    >>> round(copy_average_loss(2, 4), 6)
    0.040593
    """
    if not 1 <= n <= k:
        raise ValueError(f"n={n} must lie between 1 and k={k}: wider students reach zero loss")
    return average_loss(k - n + 1)
