"""The networks of torchvision: published sizes, laws of the start, its logits from its weights, stems, permutations."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax import trees
from sbjax.expansion.transform import ImageExpansion, expand
from sbjax.models import densenet, efficientnet, from_torchvision, make_model, mobilenet, torchvision
from sbjax.models.convolution import conv2d
from sbjax.models.inverted import InvertedResidual, Norms
from sbjax.models.resnet import ResNet
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import permute, random_permutations
from sbjax.symmetry.spec import derive_spec

NAMES = ("resnet50", "densenet121", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0")
# Parameters with the ImageNet stem, by classes, and entries of running statistics: torchvision 0.29.
COUNTS = {
    "resnet50": ({1000: 25_557_032, 200: 23_917_832, 100: 23_712_932, 10: 23_528_522}, 53_120),
    "densenet121": ({1000: 7_978_856, 200: 7_158_856, 100: 7_056_356, 10: 6_964_106}, 83_648),
    "mobilenet_v3_large": ({1000: 5_483_032, 200: 4_458_232, 100: 4_330_132, 10: 4_214_842}, 24_400),
    "mobilenet_v3_small": ({1000: 2_542_856, 200: 1_722_856, 100: 1_620_356, 10: 1_528_106}, 12_112),
    "efficientnet_b0": ({1000: 5_288_548, 200: 4_263_748, 100: 4_135_648, 10: 4_020_358}, 42_016),
}
CIFAR_STEM = {"resnet50": {10: 23_520_842, 100: 23_705_252}, "densenet121": {10: 6_956_426, 100: 7_048_676}}
# Millions of products of one image, borders included; 1000 classes with the ImageNet stem, else 10.
PRODUCTS = [
    ("resnet50", "imagenet", 32, 85.5),
    ("resnet50", "cifar", 32, 1297.8),
    ("densenet121", "imagenet", 64, 232.3),
    ("densenet121", "cifar", 32, 888.4),
    ("mobilenet_v3_large", "imagenet", 32, 8.4),
    ("mobilenet_v3_large", "cifar", 32, 20.1),
    ("mobilenet_v3_large", "stride1", 32, 66.5),
    ("mobilenet_v3_small", "cifar", 32, 5.5),
    ("mobilenet_v3_small", "stride1", 32, 17.5),
    ("efficientnet_b0", "imagenet", 224, 385.8),
    ("efficientnet_b0", "cifar", 32, 32.0),
    ("efficientnet_b0", "stride1", 32, 116.2),
]
FIXTURE = pathlib.Path(__file__).parent / "torchvision.npz"


def variables(name, side=64, **options):
    model = make_model(name, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, side, side, 3)))


def size_with(variables, classes):
    """Parameters with another number of classes."""
    kernel, bias = (variables["params"]["head"][part] for part in ("kernel", "bias"))
    assert bias.shape == kernel.shape[1:]
    return trees.size(variables["params"]) + (kernel.shape[0] + 1) * (classes - kernel.shape[1])


def narrow(name, classes=5, **options):
    """A few blocks of each network, with every kind of block it has."""
    small = {
        "resnet50": lambda: ResNet(classes, (1, 2, 1, 1), 8, bottleneck=True, **options),
        "densenet121": lambda: densenet.DenseNet(classes, (2, 3, 2, 2), width=1 / 8, **options),
        "mobilenet_v3_large": lambda: mobilenet.MobileNetV3(
            classes, tuple(mobilenet.LARGE[i] for i in (0, 1, 2, 3, 6, 10, 12)), 1280, width=0.25, **options
        ),
        "mobilenet_v3_small": lambda: mobilenet.MobileNetV3(classes, mobilenet.SMALL, 1024, width=0.25, **options),
        "efficientnet_b0": lambda: efficientnet.EfficientNet(
            classes, tuple((*row[:4], -(-row[4] // 2)) for row in efficientnet.B0), width=0.25, **options
        ),
    }
    return small[name]()


@pytest.mark.parametrize("name", NAMES)
def test_published_sizes(name):
    counts, statistics = COUNTS[name]
    found = variables(name, classes=10, stem="imagenet")
    assert trees.size(found["batch_stats"]) == statistics
    assert {classes: size_with(found, classes) for classes in counts} == counts
    if name in CIFAR_STEM:
        found = variables(name, classes=10, stem="cifar")
        assert {classes: size_with(found, classes) for classes in CIFAR_STEM[name]} == CIFAR_STEM[name]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("name", "stem", "side", "millions"), PRODUCTS)
def test_published_products(name, stem, side, millions):
    model = make_model(name, classes=1000 if stem == "imagenet" else 10, stem=stem)
    x = jnp.ones((1, side, side, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    count = 0

    def add(next_fun, args, kwargs, context):
        nonlocal count
        y = next_fun(*args, **kwargs)
        if context.method_name == "__call__" and type(context.module).__name__ in ("Conv", "Dense"):
            kernel = context.module.variables["params"]["kernel"]
            positions = y.shape[1] * y.shape[2] if y.ndim == 4 else 1
            # Here means are taken before the 1x1 convolution of a transition, there after it.
            count += kernel.size * positions * (4 if "transition" in context.module.path[-2:][0] else 1)
        return y

    def apply(variables, x):
        with nn.intercept_methods(add):
            return model.apply(variables, x)

    jax.eval_shape(apply, shapes, x)
    np.testing.assert_allclose(count / 1e6, millions, rtol=0.02)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_torchvision(name):
    with np.load(FIXTURE) as stored:
        state = {
            entry.removeprefix(f"{name}/"): np.float32(stored[entry] * 2.0 ** stored[f"{entry}/power"])
            for entry in stored
            if entry.startswith(f"{name}/") and f"{entry}/power" in stored
        }
        x, expected = jnp.asarray(stored["x"] / 32, jnp.float32).transpose(0, 2, 3, 1), stored[f"{name}/logits"]
    model = narrow(name, classes=7, stem="imagenet")
    state["features.0.1.num_batches_tracked"] = np.int64(3)
    read = from_torchvision(state, model)
    assert jax.tree.structure(read) == jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0), x))
    logits = jax.jit(model.apply)(read, x)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
    gone = next(entry for entry in state if entry.endswith("running_var"))
    with pytest.raises(ValueError, match=f"^state_dict has no '{gone}' for "):
        from_torchvision({entry: value for entry, value in state.items() if entry != gone}, model)
    with pytest.raises(ValueError, match=r"^state_dict has 1 arrays that \w+ does not know, such as layer9.weight"):
        from_torchvision(state | {"layer9.weight": x}, model)
    with pytest.raises(ValueError, match=r"make the model with the same width, classes, stem and norm"):
        from_torchvision(state, narrow(name, classes=8, stem="imagenet"))


class Tensor:
    """As PyTorch refuses to give bfloat16, or what lies on an accelerator."""

    shape = (64, 3, 7, 7)

    def __array__(self, *_, **__):
        raise TypeError("Got unsupported ScalarType BFloat16")


def test_what_is_no_dictionary_of_arrays():
    model = make_model("resnet18", classes=10, stem="imagenet")
    with pytest.raises(ValueError, match=r"^state_dict is a ResNet and no dictionary; give net.state_dict\(\)"):
        from_torchvision(model, model)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    leaves = [leaf for flat in map(trees.flatten, variables.values()) for leaf in flat]
    names = torchvision._torch_names(leaves, torchvision._NAMES[type(model)])
    with pytest.raises(ValueError, match=r"is no array \(Got unsupported ScalarType BFloat16\); give value.detach"):
        from_torchvision(dict.fromkeys(names.values(), Tensor()), model)


def test_networks_that_torchvision_does_not_have():
    with pytest.raises(ValueError, match=r"^model=CNN: torchvision has weights for ResNet, DenseNet"):
        from_torchvision({}, make_model("cnn", classes=10))


@pytest.mark.extended
@pytest.mark.parametrize("name", NAMES)
def test_laws_of_the_start(name):
    """Deviation of kernels by shape, as torchvision's constructors have it; batch norm 1 and 0, its constants."""
    model = narrow(name, classes=100, stem="imagenet")
    leaves = trees.flatten(jax.jit(model.init)(jax.random.key(0, impl="rbg"), jnp.zeros((1, 32, 32, 3)))["params"])
    seen = 0
    for leaf, value in leaves.items():
        value = np.asarray(value, np.float64)
        if value.ndim == 1 and leaf != "head/bias":
            assert (value == (1.0 if leaf.endswith("scale") else 0.0)).all(), leaf
        if leaf == "head/kernel":
            law = {"resnet50": 3 * value.shape[0], "densenet121": 3 * value.shape[0], "efficientnet_b0": 3 * 100}
            variance = 1 / law[name] if name in law else 1e-4
        elif leaf == "hidden/kernel":
            variance = 1e-4
        elif leaf.endswith("kernel"):
            fan = value[..., 0].size if name == "densenet121" else value.size // value.shape[-2]
            variance = 2 / fan
        else:
            continue
        if value.size > 500:
            seen += 1
            np.testing.assert_allclose(value.std(), variance**0.5, rtol=5 / (2 * value.size) ** 0.5, err_msg=leaf)
    assert seen > 6


