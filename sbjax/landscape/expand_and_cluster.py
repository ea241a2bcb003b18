"""Expand-and-Cluster: recover width and weights of an unknown network from several wider students that imitate it.

Widened students reach zero loss on the teacher's manifold: some of their units have the teacher's incoming vectors, the
same in all students; the others cancel, at vectors that differ between students. Therefore the incoming vectors of all
students are pooled and clustered, and each cluster shared by several students is collapsed to one unit.

Differences from the published code (its choice in brackets):

- If a symmetry of the activation makes w and -w equivalent, their smaller distance is used [sign of the first entry,
  which is sensitive to round-off].
- A cluster must also have members in gamma N students, weights besides its bias, outgoing vectors that do not cancel
  and agree in gamma N students, and must persist over a range of heights of the tree [only size and spread].
- The tree is cut at the height with the most clusters that pass [that have the size], at the widest gap among ties
  [the last of the first run]. In two dimensions cancelling units are so dense that high cuts produce spurious clusters.
- Duplicates within a student are averaged with weights given by their share of the outgoing vector, which changes the
  function in second order only and ignores cancelling units [equal weights].

Source: Martinelli et al., arXiv 2304.12794.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from sbjax.landscape.layered import Activation
from sbjax.landscape.unit_clusters import DEFAULT_RULES, Clustering, Rules, checked, cluster_units
from sbjax.landscape.unit_symmetry import Form, form_of

Layers = list[tuple[Float[Array, "student _ _"], Float[Array, "student _"]]]
"""Kernels and biases of stacked networks with dense layers."""


class Recovered(NamedTuple):
    """The collapsed network f(x) = sum_i a_i s(w_i . x) + constant + linear^T x.

    Attributes:
        params: 'w' [r, d], 'a' [r, out], 'constant' [out], and 'linear' [d, out] if units at w and -w differ by a
            linear function. See `teacher_match.evaluate` and `teacher_match.align`.
        students: index of the student that each unit was taken from.
        clustering: the clusters of incoming vectors.
    """

    params: dict[str, Float[np.ndarray, "..."]]
    students: Int[np.ndarray, " r"]
    clustering: Clustering

    @property
    def width(self) -> int:
        """Number of units r."""
        return len(self.params["w"])


class RecoveredLayers(NamedTuple):
    """A collapsed deep network.

    Attributes:
        layers: kernel [in, out] and bias [out] of each layer.
        clusterings: clusters of each hidden layer.
    """

    layers: list[tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, " _"]]]
    clusterings: tuple[Clustering, ...]


def expand_and_cluster(
    students: Mapping[str, Float[Array, "student m ..."]] | Sequence[Mapping[str, Float[Array, "m ..."]]],
    losses: Real[Array, " student"] | Sequence[float],
    activation: Activation,
    rules: Rules = DEFAULT_RULES,
    *,
    bias: bool = False,
) -> Recovered:
    """Recover the network shared by N two-layer students f(x) = sum_i a_i s(w_i . x).

    Args:
        students: {'w': [N, m, d], 'a': [N, m, out]}, or a sequence of N networks; best trained to zero loss in double
            precision.
        losses: loss of each student. A unit is taken from the student with the lowest loss that contains it.
        activation: s; its symmetry (`layered.activation_symmetry`) determines which units are equivalent.
        rules: criteria for clusters that represent units.
        bias: whether the last entry of w is a bias, that is, x ends with 1.

    Returns:
        `Recovered`, of width 0 if the students share no unit.

    Raises:
        ValueError: fewer than two students, different shapes, weights that are not finite, gamma N < 2 or gamma > 1,
            beta not between 0 and pi / 2, an affine activation.

    >>> rng = np.random.default_rng(0)
    >>> w, a = rng.normal(size=(4, 3, 2)), np.ones((4, 3, 1))
    >>> w[:, :2], a[:, 2] = [[1.0, 2.0], [1.0, 2.0]], 0  # every student has it twice, and a unit without effect
    >>> found = expand_and_cluster({'w': w, 'a': a}, np.arange(4), np.exp)
    >>> found.params['w'].tolist(), found.params['a'].tolist(), [len(c.members) for c in found.clustering.kept]
    ([[1.0, 2.0]], [[2.0]], [8])
    """
    rows, outgoing = _stacked(students)
    losses = _checked_losses(losses, len(rows))
    form = form_of(activation)
    clustering = cluster_units(rows, outgoing, activation, rules, bias=bias)
    units, chosen = [], []
    for cluster in clustering.kept:
        student = _best(cluster, losses)
        units.append(_collapse(form, cluster, student, rows, outgoing))
        chosen.append(student)
    d, out = rows.shape[2], outgoing.shape[2]
    params = {
        "w": np.reshape([unit.row for unit in units], (-1, d)),
        "a": np.reshape([unit.outgoing for unit in units], (-1, out)),
        "constant": sum((unit.constant for unit in units), np.zeros(out)),
    }
    if form.slope:
        params["linear"] = sum((unit.linear for unit in units), np.zeros((d, out)))
    return Recovered(params, np.array(chosen, int), clustering)


def recover_layers(
    students: Layers,
    losses: Real[Array, " student"] | Sequence[float],
    activation: Activation,
    retrain: Callable[[Layers, int], tuple[Layers, Float[Array, " student"]]],
    rules: Rules = DEFAULT_RULES,
) -> RecoveredLayers:
    """`expand_and_cluster` for deep networks with biases, from the first hidden layer to the last.

    A recovered hidden layer replaces that of every student, each with the summed outgoing weights of its own units. The
    layers above are then retrained, after which incoming vectors of the next layer can be compared between students.

    Args:
        students: kernel [N, in, out] and bias [N, out] of each layer; activation after every layer except the last.
        losses: loss of each student.
        activation: without symmetry, odd, even, or odd up to a constant.
        retrain: (layers, l) -> (layers, losses), trains layers l, l + 1, .. further and keeps the first l fixed.
        rules: as in `expand_and_cluster`; the bias is an entry of the incoming vector.

    Raises:
        ValueError: as `expand_and_cluster`; a layer without any recovered unit; an activation for which units at w and
            -w differ by a linear function, which the next layer cannot represent.
    """
    form = form_of(activation)
    if form.slope:
        raise ValueError(
            f"activation is {form.symmetry}: mirrored units differ by a linear function of the layer below, which a "
            "plain deep network cannot hold; use an activation without symmetry or an odd one (up to a constant)"
        )
    layers = [(np.asarray(kernel, float), np.asarray(shift, float)) for kernel, shift in students]
    found, last = [], len(layers) - 2
    for here in range(len(layers) - 1):
        (kernel, shift), (outgoing, next_shift) = layers[here], layers[here + 1]
        rows = np.concatenate([kernel.transpose(0, 2, 1), shift[:, :, None]], 2)
        losses = _checked_losses(losses, len(rows))
        # Below the last hidden layer outgoing vectors follow the student's own order of units: not comparable.
        here_rules = rules if here == last else rules._replace(agree=math.inf)
        clustering = cluster_units(rows, outgoing, activation, here_rules, bias=True)
        if not clustering.kept:
            raise ValueError(f"the students share no unit of hidden layer {here}: train them further, or lower gamma")
        best = [_best(cluster, losses) for cluster in clustering.kept]
        row = np.array([_collapse(form, c, s, rows, outgoing).row for c, s in zip(clustering.kept, best)])
        # Every student keeps the summed outgoing weights of its own units; 0 if it lacks the unit, until retrained.
        sums, constant = np.zeros((len(rows), len(row), outgoing.shape[2])), next_shift.copy()
        for unit, cluster in enumerate(clustering.kept):
            signs = form.signs(rows[tuple(cluster.members.T)], row[unit])
            passed = outgoing[tuple(cluster.members.T)]
            np.add.at(sums[:, unit], cluster.members[:, 0], form.mirrored(passed, signs))
            np.add.at(constant, cluster.members[:, 0], form.constant(passed, signs))
        if here == last:
            sums = np.broadcast_to(sums[best, np.arange(len(row))], sums.shape)
            constant = np.broadcast_to(constant[np.argmin(losses)], constant.shape)
        layers[here] = tuple(np.repeat(part[None], len(rows), 0) for part in (row[:, :-1].T, row[:, -1]))
        layers[here + 1] = sums, constant
        found.append(clustering)
        if here < last:
            layers, losses = retrain(layers, here + 1)
            layers = [(np.asarray(kernel, float), np.asarray(shift, float)) for kernel, shift in layers]
    return RecoveredLayers([(kernel[0], shift[0]) for kernel, shift in layers], tuple(found))


class _Unit(NamedTuple):
    row: Float[np.ndarray, " d"]
    outgoing: Float[np.ndarray, " out"]
    constant: Float[np.ndarray, " out"]
    linear: Float[np.ndarray, "d out"]


def _best(cluster, losses):
    present = np.unique(cluster.members[:, 0])
    return int(present[np.argmin(losses[present])])


def _collapse(form: Form, cluster, student, rows, outgoing) -> _Unit:
    """Collapse a student's units in a cluster to one, with the sign of the unit with the largest outgoing vector."""
    units = cluster.members[cluster.members[:, 0] == student, 1]
    own, passed = form.normalised(rows[student, units], outgoing[student, units])
    signs = form.signs(own, own[np.argmax(np.linalg.norm(passed, axis=1))])
    mirrored = form.mirrored(passed, signs)
    total = mirrored.sum(0)
    shares = mirrored @ total / (total @ total) if total.any() else np.full(len(units), 1 / len(units))
    linear = form.slope * np.einsum("id,io->do", own, np.where(signs[:, None] < 0, passed, 0))
    return _Unit(shares @ (own * signs[:, None]), total, form.constant(passed, signs).sum(0), linear)


def _stacked(students):
    if not isinstance(students, Mapping):
        shapes = {tuple(np.shape(student[name]) for name in ("w", "a")) for student in students}
        if len(shapes) > 1:
            raise ValueError(f"students have w and a of shapes {sorted(shapes)}: give students of one shape")
        if not shapes:
            raise ValueError("students is empty: give two or more")
        students = {name: np.stack([np.asarray(student[name]) for student in students]) for name in ("w", "a")}
    if set(students) != {"w", "a"}:
        raise ValueError(f"students have the entries {sorted(students)}: give 'w' [N, m, d] and 'a' [N, m, out]")
    return checked(students["w"], students["a"])


def _checked_losses(losses, students):
    losses = np.asarray(losses, np.float64)
    if losses.shape != (students,) or not np.isfinite(losses).all():
        raise ValueError(f"losses={losses.tolist()} must be {students} finite numbers, one for each student")
    return losses
