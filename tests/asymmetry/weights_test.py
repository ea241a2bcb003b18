"""Constants and effective weights against numpy, counting and brute force; no network is compiled here."""

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.asymmetry import (
    AsymmetrySpec,
    MaskSpec,
    check_same_constants,
    constants,
    effective,
    fingerprint,
    standard_from,
    trainable_size,
)
from sbjax.asymmetry.weights import keep_trainable

WIDTHS = (3, 4, 4, 2)  # inputs, two hidden layers, outputs


def layers(seed=0, widths=WIDTHS):
    draw = np.random.default_rng(seed).normal
    pairs = enumerate(itertools.pairwise(widths))
    return {f"dense_{i}": {"kernel": draw(size=pair), "bias": draw(size=pair[1])} for i, pair in pairs}


def masked(kappa=0.0, **fields):
    mask = MaskSpec(kind="densest", kappa=kappa)
    return AsymmetrySpec("w", masks=(("dense_2/kernel", MaskSpec(1, kappa)), ("*/kernel", mask)), **fields)


def permuted(params, first, second):
    """Hidden units of both layers in another order; dicts without a leaf are left without it."""
    inputs, outputs = (slice(None), first, second), (first, second, slice(None))
    moved = {}
    for i in range(3):
        for name, leaf in params.get(f"dense_{i}", {}).items():
            leaf = leaf[inputs[i]] if name == "kernel" else leaf
            moved.setdefault(f"dense_{i}", {})[name] = leaf[..., outputs[i]]
    return moved


def forward(params, x):
    for i in range(3):
        x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
        x = np.tanh(x) if i < 2 else x
    return x


def orders():
    return itertools.product(map(list, itertools.permutations(range(4))), repeat=2)


def same(first, second):
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_no_automorphism_but_the_identity(kappa):
    """Of 4!^2 orders of the hidden units exactly one leaves F and D of the masked network as they are."""
    made = constants(layers(), masked(kappa))
    kept = [pair for pair in orders() if same(made, {part: permuted(tree, *pair) for part, tree in made.items()})]
    assert kept == [([0, 1, 2, 3], [0, 1, 2, 3])]


def test_masks_alike_have_automorphisms_and_a_standard_network_has_all():
    made = constants(layers(), masked())
    made["trainable"]["dense_1"]["kernel"][:] = True  # then the second layer's order is free as far as dense_2 allows
    made["trainable"]["dense_2"]["kernel"][:] = True
    kept = [pair for pair in orders() if same(made, {part: permuted(tree, *pair) for part, tree in made.items()})]
    assert len(kept) == 24
    assert constants(layers(), AsymmetrySpec()) == {}


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_moving_weights_alone_changes_the_function_and_moving_all_does_not(kappa):
    params, x = layers(), np.random.default_rng(1).normal(size=(5, 3))
    made = constants(params, masked(kappa))
    pair = ([1, 0, 3, 2], [2, 3, 1, 0])

    def outputs(params, made):
        return forward(effective({"params": params, "frozen": {"asymmetry": made}}), x)

    moved = {part: permuted(tree, *pair) for part, tree in made.items()}
    before = outputs(params, made)
    np.testing.assert_allclose(outputs(permuted(params, *pair), moved), before, rtol=0, atol=1e-13)
    assert np.abs(outputs(permuted(params, *pair), made) - before).max() > 0.01
    np.testing.assert_allclose(outputs(permuted(params, *pair), {}), outputs(params, {}), rtol=0, atol=1e-13)


def test_frozen_entries_are_normal_with_deviation_kappa():
    spec = AsymmetrySpec("w", masks=(("*", MaskSpec(64, 0.25)),))
    made = constants({"kernel": np.zeros((128, 100))}, spec)
    frozen = made["fixed"]["kernel"][~made["trainable"]["kernel"]]
    assert frozen.size == 6400
    np.testing.assert_allclose(frozen.std(), 0.25, rtol=5 / np.sqrt(2 * frozen.size))
    assert abs(frozen.mean()) < 5 * 0.25 / np.sqrt(frozen.size)