@pytest.mark.parametrize(
    ("name", "epsilon", "momentum"), [(n, *((1e-3, 0.99) if "mob" in n else (1e-5, 0.9))) for n in NAMES]
)
def test_constants_of_batch_norm(name, epsilon, momentum):
    found = set()

    def note(next_fun, args, kwargs, context):
        if type(context.module).__name__ == "BatchNorm":
            found.add((context.module.epsilon, context.module.momentum))
        return next_fun(*args, **kwargs)

    def init():
        with nn.intercept_methods(note):
            return narrow(name).init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))

    jax.eval_shape(init)
    assert found == {(epsilon, momentum)}


@pytest.mark.extended
def test_stochastic_depth_leaves_out_whole_images():
    """The rest of a block is there at 1 / (1 - rate), or is not, image by image; in evaluation it always is."""
    block = InvertedResidual(8, 16, 3, 1, 2, "silu", ("silu", "sigmoid"), Norms("none"), 0.25, "float32")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(400, 2, 2, 8)), jnp.float32)
    weights = block.init(jax.random.key(0), x)
    rest = block.apply(weights, x) - x
    found = block.apply(weights, x, True, rngs={"dropout": jax.random.key(1)}) - x
    kept = np.abs(found).max((1, 2, 3)) > 0
    np.testing.assert_allclose(found, np.where(kept, 4 / 3, 0.0)[:, None, None, None] * rest, atol=1e-5)
    assert abs(kept.mean() - 0.75) < 0.07


