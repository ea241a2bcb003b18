"""Compare recovered networks with a known teacher: evaluation, fit of the constant, errors of matched units."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy  # subpackages are imported lazily
from jaxtyping import Array, Float, Int

from sbjax import trees
from sbjax.common import devices
from sbjax.landscape.layered import Activation
from sbjax.landscape.manifold import Units
from sbjax.landscape.unit_symmetry import form_of


class TeacherMatch(NamedTuple):
    """Comparison of a recovered network with its teacher.

    Attributes:
        units: for each teacher unit, the index of the recovered unit, or -1.
        incoming, outgoing: relative errors |w' - w| / |w| and |a' - a| / |a| per teacher unit, up to the symmetry of
            the activation; infinite if it was not recovered.
        excess: number of recovered units not assigned to a teacher unit.
        function: root mean square difference of the outputs divided by the standard deviation of the teacher's; NaN
            without inputs.
    """

    units: Int[np.ndarray, "_"]
    incoming: Float[np.ndarray, "_"]
    outgoing: Float[np.ndarray, "_"]
    excess: int
    function: float

    @property
    def missing(self) -> int:
        """Number of teacher units that were not recovered."""
        return int(np.sum(self.units < 0))

    @property
    def errors(self) -> Float[np.ndarray, "_"]:
        """The larger of the two errors of each teacher unit."""
        return np.maximum(self.incoming, self.outgoing)


def evaluate(
    params: Mapping[str, Float[Array, "..."]], inputs: Float[Array, "n d"], activation: Activation
) -> Float[Array, "n out"]:
    """f(x) = sum_i a_i s(w_i . x) + constant + linear^T x; the entries 'constant' and 'linear' are optional.

    >>> evaluate({'w': jnp.zeros((1, 2)), 'a': jnp.ones((1, 1)), 'constant': jnp.ones(1)}, jnp.ones((1, 2)), jnp.exp)
    Array([[2.]], dtype=float32)
    """
    outputs = activation(inputs @ params["w"].T) @ params["a"]
    if "constant" in params:
        outputs = outputs + trees.along(params["constant"], outputs)
    return outputs + inputs @ params["linear"] if "linear" in params else outputs


def align(
    params: Mapping[str, Float[Array, "..."]],
    inputs: Float[Array, "n d"],
    targets: Float[Array, "n out"],
    activation: Activation,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Refit 'constant' (and 'linear', if present) to targets by least squares, with fixed units.

    Raises:
        ValueError: inputs and targets of different length.

    >>> params = {'w': np.ones((1, 1)), 'a': np.ones((1, 1)), 'constant': np.zeros(1)}
    >>> align(params, np.zeros((3, 1)), np.full((3, 1), 4.0), np.exp)['constant'].round(6).tolist()
    [3.0]
    """
    inputs, targets = np.asarray(inputs, float), np.asarray(targets, float)
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs have {len(targets)} targets: give one each")
    units = {"w": np.asarray(params["w"]), "a": np.asarray(params["a"])}
    features = np.ones((len(inputs), 1))
    if "linear" in params:
        features = np.hstack([features, inputs])
    found = np.linalg.lstsq(features, targets - _outputs(units, inputs, activation), rcond=None)[0]
    return units | {"constant": found[0]} | ({"linear": found[1:]} if "linear" in params else {})


