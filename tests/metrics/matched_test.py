"""Matched replica distance: what it removes, its bounds, its null, and what stays."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.metrics.matched import hidden_by_permutation, matched_distance
from sbjax.metrics.replica import marginal_distance, null_replicas, unmatched_distance
from sbjax.symmetry.permutation import Move, Spec, permute
from sbjax.symmetry.rescaling import canonical_scale

KEY = jax.random.key(0)
SPEC = Spec(
    {"h": 6},
    {"h": (Move("dense_0/kernel", 1), Move("dense_0/bias", 0), Move("dense_1/kernel", 0))},
    {},
)


def network(seed):
    """5 -> 6 -> 3, layers of different scale."""
    rng = np.random.default_rng(seed)
    shapes = {"dense_0": {"kernel": (5, 6), "bias": (6,)}, "dense_1": {"kernel": (6, 3), "bias": (3,)}}
    draw = lambda shape: (rng.normal(size=shape) * len(shape) ** 2).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def copies(noise, replicas=4):
    """One network in random orders, plus noise."""
    rng, base = np.random.default_rng(0), network(0)
    noisy = lambda x: (x + noise * rng.normal(size=x.shape)).astype(np.float32)  # noqa: E731
    return trees.stack([permute(SPEC, jax.tree.map(noisy, base), {"h": rng.permutation(6)}) for _ in range(replicas)])


def independent(replicas=4):
    return trees.stack([network(seed) for seed in range(replicas)])


def totals(pairs, stacked):
    sizes = {name: leaf[0].size for name, leaf in trees.flatten(stacked).items()}
    return np.sqrt(sum(sizes[n] * np.float64(m) ** 2 for n, m in pairs.items()) / sum(sizes.values()))


@pytest.mark.parametrize("make", [functools.partial(copies, 1.0), independent])
def test_bounds(make):
    """D1 <= D3 <= D0, pair by pair; and of one hidden layer, D3 is the least over all 720 orders."""
    stacked = make()
    d0 = totals(unmatched_distance(stacked).pairs, stacked)
    distance = matched_distance(stacked, SPEC, key=KEY, null=False)
    d3 = totals(distance.pairs, stacked)
    assert (d3 <= d0 * (1 + 1e-6)).all()
    assert (d3 < d0 - 0.1).any()
    for name, d1 in marginal_distance(stacked, p=2).pairs.items():
        assert (d1 <= distance.pairs[name] * (1 + 1e-5) + 1e-6).all()
    a, b = (jax.tree.map(np.asarray, trees.take(stacked, i)) for i in range(2))
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])  # noqa: E731
    every = (permute(SPEC, b, {"h": np.array(order)}) for order in itertools.permutations(range(6)))
    least = min(float(np.mean((flat(a) - flat(tree)) ** 2)) for tree in every)
    assert d3[0, 1] == pytest.approx(math.sqrt(least), rel=1e-5)


def test_permuted_copies_are_at_distance_zero():
    stacked = copies(0.0)
    distance = matched_distance(stacked, SPEC, key=KEY)
    assert distance.kind == "matched"
    assert distance.raw.total.distance.value == 0
    assert distance.scale_free.total.distance.value == pytest.approx(0, abs=1e-6)
    assert distance.raw.total.excess.high < 0
    hidden = hidden_by_permutation(stacked, SPEC, key=KEY)
    assert hidden.raw.value == pytest.approx(unmatched_distance(stacked).raw.total.distance.value, rel=1e-6)


def test_noise_remains():
    """Of small noise between copies, matching removes nothing: sqrt(2) of its standard deviation."""
    noise = 0.05
    distance = matched_distance(copies(noise), SPEC, key=KEY, null=False)
    assert distance.raw.total.distance.value == pytest.approx(math.sqrt(2) * noise, rel=0.15)
    by_first = matched_distance(copies(noise), SPEC, key=KEY, null=False, p=1)
    assert by_first.raw.total.distance.value == pytest.approx(2 / math.sqrt(math.pi) * noise, rel=0.15)


def test_null_is_matched():
    """Independent draws: no excess over the null, though both are nearer than unmatched."""
    stacked = jax.tree.map(lambda x: x / x.std(), null_replicas(independent(), key=jax.random.key(5)))
    distance = matched_distance(stacked, SPEC, key=KEY)
    assert distance.scale_free.total.excess.low < 0 < distance.scale_free.total.excess.high
    for reading in (distance.raw.total, distance.scale_free.total):
        assert 0.5 < reading.null.value < 1.35 < math.sqrt(2)


def test_scale_free():
    """It does not move with the scale of a layer, and is no larger than D0's."""
    stacked = independent()
    scaled = {**stacked, "dense_1": jax.tree.map(lambda x: 100 * x, stacked["dense_1"])}
    one, other = (matched_distance(tree, SPEC, key=KEY, null=False).scale_free for tree in (stacked, scaled))
    assert one.total.distance.value == pytest.approx(other.total.distance.value, rel=1e-5)
    assert one.total.distance.value <= unmatched_distance(stacked).scale_free.total.distance.value
    hidden = hidden_by_permutation(stacked, SPEC, key=KEY)
    assert hidden.raw.value > 0
    gap = unmatched_distance(stacked).scale_free.total.distance.value - one.total.distance.value
    assert hidden.scale_free.value == pytest.approx(gap, rel=1e-4)


