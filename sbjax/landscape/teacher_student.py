"""Teacher-student setting of Simsek et al., arXiv 2105.12221 (settings of their published code).

A two-layer network without biases is {'w': [m, d], 'a': [m, out]}, f(x) = sum_i a_i s(w_i . x). The loss is the mean
squared error, without 1/2.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# `scipy.stats` takes most of a second to import; scipy loads it on first use.
import scipy
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from sbjax import trees
from sbjax.common.names import near


def generic(z: Array) -> Array:
    """g(z) = sigmoid(4 z) + softplus(z): no symmetry relates g(-z) to g(z), and g(0) != 0."""
    return jax.nn.sigmoid(4 * z) + jax.nn.softplus(z)


def scaled_erf(z: Array) -> Array:
    """erf(z / sqrt 2); its Gaussian averages have closed forms."""
    return jax.scipy.special.erf(z / np.sqrt(2.0).item())


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "g": generic,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "erf": scaled_erf,
}
TEACHER_ROWS = ((0.6, 0.5), (-0.5, 0.5), (-0.2, -0.6), (0.1, -0.6))

# Weights (by rows) and biases of each layer, rounded to six digits from the published code (scripts/training3.jl of
# github.com/jbrea/SymmetrySaddles.jl).
DEEP_TEACHER = (
    (
        ((-0.182958, 0.780468), (0.0788402, -0.146559), (-0.00067761, -0.575334), (-0.00408773, 0.187659)),
        (2.59655, 0.543655, 0.102309, -0.282711),
    ),
    (
        (
            (-1.49662, -0.120767, 0.894756, 1.51145),
            (-0.227772, -2.03657, -0.483086, -2.59562),
            (2.28119, -0.07242, -2.85103, -6.10843),
            (0.366559, 1.12833, 2.86403, 8.27658),
        ),
        (1.37643, 0.0369456, -2.87644, 2.64494),
    ),
    (
        (
            (1.87318, 14.9965, -1.65452, 5.21831),
            (3.79364, -1.1612, 1.11787, -1.45142),
            (-9.89278, 0.416311, -5.0125, -3.32607),
            (-1.00084, 2.38216, -0.533525, 0.526989),
        ),
        (-1.23078, 1.89972, 1.84682, 1.091),
    ),
    (((-2.039, -16.3692, -11.1095, -13.541),), (6.03487,)),
)


class Tally(NamedTuple):
    """Number of neurons of each kind; their sum is the width.

    Attributes:
        copies: neurons with an incoming vector of the teacher.
        zero_type: {b: neurons in groups of size b with equal incoming vectors and outgoing vectors that sum to zero}.
        antipodal: neurons with minus an incoming vector of the teacher; possible at zero loss with sigmoid and tanh.
        constant: neurons with a zero incoming vector; possible at zero loss with sigmoid and tanh.
        other: all other neurons.
    """

    copies: int
    zero_type: dict[int, int]
    antipodal: int
    constant: int
    other: int


def two_layer_teacher() -> dict[str, np.ndarray]:
    """The teacher of width 4 with two inputs and outgoing weights 1.

    >>> two_layer_teacher()['w'].shape, two_layer_teacher()['a'].shape
    ((4, 2), (4, 1))
    """
    return {"w": np.array(TEACHER_ROWS), "a": np.ones((len(TEACHER_ROWS), 1))}


def grid_inputs(side: int = 41, reach: float = 5.0) -> Float[np.ndarray, "n 2"]:
    """Regular grid on [-reach, reach]^2, [side^2, 2]; by default 1681 points with spacing 0.25.

    >>> grid_inputs(3, 1.0)[:2].tolist()
    [[-1.0, -1.0], [-1.0, 0.0]]
    """
    axis = np.linspace(-reach, reach, side)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def two_layer(
    params: dict[str, Float[Array, "..."]], inputs: Float[Array, "n d"], activation: str
) -> Float[Array, "n out"]:
    """f(x) = sum_i a_i s(w_i . x) for each row of inputs.

    Raises:
        ValueError: an unknown activation.

    >>> two_layer({'w': jnp.zeros((3, 2)), 'a': jnp.ones((3, 1))}, jnp.ones((1, 2)), 'sigmoid').tolist()
    [[1.5]]
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation={activation!r} is unknown{near(activation, ACTIVATIONS)}; known: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[activation](inputs @ params["w"].T) @ params["a"]


def init_students(
    key: Key[Array, ""], seeds: int, width: int, *, inputs: int = 2, outputs: int = 1
) -> dict[str, Float[Array, "seed ..."]]:
    """Stacked two-layer students with Glorot-uniform weights, +-sqrt(6 / (fan in + fan out)), in jax's default float.

    The weights of a seed do not depend on the number of seeds.

    Raises:
        ValueError: seeds or width < 1.

    >>> init_students(jax.random.key(0), 5, 3)['w'].shape
    (5, 3, 2)
    """
    if seeds < 1 or width < 1:
        raise ValueError(f"seeds={seeds} and width={width} must be >= 1")

    def one(seed):
        w, a = jax.random.split(jax.random.fold_in(key, seed))
        ends = np.sqrt(6 / np.array([inputs + width, width + outputs])).tolist()
        return {
            "w": jax.random.uniform(w, (width, inputs), minval=-ends[0], maxval=ends[0]),
            "a": jax.random.uniform(a, (width, outputs), minval=-ends[1], maxval=ends[1]),
        }

    return jax.vmap(one)(jnp.arange(seeds))