def test_rates_of_stochastic_depth():
    rates = []

    def note(next_fun, args, kwargs, context):
        if type(context.module).__name__ == "InvertedResidual":
            rates.append(context.module.drop)
        return next_fun(*args, **kwargs)

    model = make_model("efficientnet_b0", classes=10)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3))))
    np.testing.assert_allclose(rates, [0.2 * i / 16 for i in range(16)])


FEW = {
    "resnet50": lambda dtype: ResNet(5, (1, 1), 4, bottleneck=True, dtype=dtype),
    "densenet121": lambda dtype: densenet.DenseNet(5, (2, 2), width=1 / 8, dtype=dtype),
    "mobilenet_v3_large": lambda dtype: mobilenet.MobileNetV3(
        5, tuple(mobilenet.LARGE[i] for i in (0, 3, 4)), 1280, width=0.25, dtype=dtype
    ),
    "mobilenet_v3_small": lambda dtype: mobilenet.MobileNetV3(5, mobilenet.SMALL[:5], 1024, width=0.25, dtype=dtype),
    "efficientnet_b0": lambda dtype: efficientnet.EfficientNet(5, efficientnet.B0[:2], width=0.25, dtype=dtype),
}


def spec_of(name):
    model, x = FEW[name]("float32"), jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return shapes, derive_spec(model.apply, shapes, x, verify=False)


