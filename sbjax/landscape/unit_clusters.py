"""Clusters of incoming vectors shared by several networks, from an average-linkage tree.

Implements the criteria of `expand_and_cluster`, which explains them and compares them with the published ones.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy  # subpackages are imported lazily
from jaxtyping import Array, Float, Int

from sbjax.landscape.layered import Activation
from sbjax.landscape.unit_symmetry import Form, form_of

RESOLUTION = 1e-3
"""Incoming vectors closer than this fraction of their median norm are not distinguished."""

CONSTANT = 1e-2
"""Units whose weights without the bias are below this fraction of the median norm are constants."""


class Rules(NamedTuple):
    """Criteria for clusters that represent a unit of the unknown network.

    Attributes:
        gamma: a cluster needs at least gamma N units, from at least gamma N of the N students.
        beta: largest angle: clusters with a median cosine distance above 1 - cos(beta) are dropped.
        idle: clusters whose summed outgoing vector is below this fraction of a typical unit's are dropped.
        lasting: persistence: log of the factor by which heights grow between the merge at which a cluster first passes
            the other criteria and the merge with another passing cluster. Clusters below this fraction of the largest
            persistence are dropped.
        agree: summed outgoing vectors of students agree if they are within this relative distance of their median;
            those of gamma N students must agree.
    """

    gamma: float = 0.5
    beta: float = math.pi / 6
    idle: float = 0.05
    lasting: float = 0.2
    agree: float = 0.5


DEFAULT_RULES = Rules()


class Cluster(NamedTuple):
    """Units of one branch of the tree.

    Attributes:
        members: (student, unit) of each member, ascending.
        students: number of students with members.
        spread: median cosine distance between members; signs of directions are ignored if w and -w are equivalent.
        outgoing: norm of a student's summed outgoing vector over the root mean square of its units, median over
            students.
        reason: why it was dropped; '' if it was kept.
    """

    members: Int[np.ndarray, "size 2"]
    students: int
    spread: float
    outgoing: float
    reason: str


class Clustering(NamedTuple):
    """Clusters of the units of all students.

    Attributes:
        clusters: clusters with at least gamma N units at the cut, kept ones first.
        labels: index of the kept cluster of every unit, or -1.
        height: height of the cut.
        tree: average linkage in scipy's format; leaves are units, student by student.
    """

    clusters: tuple[Cluster, ...]
    labels: Int[np.ndarray, "student _"]
    height: float
    tree: Float[np.ndarray, "_ 4"]

    @property
    def kept(self) -> tuple[Cluster, ...]:
        """Clusters that represent units of the unknown network."""
        return tuple(cluster for cluster in self.clusters if not cluster.reason)


def cluster_units(
    rows: Float[Array, "student m d"],
    outgoing: Float[Array, "student m out"],
    activation: Activation,
    rules: Rules = DEFAULT_RULES,
    *,
    bias: bool = False,
) -> Clustering:
    """Cluster incoming vectors shared by the students; arguments and errors as `expand_and_cluster.expand_and_cluster`.

    >>> w = np.array([[[1.0], [3.0]], [[1.0], [-5.0]]])
    >>> found = cluster_units(w, np.ones((2, 2, 1)), np.exp, Rules(gamma=1.0))
    >>> found.labels.tolist()
    [[0, -1], [0, -1]]
    """
    rows, outgoing = checked(rows, outgoing)
    students, m, _ = rows.shape
    least = rules.gamma * students
    if not (least >= 2 and rules.gamma <= 1):
        raise ValueError(
            f"gamma={rules.gamma} of N={students} students is {least:g}: a cluster needs between 2 and N students; "
            "choose gamma between 2 / N and 1, or train more students"
        )
    if not 0 < rules.beta < math.pi / 2:
        raise ValueError(f"beta={rules.beta} must be an angle between 0 and pi / 2 = {math.pi / 2:.4f}")
    form = form_of(activation)
    rows, outgoing = form.normalised(rows, outgoing)
    pooled = rows.reshape(students * m, -1)
    tree = scipy.cluster.hierarchy.average(form.distances(pooled))
    judge = _judge(form, rows, outgoing, rules, bias)
    branches = [np.array([i]) for i in range(len(pooled))]
    for i, j in tree[:, :2].astype(int):
        branches.append(np.concatenate([branches[i], branches[j]]))
    large = [len(branch) >= least for branch in branches]
    passing = np.array([big and not judge(branch).reason for big, branch in zip(large, branches)])
    nearest = RESOLUTION * float(np.median(np.linalg.norm(pooled, axis=1)))
    lives = _lives(tree, passing, nearest)
    bar = rules.lasting * lives.max()
    last = _cut(tree, passing & (lives >= bar), nearest)
    clusters = []
    for branch in np.flatnonzero(_alive(tree, last) & large):
        cluster = judge(branches[branch])
        if not cluster.reason and lives[branch] < bar:
            cluster = cluster._replace(reason=f"lasts to {math.exp(lives[branch]):.2g} times the distance")
        clusters.append(cluster)
    height = float(tree[last, 2])
    clusters.sort(key=lambda cluster: (bool(cluster.reason), -len(cluster.members)))
    labels = np.full((students, m), -1)
    for label, cluster in enumerate(clusters):
        if not cluster.reason:
            labels[tuple(cluster.members.T)] = label
    return Clustering(tuple(clusters), labels, height, tree)


def checked(
    rows: Float[Array, "student m d"], outgoing: Float[Array, "student m out"]
) -> tuple[Float[np.ndarray, "student m d"], Float[np.ndarray, "student m out"]]:
    """Validate incoming and outgoing vectors and convert them to double precision.

    Raises:
        ValueError: wrong shapes, fewer than two students, or values that are not finite.
    """
    rows, outgoing = np.asarray(rows, np.float64), np.asarray(outgoing, np.float64)
    if rows.ndim != 3 or outgoing.ndim != 3 or rows.shape[:2] != outgoing.shape[:2]:
        raise ValueError(
            f"incoming vectors have shape {rows.shape} and outgoing ones {outgoing.shape}: give [N, m, d], [N, m, out]"
        )
    if len(rows) < 2:
        raise ValueError("there is only one student: give two or more")
    broken = [i for i in range(len(rows)) if not (np.isfinite(rows[i]).all() and np.isfinite(outgoing[i]).all())]
    if broken:
        raise ValueError(f"students {broken} have weights that are not finite: leave them out")
    return rows, outgoing


def _judge(form: Form, rows, outgoing, rules, bias):
    """A function that evaluates the criteria for a cluster of pooled units."""
    students, m, _ = rows.shape
    pooled, passed = rows.reshape(students * m, -1), outgoing.reshape(students * m, -1)
    directions = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), np.finfo(float).tiny)
    weights = np.linalg.norm(pooled[:, :-1] if bias else pooled, axis=1)
    typical = np.median(weights)
    scale = np.sqrt(np.mean(np.sum(outgoing**2, 2), 1))

    def judge(units):
        members = np.stack(np.divmod(np.sort(units), m), 1)
        present, which = np.unique(members[:, 0], return_inverse=True)
        units = members @ [m, 1]
        cosines = directions[units] @ directions[units].T
        spread = max(0.0, float(np.median(1 - form.folded(cosines)[np.triu_indices(len(units), 1)])))
        sums = np.zeros((len(present), passed.shape[1]))
        np.add.at(sums, which, form.mirrored(passed[units], form.signs(pooled[units], pooled[units[0]])))
        middle = np.median(sums, 0)
        alike = int(np.sum(np.linalg.norm(sums - middle, axis=1) <= rules.agree * np.linalg.norm(middle)))
        sizes = np.linalg.norm(sums, axis=1) / np.maximum(scale[present], np.finfo(float).tiny)
        reason = ""
        if len(present) < rules.gamma * students:
            reason = f"units of {len(present)} students only"
        elif np.median(weights[units]) <= CONSTANT * typical:
            reason = "a constant"
        elif spread > 1 - math.cos(rules.beta):
            reason = f"spread {spread:.2g}"
        elif np.median(sizes) <= rules.idle:
            reason = f"outgoing vectors cancel to {np.median(sizes):.1g}"
        elif alike < rules.gamma * students:
            reason = f"outgoing vectors of {alike} students agree"
        return Cluster(members, len(present), spread, float(np.median(sizes)), reason)

    return judge


def _lives(tree, passing, least):
    """Persistence of each passing branch: log of the ratio of the heights at which its cluster ends and begins.

    A cluster begins where it first passes the criteria, continues while it absorbs branches that do not pass, and ends
    where it fails or merges with another passing cluster. Heights below `least` are raised to it.
    """
    n, born, died = len(tree) + 1, np.zeros(len(passing)), np.zeros(len(passing))
    heights = np.log(np.maximum(tree[:, 2], max(least, np.finfo(float).tiny)))
    pairs = tree[:, :2].astype(int)
    for branch in np.flatnonzero(passing[n:]) + n:
        inside = [child for child in pairs[branch - n] if passing[child]]
        born[branch] = born[inside[0]] if len(inside) == 1 else heights[branch - n]
    died[-1] = heights[-1]
    for branch in range(len(passing) - 1, n - 1, -1):
        for child, other in (pairs[branch - n], pairs[branch - n][::-1]):
            goes_on = passing[branch] and not passing[other]
            died[child] = died[branch] if goes_on else heights[branch - n]
    return np.where(passing, died - born, 0.0)


def _alive(tree, last):
    """Mask of the branches that exist after merge `last`."""
    n = len(tree) + 1
    ends = np.full(2 * n - 1, n)
    ends[tree[:, :2].astype(int)] = np.arange(n - 1)[:, None]
    return (np.arange(2 * n - 1) - n <= last) & (ends > last)


def _cut(tree, counted, least):
    """Merge after which to cut: most counted branches, then the largest ratio to the next height. Merges at heights
    below `least` are treated as one."""
    heights = np.maximum(tree[:, 2], max(least, np.finfo(float).tiny))
    counts = np.array([counted[_alive(tree, last)].sum() for last in range(len(tree))])
    gaps = np.append(heights[1:] / heights[:-1], 1.0)
    gaps[:-1][heights[1:] == heights[:-1]] = 0
    gaps[counts < counts[gaps > 0].max()] = 0
    return int(np.argmax(gaps))
