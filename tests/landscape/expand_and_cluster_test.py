"""Recovered networks: students planted on the manifold, what must be dropped, and deep networks."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from sbjax.landscape import expand_and_cluster as lib
from sbjax.landscape import manifold
from sbjax.landscape.teacher_match import align, evaluate, match_layers, match_teacher
from sbjax.landscape.unit_clusters import Rules, cluster_units
from sbjax.landscape.unit_symmetry import form_of

X = np.random.default_rng(0).normal(size=(40, 2))
TEACHER = {
    "w": np.array([[0.6, 0.5], [-0.5, 0.5], [1e-17, -0.9]]),  # the sign of 1e-17 must not matter
    "a": np.array([[1.0, 0.5], [-0.7, 0.2], [0.4, -1.1]]),
}


def generic(z):
    return jax.nn.sigmoid(4 * z) + jax.nn.softplus(z)


def planted(activation, students=6, width=9):
    """Students that compute what the teacher does, up to a constant and a linear function of mirrored copies."""
    rng, form, made = np.random.default_rng(1), form_of(activation), []
    for seed in range(students):
        piece = manifold.random_piece(jax.random.key(seed), 3, width)
        units = manifold.sample(jax.random.key(100 + seed), piece, TEACHER)
        for unit in sum(piece.copies, ()):
            sign = rng.choice([-1, 1]) if form.flip else 1
            size = rng.uniform(0.5, 2) if form.scales else 1
            units["w"][unit] *= sign * size
            units["a"][unit] *= (form.flip if sign < 0 else 1) / size
        made.append(units)
    return made


@pytest.mark.parametrize("activation", [generic, jnp.tanh, jax.nn.sigmoid, jax.nn.softplus, jax.nn.leaky_relu, jnp.cos])
def test_planted_students_are_recovered_to_round_off(activation, x64):
    students = planted(activation)
    found = lib.expand_and_cluster(students, np.arange(6), activation)
    assert found.width == 3
    assert set(found.students) == {0}
    # The function of the student, with what its mirrored units leave; the units that cancel leave nothing.
    expected = activation(X @ students[0]["w"].T) @ students[0]["a"]
    np.testing.assert_allclose(evaluate(found.params, X, activation), expected, atol=1e-12)
    targets = activation(X @ TEACHER["w"].T) @ TEACHER["a"]
    match = match_teacher(align(found.params, X, targets, activation), TEACHER, activation, X)
    assert (sorted(match.units), match.excess) == ([0, 1, 2], 0)
    assert match.errors.max() < 1e-12
    assert match.function < 1e-12


@pytest.mark.parametrize(
    "activation", [jnp.tanh, jax.nn.sigmoid, jnp.cos, jax.nn.softplus, jax.nn.gelu, jax.nn.relu, jax.nn.leaky_relu]
)
def test_mirror_images(activation, x64):
    form, z = form_of(activation), jnp.linspace(-3, 3, 25)
    expected = form.flip * activation(z) + form.offset - form.slope * z
    np.testing.assert_allclose(activation(-z), expected, atol=1e-12)
    assert form.scales == bool(np.allclose(activation(2 * z), 2 * activation(z)))


def test_units_that_are_not_shared_are_dropped():
    """Two true units; one that cancels, a constant, a ball around 0, many copies in one student, and noise."""
    students, rng, made = 6, np.random.default_rng(2), []
    for student in range(students):
        turn = 2 * math.pi * student / students
        rows = [
            [1, 2, 0.5],
            [-2, 1, 0],
            [3, -1, 1],
            [3, -1, 1],
            [0, 0, 4 + 0.01 * student],
            [0.08 * np.cos(turn), 0.08 * np.sin(turn), 0],
        ]
        extra = np.full((6, 3), 5.0) if student == 0 else 20 * rng.normal(size=(6, 3))
        out = [1, 2, 0.5, -0.5, 0.3, 1, *np.ones(6)]
        made.append({"w": np.concatenate([rows, extra]), "a": np.array(out)[:, None]})
    order = rng.permutation(12)
    made = [{name: leaf[order] for name, leaf in student.items()} for student in made]
    found = lib.expand_and_cluster(made, np.arange(6)[::-1], np.exp, bias=True)
    assert sorted(found.params["w"].round(12).tolist()) == [[-2, 1, 0], [1, 2, 0.5]]
    assert set(found.students) == {5}
    clusters = found.clustering.clusters
    assert [bool(cluster.reason) for cluster in clusters] == [False] * 2 + [True] * 4
    reasons = sorted(cluster.reason for cluster in clusters[2:])
    for reason, expected in zip(reasons, ("a constant", "outgoing vectors cancel", "spread 1", "units of 1 students")):
        assert reason.startswith(expected)
    # Half the pairs of a hexagon are at 120 degrees or more, or at 60.
    ball = next(cluster for cluster in clusters if cluster.reason.startswith("spread"))
    assert ball.spread == pytest.approx(np.median(scipy.spatial.distance.pdist(_hexagon(), "cosine")), rel=1e-9)
    assert np.sum(found.clustering.labels >= 0) == 12


def _hexagon():
    turns = 2 * np.pi * np.arange(6) / 6
    return np.stack([np.cos(turns), np.sin(turns)], 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_cut_has_most_clusters(seed):
    """Against all cuts one by one, on noise without outgoing vectors that cancel."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, 8, 3)) + 2
    rows[:, :3] = rng.normal(size=(3, 3)) + 0.2 * rng.normal(size=(5, 3, 3))
    found = cluster_units(
        rows, np.ones((5, 8, 1)), np.exp, Rules(gamma=0.6, beta=math.pi / 8, lasting=0, agree=math.inf)
    )
    pooled, counts = rows.reshape(40, 3), {}
    for height in found.tree[:, 2]:
        labels = scipy.cluster.hierarchy.fcluster(found.tree, height, "distance")
        groups = [np.flatnonzero(labels == label) for label in set(labels) if np.sum(labels == label) >= 3]
        counts[height] = sum(
            len(set(group // 8)) >= 3
            and np.median(scipy.spatial.distance.pdist(pooled[group], "cosine")) <= 1 - np.cos(np.pi / 8)
            for group in groups
        )
    assert len(found.kept) == max(counts.values()) == counts[found.height]


def test_clusters_have_to_last():
    """Chance neighbours of five students beside two units that all have to 1e-3: they join others soon."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.tile([[3.0, 0.0], [0.0, 3.0]], (5, 1, 1)), np.zeros((5, 1, 2))], 1)
    rows[:, 2] = [4 * np.array([np.cos(x), np.sin(x)]) for x in (0.6, 0.7, 0.8, 0.9, 1.0)]
    rows[:, :2] += 1e-3 * rng.normal(size=(5, 2, 2))
    for lasting, kept in ((0.0, 3), (0.25, 2)):
        assert len(cluster_units(rows, np.ones((5, 3, 1)), np.exp, Rules(lasting=lasting)).kept) == kept


def test_students_have_to_agree():
    """Three of six students pass on about the same, of which one may have it in two units."""
    rows = np.full((6, 2, 2), [[3.0, 1.0], [-1.0, 2.0]])
    out = np.array([[[1.0], [1.0]]] * 6)
    out[:, 0, 0] = [1, 1, 1.2, -1, 5, -3]
    found = cluster_units(rows, out, np.exp, Rules(gamma=0.6))
    assert [cluster.reason for cluster in found.clusters] == ["", "outgoing vectors of 3 students agree"]
    assert len(cluster_units(rows, out, np.exp, Rules(gamma=0.5)).kept) == 2
    twice = np.concatenate([rows, rows[:, :1]], 1)
    halves = np.concatenate([out, np.zeros((6, 1, 1))], 1)
    halves[0, [0, 2], 0] = 0.5
    assert len(cluster_units(twice, halves, np.exp, Rules(gamma=0.5)).kept) == 2


def test_near_copies_are_averaged_by_what_they_pass_on(x64):
    """The function changes in second order in their distance, with duplicates of opposite signs too."""

    def deviation(size):
        exact = np.array([[0.6, 0.5], [0.6, 0.5], [-0.5, 0.5]])
        w = exact + size * np.array([[1, 0], [0, 1], [0, 0]])
        students = {"w": np.stack([w, exact]), "a": np.array([[[2.0], [-0.8], [1.0]]] * 2)}
        found = lib.expand_and_cluster(students, np.zeros(2), generic, Rules(gamma=1.0))
        assert found.width == 2
        wide = generic(X @ w.T) @ students["a"][0]
        return np.abs(evaluate(found.params, X, generic) - wide).max()

    assert 60 < deviation(1e-2) / deviation(1e-3) < 140


def test_students_of_different_teachers_share_nothing():
    rng = np.random.default_rng(3)
    students = {"w": rng.normal(size=(8, 4, 12)), "a": rng.normal(size=(8, 4, 1))}
    found = lib.expand_and_cluster(students, np.arange(8), np.exp)
    assert found.width == 0
    assert found.params["w"].shape == (0, 12)
    match = match_teacher(found.params, {"w": students["w"][0], "a": students["a"][0]}, np.exp)
    assert match.units.tolist() == [-1] * 4
    assert np.isinf(match.errors).all()


def expand_layer(rng, layers, here, extra):
    """`extra` copies of random units of a layer, mirrored at random (tanh), and two units that cancel."""
    kernel, bias = layers[here]
    below, r = kernel.shape
    source = np.concatenate([np.arange(r), rng.integers(0, r, extra)])
    shares = rng.uniform(0.5, 1.5, r + extra)
    shares /= np.bincount(source, shares)[source]
    signs, order = rng.choice([-1, 1], r + extra), rng.permutation(r + extra + 2)
    row, passed = rng.normal(size=below + 1), rng.normal(size=layers[here + 1][0].shape[1])
    outgoing = (signs * shares)[:, None] * layers[here + 1][0][source]
    layers = list(layers)
    wide = np.column_stack([signs * kernel[:, source], row[:-1], row[:-1]])[:, order]
    layers[here] = wide, np.append(signs * bias[source], [row[-1]] * 2)[order]
    layers[here + 1] = np.concatenate([outgoing, [passed, -passed]])[order], layers[here + 1][1]
    return layers


def test_deep_students_layer_by_layer():
    """Exact students stay exact when a layer is collapsed, so that nothing has to be trained."""
    rng = np.random.default_rng(4)
    teacher = [(rng.normal(size=shape), rng.normal(size=shape[1])) for shape in ((2, 3), (3, 4), (4, 2))]

    def run(layers):
        h = X
        for kernel, bias in layers[:-1]:
            h = np.tanh(h @ kernel + bias)
        return h @ layers[-1][0] + layers[-1][1]

    students = [expand_layer(rng, expand_layer(rng, teacher, 0, 3), 1, 2) for _ in range(5)]
    for student in students:
        np.testing.assert_allclose(run(student), run(teacher), atol=1e-12)
    stacked = [tuple(np.stack(part) for part in zip(*layers)) for layers in zip(*students)]
    calls = []

    def retrain(layers, first):
        calls.append(first)
        for student in range(5):
            own = [(kernel[student], bias[student]) for kernel, bias in layers]
            np.testing.assert_allclose(run(own), run(teacher), atol=1e-12)
        return layers, np.zeros(5)

    found = lib.recover_layers(stacked, np.zeros(5), jnp.tanh, retrain)
    assert [kernel.shape for kernel, _ in found.layers] == [(2, 3), (3, 4), (4, 2)]
    assert calls == [1]
    np.testing.assert_allclose(run(found.layers), run(teacher), atol=1e-12)
    match = match_layers(found.layers, teacher, jnp.tanh)
    assert (len(match.units), match.excess, match.missing) == (7, 0, 0)
    assert match.errors.max() < 1e-12
    # One weight of the second layer off: the error of that unit, wherever it is.
    layers = [(kernel.copy(), bias) for kernel, bias in found.layers]
    layers[1][0][0, 2] += 0.1
    errors = match_layers(layers, teacher, jnp.tanh).errors
    unit = int(np.argmax(errors))
    assert unit >= 3
    assert errors[unit] == pytest.approx(0.1 / np.linalg.norm([*teacher[1][0][:, unit - 3], teacher[1][1][unit - 3]]))
    assert np.sum(errors > 1e-9) == 1
    # Without one of the first layer's units, all of the second lack a weight.
    fewer = [(found.layers[0][0][:, 1:], found.layers[0][1][1:]), (found.layers[1][0][1:], found.layers[1][1])]
    match = match_layers([*fewer, found.layers[2]], teacher, jnp.tanh)
    assert (match.missing, np.isinf(match.errors).sum()) == (1, 1)
    assert match.errors[3:].min() > 1e-3
    with pytest.raises(ValueError, match="2 layers and the teacher 3"):
        match_layers(found.layers[1:], teacher, jnp.tanh)
    noise = [(rng.normal(size=(4, 9, 5)), np.zeros((4, 5))), (rng.normal(size=(4, 5, 1)), np.zeros((4, 1)))]
    with pytest.raises(ValueError, match="share no unit of hidden layer 0"):
        lib.recover_layers(noise, np.zeros(4), jnp.tanh, retrain)
    with pytest.raises(ValueError, match="even up to a linear function"):
        lib.recover_layers(stacked, np.zeros(5), jax.nn.softplus, retrain)


def test_the_assignment_is_the_best_of_all():
    rng = np.random.default_rng(5)
    teacher = {"w": rng.normal(size=(3, 2)), "a": rng.normal(size=(3, 1))}
    for _ in range(5):
        found = {"w": rng.normal(size=(4, 2)), "a": rng.normal(size=(4, 1))}
        match = match_teacher(found, teacher, np.tanh)
        gaps = np.array([[min(np.linalg.norm(v - s * w) for s in (1, -1)) for v in found["w"]] for w in teacher["w"]])
        gaps = np.minimum(gaps / np.linalg.norm(teacher["w"], axis=1)[:, None], 1)
        best = min(sum(gaps[range(3), units]) for units in itertools.permutations(range(4), 3))
        assert sum(gaps[range(3), match.units]) == pytest.approx(best)
        assert match.excess == 1


GOOD = {"w": np.ones((4, 3, 2)), "a": np.ones((4, 3, 1))}


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("students", "options", "message"),
    [
        (GOOD, {"rules": Rules(gamma=0.4)}, r"gamma=0.4 of N=4 students is 1.6"),
        (GOOD, {"rules": Rules(gamma=1.5)}, "between 2 / N and 1"),
        (GOOD, {"rules": Rules(beta=2.0)}, "beta=2.0"),
        ({"w": GOOD["w"][:1], "a": GOOD["a"][:1]}, {}, "one student"),
        ({"w": GOOD["w"], "a": np.full((4, 3, 1), np.nan)}, {}, r"students \[0, 1, 2, 3\] have weights"),
        ({"w": GOOD["w"], "a": GOOD["a"][:, :2]}, {}, r"shape \(4, 3, 2\)"),
        ([{"w": np.ones((m, 2)), "a": np.ones((m, 1))} for m in (3, 4)], {}, "students of one shape"),
        ([], {}, "students is empty"),
        (GOOD | {"b": 1}, {}, "entries"),
        (GOOD, {"activation": lambda z: 2 * z}, "affine"),
        (GOOD, {"losses": [0.0, 1.0, np.nan, 0.0]}, "4 finite numbers"),
    ],
)
def test_bad_input(students, options, message):
    with pytest.raises(ValueError, match=message):
        lib.expand_and_cluster(students, **{"losses": np.zeros(4), "activation": np.exp} | options)


@pytest.mark.wrong_types
def test_other_bad_input():
    with pytest.raises(ValueError, match="3 inputs have 2 targets"):
        align({"w": np.ones((1, 1)), "a": np.ones((1, 1))}, np.ones((3, 1)), np.ones((2, 1)), np.exp)
    with pytest.raises(ValueError, match="last axis"):
        match_teacher({"w": np.ones((1, 3)), "a": np.ones((1, 1))}, TEACHER, np.exp)
    with pytest.raises(ValueError, match="without effect"):
        match_teacher(TEACHER, {"w": TEACHER["w"], "a": np.zeros((3, 2))}, np.exp)
