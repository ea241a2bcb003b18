"""Group CNNs: group axioms, brute force with scipy, all equivariant maps by linear algebra, invariance of every kind.

The action on maps is written here a second time, from numpy's rotations and flips and the relations of the dihedral
group, and never from the module's matrices or multiplication table.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from scipy.signal import correlate2d

from sbjax import trees
from sbjax.models import CNN, GroupCNN, equivariant, layers, make_model
from sbjax.models.convolution import conv2d
from sbjax.models.equivariant import GroupConv, LiftingConv, character, elements, filter_bank, multiplication_table

SIZES = {"p4": 4, "p4m": 8}
NORMS = layers.NORMS
CONVOLUTIONS = {"lift": LiftingConv, "group": GroupConv}


def move(x, element):
    """L_g x of images [batch, h, w, c] or maps [batch, h, w, g, c]; element r + 4 m is m mirrors, then r turns."""
    turns, mirrored = element % 4, element >= 4
    if mirrored:
        x = np.flip(x, 2)
    x = np.rot90(x, turns, (1, 2))
    if x.ndim == 4:
        return x
    # g^-1 u: s r^b = r^-b s, so mirroring exchanges the two halves and runs them backwards; a turn rolls each of them.
    halves = [x[:, :, :, i : i + 4] for i in range(0, x.shape[3], 4)]
    if mirrored:
        halves = [half[:, :, :, [0, 3, 2, 1]] for half in halves[::-1]]
    return np.concatenate([np.roll(half, turns, 3) for half in halves], 3)


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_variables(module, x, seed=7):
    """All away from their initial values: zeros and ones would hide a mistake. Without compiling `init`."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.ndim > 1:
            return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1]), leaf.dtype)
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), x))


def orbit(x, group):
    """All images L_g x, [g batch, h, w, c]."""
    return np.concatenate([move(x, g) for g in range(SIZES[group])])


def small(group="p4", **options):
    return GroupCNN(**{"classes": 3, "channels": (4, 6), "group": group} | options)


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("group", SIZES)
def test_group_axioms(group):
    g, table = elements(group), multiplication_table(group)
    n = len(g)
    assert n == SIZES[group] == len(np.unique(g, axis=0))
    for a in range(n):
        assert sorted(table[a]) == sorted(table[:, a]) == list(range(n))  # closed, and every equation has one solution
        for b in range(n):
            np.testing.assert_array_equal(g[table[a, b]], g[a] @ g[b])
            assert character(group)[table[a, b]] == character(group)[a] * character(group)[b]
            np.testing.assert_array_equal(table[table[a, b]], table[a, table[b]])
    np.testing.assert_array_equal(table[0], range(n))
    np.testing.assert_array_equal(table[:, 0], range(n))
    assert ((table == 0).sum(1) == 1).all()
    assert ((table == 0) == (table == 0).T).all()  # left and right inverses are the same


@pytest.mark.parametrize("group", SIZES)
def test_elements_are_numpy_rotations_and_flips(group):
    """`move` is the action of the matrices and the table that the module computes with."""
    x = normal(1, 5, 5, SIZES[group], 1)
    for number, g in enumerate(elements(group)):
        expected = np.empty_like(x)
        for i in range(5):
            for j in range(5):
                to = g @ (i - 2, j - 2) + 2
                for u, image in enumerate(multiplication_table(group)[number]):
                    expected[0, to[0], to[1], image] = x[0, i, j, u]
        np.testing.assert_array_equal(move(x, number), expected)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("group", SIZES)