def random_like(shapes, seed):
    """Weights of which no two units are alike, with variances above zero."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        return jnp.asarray(rng.normal(size=leaf.shape) * (2 / fan) ** 0.5, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", NAMES)
def test_planted_permutations_are_recovered(name, x64):
    """Every axis between layers is permuted, the function stays, and weight matching finds what was planted."""
    shapes, spec = spec_of(name)
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), random_like(shapes, 0))
    planted = random_permutations(jax.random.key(1), spec)
    moved = permute(spec, weights, planted)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 16, 16, 3)))
    apply = jax.jit(FEW[name]("float64").apply)
    expected = apply(weights, x)
    np.testing.assert_allclose(apply(moved, x), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert max(np.abs(np.asarray(a - b)).max() for a, b in zip(*map(jax.tree.leaves, (weights, moved)))) > 0.1
    fixed = {
        f"{leaf}[{axis}]": spec.fixed.get(f"params/{leaf}[{axis}]")
        for leaf, value in trees.flatten(weights["params"]).items()
        for axis in range(max(0, value.ndim - 2), value.ndim)
        if value.shape[axis] > 1
    }
    assert {axis: why for axis, why in fixed.items() if why} == {
        "conv_stem/kernel[2]": "input",
        "head/kernel[1]": "output",
        "head/bias[0]": "output",
    }
    found = match_weights(spec, weights, moved, key=jax.random.key(3)).permutations
    back = trees.flatten(permute(spec, moved, found))
    for leaf, value in trees.flatten(weights).items():
        np.testing.assert_array_equal(back[leaf], value, err_msg=leaf)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_depthwise_and_gate_move_with_their_channels(name):
    """One permutation acts on expansion, depthwise kernel, all three normalisations' entries, gate and projection."""
    _, spec = spec_of(name)
    block = "block_3" if name == "mobilenet_v3_small" else "stage_1_block_0"
    tied = next(
        moves
        for moves in spec.moves.values()
        if any(m.leaf == f"params/{block}/conv_expand/kernel" and m.axis == 3 for m in moves)
    )
    found = {
        (move.leaf.removeprefix("params/").removeprefix("batch_stats/").removeprefix(f"{block}/"), move.axis)
        for move in tied
    }
    assert found == {
        ("conv_expand/kernel", 3),
        ("conv_depthwise/kernel", 3),
        ("conv_project/kernel", 2),
        ("squeeze/reduce/kernel", 0),
        ("squeeze/restore/kernel", 1),
        ("squeeze/restore/bias", 0),
        *(
            (f"norm_{part}/{entry}", 0)
            for part in ("expand", "depthwise")
            for entry in ("scale", "bias", "mean", "var")
        ),
    }