def init_deep_students(key: Key[Array, ""], seeds: int, widths: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """Stacked deep students: (kernel [seed, in, out], bias [seed, out]) per layer; Glorot uniform, zero biases.

    >>> [kernel.shape for kernel, _ in init_deep_students(jax.random.key(0), 5, (2, 4, 1))]
    [(5, 2, 4), (5, 4, 1)]
    """
    init = jax.nn.initializers.glorot_uniform()

    def one(seed):
        keys = jax.random.split(jax.random.fold_in(key, seed), len(widths) - 1)
        sizes = zip(keys, widths, widths[1:])
        return [(init(k, (fan_in, out), jnp.result_type(float)), jnp.zeros(out)) for k, fan_in, out in sizes]

    return jax.vmap(one)(jnp.arange(seeds))


def deep_tanh(layers: list[tuple[Array, Array]], inputs: Float[Array, "n d"]) -> Float[Array, "n out"]:
    """Output of a network of dense layers with tanh between them.

    >>> deep_tanh([(jnp.ones((1, 2)), jnp.zeros(2)), (jnp.ones((2, 1)), jnp.ones(1))], jnp.zeros((1, 1))).tolist()
    [[1.0]]
    """
    for kernel, bias in layers[:-1]:
        inputs = jnp.tanh(_dense(inputs, kernel, bias))
    return _dense(inputs, *layers[-1])


def _dense(inputs, kernel, bias):
    outputs = inputs @ kernel
    return outputs + trees.along(bias, outputs)


def deep_teacher() -> list[tuple[np.ndarray, np.ndarray]]:
    """The 2-4-4-4-1 tanh teacher with biases, for `deep_tanh`; the authors fitted it to `deep_target`.

    >>> [kernel.shape for kernel, _ in deep_teacher()]
    [(2, 4), (4, 4), (4, 4), (4, 1)]
    """
    return [(np.array(rows).T, np.array(biases)) for rows, biases in DEEP_TEACHER]


def deep_target(inputs: Float[Array, "n 2"]) -> Float[Array, "n 1"]:
    """sin(2x) + x + cos(3y) - 0.4 (y - 1)^2, the function that the deep teacher was fitted to.

    >>> deep_target(np.array([[0.0, 1.0]])).round(3).tolist()
    [[-0.99]]
    """
    x, y = inputs[:, :1], inputs[:, 1:]
    return np.sin(2 * x) + x + np.cos(3 * y) - 0.4 * (y - 1) ** 2


def student_residuals(
    network: Callable[[PyTree, Array], Float[Array, "n out"]], inputs: ArrayLike, targets: Float[ArrayLike, "n out"]
) -> Callable[[PyTree], Float[Array, " m"]]:
    """A function params -> (f(x) - y) / sqrt(n), whose sum of squares is the mean squared error.

    Raises:
        ValueError: inputs and targets of different length.

    >>> residuals = student_residuals(lambda p, x: p * x, np.ones((4, 1)), np.zeros((4, 1)))
    >>> float(jnp.sum(residuals(3.0) ** 2))
    9.0
    """
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs have {len(targets)} targets: give one each")
    return lambda params: (network(params, inputs) - targets).ravel() / np.sqrt(len(inputs)).item()


def tally_neurons(
    student: Mapping[str, Float[ArrayLike, "m _"]],
    teacher: Mapping[str, Float[ArrayLike, "r _"]],
    *,
    distance: float = 1e-2,
    zero: float = 1e-5,
) -> Tally:
    """Classify the neurons of one student.

    Groups are the connected components of |w_i - w_j| < distance. Checked in this order: a group within `distance` of a
    teacher vector consists of copies; a group whose outgoing vectors sum to less than `zero` in every entry is of zero
    type; a group within `distance` of minus a teacher vector is antipodal, within `distance` of 0 constant.

    Args:
        student: {'w': [m, d], 'a': [m, out]} at zero loss.
        teacher: {'w': [r, d], 'a': [r, out]}.
        distance: largest distance between incoming vectors that count as equal.
        zero: largest absolute sum of outgoing weights that counts as zero.

    Raises:
        ValueError: neurons of different dimension.

    >>> student = {'w': np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), 'a': np.array([[0.4], [0.6], [0.0]])}
    >>> tally_neurons(student, {'w': np.array([[1.0, 0.0]]), 'a': np.ones((1, 1))})
    Tally(copies=2, zero_type={1: 1}, antipodal=0, constant=0, other=0)
    """
    w, a, known = (np.asarray(part) for part in (student["w"], student["a"], teacher["w"]))
    if w.shape[1] != known.shape[1]:
        raise ValueError(f"the student's incoming vectors have {w.shape[1]} entries and the teacher's {known.shape[1]}")
    close = scipy.spatial.distance.cdist(w, w) < distance
    groups, labels = scipy.sparse.csgraph.connected_components(close)
    copies = antipodal = constant = other = 0
    zero_type: dict[int, int] = {}
    for group in range(groups):
        members = np.flatnonzero(labels == group)
        if scipy.spatial.distance.cdist(w[members], known).min() < distance:
            copies += len(members)
        elif np.abs(a[members].sum(0)).max() < zero:
            zero_type[len(members)] = zero_type.get(len(members), 0) + len(members)
        elif scipy.spatial.distance.cdist(-w[members], known).min() < distance:
            antipodal += len(members)
        elif np.linalg.norm(w[members], axis=1).min() < distance:
            constant += len(members)
        else:
            other += len(members)
    return Tally(copies, dict(sorted(zero_type.items())), antipodal, constant, other)