def match_teacher(
    params: Mapping[str, Float[Array, "..."]],
    teacher: Units,
    activation: Activation,
    inputs: Float[Array, "n d"] | None = None,
) -> TeacherMatch:
    """Assign recovered units to teacher units one to one by their incoming vectors, and measure the errors.

    The assignment minimises the sum of relative distances, each clipped at 1. Units that are equivalent by a symmetry
    of the activation (sign, positive scale) are treated as equal.

    Args:
        params: 'w' [m, d], 'a' [m, out] and optional entries of `evaluate`; m may be 0.
        teacher: 'w' [r, d], 'a' [r, out].
        activation: activation of both networks.
        inputs: inputs at which the functions are compared; None = not compared.

    Raises:
        ValueError: vectors of different lengths, or a teacher unit with zero weights.

    >>> teacher = {'w': np.array([[1.0, 0.0], [0.0, 2.0]]), 'a': np.array([[1.0], [3.0]])}
    >>> found = {'w': np.array([[0.0, -2.0], [1.1, 0.0], [5.0, 5.0]]), 'a': np.array([[-3.0], [1.0], [0.2]])}
    >>> match = match_teacher(found, teacher, jnp.tanh)
    >>> match.units.tolist(), match.errors.round(3).tolist(), match.excess
    ([1, 0], [0.1, 0.0], 1)
    """
    form = form_of(activation)
    known = [np.asarray(teacher[name], float) for name in ("w", "a")]
    found = [np.asarray(params[name], float) for name in ("w", "a")]
    if any(k.shape[1] != f.shape[1] for k, f in zip(known, found)):
        raise ValueError(
            f"the recovered network has w and a of shapes {[f.shape for f in found]} and the teacher of "
            f"{[k.shape for k in known]}: they must agree in the last axis"
        )
    (w, a), (rows, outgoing) = form.normalised(*known), form.normalised(*found)
    sizes = [np.linalg.norm(part, axis=1) for part in (w, a)]
    if not min(sizes[0].min(initial=1.0), sizes[1].min(initial=1.0)) > 0:
        raise ValueError("teacher has a unit with incoming or outgoing weights of 0, without effect: leave it out")
    gaps = scipy.spatial.distance.cdist(w, rows)
    if form.flip:
        gaps = np.minimum(gaps, scipy.spatial.distance.cdist(w, -rows))
    source, place = scipy.optimize.linear_sum_assignment(np.minimum(gaps / sizes[0][:, None], 1.0))
    units, errors = np.full(len(w), -1), np.full((2, len(w)), np.inf)
    units[source] = place
    for t, i in zip(source, place):
        signs = form.signs(rows[i : i + 1], w[t])
        errors[0, t] = np.linalg.norm(signs * rows[i] - w[t]) / sizes[0][t]
        errors[1, t] = np.linalg.norm(form.mirrored(outgoing[i : i + 1], signs)[0] - a[t]) / sizes[1][t]
    function = np.nan
    if inputs is not None:
        right = _outputs(teacher, np.asarray(inputs, float), activation)
        wrong = _outputs(params, np.asarray(inputs, float), activation) - right
        function = float(np.sqrt(np.mean(wrong**2) / np.mean((right - right.mean(0)) ** 2)))
    return TeacherMatch(units, *errors, len(rows) - len(place), function)


def match_layers(
    layers: Sequence[tuple[Float[Array, "_ _"], Float[Array, "_"]]],
    teacher: Sequence[tuple[Float[Array, "_ _"], Float[Array, "_"]]],
    activation: Activation,
) -> TeacherMatch:
    """`match_teacher` for deep networks with biases, layer by layer; the result lists the units of all hidden layers.

    Incoming vectors (including the bias) are compared after the units below have been brought into the teacher's order
    and signs, dropping those the teacher does not have. Outgoing errors are measured in the last hidden layer only;
    elsewhere outgoing weights are the incoming weights of the next layer, and `outgoing` is 0. Functions are not
    compared.

    Args:
        layers, teacher: kernel [in, out] and bias [out] of each layer.
        activation: activation between the layers.

    Raises:
        ValueError: networks of different depth, or an activation for which units at w and -w differ by a linear
            function.

    >>> teacher = [(np.eye(2), np.ones(2)), (np.ones((2, 1)), np.zeros(1))]
    >>> mirrored = [(-np.eye(2), -np.ones(2)), (-np.ones((2, 1)), np.zeros(1))]
    >>> match_layers(mirrored, teacher, jnp.tanh).errors.tolist()
    [0.0, 0.0]
    """
    form = form_of(activation)
    if len(layers) != len(teacher):
        raise ValueError(f"the recovered network has {len(layers)} layers and the teacher {len(teacher)}")
    if form.slope:
        raise ValueError(
            f"activation is {form.symmetry}: units at w and -w differ by a linear function of the layer below"
        )
    kernel, shift = (np.asarray(part, float) for part in layers[0])
    found = []
    for here, (known_kernel, known_shift) in enumerate(teacher[:-1]):
        known = {"w": np.column_stack([np.asarray(known_kernel).T, known_shift]), "a": np.ones((len(known_shift), 1))}
        rows = np.column_stack([kernel.T, shift])
        after, next_shift = (np.asarray(part, float) for part in layers[here + 1])
        last = here == len(teacher) - 2
        if last:
            known["a"] = np.asarray(teacher[-1][0], float)
        match = match_teacher({"w": rows, "a": after if last else np.ones((len(rows), 1))}, known, activation)
        there = match.units >= 0
        kernel, shift = np.zeros((len(there), after.shape[1])), next_shift.copy()
        for t in np.flatnonzero(there):
            sign = form.signs(rows[match.units[t]][None], known["w"][t])
            kernel[t] = form.mirrored(after[match.units[t]][None], sign)[0]
            shift += form.constant(after[match.units[t]][None], sign)[0]
        found.append(match if last else match._replace(outgoing=np.where(there, 0.0, np.inf)))
    units, incoming, outgoing = (np.concatenate([getattr(m, name) for m in found]) for name in TeacherMatch._fields[:3])
    return TeacherMatch(units, incoming, outgoing, sum(match.excess for match in found), np.nan)


def _outputs(params, inputs, activation):
    """`evaluate` in double precision for any jax precision."""
    with devices.double():
        return np.asarray(evaluate({name: jnp.asarray(part) for name, part in params.items()}, inputs, activation))