def test_syre():
    """theta0 everywhere, of 0.01 / sqrt(fan-in) or of one size; at theta = 0 the network is theta0."""
    params = layers(widths=(100, 400, 400, 2))
    made = constants(params, AsymmetrySpec("syre"))
    assert made.keys() == {"fixed"}
    assert trees.flatten(made["fixed"]).keys() == trees.flatten(params).keys()
    for name, size in (("dense_0", 100), ("dense_1", 400)):
        noise = made["fixed"][name]["kernel"]
        np.testing.assert_allclose(noise.std(), 0.01 / np.sqrt(size), rtol=5 / np.sqrt(2 * noise.size))
    zero = {"params": jax.tree.map(np.zeros_like, params), "frozen": {"asymmetry": made}}
    assert same(effective(zero), made["fixed"])
    wide = constants(params, AsymmetrySpec("syre", sigma0=2.0, where="*/kernel"))["fixed"]
    assert {name.split("/")[-1] for name in trees.flatten(wide)} == {"kernel"}
    np.testing.assert_allclose(wide["dense_1"]["kernel"].std(), 2.0, rtol=0.01)


@pytest.mark.parametrize("last", ["head", "dense_10"])
def test_fixed_biases(last):
    params = {"dense_9": {"kernel": np.ones((2, 500)), "bias": np.ones(500)}, last: {"bias": np.ones(3)}}
    made = constants(params, AsymmetrySpec("fixed_bias", bias_bound=9.0))
    assert list(trees.flatten(made["fixed"])) == ["dense_9/bias"]
    network = effective({"params": params, "frozen": {"asymmetry": made}})
    bias = network["dense_9"]["bias"]
    assert same(network | {"dense_9": params["dense_9"]}, params)
    assert bias.min() < -8.5 < 8.5 < bias.max()
    assert np.abs(bias).max() < 9
    assert trainable_size({"params": params, "frozen": {"asymmetry": made}}) == 1003
    with pytest.raises(ValueError, match=r"no layer called 'head' or 'dense_0', .. among a; name the biases"):
        constants({"a": {"bias": np.ones(3)}}, AsymmetrySpec("fixed_bias"))


def test_stacked_replicas_with_constants_of_their_own_or_shared():
    replicas = [layers(seed) for seed in range(3)]
    made = constants(layers(), masked(1.0))
    singles = [effective({"params": params, "frozen": {"asymmetry": made}}) for params in replicas]
    for frozen in (made, jax.tree.map(lambda *c: np.stack(c), *[made] * 3)):
        stacked = jax.tree.map(lambda *w: np.stack(w), *replicas)
        together = effective({"params": stacked, "frozen": {"asymmetry": frozen}})
        assert same(together, jax.tree.map(lambda *w: np.stack(w), *singles))


def test_standard_from():
    params, made = layers(), constants(layers(), masked(1.0))
    frozen = {"asymmetry": made, "act_0": {"mixing": np.eye(2)}}
    variables = {"params": params, "batch_stats": {"mean": np.ones(2)}, "frozen": frozen}
    standard = standard_from(variables)
    assert same(standard["params"], effective(variables))
    assert standard["batch_stats"] is variables["batch_stats"]
    assert standard["frozen"].keys() == {"act_0"}
    assert same(effective(standard), standard["params"])


DIGEST = "86925c7e3a1bc18f4cbcb8d5d3d0662e5fcb688e0c4270f61bf5578546c548ec"


def test_constants_are_the_same_everywhere():
    """Masks and frozen entries by content, in this process and in another with other hash seeds."""
    code = """
import numpy as np
from sbjax.asymmetry import AsymmetrySpec, MaskSpec, constants, fingerprint
spec = AsymmetrySpec("w", masks=(("dense_0/*", MaskSpec(5, 0.5)), ("dense_1/*", MaskSpec(2))), mask_seed=3)
params = {f"dense_{i}": {"kernel": np.zeros((16, 6), np.float32)} for i in (0, 1)}
digest = fingerprint(constants(params, spec))
"""
    scope = {}
    exec(code, scope)
    run = subprocess.run([sys.executable, "-c", code + "print(digest)"], capture_output=True, text=True, check=True)
    assert scope["digest"] == run.stdout.strip() == DIGEST


