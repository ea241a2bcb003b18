from functools import partial

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.data.shuffle import epoch_indices, permute, walks


@partial(jax.jit, static_argnames="size")
def permutation(key, size):
    return permute(key, jnp.arange(size, dtype=jnp.uint32), size=size)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 31, 97, 128, 1000, 1294, 65537])
def test_permutes(size):
    for seed in range(3):
        values = np.asarray(permutation(jax.random.key(seed), size))
        np.testing.assert_array_equal(np.sort(values), np.arange(size))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 13, 97, 128, 1294, 65537])
def test_a_fixed_number_of_walks_gives_the_same_values(size, monkeypatch):
    """As accelerators do it: every position, against the loop that asks."""
    keys, positions = [jax.random.key(seed) for seed in range(3)], jnp.arange(size, dtype=jnp.uint32)
    expected = [np.asarray(permutation(key, size)) for key in keys]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    traced = jax.jit(lambda key: permute(key, positions, size=size)).trace(keys[0])
    assert "while" not in str(traced.jaxpr)
    found = traced.lower().compile()
    for key, values in zip(keys, expected):
        np.testing.assert_array_equal(found(key), values)


@pytest.mark.parametrize("size", [3, 5, 12, 50_000, 60_000, 2**31 - 1])
def test_walks_are_enough(size):
    """Exactly so for few values; else values that are left out of range are as rare as said."""
    side = int(np.ceil(np.sqrt(size)))
    side += side * side < size
    total = side * -(-size // side)
    assert walks(size) >= total - size + 1 or ((total - size) / total) ** walks(size) <= 2.0**-64
    assert walks(size) <= 16


@pytest.mark.parametrize("size", [3, 5, 6, 12, 13])
def test_every_position_and_pair_of_values_is_equally_likely(size):
    draws = 6000
    keys = jax.random.split(jax.random.key(1), draws)
    values = np.asarray(jax.vmap(lambda key: permutation(key, size))(keys)).astype(int)
    for position in range(size):
        counts = np.bincount(values[:, position], minlength=size)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    for first, second in ((0, 1), (0, size - 1), (size // 2, size - 1)):
        cells = np.bincount(values[:, first] * size + values[:, second], minlength=size**2).reshape(size, size)
        assert np.all(np.diag(cells) == 0)
        assert scipy.stats.chisquare(cells[~np.eye(size, dtype=bool)]).pvalue > 1e-4


def test_large_permutations_look_random():
    size = 50_000
    fixed, steps = [], []
    for seed in range(8):
        values = np.asarray(permutation(jax.random.key(seed), size)).astype(int)
        fixed.append(int(np.sum(values == np.arange(size))))
        # Neighbours in the order are unrelated, at every distance that the halves of an index could show.
        side = 224
        for distance in (1, 2, side - 1, side, side + 1):
            difference = (values[distance:] - values[:-distance]) % size
            steps.append(scipy.stats.kstest(difference / size, "uniform").pvalue)
        assert scipy.stats.chisquare(np.bincount(values[:10_000] // 500)).pvalue > 1e-4
        assert scipy.stats.chisquare(np.bincount(values[:10_000] % side)).pvalue > 1e-4
    assert sum(fixed) <= 22  # Poisson with mean 8
    assert min(steps) > 1e-4
    assert scipy.stats.kstest(steps, "uniform").pvalue > 1e-3


def test_an_epoch_visits_no_example_twice_and_epochs_differ():
    batch = jax.jit(partial(epoch_indices, examples=103, batch_size=10))
    key = jax.random.key(0)
    epochs = [np.concatenate([batch(key, 10 * e + i) for i in range(10)]) for e in range(4)]
    for indices in epochs:
        assert indices.dtype == np.int32
        assert len(np.unique(indices)) == 100
        assert indices.min() >= 0
        assert indices.max() < 103
    left_out = {tuple(sorted(set(range(103)) - set(indices.tolist()))) for indices in epochs}
    assert len(left_out) == 4
    agreement = [np.mean(a == b) for a in epochs for b in epochs if a is not b]
    assert max(agreement) < 0.1
    other = np.concatenate([batch(jax.random.key(1), i) for i in range(10)])
    assert np.mean(other == epochs[0]) < 0.1


def test_the_epoch_is_the_permutation_of_its_folded_key():
    key = jax.random.key(3)
    whole = permutation(jax.random.fold_in(key, 2), 50)
    np.testing.assert_array_equal(epoch_indices(key, 2 * 6 + 4, examples=50, batch_size=8), whole[32:40])


@pytest.mark.extended
def test_the_same_under_jit_vmap_and_scan():
    draw = partial(epoch_indices, examples=37, batch_size=5)
    key = jax.random.key(7)
    jitted = jax.jit(draw)
    one_by_one = np.stack([jitted(key, step) for step in range(20)])
    np.testing.assert_array_equal(draw(key, 9), one_by_one[9])
    np.testing.assert_array_equal(jax.jit(jax.vmap(draw, (None, 0)))(key, jnp.arange(20)), one_by_one)
    _, scanned = jax.lax.scan(lambda _, step: (None, draw(key, step)), None, jnp.arange(20))
    np.testing.assert_array_equal(scanned, one_by_one)
    keys = jax.random.split(key, 3)
    together = jax.jit(jax.vmap(draw, (0, None)))(keys, 4)
    np.testing.assert_array_equal(together, np.stack([jitted(key, 4) for key in keys]))


@pytest.mark.usefixtures("x64")
def test_double_precision_changes_nothing():
    with jax.enable_x64(False):
        expected = epoch_indices(jax.random.key(5), 12, examples=99, batch_size=8)
    indices = epoch_indices(jax.random.key(5), 12, examples=99, batch_size=8)
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(indices, expected)


def test_costs_one_batch_and_does_not_sort():
    jaxpr = jax.make_jaxpr(partial(epoch_indices, examples=50_000, batch_size=100))(jax.random.key(0), 3)

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from equations(inner)

    found = list(equations(jaxpr.jaxpr))
    assert len(found) > 20
    assert max(variable.aval.size for equation in found for variable in equation.outvars) <= 100
    assert "sort" not in {equation.primitive.name for equation in found}


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 11), (10, 0), (0, 1), (2**31, 4)])
def test_impossible_batches_are_refused(examples, batch_size):
    with pytest.raises(ValueError, match="examples = "):
        epoch_indices(jax.random.key(0), 0, examples=examples, batch_size=batch_size)