def test_where():
    stacked = copies(0.0)
    stacked["dense_0"]["bias"] = -10 * stacked["dense_0"]["bias"]
    distance = matched_distance(stacked, SPEC, key=KEY, null=False, where="*/kernel")
    assert list(distance.pairs) == ["dense_0/kernel", "dense_1/kernel"]
    assert distance.raw.total.distance.value == 0


def test_rescaled_copies():
    """Replicas that differ by an order and by scales of relu units are one network."""
    rng, base = np.random.default_rng(0), network(0)

    def copy():
        c = np.float32(rng.uniform(0.2, 5, 6))
        first = {"kernel": base["dense_0"]["kernel"] * c, "bias": base["dense_0"]["bias"] * c}
        second = {"kernel": base["dense_1"]["kernel"] / c[:, None], "bias": base["dense_1"]["bias"]}
        return permute(SPEC, {"dense_0": first, "dense_1": second}, {"h": rng.permutation(6)})

    stacked = trees.stack([copy() for _ in range(4)])
    plain = matched_distance(stacked, SPEC, key=KEY, null=False)
    canonical = matched_distance(stacked, SPEC, key=KEY, null=False, canonical=functools.partial(canonical_scale, SPEC))
    assert canonical.raw.total.distance.value < 1e-5
    assert plain.raw.total.distance.value > 0.5


def test_errors():
    stacked = copies(0.0)
    with pytest.raises(ValueError, match="p=0"):
        matched_distance(stacked, SPEC, key=KEY, p=0)
    with pytest.raises(ValueError, match="at least 2 replicas"):
        matched_distance(network(0), SPEC, key=KEY)
    with pytest.raises(ValueError, match="NaN or infinite"):
        matched_distance(jax.tree.map(lambda x: x * jnp.nan, stacked), SPEC, key=KEY)


@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_scale_free_is_free_of_scale(scale):
    stacked, small = copies(0.1), jax.tree.map(lambda x: x * np.float32(scale), copies(0.1))
    once, scaled = (matched_distance(tree, SPEC, key=KEY) for tree in (stacked, small))
    np.testing.assert_allclose(scaled.scale_free.total, once.scale_free.total, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled.raw.total.distance, scale * np.array(once.raw.total.distance), rtol=1e-4)
    assert matched_distance(stacked, SPEC, key=KEY, p=50.0, null=False).raw.total.distance.value > 0


def test_lists_and_what_is_traced():
    nets = [network(seed) for seed in range(3)]
    listed, stacked = (hidden_by_permutation(tree, SPEC, key=KEY) for tree in (nets, trees.stack(nets)))
    assert [reading.value for reading in listed] == [reading.value for reading in stacked]
    with pytest.raises(ValueError, match="find permutations outside"):
        jax.jit(lambda t: matched_distance(t, SPEC, key=KEY).raw.total.distance)(trees.stack(nets))
