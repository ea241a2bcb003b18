"""conv2d against jax.lax.conv_general_dilated: values, derivatives of both modes, vmap, loops, devices."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sbjax.models.convolution import conv2d
from sbjax.models.layers import max_pool_3x3

# shape of x, shape of the kernel, strides, padding; with what each is there for
CASES = {
    "plain": ((3, 7, 6, 2), (3, 3, 2, 4), (1, 1), ((1, 1), (1, 1))),
    "no padding": ((3, 7, 6, 2), (3, 3, 2, 4), (1, 1), ((0, 0), (0, 0))),
    "groups": ((16, 16, 16, 2), (3, 3, 2, 3), (1, 1), ((1, 1), (1, 1))),
    "batch without a divisor": ((17, 16, 16, 2), (3, 3, 2, 3), (1, 1), ((1, 1), (1, 1))),
    "strided": ((16, 16, 17, 2), (3, 3, 2, 3), (2, 2), ((1, 1), (1, 1))),
    "uneven strides and padding": ((3, 11, 9, 2), (3, 2, 2, 3), (3, 2), ((2, 0), (0, 1))),
    "rows left over": ((3, 8, 8, 2), (3, 3, 2, 3), (3, 3), ((0, 0), (0, 0))),
    "one by one, strided": ((3, 8, 7, 2), (1, 1, 2, 3), (2, 2), ((0, 0), (0, 0))),
    "imagenet stem": ((2, 16, 16, 3), (7, 7, 3, 4), (2, 2), ((3, 3), (3, 3))),
    "tiny map": ((4, 2, 2, 3), (3, 3, 3, 5), (1, 1), ((1, 1), (1, 1))),
    "to a tiny map": ((4, 4, 4, 3), (3, 3, 3, 5), (2, 2), ((1, 1), (1, 1))),
    "one cell": ((4, 1, 1, 3), (3, 3, 3, 5), (1, 1), ((1, 1), (1, 1))),
    "taps beside the map": ((4, 2, 3, 3), (7, 5, 3, 5), (2, 1), ((3, 3), (2, 2))),
    "padding alone": ((2, 1, 1, 2), (3, 3, 2, 3), (1, 1), ((3, 3), (3, 3))),
    "depthwise": ((3, 7, 6, 4), (3, 3, 1, 4), (1, 1), ((1, 1), (1, 1))),
    "depthwise, strided": ((4, 8, 7, 3), (5, 3, 1, 3), (2, 2), ((2, 2), (1, 1))),
    "depthwise, uneven": ((3, 9, 8, 2), (3, 2, 1, 2), (3, 2), ((2, 0), (0, 1))),
    "depthwise, tiny map": ((4, 2, 2, 3), (5, 5, 1, 3), (1, 1), ((2, 2), (2, 2))),
    "depthwise, several of each": ((3, 5, 5, 2), (3, 3, 1, 6), (2, 2), ((1, 1), (1, 1))),
    "grouped": ((3, 6, 6, 6), (3, 3, 2, 9), (1, 1), ((1, 1), (1, 1))),
    "grouped, strided": ((3, 7, 6, 4), (3, 3, 2, 4), (2, 2), ((1, 1), (1, 1))),
}


def operands(case, dtype=np.float64):
    x, kernel, strides, padding = CASES[case]
    rng = np.random.default_rng(0)
    groups = x[3] // kernel[2]

    def ours(x, kernel):
        return conv2d(x, kernel, strides=strides, padding=padding, groups=groups)

    def reference(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=layout, feature_group_count=groups
        )

    return jnp.asarray(rng.normal(size=x), dtype), jnp.asarray(rng.normal(size=kernel), dtype), ours, reference


def assert_close(actual, expected):
    """To round-off of a sum of a few thousand terms, relative to the largest entry."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        np.testing.assert_allclose(a, e, rtol=0, atol=4000 * jnp.finfo(e.dtype).eps * max(1.0, float(jnp.abs(e).max())))


def loss(f):
    return lambda x, kernel: jnp.sin(f(x, kernel)).sum()