STEMS = {
    "resnet50": (7, lambda stem: ResNet(5, (1,), 4, stem=stem, dtype="float64")),
    "densenet121": (7, lambda stem: densenet.DenseNet(5, (1,), width=1 / 8, stem=stem, dtype="float64")),
    "mobilenet_v3_small": (
        3,
        lambda stem: mobilenet.MobileNetV3(5, mobilenet.SMALL[:1], 64, width=0.25, stem=stem, dtype="float64"),
    ),
    "efficientnet_b0": (
        3,
        lambda stem: efficientnet.EfficientNet(5, efficientnet.B0[:1], width=0.25, stem=stem, dtype="float64"),
    ),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", STEMS)
def test_the_sub_kernel_stem_is_the_expanded_imagenet_stem(name, x64):
    """With fill 0 the very same network, from the same keys, and gradient; with another fill but for a constant."""
    size, make = STEMS[name]
    expanded, control = make("imagenet"), make("sub_kernel")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 16, 3)))
    key = jax.random.key(0)
    zero, half = (expand(ImageExpansion(2, fill=fill, order="after"), x) for fill in (0.0, 0.5))
    # The rest of the program that draws the start is left out by the compiler.
    drawn = [
        jax.jit(lambda key, model=model, x=x: model.init(key, x)["params"]["conv_stem"]["kernel"])(key)
        for model, x in ((expanded, zero), (control, x))
    ]
    assert drawn[0].shape[0] == size
    np.testing.assert_array_equal(drawn[1], drawn[0][1::2, 1::2])
    full, own = (random_like(jax.eval_shape(model.init, key, x), 0) for model in (expanded, control))
    kernel = full["params"]["conv_stem"]["kernel"]
    own["params"] = {**full["params"], "conv_stem": {"kernel": kernel[1::2, 1::2]}}
    own["batch_stats"] = full["batch_stats"]
    rngs = {"dropout": jax.random.key(1)}

    def gradient(model, x):
        def loss(params, statistics):
            variables = {"params": params, "batch_stats": statistics}
            logits, _ = model.apply(variables, x, True, rngs=rngs, mutable=["batch_stats"])
            return (jnp.sin(logits) ** 2).sum(), logits

        return jax.jit(jax.grad(loss, has_aux=True))

    theirs, logits = gradient(expanded, zero)(full["params"], full["batch_stats"])
    ours, own_logits = gradient(control, x)(own["params"], own["batch_stats"])
    np.testing.assert_allclose(own_logits, logits, rtol=0, atol=1e-12 * np.abs(logits).max())
    stem = theirs["conv_stem"]["kernel"][1::2, 1::2]
    theirs["conv_stem"]["kernel"] = stem
    for leaf, value in trees.flatten(theirs).items():
        np.testing.assert_allclose(trees.flatten(ours)[leaf], value, rtol=0, atol=1e-9, err_msg=leaf)

    # y = y_control + v (sum of the other taps) + what the padding takes away at the border.
    pad = ((size // 2,) * 2,) * 2
    y = conv2d(half, kernel, strides=(2, 2), padding=pad)
    inner = kernel[1::2, 1::2]
    control_y = conv2d(x, inner, padding=((inner.shape[0] // 2,) * 2,) * 2)
    difference = y - control_y - 0.5 * (kernel.sum((0, 1, 2)) - inner.sum((0, 1, 2)))[None, None, None]
    np.testing.assert_allclose(difference[:, 3:-3, 3:-3], 0, atol=1e-12)
    assert np.abs(difference[:, :3]).max() > 1e-3


@pytest.mark.extended
@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "densenet121", "efficientnet_b0"])
def test_gradients_are_finite_differences(name, x64):
    """Along random directions, in float64 and in training mode, of the input and of all parameters."""
    options = {"stochastic_depth": 0.0} if name == "efficientnet_b0" else {}
    dropout = {} if name in ("resnet50", "densenet121") else {"dropout": 0.0}
    model = narrow(name, stem="cifar", dtype="float64", **options, **dropout)
    x = jax.random.normal(jax.random.key(1), (3, 16, 16, 3), jnp.float64)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    weights = jax.random.normal(jax.random.key(2), (3, 5), jnp.float64)

    @jax.jit
    def value(params, x):
        logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(weights * jnp.tanh(logits))

    point = variables["params"], x
    gradient = jax.jit(jax.grad(value, argnums=(0, 1)))(*point)
    leaves, structure = jax.tree.flatten(point)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves)]
    direction = jax.tree.unflatten(structure, drawn)

    def along(t):
        return float(value(*jax.tree.map(lambda a, d: a + t * d, point, direction)))

    expected = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(gradient), drawn))
    found = [(along(t) - along(-t)) / (2 * t) for t in (1e-7, 2e-7)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