def test_convolutions_against_scipy(group, size, x64):
    n, dtype = SIZES[group], np.float64
    lifting, conv = (layer(3, group, size, True, dtype) for layer in (LiftingConv, GroupConv))
    for layer, x in ((lifting, normal(2, 7, 6, 2, dtype=dtype)), (conv, normal(2, 7, 6, n, 2, dtype=dtype))):
        params = random_variables(layer, x)["params"]
        kernel = np.asarray(params["kernel"])
        assert kernel.shape == (size, size, *x.shape[3:], 3)
        y = layer.apply({"params": params}, x)
        assert (y.shape, y.dtype) == ((2, 7, 6, n, 3), dtype)
        filters = kernel.reshape(1, *kernel.shape[:-2], 6)
        for g in range(n):
            moved = move(filters, g).reshape(size, size, -1, 3)
            for image, o in np.ndindex(2, 3):
                planes = x[image].reshape(7, 6, -1)
                sums = sum(correlate2d(planes[..., i], moved[..., i, o], "same") for i in range(planes.shape[-1]))
                close(y[image, :, :, g, o], sums + params["bias"][o], 1e-13)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("group", "lifting"), [("p4", True), pytest.param("p4m", True, marks=pytest.mark.extended), ("p4", False)]
)
def test_filters_span_all_equivariant_maps(group, lifting):
    """Null space of rho_out(g) W - W rho_in(g) on a 3x3 torus, translations among the g, by singular values.

    There (and there only: zero padding has no translations) a 3x3 kernel reaches everything, and the layer must be
    neither too poor nor too rich: as many parameters as the space of equivariant maps has dimensions.
    """
    n = SIZES[group]
    inputs, outputs = (3, 3) if lifting else (3, 3, n), (3, 3, n)

    def permutation(shape, f):
        basis = np.eye(np.prod(shape)).reshape(-1, *shape, *(() if len(shape) == 3 else (1,)))
        return f(basis if len(shape) == 2 else basis[..., None]).reshape(len(basis), -1).T

    moves = [partial(np.roll, shift=1, axis=1), partial(move, element=1)]
    moves += [partial(move, element=4)] if group == "p4m" else []
    constraints = 0
    for f in moves:
        rho_in, rho_out = permutation(inputs, f), permutation(outputs, f)
        c = np.kron(rho_out, np.eye(len(rho_in))) - np.kron(np.eye(len(rho_out)), rho_in.T)  # on W, row by row
        constraints = constraints + c.T @ c
    eigenvalues, vectors = np.linalg.eigh(constraints)
    null = vectors[:, eigenvalues < 1e-9]

    parameters = np.eye(9 * np.prod(inputs[2:], dtype=int)).astype(np.float32)
    eye = np.eye(np.prod(inputs)).reshape(-1, 3, 3, np.prod(inputs[2:], dtype=int)).astype(np.float32)
    torus = np.pad(eye, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    layer = jax.jit(
        jax.vmap(
            lambda k: conv2d(torus, filter_bank(k.reshape(3, 3, *inputs[2:], 1, 1), group)).reshape(len(eye), -1).T
        )
    )
    maps = np.asarray(layer(parameters), np.float64).reshape(len(parameters), -1)
    assert np.linalg.matrix_rank(maps) == len(parameters) == null.shape[1]
    np.testing.assert_allclose(maps @ null @ null.T, maps, rtol=0, atol=1e-9)


class Norm(nn.Module):
    kind: str
    dtype: str

    @nn.compact
    def __call__(self, x):
        return equivariant.make_norm(self.kind, train=True, name="norm_0", dtype=self.dtype)(x)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("group", SIZES)
@pytest.mark.parametrize("layer", ["lift 3", "lift 5", "group 3", "group 5", *(f"norm {n}" for n in NORMS)])
def test_every_layer_is_equivariant(layer, group, dtype):
    with jax.enable_x64(dtype == "float64"):
        kind, size = layer.split()
        if kind == "norm":
            module = Norm(size, dtype)
        else:
            module = CONVOLUTIONS[kind](5, group, int(size), use_bias=True, dtype=dtype)
        x = normal(2, 6, 6, *(() if kind == "lift" else (SIZES[group],)), 4, dtype=dtype) + 1
        variables = random_variables(module, x)
        apply = jax.jit(lambda x: module.apply(variables, x, mutable=["batch_stats"]))
        y, state = apply(x)
        assert y.dtype == dtype
        for g in range(SIZES[group]):
            moved, moved_state = apply(move(x, g))
            close(moved, move(np.asarray(y), g), 1e-5 if dtype == "float32" else 1e-12)
            jax.tree.map(close, moved_state, state)
        assert np.abs(move(np.asarray(y), 1) - y).max() > 0.1  # not for lack of anything to move


@pytest.mark.parametrize("norm", NORMS)
def test_norm_has_one_scale_for_the_whole_group(norm):
    x = normal(2, 6, 6, 4, 8)
    variables = random_variables(Norm(norm, "float32"), x)
    assert {leaf.shape for leaf in jax.tree.leaves(variables)} == (set() if norm == "none" else {(8,)})


@pytest.mark.extended
def test_initial_scale_is_that_of_the_plain_convolution_it_computes():
    for layer, x in ((LiftingConv(64, "p4m"), normal(1, 3, 3, 32)), (GroupConv(64, "p4m"), normal(1, 3, 3, 8, 16))):
        kernel = layer.init(jax.random.key(0), x)["params"]["kernel"]
        expected = np.sqrt(2 / (9 * 8 * 64))
        assert abs(float(kernel.std()) / expected - 1) < 5 / np.sqrt(2 * kernel.size)


def after_training_pass(model, x):
    """Random variables; where there are batch statistics, those of other images, gathered in training mode."""
    variables = random_variables(model, x)
    if "batch_stats" not in variables:
        return variables
    train = partial(model.apply, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
    return variables | jax.jit(train)(variables, 1 + 2 * x)[1]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("side", "dtype"), [(8, "float32"), (28, "float32"), (32, "float32"), (8, "float64")])
@pytest.mark.parametrize("group", SIZES)
def test_logits_are_invariant_or_change_sign(group, side, dtype, norm):
    with jax.enable_x64(dtype == "float64"):
        x = normal(2, side, side, 2, dtype=dtype)
        # From 28 the third block gets a map of 7x7, which `CNN` would crop.
        channels = (4, 6, 6) if side == 28 else (4, 6)
        model = small(group, channels=channels, norm=norm, dropout=0.3, dtype=dtype)
        control = model.clone(readout="sign")
        variables = after_training_pass(model, x)
        head = {"kernel": variables["params"]["head"]["kernel"]}  # the control has no bias, else it is the same
        without = variables | {"params": variables["params"] | {"head": head}}
        both = jax.jit(lambda x: (model.apply(variables, x), control.apply(without, x)))
        logits, signed = (np.asarray(y).reshape(-1, 2, 3) for y in both(orbit(x, group)))
        chi = np.resize([1, -1], len(logits))[:, None, None]
        tolerance = (1e-5 if dtype == "float32" else 1e-12) * max(1.0, float(np.abs(logits).max()))
        np.testing.assert_allclose(logits, np.broadcast_to(logits[0], logits.shape), rtol=0, atol=tolerance)
        np.testing.assert_allclose(signed, chi * signed[0], rtol=0, atol=tolerance)
        for y in (logits, signed):  # both depend on the image
            assert np.abs(y[0, 0] - y[0, 1]).max() > 100 * tolerance


def test_the_plain_network_is_not_invariant():
    x = normal(2, 8, 8, 2)
    model = CNN(classes=3, channels=(4, 6))
    variables = after_training_pass(model, x)
    logits = np.asarray(jax.jit(model.apply)(variables, orbit(x, "p4"))).reshape(-1, 2, 3)
    assert np.abs(logits[1:] - logits[0]).max() > 1e-2


@pytest.mark.parametrize("group", SIZES)
def test_a_turned_image_is_not_the_same_image_to_each_map(group):
    """Invariance comes from the readout: the maps before it do move."""
    x = normal(2, 8, 8, 2)
    model = small(group, norm="none")
    variables = random_variables(model, x)
    apply = jax.jit(partial(model.apply, capture_intermediates=True))
    maps, moved = (apply(variables, move(x, g))[1]["intermediates"]["conv_1"]["__call__"][0] for g in (0, 1))
    assert np.abs(moved - maps).max() > 1e-2
    close(moved, move(np.asarray(maps), 1))


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((7, 7), [(7, 7)] * 3),
        ((8, 8), [(4, 4), (2, 2), (2, 2)]),
        ((28, 28), [(14, 14), (7, 7), (7, 7)]),
        ((32, 32), [(16, 16), (8, 8), (4, 4)]),
        ((8, 9), [(8, 9)] * 3),
        ((8, 12), [(4, 6), (2, 3), (2, 3)]),
    ],
)
def test_only_even_maps_are_pooled(sides, expected):
    def maps(key, x):
        model = small(channels=(2, 2, 2, 2), norm="none")
        return model.init_with_output(key, x, capture_intermediates=True, mutable=True)[1]["intermediates"]

    states = jax.eval_shape(maps, jax.random.key(0), jnp.ones((1, *sides, 1)))
    assert [states[f"conv_{i}"]["__call__"][0].shape[1:3] for i in (1, 2, 3)] == expected


