"""What must hold of any input: drawn by hypothesis, the same draws in every run."""

import json
import math

import hypothesis
import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from sbjax import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    contract,
    derive_spec,
    expand,
    expanded_shape,
    fold,
    permute,
    wasserstein,
)
from sbjax import config as config_lib
from sbjax.experiments import registry
from sbjax.frame.errors import ConfigError
from sbjax.models import make_model

few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "uint8"])
FILLS = st.sampled_from([0.0, 1.0, 3.0])  # in every dtype


def numbers(shape, seed, dtype):
    drawn = np.random.default_rng(seed).uniform(0, 255, shape)
    return jax.numpy.asarray(drawn).astype(dtype)


@st.composite
def expansions(draw):
    """An expansion and the shape of an example that it fits."""
    kind = draw(st.sampled_from(["image", "vector", "sequence"]))
    if kind == "image":
        factor = draw(st.integers(1, 4))
        offset = draw(st.integers(0, factor - 1))
        fill = draw(st.one_of(FILLS, st.sampled_from(["nearest", "bilinear"])))
        shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 3)))
        return ImageExpansion(factor, fill, offset), shape
    if kind == "vector":
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        return VectorExpansion(before, after, draw(FILLS)), (draw(st.integers(1, 4)),)
    return SequenceExpansion(draw(st.integers(1, 3)), fill=draw(FILLS)), (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
    )


@few
@given(expansions(), st.lists(st.integers(1, 3), max_size=2), DTYPES, st.integers(0, 99))
def test_contract_undoes_expand(drawn, batch, dtype, seed):
    expansion, shape = drawn
    hypothesis.assume(dtype != "uint8" or isinstance(expansion, ImageExpansion))
    x = numbers((*batch, *shape), seed, dtype)
    larger = expand(expansion, x)
    assert larger.dtype == x.dtype
    assert larger.shape == (*batch, *expanded_shape(expansion, shape))
    assert (contract(expansion, larger) == x).all()
    if getattr(expansion, "fill", 0.0) not in ("nearest", "bilinear"):
        # All that is new is the constant, whatever the data are.
        other = expand(expansion, numbers((*batch, *shape), seed + 1, dtype))
        new = np.asarray(expand(expansion, np.zeros(x.shape)) != expand(expansion, np.ones(x.shape)))
        np.testing.assert_array_equal(np.asarray(larger)[~new], np.asarray(other)[~new])


@pytest.mark.extended
@few
@given(st.integers(0, 3), st.integers(0, 3), st.floats(-4, 4), st.integers(1, 4), st.integers(0, 99))
def test_a_folded_layer_is_the_expanded_one(before, after, fill, width, seed):
    expansion = VectorExpansion(before, after, fill)
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(before + width + after, 3)).astype(np.float32)
    bias, x = rng.normal(size=3).astype(np.float32), rng.normal(size=(5, width)).astype(np.float32)
    folded = fold(expansion, {"dense_0": {"kernel": kernel, "bias": bias}})["dense_0"]
    ours = x @ folded["kernel"] + folded["bias"]
    np.testing.assert_allclose(ours, np.asarray(expand(expansion, x)) @ kernel + bias, atol=1e-4)


VECTORS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=6, max_size=6)


def between(a, b, p=1.0):
    return float(wasserstein({"w": np.float32(a)}, {"w": np.float32(b)}, p).leaves["w"])


@few
@given(VECTORS, VECTORS, VECTORS, st.sampled_from([1.0, 2.0, 3.0]))
def test_wasserstein_is_a_metric(a, b, c, p):
    near = 1e-3 * (1 + max(map(abs, a + b + c)))
    assert between(a, sorted(a), p) == 0.0
    assert between(a, b, p) == pytest.approx(between(b, a, p), abs=near)
    assert between(a, c, p) <= between(a, b, p) + between(b, c, p) + near
    assert between(a, b, 1.0) <= between(a, b, 2.0) + near
    shifted = [value + 8.0 for value in a]
    assert between(a, shifted, p) == pytest.approx(8.0, abs=near)
    assert between(a, b, 1.0) == pytest.approx(scipy.stats.wasserstein_distance(a, b), rel=1e-4, abs=near)


@hypothesis.settings(few, max_examples=4)
@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.sampled_from(["none", "layer"]), st.integers(0, 99))
def test_units_can_be_permuted(widths, norm, seed):
    net = make_model("mlp", classes=3, widths=tuple(widths), norm=norm)
    x = jax.random.normal(jax.random.key(seed), (4, 5))
    params = net.init(jax.random.key(seed + 1), x)
    spec = derive_spec(net.apply, params, x)
    assert sorted(spec.sizes.values()) == sorted(widths)
    assert math.prod(map(math.factorial, spec.sizes.values())) == math.prod(map(math.factorial, widths))
    rng = np.random.default_rng(seed)
    moved = permute(spec, params, {name: rng.permutation(size) for name, size in spec.sizes.items()})
    np.testing.assert_allclose(net.apply(moved, x), net.apply(params, x), atol=1e-5)


def paths(tree, prefix=""):
    for name, value in tree.items():
        yield from paths(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]


@st.composite
def misspelt(draw):
    """A base config with one unknown field somewhere in it, and its name."""
    kind = draw(st.sampled_from(sorted(registry.KINDS)))
    tree = config_lib.base_config(kind).to_dict()
    # What stands in these is named by the user, or checked by the class that is named there.
    closed = sorted(
        {path.rpartition(".")[0] for path in paths(tree)}
        - {"model", "expansion", "interpolation.published", "suite", "arms"}
    )
    section = draw(st.sampled_from(closed))
    name = draw(st.sampled_from(["learning_rat", "zz", "batchsize", "seeds", "Kind"]))
    node = tree
    for part in filter(None, section.split(".")):
        node = node[part]
    node[name] = draw(st.sampled_from([0, 1.5, "word", None, True]))
    return tree, name


@few
@given(misspelt())
def test_an_unknown_field_is_always_refused(drawn):
    tree, name = drawn
    zoo = tree["task"]["kind"] == "zoo"  # whose networks have epochs of their own
    tree |= {"arms": {"raw": {}}, "train_epochs": 2.0 if zoo else 0.0, "train_steps": 0 if zoo else 20}
    with pytest.raises(ConfigError, match=name):
        config_lib.read(tree)


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_reading_what_was_read_changes_nothing(kind):
    """The merge is idempotent: the resolved settings of a plan, given as a config, give the same settings."""
    tree = config_lib.shrink(config_lib.base_config(kind)).to_dict() | {"arms": {"raw": {}}}
    try:
        once = config_lib.check(tree)
    except ConfigError as error:
        pytest.skip(f"the base config alone is none: {error}")
    twice = config_lib.check(json.loads(json.dumps(tree)))
    assert json.dumps(once, default=str, sort_keys=True) == json.dumps(twice, default=str, sort_keys=True)
