"""Functional dimension: by rational arithmetic, by automatic differentiation, by known cases and symmetries."""

import fractions
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.landscape import functional_dimension as fd
from sbjax.landscape.layered import forward

PRIME = 2**61 - 1


def exact_dimension_on_the_line(params):
    """Regions and rank without rounding: rationals, and elimination modulo a large prime."""
    layers = [
        (
            [[fractions.Fraction(w) for w in row] for row in layer["kernel"].tolist()],
            list(map(fractions.Fraction, bias)),
        )
        for layer in params.values()
        for bias in [layer["bias"].tolist()]
    ]
    breaks = []
    for depth in range(1, len(layers)):
        ends = [None, *sorted(set(breaks)), None]
        for low, high in itertools.pairwise(ends):
            value, slope, _ = affine(layers[:depth], middle(low, high))
            for v, s in zip(value, slope):
                zero = -v / s if s else None
                if zero is not None and (low is None or zero > low) and (high is None or zero < high):
                    breaks.append(zero)
    ends = [None, *sorted(set(breaks)), None]
    rows = [row for low, high in itertools.pairwise(ends) for row in two_rows(layers, middle(low, high))]
    rows = [[x.numerator * pow(x.denominator, -1, PRIME) % PRIME for x in row] for row in rows]
    return len(ends) - 1, rank_modulo(rows)


def middle(low, high):
    if low is None or high is None:
        return (high - 1 if low is None else low + 1) if (low, high) != (None, None) else fractions.Fraction(0)
    return (low + high) / 2


def affine(layers, x):
    """Inputs of the last layer's units as value + slope t, and the layers before, at t = 0 for x = 0."""
    value, slope, seen = [fractions.Fraction(0)], [fractions.Fraction(1)], []
    for number, (kernel, bias) in enumerate(layers):
        if number:
            on = [v + s * x > 0 for v, s in zip(value, slope)]
            value, slope = [v * o for v, o in zip(value, on)], [s * o for s, o in zip(slope, on)]
        seen.append((value, slope))
        columns = list(zip(*kernel))
        value = [sum(a * w for a, w in zip(value, column)) + b for column, b in zip(columns, bias)]
        slope = [sum(a * w for a, w in zip(slope, column)) for column in columns]
    return value, slope, seen


def two_rows(layers, x):
    """Constant and slope of the gradient in the region of x, for one output."""
    _, _, seen = affine(layers, x)
    back, parts = [fractions.Fraction(1)], []
    for (kernel, _), (value, slope) in zip(reversed(layers), reversed(seen)):
        parts.append([[a * b for a in h for b in back] + [b * c for b in back] for h, c in ((value, 1), (slope, 0))])
        on = [v + s * x > 0 for v, s in zip(value, slope)]
        back = [o * sum(w * b for w, b in zip(row, back)) for row, o in zip(kernel, on)]
    return [list(itertools.chain.from_iterable(part[i] for part in reversed(parts))) for i in (0, 1)]


def rank_modulo(rows):
    rank = 0
    while rows:
        row = rows.pop()
        pivot = next((i for i, x in enumerate(row) if x), None)
        if pivot is None:
            continue
        rank += 1
        inverse = pow(row[pivot], -1, PRIME)
        factors = [other[pivot] * inverse % PRIME for other in rows]
        rows = [[(a - f * b) % PRIME for a, b in zip(o, row)] if f else o for o, f in zip(rows, factors)]
    return rank


def on_the_line(net):
    return fd.functional_dimension(net, fd.line_regions(net, np.zeros(1), np.ones(1))[:, None])


@pytest.mark.parametrize("sizes", [(1, 2, 2, 1), (1, 4, 4, 1), (1, 3, 3, 3, 1)])
def test_regions_and_rank_on_the_line_are_those_of_rational_arithmetic(sizes):
    for seed in range(8):
        net = fd.random_network(np.random.default_rng(seed), sizes)
        found = on_the_line(net)
        t = fd.line_regions(net, np.zeros(1), np.ones(1))
        assert (len(t), found.rank) == exact_dimension_on_the_line(net)
        assert found.kept > 100 * fd.TOLERANCE > 1e4 * found.dropped


def test_rows_are_the_jacobian_and_its_derivative(x64):
    net = fd.random_network(np.random.default_rng(0), (3, 5, 4, 2))
    x = np.random.default_rng(1).normal(size=(4, 3))
    rows = fd.region_rows(net, x)
    shapes, tree = jax.tree.flatten(net)

    def outputs(flat, x):
        cuts = np.cumsum([leaf.size for leaf in shapes])[:-1]
        leaves = [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(flat, cuts), shapes)]
        return forward(jax.tree.unflatten(tree, leaves), x[None], jax.nn.relu)[0]

    order = np.concatenate([np.argsort([1, 0]) + 2 * i for i in range(3)])  # leaves are sorted: bias before kernel
    sizes = [leaf.size for leaf in shapes]
    starts = np.r_[0, np.cumsum(sizes)]
    columns = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    flat = np.concatenate([leaf.ravel() for leaf in shapes])
    slopes = jax.jit(jax.vmap(jax.jacrev(outputs), (None, 0)))(flat, x)[:, :, columns]
    np.testing.assert_allclose(rows[:, 0], slopes, atol=1e-12)
    further = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(outputs), 1), (None, 0)))(flat, x)[:, :, columns]
    np.testing.assert_allclose(np.moveaxis(rows[:, 1:], 1, -1), further, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 5, 1), (3, 4, 2)])