def test_constants_depend_on_seed_and_layer():
    masks = (("*", MaskSpec(5)),)
    params = {f"dense_{i}": {"kernel": np.zeros((16, 6))} for i in (0, 1)}
    first, other = (constants(params, AsymmetrySpec("w", masks=masks, mask_seed=seed)) for seed in (0, 1))
    for part in ("fixed", "trainable"):
        assert not np.array_equal(first[part]["dense_0"]["kernel"], first[part]["dense_1"]["kernel"])
        assert not np.array_equal(first[part]["dense_0"]["kernel"], other[part]["dense_0"]["kernel"])


def test_fingerprint_sees_names_shapes_dtypes_and_bytes():
    trees_ = [
        {"a": np.arange(4.0)},
        {"b": np.arange(4.0)},
        {"a": np.arange(4.0).reshape(2, 2)},
        {"a": np.arange(4.0, dtype=np.float32)},
        {"a": np.arange(1.0, 5.0)},
        {"a": np.arange(4.0), "b": np.zeros(1)},
        {},
    ]
    assert len({fingerprint(tree) for tree in trees_}) == len(trees_)
    big_endian = {"a": np.arange(4.0).astype(">f8")}
    assert fingerprint(big_endian) == fingerprint({"a": np.arange(8.0)[::2] / 2}) == fingerprint(trees_[0])
    assert fingerprint({"a": jnp.ones(2, jnp.bfloat16)}) != fingerprint({"a": np.ones(2, np.float16)})
    with pytest.raises(ValueError, match="leaf 'a' has no values yet"):
        jax.eval_shape(lambda tree: fingerprint(tree) and tree, {"a": jnp.ones(2)})


def test_networks_with_different_constants_are_refused():
    first, other = (
        {"params": layers(), "frozen": {"asymmetry": constants(layers(), masked(1, mask_seed=s))}} for s in (0, 1)
    )
    check_same_constants(first, first | {"params": layers(5)})
    with pytest.raises(ValueError, match=r"networks 0 and 2 have different frozen constants .* same mask_seed"):
        check_same_constants(first, first, other)
    with pytest.raises(ValueError, match="networks 0 and 1"):
        check_same_constants({"params": layers()}, first)


def test_patterns():
    params = layers()
    first_holds = AsymmetrySpec("w", masks=(("dense_1/kernel", MaskSpec(1)), ("dense_[12]/*l", MaskSpec(2))))
    made = constants(params, first_holds)["trainable"]
    assert {name: int((~mask).sum()) for name, mask in trees.flatten(made).items()} == {
        "dense_1/kernel": 4,
        "dense_2/kernel": 4,
    }
    with pytest.raises(
        ValueError, match=r"asymmetry.masks: 'dens_0/kernel' matches no parameter, did you mean 'dense_0"
    ):
        constants(params, AsymmetrySpec("w", masks=(("dens_0/kernel", MaskSpec(1)),)))
    with pytest.raises(ValueError, match=r"dense_0/bias has shape"):
        constants(params, AsymmetrySpec("w", masks=(("dense_0/bias", MaskSpec(1)),)))
    with pytest.raises(ValueError, match=r"asymmetry.where: 'x' matches no parameter"):
        constants(params, AsymmetrySpec("syre", where=("x",)))


def test_entries_that_are_not_trained_come_from_the_other_tree():
    params, other = layers(1), layers(2)
    made = constants(params, masked(1))
    found = keep_trainable({"params": params, "frozen": {"asymmetry": made}}, params, other)
    masks = trees.flatten(made["trainable"])
    first, second = trees.flatten(params), trees.flatten(other)
    for name, leaf in trees.flatten(found).items():
        expected = np.choose(np.asarray(masks[name]), [second[name], first[name]]) if name in masks else first[name]
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, err_msg=name)
    assert any((~mask).any() for mask in masks.values())