@pytest.mark.sampled(8)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, x64):
    x, kernel, ours, reference = operands(case)

    def both(f):
        return jax.jit(lambda x, kernel: (f(x, kernel), jax.grad(loss(f), (0, 1))(x, kernel)))(x, kernel)

    assert_close(both(ours), both(reference))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", ["groups", "strided", "to a tiny map", "depthwise, strided", "grouped"])
@pytest.mark.parametrize("order", ["forward over reverse", "reverse over reverse", "reverse over forward"])
def test_second_derivatives(case, order, x64):
    x, kernel, ours, reference = operands(case)
    tangents = (jnp.cos(x), jnp.cos(kernel))

    def second(f):
        gradient = jax.grad(loss(f), (0, 1))
        products = {
            "forward over reverse": lambda *args: jax.jvp(gradient, args, tangents)[1],
            "reverse over reverse": lambda *args: jax.vjp(gradient, *args)[1](tangents),
            "reverse over forward": jax.grad(lambda *args: jax.jvp(loss(f), args, tangents)[1], (0, 1)),
        }
        return jax.jit(products[order])(x, kernel)

    assert_close(second(ours), second(reference))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", ["strided", "depthwise, strided", "grouped"])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (2, 3), (None, 4)])
def test_vmap_is_a_loop(axes, case, x64):
    x, kernel, ours, reference = operands(case)
    stacked = [
        a if axis is None else jnp.stack([a, 2 * a, a + 1], axis) for a, axis in zip((x, kernel), axes, strict=True)
    ]
    actual = jax.jit(jax.vmap(jax.grad(loss(ours), (0, 1)), axes))(*stacked)
    gradient = jax.jit(jax.grad(loss(reference), (0, 1)))
    rows = []
    for r in range(3):
        args = [a if axis is None else jnp.take(a, r, axis) for a, axis in zip(stacked, axes, strict=True)]
        rows.append(gradient(*args))
    assert_close(actual, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))


@pytest.mark.parametrize("case", ["groups", "strided", "tiny map"])
def test_gradients_in_a_loop_keep_the_fast_layout(case):
    """XLA:CPU has a fast kernel for this layout, stride over a plain window, and a naive loop nest for the rest."""
    x, kernel, ours, reference = operands(case, np.float32)

    def layouts(f):
        def body(_, args):
            return jax.tree.map(lambda a, g: a - 0.1 * g, args, jax.grad(loss(f), (0, 1))(*args))

        loop = jax.jit(lambda *args: lax.fori_loop(0, 3, body, args)).lower(x, kernel)
        text = loop.compile().as_text()
        return set(re.findall(r"convolution\(.*dim_labels=([^,\s]+)", text)), "rhs_reversal" in text

    assert layouts(ours) == ({"b01f_01io->b01f"}, False)
    assert layouts(reference) != ({"b01f_01io->b01f"}, False), "XLA has learned it: the module may be unnecessary"