@pytest.mark.parametrize("readout", equivariant.READOUTS)
def test_network_against_scipy(readout, x64):
    """The whole of it from the definition, with the group's maps as a dict of planes."""
    model = GroupCNN(classes=3, channels=(2, 3), norm="none", dtype="float64", readout=readout)
    x = normal(2, 12, 6, 2, dtype=np.float64)
    variables = random_variables(model, x)
    p = {k: np.asarray(v) for k, v in trees.flatten(variables["params"]).items()}

    def one(image):
        planes = {(0, c): image[..., c] for c in range(2)}
        for i, features in enumerate((2, 3)):
            kernel, new = p[f"conv_{i}/kernel"], {}
            kernel = kernel if i else kernel[:, :, None]
            for g in range(4):
                for o in range(features):
                    filters = {(u, c): np.rot90(kernel[:, :, (u - g) % 4 if i else 0, c, o], g) for u, c in planes}
                    y = sum(correlate2d(plane, filters[key], "same") for key, plane in planes.items())
                    y = np.maximum(y + p[f"conv_{i}/bias"][o], 0)
                    new[g, o] = np.max([y[a::2, b::2] for a in (0, 1) for b in (0, 1)], 0) if i == 0 else y
            planes = new
        chi = [1, -1, 1, -1] if readout == "sign" else [1, 1, 1, 1]
        features = np.array([sum(chi[g] * planes[g, o].mean() for g in range(4)) / 4 for o in range(3)])
        return features @ p["head/kernel"] + p.get("head/bias", 0)

    close(jax.jit(model.apply)(variables, x), np.array([one(image) for image in x]), 1e-13)


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("readout", equivariant.READOUTS)
@pytest.mark.parametrize(("name", "c"), [("p4cnn", (16, 32, 32)), ("p4mcnn", (12, 22, 22))])
def test_parameter_count(name, c, readout, inputs):
    g = 4 if name == "p4cnn" else 8
    x = jnp.ones((1, 28, 28, inputs))
    count, plain = (
        trees.size(jax.eval_shape(model.init, jax.random.key(0), x)["params"])
        for model in (make_model(name, classes=10, readout=readout), make_model("cnn", classes=10))
    )
    norms, head = 2 * sum(c), 10 * c[2] + 10 * (readout == "invariant")
    assert count == 9 * (inputs * c[0] + g * c[0] * c[1] + g * c[1] * c[2]) + norms + head
    assert abs(count / plain - 1) < 0.1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("readout", equivariant.READOUTS)
