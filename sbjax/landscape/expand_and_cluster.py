"""Expand-and-Cluster: width and weights of an unknown network from several wider ones that imitate it.

Students wider than the teacher reach zero loss on its expansion manifold: some of their units have the teacher's
incoming vectors, in all students alike, and the others cancel, at vectors that differ between students. So the incoming
vectors of all students are pooled and clustered; what several students share is kept, one unit a cluster.

Beyond the published algorithm (its code in brackets):

- Vectors that a symmetry of the activation makes equivalent are compared by the smaller of the distances of w and -w
  [by the sign of the first entry, which round-off may turn].
- A cluster also has to have members in gamma N students, weights besides its bias, and outgoing vectors that do not
  cancel and are alike in gamma N students; and to last as the tree is cut higher [size and spread alone].
- The tree is cut where most clusters pass all of that [are of the size], and of such heights at the widest gap
  [at the last of the first ones in a row]. In the plane, units that cancel are so dense that high cuts find more
  clusters of the size than there are.
- The duplicates of a student are averaged with their shares of the outgoing vector as weights, which changes the
  function in second order only, and not at all by units that cancel [evenly].

Source: Martinelli et al., arXiv 2304.12794.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from sbjax.landscape.layered import Activation
from sbjax.landscape.unit_clusters import DEFAULT_RULES, Clustering, Rules, checked, cluster_units
from sbjax.landscape.unit_symmetry import Form, form_of

Layers = list[tuple[Float[Array, "student in out"], Float[Array, "student out"]]]
"""Kernels and biases of stacked networks with dense layers."""


class Recovered(NamedTuple):
    """The collapsed network f(x) = sum_i a_i s(w_i . x) + constant + linear^T x.

    Attributes:
        params: 'w' [r, d], 'a' [r, out], 'constant' [out], and 'linear' [d, out] where a unit and its mirror image
            differ by a linear function. See `evaluate` and `align`.
        students: the student each unit was taken from.
        clustering: how.
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
        layers: kernel [in, out] and bias [out] of each.
        clusterings: of each hidden layer.
    """

    layers: list[tuple[Float[np.ndarray, "in out"], Float[np.ndarray, " out"]]]
    clusterings: tuple[Clustering, ...]


def expand_and_cluster(
    students: Mapping[str, Float[Array, "student m ..."]] | Sequence[Mapping[str, Float[Array, "m ..."]]],
    losses: Float[Array, " student"],
    activation: Activation,
    rules: Rules = DEFAULT_RULES,
    *,
    bias: bool = False,
) -> Recovered:
    """The network that N two-layer students f(x) = sum_i a_i s(w_i . x) share.

    Args:
        students: {'w': [N, m, d], 'a': [N, m, out]}, or N such networks; the best results come from students at zero
            loss in double precision.
        losses: of each. A unit is taken from the student with the lowest loss that has it.
        activation: s; its symmetry (`layered.activation_symmetry`) says which units are equivalent.
        rules: which clusters stand for units.
        bias: whether the last entry of w is a bias, that is, x ends with 1.

    Returns:
        `Recovered`; of width 0 if the students share nothing.

    Raises:
        ValueError: fewer than two students, students of different shapes, numbers that are not finite, gamma N < 2 or
            gamma > 1, an angle not between 0 and pi / 2, an affine activation.

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
    losses: Float[Array, " student"],
    activation: Activation,
    retrain: Callable[[Layers, int], tuple[Layers, Float[Array, " student"]]],
    rules: Rules = DEFAULT_RULES,
) -> RecoveredLayers:
    """`expand_and_cluster` for deep networks with biases, from the first hidden layer to the last.

    Once a hidden layer is recovered, all students get it, each with the sums of its own outgoing weights; then the
    layers above are trained again, whose units now have incoming vectors that can be compared.

    Args:
        students: kernel [N, in, out] and bias [N, out] of each layer; the activation after every layer but the last.
        losses: of each student.
        activation: without symmetry, odd, even, or odd up to a constant.
        retrain: (layers, l) -> layers with those from l on trained further, and losses. The first l stay as they are.
        rules: as in `expand_and_cluster`; the bias is an entry of the incoming vector.

    Raises:
        ValueError: as `expand_and_cluster`; a layer of which nothing is recovered; an activation whose mirror images
            differ by a linear function, which the next layer cannot add.
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
        # Below the last hidden layer outgoing vectors are in the order of the student's own next layer.
        here_rules = rules if here == last else rules._replace(agree=math.inf)
        clustering = cluster_units(rows, outgoing, activation, here_rules, bias=True)
        if not clustering.kept:
            raise ValueError(f"the students share no unit of hidden layer {here}: train them further, or lower gamma")
        best = [_best(cluster, losses) for cluster in clustering.kept]
        row = np.array([_collapse(form, c, s, rows, outgoing).row for c, s in zip(clustering.kept, best)])
        # Every student keeps what its own units passed on; one without the unit passes on nothing before training.
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
    """One unit for those of a student in a cluster, with the sign of the one that passes on most."""
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