@pytest.mark.parametrize("case", ["depthwise, strided", "depthwise, tiny map", "grouped"])
def test_groups_need_no_convolution_with_groups(case, x64):
    """In a loop, under vmap twice, and in the gradient of a gradient: values of `lax`, and no loop nest of XLA."""
    x, kernel, ours, reference = operands(case)
    stacked = jnp.stack([kernel, kernel + 1])

    def program(f):
        def body(carry, scale):
            x, kernels = carry
            inner = jax.vmap(lambda kernel: loss(f)(x, scale * kernel))
            outer = lambda kernels: jax.vmap(inner)(jnp.stack([kernels, kernels * 2])).sum()  # noqa: E731
            gradient = jax.grad(lambda kernels: (jax.grad(outer)(kernels) ** 2).sum())(kernels)
            return (x, kernels - 1e-3 * gradient), outer(kernels)

        return jax.jit(lambda: jax.lax.scan(body, (x, stacked), jnp.arange(1.0, 3.0, dtype=x.dtype)))

    assert_close(program(ours)(), program(reference)())
    groups = {int(n) for n in re.findall(r"feature_group_count = (\d+)", program(ours).lower().as_text())}
    assert groups <= {1}
    assert "batch_group_count = 1" in (text := program(ours).lower().as_text()) or "convolution" not in text


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_max_pool_3x3_is_that_of_flax(side, x64):
    """Values, gradients and second derivatives, with ties, an infinity and a NaN."""
    rng = np.random.default_rng(side)
    x = jnp.asarray(rng.integers(0, 3, (2, side, side + 1, 3)), jnp.float64)

    def reference(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    @partial(jax.jit, static_argnums=0)
    def all_of(f):
        weights = jnp.asarray(np.random.default_rng(0).normal(size=reference(x).shape))
        squares = lambda x: (weights * f(x) ** 2).sum()  # noqa: E731
        return f(x), jax.grad(squares)(x), jax.jvp(jax.grad(squares), (x,), (jnp.cos(x),))[1]

    for ours, theirs in zip(all_of(max_pool_3x3), all_of(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    special = x.at[0, 0, 0, 0].set(jnp.nan).at[1, 0, 1, 1].set(-jnp.inf)
    np.testing.assert_array_equal(max_pool_3x3(special), reference(special))


def mesh():
    return jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("case", ["groups", "depthwise, strided"])
def test_gradient_of_a_replicated_kernel_in_shard_map(case, x64):
    x, kernel, ours, reference = operands(case)
    data, everywhere = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        jax.grad(loss(ours), (0, 1)), mesh=mesh(), in_specs=(data, everywhere), out_specs=(data, everywhere)
    )
    assert_close(jax.jit(sharded)(x, kernel), jax.grad(loss(reference), (0, 1))(x, kernel))


@pytest.mark.parametrize("case", ["groups", "depthwise, strided"])
def test_a_sharded_batch_is_not_moved(case, x64):
    x, kernel, ours, reference = operands(case)
    gradient = jax.jit(jax.grad(loss(ours), 1))
    sharded = jax.device_put(x, NamedSharding(mesh(), PartitionSpec("data")))
    assert_close(gradient(sharded, kernel), jax.grad(loss(reference), 1)(x, kernel))
    text = gradient.lower(sharded, kernel).compile().as_text()
    assert "all-reduce" in text
    assert not re.search("all-gather|all-to-all|collective-permute", text)


def test_bfloat16():
    x, kernel, ours, reference = operands("groups", jnp.bfloat16)
    actual, expected = ours(x, kernel), reference(x, kernel)
    assert actual.dtype == jnp.bfloat16
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(*(a.astype(np.float32) for a in (actual, expected)), rtol=0, atol=2**-8 * scale)


@pytest.mark.parametrize(("implementation", "ours"), [("auto", True), ("cpu", True), ("xla", False)])
def test_implementation(implementation, ours):
    x, kernel, *_ = operands("plain", np.float32)
    jaxpr = jax.make_jaxpr(lambda *args: conv2d(*args, implementation=implementation))(x, kernel)
    assert ("sbjax_conv2d" in str(jaxpr)) == ours


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        (jnp.ones((2, 5, 5)), jnp.ones((3, 3, 2, 4)), "batch, height, width, in"),
        (jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 2, 4)), "same number of input channels"),
        (jnp.ones((2, 5, 5, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 4)), "cast one"),
    ],
)
def test_errors(x, kernel, message):
    with pytest.raises(ValueError, match=message):
        conv2d(x, kernel)


def test_unknown_implementation():
    with pytest.raises(ValueError, match="implementation='gpu' is unknown: give 'auto', 'cpu' or 'xla'"):
        conv2d(jnp.ones((2, 5, 5, 2)), jnp.ones((3, 3, 2, 4)), implementation="gpu")


@pytest.mark.parametrize(
    ("groups", "outputs", "message"),
    [
        (0, 4, "groups=0 must be >= 1"),
        (2, 4, "with in / 2 channels in the kernel"),
        (4, 6, "groups=4 does not divide the 6 output channels"),
    ],
)
def test_groups_that_do_not_fit(groups, outputs, message):
    with pytest.raises(ValueError, match=message):
        conv2d(jnp.ones((2, 5, 5, 4)), jnp.ones((3, 3, 1, outputs)), groups=groups)