@pytest.mark.parametrize("group", SIZES)
def test_gradient_step_keeps_the_symmetry(group, readout):
    x, labels = normal(4, 8, 8, 2), jnp.arange(4) % 3
    model = small(group, readout=readout, dropout=0.3)
    variables = random_variables(model, x)

    @jax.jit
    def step(variables, x):
        def loss(params):
            rngs = {"dropout": jax.random.key(2)}
            logits, state = model.apply(variables | {"params": params}, x, True, rngs=rngs, mutable=["batch_stats"])
            return -jnp.take_along_axis(nn.log_softmax(logits), labels[:, None], 1).mean(), state

        gradient, state = jax.grad(loss, has_aux=True)(variables["params"])
        return gradient, variables | state | {
            "params": jax.tree.map(lambda p, g: p - 0.3 * g, variables["params"], gradient)
        }

    gradient, new = step(variables, x)
    for name, g in trees.flatten(gradient).items():
        assert np.isfinite(g).all(), name
        assert np.abs(g).max() > 0, name
    logits = np.asarray(jax.jit(model.apply)(new, orbit(x, group))).reshape(-1, 4, 3)
    close(logits, np.resize([1, -1 if readout == "sign" else 1], len(logits))[:, None, None] * logits[0])
    assert np.abs(logits).max() > 1e-3
    if readout == "invariant":  # turned images give the same gradient: nothing is learned from rotating the data
        jax.tree.map(partial(close, tolerance=1e-5), step(variables, move(x, SIZES[group] - 1))[0], gradient)


@pytest.mark.extended
def test_second_derivatives_of_both_modes():
    x = normal(2, 6, 6, 1)
    model = small(norm="none", activation="tanh")
    params = random_variables(model, x)
    direction = jax.tree.map(jnp.cos, params)
    gradient = jax.grad(lambda p: (model.apply(p, x) ** 2).sum())
    forward = jax.jit(lambda p: jax.jvp(gradient, (p,), (direction,))[1])(params)
    reverse = jax.jit(lambda p: jax.vjp(gradient, p)[1](direction)[0])(params)
    jax.tree.map(close, forward, reverse)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("group", SIZES)