def test_one_hidden_layer_has_no_hidden_symmetry(sizes):
    for seed in range(5):
        net = fd.random_network(np.random.default_rng(seed), sizes)
        x = fd.points_on_lines(np.random.default_rng(seed), net, 60)
        found = fd.functional_dimension(net, x)
        assert found.deficit == 0
        assert found.rank == fd.parameters(sizes) - sizes[1]


def test_a_dead_unit_takes_its_weights_away():
    """Fan in, bias and fan out, less the scale that it has anyway; a network with a dead layer is a constant."""
    net = fd.random_network(np.random.default_rng(0), (4, 4, 4, 1))
    net["dense_1"]["kernel"][:, 2], net["dense_1"]["bias"][2] = -1.0, -1.0
    x = fd.points_on_lines(np.random.default_rng(1), net, 400)
    found = fd.functional_dimension(net, x)
    assert found.dead == 1
    assert found.bound - found.bound_alive == 4 + 1 + 1 - 1 == 5
    assert found.rank <= found.bound_alive
    net["dense_1"]["kernel"][:], net["dense_1"]["bias"][:] = -1.0, -1.0
    dead = fd.functional_dimension(net, x)
    assert (dead.rank, dead.bound_alive, dead.dead) == (1, 1, 4)


@pytest.mark.parametrize("sizes", [(1, 5, 4, 1), (2, 3, 3, 1)])
def test_all_regions_by_linear_programs(sizes):
    """On the line as many as between breakpoints; in the plane all that lines find, and the rank is no smaller."""
    for seed in range(3):
        net = fd.random_network(np.random.default_rng(seed), sizes)
        x = fd.all_regions(net)
        exact = fd.functional_dimension(net, x)
        assert exact.regions == len(x)
        if sizes[0] == 1:
            assert len(x) == len(fd.line_regions(net, np.zeros(1), np.ones(1)))
            assert exact.rank == on_the_line(net).rank
            continue
        lines = fd.points_on_lines(np.random.default_rng(seed), net, 100)
        known = {row.tobytes() for row in np.concatenate(fd.patterns(net, x), 1)}
        assert {row.tobytes() for row in np.concatenate(fd.patterns(net, lines), 1)} <= known
        few = fd.functional_dimension(net, fd.random_points(np.random.default_rng(0), 30, 2), whole_regions=False)
        assert few.rank <= fd.functional_dimension(net, lines).rank <= exact.rank <= exact.bound


def test_permutations_and_scales_change_nothing():
    random = np.random.default_rng(3)
    net = fd.random_network(random, (1, 6, 6, 1))
    order, scale = random.permutation(6), np.exp(random.normal(size=6))
    moved = {
        "dense_0": {k: v[..., order] * scale for k, v in net["dense_0"].items()},
        "dense_1": {"kernel": net["dense_1"]["kernel"][order] / scale[:, None], "bias": net["dense_1"]["bias"]},
        "dense_2": net["dense_2"],
    }
    one, other = on_the_line(net), on_the_line(moved)
    assert (one.rank, one.regions, one.dead, one.always_on) == (other.rank, other.regions, other.dead, other.always_on)


def test_the_rank_is_at_most_two_a_region():
    for seed in range(20):
        found = on_the_line(fd.random_network(np.random.default_rng(seed), (1, 8, 8, 1)))
        assert found.rank <= min(found.bound, 2 * found.regions)


# Width: (shares without a hidden symmetry at 1 to 4 hidden layers, mean deficit and mean number of regions at 2), of
# 100 networks each, computed apart from this code.
ON_THE_LINE = {
    2: ((1.00, 0.12, 0.04, 0.00), 2.7, 4.5),
    4: ((1.00, 0.00, 0.00, 0.00), 9.1, 8.8),
    8: ((1.00, 0.00, 0.00, 0.00), 47.4, 17.0),
    16: ((1.00, 0.00, 0.00, 0.00), 222.6, 33.3),
}


