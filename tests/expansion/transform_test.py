"""Expansions against plain indexing, numpy and scipy, and what they mean exactly for SGD and a strided stem."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import ndimage

from sbjax.expansion.transform import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    contract,
    expand,
    expanded_shape,
    prepare,
    resolve,
    with_expansion,
)

FILLS = (0.25, (0.0, 0.5, 1.0), "noise", "nearest", "bilinear")
FLOATS = ("float16", "bfloat16", "float32", "float64")


def sample(shape, dtype="float32", seed=0):
    """Data in [0, 1), or whole numbers."""
    generator = np.random.default_rng(seed)
    dtype = jnp.dtype(dtype)
    return (
        generator.integers(0, 100, shape).astype(dtype) if dtype.kind in "iu" else generator.random(shape).astype(dtype)
    )


def bits(x):
    return np.asarray(x).tobytes()


ROUND_TRIPS = [
    *[
        (ImageExpansion(factor, fill, offset), (2, 3, 4, 3), "float32")
        for factor, offset in ((2, 0), (3, 0), (3, 1), (3, 2))
        for fill in (0.25, (0.0, 0.5, 1.0), "nearest", "bilinear")
    ],
    *[(ImageExpansion(2, fill, 1), (3, 4, 3), dtype) for fill in FILLS for dtype in (*FLOATS, "uint8")],
    *[(VectorExpansion(2, 1), (5, 3), dtype) for dtype in FLOATS],
    *[(VectorExpansion(before, after), (3,), "float32") for before, after in ((0, 4), (3, 0))],
    *[(SequenceExpansion(2, 0.5, axis, 1), (2, 4, 5), t) for axis in ("feature", "token") for t in FLOATS],
    *[(SequenceExpansion(3, 7, "token", 1), (2, 4), dtype) for dtype in ("int8", "int32", "uint32")],
]


def test_round_trip_is_exact(x64):
    for expansion, shape, dtype in ROUND_TRIPS:
        x = sample(shape, dtype)
        if jnp.issubdtype(dtype, jnp.floating):  # what arithmetic would lose
            x[..., 0], x[..., 1] = -0.0, np.nan
        y = jax.jit(lambda x, e=expansion: expand(e, x))(x)
        case = f"{expansion} {dtype}"
        assert y.dtype == x.dtype, case
        assert y.shape == expanded_shape(expansion, shape, dtype=dtype), case
        assert bits(contract(expansion, y)) == bits(x), case


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("fill", [0.25, (0.0, 0.5, 1.0)])
def test_image_sites(fill, offset):
    x = sample((2, 4, 5, 3))
    expected = np.broadcast_to(np.asarray(fill, np.float32), (2, 12, 15, 3)).copy()
    for i in range(4):
        for j in range(5):
            expected[:, offset + 3 * i, offset + 3 * j] = x[:, i, j]
    np.testing.assert_array_equal(expand(ImageExpansion(3, fill, offset), x), expected)


def test_factor_one_is_the_identity():
    for fill in FILLS:
        x = sample((4, 5, 3))
        assert bits(expand(ImageExpansion(1, fill), x)) == bits(x)
    x = sample((4, 5))
    assert bits(expand(SequenceExpansion(1), x)) == bits(expand(VectorExpansion(0, 0), x)) == bits(x)


def test_uint8_fill_is_a_brightness():
    x = sample((2, 2, 3), "uint8")
    assert expand(ImageExpansion(2, (0.0, 0.34, 1.0)), x)[1, 1].tolist() == [0, 87, 255]  # 86.7
    noise = expand(ImageExpansion(2, "noise"), x), expand(ImageExpansion(2, "noise"), x.astype(jnp.float32))
    np.testing.assert_array_equal(noise[0][1::2], np.round(255 * np.asarray(noise[1][1::2])))


def test_noise_is_frozen():
    expansion = ImageExpansion(2, "noise", seed=3)
    draw = np.asarray(jax.random.uniform(jax.random.key(3), (8, 10, 3)))
    out = np.asarray(expand(expansion, sample((6, 4, 5, 3))))
    new = np.ones((8, 10), bool)
    new[::2, ::2] = False
    np.testing.assert_array_equal(out[:, new], np.broadcast_to(draw[new], (6, 60, 3)))
    other = np.asarray(expand(dataclasses.replace(expansion, seed=4), sample((6, 4, 5, 3))))
    assert not np.any(other[:, new] == out[:, new])


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_resolution_controls(offset, x64):
    x = sample((4, 5, 3), "float64")
    u, v, c = np.meshgrid(np.arange(12), np.arange(15), np.arange(3), indexing="ij")
    source = [(u - offset) / 3, (v - offset) / 3, c]
    bilinear = ndimage.map_coordinates(x, source, order=1, mode="nearest")
    for dtype, scale in (("float64", 1), ("float32", 1), ("bfloat16", 1), ("uint8", 255)):
        data = np.round(x * scale).astype(dtype) if dtype == "uint8" else jnp.asarray(x, dtype)
        # The data are rounded to the dtype, and the result again: for uint8 half a level each.
        atol = 1.0 if dtype == "uint8" else 2 * float(jnp.finfo(dtype).eps)
        out = np.asarray(expand(ImageExpansion(3, "bilinear", offset), data), np.float64)
        np.testing.assert_allclose(out, scale * bilinear, rtol=0, atol=atol, err_msg=dtype)
    nearest = np.kron(x, np.ones((3, 3, 1)))
    np.testing.assert_array_equal(expand(ImageExpansion(3, "nearest", offset), x), nearest)


def test_bilinear_keeps_a_constant_and_a_ramp():
    flat = np.full((3, 4, 1), 0.1, np.float32)
    np.testing.assert_array_equal(expand(ImageExpansion(3, "bilinear"), flat), np.full((9, 12, 1), 0.1, np.float32))
    ramp = np.arange(6.0, dtype=np.float32).reshape(1, 6, 1)
    out = expand(ImageExpansion(2, "bilinear", 1), ramp)[0, :, 0]
    np.testing.assert_array_equal(out, np.interp((np.arange(12) - 1) / 2, np.arange(6), np.arange(6)))


def test_vectors():
    out = expand(VectorExpansion(), np.float32([[0.5], [0.7]]))
    pi = np.float32(math.pi)
    np.testing.assert_array_equal(out, np.float32([[pi, pi, 0.5, pi, pi], [pi, pi, 0.7, pi, pi]]))
    assert expand(VectorExpansion(0, 4, 1.0), np.float32([0.5])).tolist() == [0.5, 1, 1, 1, 1]
    assert expand(VectorExpansion(1, 1, (2.0, 3.0)), np.float32([0.5, 0.7])).shape == (4,)
    assert VectorExpansion(1, 2, 4.0).constants == (4.0, 4.0, 4.0)
    assert VectorExpansion(1, 1, (2.0, 3.0)).constants == (2.0, 3.0)


@pytest.mark.parametrize("offset", [0, 2])
def test_sequences(offset):
    x = sample((2, 4, 5))
    features, tokens = np.full((2, 4, 15), 0.5, np.float32), np.full((2, 12, 5), 0.5, np.float32)
    features[..., offset::3], tokens[:, offset::3] = x, x
    np.testing.assert_array_equal(expand(SequenceExpansion(3, offset=offset), x), features)
    np.testing.assert_array_equal(expand(SequenceExpansion(3, axis="token", offset=offset), x), tokens)
    ids = np.full((2, 12), 9, np.int32)
    ids[:, offset::3] = sample((2, 4), "int32")
    # A whole float is a token id: configurations cast integers to the type of the default.
    for fill in (9, 9.0):
        expansion = SequenceExpansion(3, fill, "token", offset)
        np.testing.assert_array_equal(expand(expansion, sample((2, 4), "int32")), ids)
    assert expanded_shape(expansion, (2, 4), dtype=jnp.int32) == (2, 12)


KINDS = [
    *[(ImageExpansion(2, fill, 1), (2, 3, 4, 3)) for fill in FILLS],
    (VectorExpansion(), (2, 3)),
    (SequenceExpansion(), (2, 3, 4)),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("expansion", "shape"), KINDS, ids=str)
def test_transformations(expansion, shape):
    x = sample(shape)
    y = expand(expansion, x)
    traces = []

    @jax.jit
    def compiled(x):
        traces.append(1)
        return expand(expansion, x)

    np.testing.assert_allclose(compiled(x), y, rtol=4 * np.finfo(np.float32).eps)
    compiled(x + 1)
    assert len(traces) == 1
    hash(expansion)  # usable as a static argument
    np.testing.assert_allclose(jax.vmap(lambda x: expand(expansion, x))(x), y, rtol=4 * np.finfo(np.float32).eps)
    # The sum over the data sites has gradient one wherever the expansion copies the data once.
    ones = jax.grad(lambda x: contract(expansion, expand(expansion, x)).sum())(x)
    np.testing.assert_array_equal(ones, np.ones(shape))
    # e(x) = A x + c: the derivative is A, whatever the point.
    tangent = sample(shape, seed=1)
    _, moved = jax.jvp(lambda x: expand(expansion, x), (x,), (tangent,))
    linear = expand(expansion, tangent) - expand(expansion, jnp.zeros(shape))
    np.testing.assert_allclose(moved, linear, atol=4 * np.finfo(np.float32).eps)


def test_prefix_trees():
    image, vector = ImageExpansion(2), VectorExpansion(1, 1)
    tree = {
        "image": np.zeros((2, 4, 4, 3), np.float32),
        "points": (np.zeros((2, 1), np.float32), [np.zeros((2, 3), np.float32), None]),
        "labels": {"fine": np.zeros(2, np.int32)},
    }
    out = expand({"image": image, "points": vector, "labels": None}, tree)
    shapes = jax.tree.map(jnp.shape, out)
    assert shapes == {"image": (2, 8, 8, 3), "points": ((2, 3), [(2, 5), None]), "labels": {"fine": (2,)}}
    assert out["labels"]["fine"] is tree["labels"]["fine"]
    out = expand({"image": None, "points": (None, vector), "labels": None}, tree)
    assert out["image"].shape == (2, 4, 4, 3)
    assert out["points"][0].shape == (2, 1)
    assert out["points"][1][0].shape == (2, 5)
    assert expand(None, tree) is tree
    back = contract({"image": None, "points": (None, vector), "labels": None}, out)
    assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, tree)


def test_resolve():
    mean, std = np.float32([0.5, 0.25, 0.125]), np.float32([0.2, 0.2, 0.2])
    before, after = ImageExpansion(2, "mean"), ImageExpansion(2, "mean", order="after")
    kinds = {"a": before, "b": after, "c": VectorExpansion(), "d": None, "e": ImageExpansion(2, "noise")}
    resolved = resolve(kinds, mean=mean, std=std)
    assert resolved["a"].fill == (0.5, 0.25, 0.125)
    assert resolved["b"].fill == 0.0
    assert resolved["d"] is None
    assert (resolved["c"], resolved["e"]) == (kinds["c"], kinds["e"])
    assert resolve(before, mean=0.5, std=1).fill == 0.5
    assert expanded_shape(before, (2, 4, 4, 3)) == (2, 8, 8, 3)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("fill", ["mean", 0.5, "nearest"])
def test_prepare(order, fill):
    images = sample((2, 4, 4, 3), "uint8")
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
    standard = (np.asarray(images) / 255 - mean) / std
    if fill == "nearest":
        expected = np.kron(standard, np.ones((1, 2, 2, 1)))
    else:
        value = {"mean": np.zeros(3), 0.5: (0.5 - mean) / std if order == "before" else np.full(3, 0.5)}[fill]
        expected = np.broadcast_to(value, (2, 8, 8, 3)).copy()
        expected[:, ::2, ::2] = standard
    out = jax.jit(lambda i: prepare(ImageExpansion(2, fill, order=order), i, mean=mean, std=std))(images)
    assert out.dtype == jnp.float32
    # Pixels reach 5 standard deviations; three roundings of them.
    np.testing.assert_allclose(out, expected, atol=16 * np.finfo(np.float32).eps)
    raw = prepare(None, images, mean=mean, std=std)
    np.testing.assert_allclose(raw, standard, atol=16 * np.finfo(np.float32).eps)


def test_with_expansion():
    def apply(variables, x, scale, *, shift):
        """Documented."""
        return scale * (x["x"] @ variables) + shift

    expanded = with_expansion(apply, {"x": VectorExpansion(1, 0, 10.0)})
    assert expanded.__doc__ == "Documented."
    assert float(expanded(jnp.array([1.0, 2.0]), {"x": jnp.array([3.0])}, 2.0, shift=1.0)) == 33.0


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"] - y) ** 2)


@pytest.mark.parametrize("expansion", [VectorExpansion(2, 2), VectorExpansion(0, 3, (0.5, -2.0, 1.0))], ids=str)
def test_expanded_sgd_is_sgd_with_a_faster_bias(expansion, x64):
    """Constants multiply the step of the effective bias b + sum c_i w_i by 1 + sum c_i^2, at every step."""
    d, hidden, rate, n = 3, 8, 1e-2, len(expansion.constants)
    c = np.array(expansion.constants)
    data = slice(expansion.before, expansion.before + d)
    x, y = sample((20, d), "float64"), sample((20, 1), "float64", 1)
    wide = {
        "w": sample((d + n, hidden), "float64", 2) - 0.5,
        "b": jnp.ones(hidden),
        "v": sample((hidden, 1), "float64", 3),
    }

    def effective(p):
        rows = np.delete(np.asarray(p["w"]), np.arange(d + n)[data], axis=0)
        return {"w": p["w"][data], "b": p["b"] + c @ rows, "v": p["v"]}

    raw, start = effective(wide), effective(wide)["b"]
    for step in range(20):
        grad = jax.grad(loss)(wide, expand(expansion, x), y)
        wide = jax.tree.map(lambda p, g: p - rate * g, wide, grad)
        grad = jax.grad(loss)(raw, x, y)
        faster = grad | {"b": (1 + c @ c) * grad["b"]}
        if step == 0:
            moved = effective(wide)["b"] - start
            rounding = 16 * np.finfo(float).eps * np.abs(start).max()  # a difference of numbers as large as start
            np.testing.assert_allclose(moved, -rate * (1 + c @ c) * grad["b"], rtol=1e-12, atol=rounding)
            assert np.abs(moved).max() > 1e-4
        raw = jax.tree.map(lambda p, g: p - rate * g, raw, faster)
        for name, value in effective(wide).items():
            np.testing.assert_allclose(value, raw[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("offset", "taps"), [(0, slice(1, None, 2)), (1, slice(0, None, 2))])
def test_factor_two_removes_the_stride_of_an_imagenet_stem(offset, taps, x64):
    """7x7 stride 2 on the expanded image = 3x3 or 4x4 stride 1 on the raw image + a constant."""
    x, kernel, fill = sample((1, 12, 12, 3), "float64"), sample((7, 7, 3, 4), "float64", 1) - 0.5, 0.3
    numbers = ("NHWC", "HWIO", "NHWC")
    stem = lax.conv_general_dilated(
        expand(ImageExpansion(2, fill, offset), x), kernel, (2, 2), [(3, 3)] * 2, dimension_numbers=numbers
    )
    used = kernel[taps, taps]
    # The first tap in use of output i reads expanded pixel 2 i - 3 + (1 - offset), raw pixel i - 1 - offset.
    low = 1 + offset
    padding = [(low, used.shape[0] - 1 - low)] * 2
    raw = lax.conv_general_dilated(x, used, (1, 1), padding, dimension_numbers=numbers)
    constant = fill * (kernel.sum((0, 1, 2)) - used.sum((0, 1, 2)))
    inside = (slice(None), slice(3, -3), slice(3, -3))
    assert stem.shape == raw.shape == (1, 12, 12, 4)
    np.testing.assert_allclose(stem[inside], raw[inside] + constant[None, None, None], atol=1e-13)


INVALID = [
    (lambda: ImageExpansion(0), ValueError, "factor=0 .*>= 1"),
    (lambda: ImageExpansion(2.0), TypeError, "factor=2.0 .*integer"),
    (lambda: ImageExpansion(True), TypeError, "factor=True"),
    (lambda: ImageExpansion(2, offset=2), ValueError, "offset=2 .*= 1"),
    (lambda: ImageExpansion(2, offset=-1), ValueError, "offset=-1 .*>= 0"),
    (lambda: ImageExpansion(fill="zero"), ValueError, "fill='zero' .*'bilinear' or numbers"),
    (lambda: ImageExpansion(fill=math.nan), ValueError, "fill=nan .*finite"),
    (lambda: ImageExpansion(fill=()), ValueError, r"fill=\(\) has 0 numbers"),
    (lambda: ImageExpansion(fill=[0.5]), TypeError, r"fill=\[0.5\] .*tuple"),
    (lambda: ImageExpansion(order="during"), ValueError, "order='during' .*'before', 'after'"),
    (lambda: ImageExpansion(seed=-1), ValueError, "seed=-1"),
    (lambda: VectorExpansion(-1), ValueError, "before=-1"),
    (lambda: VectorExpansion(after=0.5), TypeError, "after=0.5"),
    (lambda: VectorExpansion(1, 1, (1.0,)), ValueError, "value=.* has 1 numbers: .* 2"),
    (lambda: VectorExpansion(0, 0, (1.0,)), ValueError, "value=.* has 1 numbers: .* 0"),
    (lambda: VectorExpansion(value="pi"), TypeError, "value='pi'"),
    (lambda: SequenceExpansion(axis="time"), ValueError, "axis='time' .*'feature', 'token'"),
    (lambda: SequenceExpansion(fill=(0.5,)), TypeError, r"fill=\(0.5,\)"),
    (
        lambda: expand(ImageExpansion(), np.zeros((4, 4), np.float32)),
        ValueError,
        r"\[..., H, W, C\].*\(4, 4\)",
    ),
    (lambda: expand(ImageExpansion(), np.zeros((4, 4, 1), np.int32)), ValueError, "int32.*None"),
    (
        lambda: expand(ImageExpansion(fill=(0.0, 1.0)), np.zeros((4, 4, 3), np.uint8)),
        ValueError,
        "3 channels",
    ),
    (
        lambda: expand(ImageExpansion(fill=1.5), np.zeros((4, 4, 3), np.uint8)),
        ValueError,
        r"fill=1.5 .*\[0, 1\]",
    ),
    (lambda: expand(ImageExpansion(fill=1e6), np.zeros((4, 4, 3), np.float16)), ValueError, "fill=.*float16"),
    (
        lambda: expand(ImageExpansion(fill="mean"), np.zeros((4, 4, 3), np.uint8)),
        ValueError,
        "'mean'.*`resolve",
    ),
    (lambda: expand(VectorExpansion(), 1.0), ValueError, r"\[..., d\].*\(\)"),
    (lambda: expand(VectorExpansion(), np.zeros(2, np.int32)), ValueError, "VectorExpansion.*int32"),
    (
        lambda: expand(SequenceExpansion(), np.zeros((2, 3), np.int32)),
        ValueError,
        "axis='feature' .*axis='token'",
    ),
    (lambda: expand(SequenceExpansion(axis="token"), np.zeros(2, np.int32)), ValueError, "fill=0.5 .*whole"),
    (lambda: expand(SequenceExpansion(2, 300, "token"), np.zeros(2, np.int8)), ValueError, "fill=300 .*127"),
    (lambda: expand(SequenceExpansion(2, 0, "token"), np.zeros(2, np.uint8)), ValueError, "uint8"),
    (lambda: expand(SequenceExpansion(), np.zeros(2, np.float32)), ValueError, r"\[..., L, d\]"),
    (lambda: expand({"x": 2}, {"x": np.zeros(2)}), TypeError, "expansion holds 2"),
    (lambda: expand({"x": None}, {"x": np.zeros(2), "y": np.zeros(2)}), ValueError, "no prefix.*'y'"),
    (lambda: expand((None,), {"x": np.zeros(2)}), ValueError, "no prefix"),
    (lambda: contract(ImageExpansion(2), np.zeros((4, 5, 3))), ValueError, r"\(4, 5, 3\)"),
    (lambda: contract(VectorExpansion(2, 2), np.zeros(4)), ValueError, r"\(4,\)"),
    (lambda: contract(SequenceExpansion(2), np.zeros((4, 5), np.float32)), ValueError, "multiple of 2"),
    (lambda: resolve(None, mean=0.5, std=0.0), ValueError, "std=.*positive"),
    (lambda: resolve(None, mean=(0.5, 0.5), std=(1.0, 1.0, 1.0)), ValueError, "differ in length"),
    (lambda: prepare(None, np.zeros((4, 4, 3)), mean=0.5, std=1), TypeError, "images has dtype"),
    (lambda: prepare(None, np.zeros((4, 4, 1), np.uint8), mean=[0.5] * 3, std=1), ValueError, "mean has 3"),
    (lambda: prepare(2, np.zeros((4, 4, 1), np.uint8), mean=0.5, std=1), TypeError, "expansion holds 2"),
]


@pytest.mark.wrong_types
@pytest.mark.parametrize(("call", "error", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()