def test_bfloat16(group):
    x = normal(4, 8, 8, 2)
    wide, narrow = (small(group, norm="none", dtype=dtype) for dtype in ("float32", "bfloat16"))
    variables = random_variables(narrow, x)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    expected, actual = (jax.jit(m.apply)(variables, orbit(x, group)) for m in (wide, narrow))
    assert actual.dtype == jnp.float32
    scale = float(np.abs(expected).max())
    assert 0 < np.abs(actual - expected).max() / scale < 16 * float(jnp.finfo(jnp.bfloat16).eps)
    gradients = jax.jit(jax.grad(lambda v: narrow.apply(v, x).sum()))(variables)
    assert all(g.dtype == jnp.float32 and np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.extended
def test_replicas_together_are_replicas_one_by_one():
    x = normal(4, 8, 8, 1)
    model = small("p4m")
    replicas = [random_variables(model, x, seed=r) for r in range(3)]

    def step(variables):
        def loss(params):
            logits, state = model.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
            return (logits**2).sum(), (logits, state)

        return jax.grad(loss, has_aux=True)(variables["params"])

    single = jax.jit(step)
    one_by_one = trees.stack([single(v) for v in replicas])
    for together in (jax.vmap(step), partial(lax.map, step)):
        jax.tree.map(close, jax.jit(together)(trees.stack(replicas)), one_by_one)


@pytest.mark.parametrize("name", ["p4cnn", "p4mcnn"])
@pytest.mark.parametrize("norm", NORMS)
def test_float64_is_float64_throughout(name, norm, x64):
    model = make_model(name, classes=3, norm=norm, dtype="float64")
    x = jnp.zeros((2, 16, 16, 3), jnp.float64)
    logits, variables = jax.eval_shape(lambda key: model.init_with_output(key, x), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float64")}


def test_names():
    model = make_model("p4mcnn", classes=3, channels=[4, 6], readout="sign")
    assert hash(model) == hash(GroupCNN(classes=3, channels=(4, 6), group="p4m", readout="sign"))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 2)))["params"]
    assert {name: leaf.shape for name, leaf in trees.flatten(params).items()} == {
        "conv_0/kernel": (3, 3, 2, 4),
        "conv_1/kernel": (3, 3, 8, 4, 6),
        "head/kernel": (6, 3),
        **{f"norm_{i}/{part}": (c,) for i, c in ((0, 4), (1, 6)) for part in ("scale", "bias")},
    }


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (small("p4g"), (1, 8, 8, 1), "group='p4g' is unknown, did you mean 'p4.*known: p4, p4m"),
        (
            small(readout="sgin"),
            (1, 8, 8, 1),
            "readout='sgin' is unknown, did you mean 'sign'.; known: invariant, sign",
        ),
        (LiftingConv(2, "p6"), (1, 8, 8, 1), "group='p6' is unknown"),
        (LiftingConv(2, kernel_size=4), (1, 8, 8, 1), "kernel_size=4 must be odd"),
        (GroupConv(2, kernel_size=2), (1, 8, 8, 4, 1), "kernel_size=2 must be odd"),
        (LiftingConv(2), (1, 8, 8, 4, 1), r"x has shape \(1, 8, 8, 4, 1\): give images"),
        (GroupConv(2, "p4m"), (1, 8, 8, 4, 1), r"give maps \[batch, h, w, 8, c\] for group='p4m'"),
        (GroupConv(2), (1, 8, 8, 4), r"give maps \[batch, h, w, 4, c\] for group='p4'"),
    ],
)
def test_errors(module, shape, message):
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("p4cn", {}, "^name='p4cn' is unknown, did you mean 'p4cnn'"),
        ("p4cnn", {"readout": "invariance"}, "^readout='invariance' is unknown, did you mean 'invariant'"),
        ("p4mcnn", {"group": "p4"}, "^group='p4' is unknown"),
        ("cnn", {"readout": "sign"}, "^readout='sign' is unknown"),
        ("p4cnn", {"channels": (8, 0)}, r"^channels=\(8, 0\) holds an entry that must be >= 1"),
    ],
)
def test_make_model_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(name, classes=2, **options)