@pytest.mark.extended
@pytest.mark.parametrize("width", ON_THE_LINE)
def test_random_networks_on_the_line(width):
    """Means within four standard errors of the difference of two samples of 100."""
    shares, deficit, regions = ON_THE_LINE[width]
    for depth, share in enumerate(shares, 1):
        random = np.random.default_rng(depth)
        found = [on_the_line(fd.random_network(random, (1, *[width] * depth, 1))) for _ in range(100)]
        deficits = np.array([one.deficit for one in found])
        error = np.sqrt(2 * max(share * (1 - share), 0.01) / 100)
        assert abs(np.mean(deficits == 0) - share) < 4 * error if depth > 1 else (deficits == 0).all()
        if depth == 2:
            for values, mean in ((deficits, deficit), ([one.regions for one in found], regions)):
                assert abs(np.mean(values) - mean) < 4 * np.sqrt(2 / 100) * np.std(values)


@pytest.mark.extended
def test_small_biases_are_no_different():
    """Standard deviation 0.1: shares .15 and .03 of width 2 with 2 and 3 hidden layers."""
    for depth, share in ((2, 0.15), (3, 0.03)):
        random = np.random.default_rng(depth)
        nets = [fd.random_network(random, (1, *[2] * depth, 1), bias=0.1) for _ in range(100)]
        assert abs(np.mean([on_the_line(net).deficit == 0 for net in nets]) - share) < 4 * np.sqrt(
            2 * share * (1 - share) / 100
        )


@pytest.mark.extended
@pytest.mark.parametrize("sizes", [(4, 4, 4, 1), (4, 8, 8, 8, 1)])
def test_deficits_fall_with_the_number_of_points(sizes):
    """By 3, 8 and 60 times 4 points a parameter, and at last by all regions, where these can be listed."""
    sums = np.zeros(4)
    for seed in range(12 if sizes[1] == 4 else 4):
        net, random = fd.random_network(np.random.default_rng(seed), sizes), np.random.default_rng(100 + seed)
        x = fd.random_points(random, 60 * 4 * fd.parameters(sizes), sizes[0])
        seen = [
            fd.functional_dimension(net, x[: n * 4 * fd.parameters(sizes)], whole_regions=False).deficit
            for n in (3, 8, 60)
        ]
        if sizes[1] == 4:  # all regions; otherwise those of lines besides, whole
            x = np.concatenate([fd.all_regions(net), x])
        exact = fd.functional_dimension(net, np.concatenate([x, fd.points_on_lines(random, net, 200)]))
        assert exact.deficit >= 0
        assert seen == sorted(seen, reverse=True)
        sums += [*seen, exact.deficit]
    assert sums[0] >= sums[1] >= sums[2] >= sums[3]
    assert sums[0] > sums[3]


@pytest.mark.wrong_types
def test_what_has_no_dimension_is_refused():
    net = fd.random_network(np.random.default_rng(0), (2, 3, 1))
    for x in (np.ones((0, 2)), np.full((3, 2), np.nan), np.ones((3, 3)), np.ones(2)):
        with pytest.raises(ValueError, match=r"x has shape .*: give one or more finite points \[n, 2\]"):
            fd.functional_dimension(net, x)
    for name in ("region_rows", "patterns"):
        with pytest.raises(ValueError, match="x has shape"):
            getattr(fd, name)(net, np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"sizes=\(1, 0, 1\): give inputs, hidden units and outputs, each at least 1"):
        fd.random_network(np.random.default_rng(0), (1, 0, 1))


@pytest.mark.wrong_types
def test_numbers_that_would_come_out_of_nonsense():
    """A NaN in the weights was a network of rank 0, a layer without biases had the dimensions of biases."""
    net, random = fd.random_network(np.random.default_rng(0), (1, 3, 1)), np.random.default_rng(0)
    x, one = np.array([[1.0], [-2.0]]), np.ones(1)

    def changed(**parts):
        return net | {"dense_0": net["dense_0"] | parts}

    for call, message in (
        (
            lambda: fd.functional_dimension(changed(bias=np.full(3, np.nan)), x),
            "entries in layer 0 that are not finite",
        ),
        (lambda: fd.functional_dimension(changed(bias=np.zeros(2)), x), "params has biases of shapes"),
        (lambda: fd.functional_dimension(changed(bias=None), x), "layers without a bias"),
        (lambda: fd.functional_dimension(net, 1e300 * x), "derivatives by the parameters are not finite"),
        (lambda: fd.functional_dimension(net, x, tolerance=np.nan), "tolerance=nan"),
        (lambda: fd.line_regions(net, one, 0 * one), "direction is zero"),
        (lambda: fd.line_regions(net, one, np.nan * one), "start and direction"),
        (lambda: fd.all_regions(net, least=0.0), "least=0.0 must be > 0"),
        (lambda: fd.random_network(random, (1, 2, 1), bias=np.inf), "bias=inf"),
        (lambda: fd.random_points(random, 3, 2, scales=(0.0, 1.0)), "at positive scales"),
        (lambda: fd.points_on_lines(random, net, 0), "number=0"),
        (lambda: fd.parameters((3,)), r"sizes=\(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert fd.functional_dimension(net, x.tolist()) == fd.functional_dimension(net, x)
