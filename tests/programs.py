"""Programs of every kind by name, each a function that hands them to `lower(fn, *args)`: what an accelerator is to run.

Small, and with shapes alone in place of arrays where that is enough: nothing is trained.
"""

import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax import config as config_lib
from sbjax.data.images import ImageData
from sbjax.data.shuffle import epoch_indices
from sbjax.experiments.functions import grid
from sbjax.experiments.landscape import students
from sbjax.experiments.zoo import program as zoo_program
from sbjax.frame.arms import precision
from sbjax.landscape import critical_points
from sbjax.metrics import (
    agreement,
    colour,
    connectivity,
    curvature,
    hessian,
    interpolation,
    neurons,
    norms,
    replica,
    scales,
    sorting,
    spectrum,
    wasserstein,
)
from sbjax.models import make_field, make_model
from sbjax.optimizers import OPTIMIZERS, Sgd, lbfgs_many
from sbjax.physics.ising import metropolis, wolff
from sbjax.physics.pdes import make_equation
from sbjax.symmetry import activation_matching
from sbjax.tasks import regression
from sbjax.tasks.images import make_image_task
from sbjax.tasks.pinn import Points, make_pinn_task
from sbjax.training.placement import Placement, Program

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
KEY = jax.random.key(0)
REPLICAS = 2


def images(shape, examples=64):
    """Random images, the same ones in every split."""
    pixels = np.random.default_rng(0).integers(0, 256, (examples, *shape), np.uint8)
    labels = (np.arange(examples) % 10).astype(np.int32)
    return ImageData("random", 10, *(pixels, labels) * 3, (0.5,) * shape[-1], (0.25,) * shape[-1])


def image_task(model, shape=(16, 16, 3), **options):
    return make_image_task(images(shape), make_model(model, classes=10, **options), batch_size=8, crop_padding=2)


def pinn_task():
    equation = make_equation("heat")
    box = {"lower": equation.lower, "upper": equation.upper}
    field = make_field("field", unknowns=1, widths=(4,), dtype="float32", x64=False, **box)
    return make_pinn_task(equation, field, points=Points(6, 2, 2), test_points=4)


def lower_program(lower, task, optimizer, placement=Placement("vmap", devices=1)):  # noqa: B008 (frozen)
    """Both programs of the training steps, the start and the evaluation."""
    program = Program(task, optimizer, placement=placement, replicas=REPLICAS, key=KEY)
    state, zero = program.abstract(), jnp.int32(0)
    with jax.set_mesh(program.mesh):
        lower(program._advance, program._data, KEY, state, zero, jnp.int32(3))
        lower(program._advance_block, program._data, KEY, state, zero)
        lower(program._evaluate, program._data, state.variables, zero)
        lower(program._init, KEY, jnp.arange(REPLICAS, dtype=jnp.int32))


def of_task(make, placement=Placement("vmap", devices=1)):  # noqa: B008 (frozen)
    """Of `make()`, with momentum."""
    return lambda lower: lower_program(lower, make(), Sgd().make(0.1), placement)


def of_config(words, arm=-1, **task):
    """Every phase of an arm of a config, and what is measured of it."""

    def programs(lower):
        file, _, argument = words.partition(":")
        config = runpy.run_path(str(CONFIGS / file))["get_config"](argument)
        config.task.update(task)
        plan = config_lib.read(config)
        with precision(plan.precision):
            built = plan.experiment.prepare(plan).arms[arm]
            for phase in filter(None, built.phases):
                lower_program(lower, built.task, phase.optimizer)
            variables = jax.eval_shape(built.task.init, KEY)
            if built.task.outputs is not None:
                lower(built.task.outputs, built.task.data, variables)
            if built.task.grid is not None:
                lower(built.task.grid.predict, variables)
            if built.task.lines is not None:
                lower_lines(lower, built.task)

    return programs


def lower_lines(lower, task):
    """Losses on a straight line between two replicas."""
    stacked = jax.eval_shape(lambda keys: jax.vmap(task.init)(keys), jax.random.split(KEY))
    moving, fixed = connectivity._divide(stacked, None, "interpolate")
    recalibrate = task.lines.recalibrate(task.data) if "batch_stats" in moving else None
    alphas, ends = jnp.linspace(0, 1, 3), (jnp.int32(0), jnp.int32(1))
    for evaluate, parts in ((task.evaluate, task.parts), (task.lines.evaluate, task.lines.parts)):
        mean = interpolation.over_parts(evaluate, task.data, parts)
        lower(functools.partial(connectivity._curves, batch_size=None), mean, recalibrate, moving, fixed, *ends, alphas)


def readings(found):
    """The numbers of a distance, raw and scale-free, without and with its null."""
    totals = found.raw.total, found.scale_free.total
    return [part.value for total in totals for part in total if part is not None]


def metrics_of_replicas(lower):
    """D0, D1, D2 by slices and by Sinkhorn, D4, with their nulls."""
    stacked = {"dense": {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones((3, 5))}}
    for distance in (replica.unmatched_distance, replica.marginal_distance, replica.neuron_cloud_distance):
        lower(lambda tree, key, distance=distance: readings(distance(tree, key=key)), stacked, KEY)
    lower(lambda outputs: readings(replica.function_distance(outputs)), jnp.ones((3, 7, 2)))
    lower(jax.grad(lambda tree: replica.marginal_distance(tree).scale_free.total.distance.value), stacked)


def sinkhorn(lower):
    lower(lambda cloud: neurons.pairwise_sinkhorn(cloud), jnp.ones((3, 6, 2)))
    pairs = np.array([0, 0, 1]), np.array([1, 2, 2])
    lower(lambda points: neurons._divergences(points, *pairs, 0.01, 200, 2), jnp.ones((3, 6, 2)))


def wassersteins(lower):
    """Equal and unequal sizes, weights, trees, all pairs, other orders, and the gradient."""
    few, many, weights = jnp.ones(5), jnp.ones(9), jnp.ones(5)
    lower(wasserstein.wasserstein_1d, few, few)
    lower(functools.partial(wasserstein.wasserstein_1d, p=2.0), few, many)
    lower(lambda a, b, w: wasserstein.wasserstein_1d(a, b, weights_a=w), few, many, weights)
    lower(lambda a, b: wasserstein.wasserstein({"w": a}, {"w": b}), few, few)
    lower(wasserstein.pairwise_wasserstein, {"w": jnp.ones((3, 5))})
    lower(jax.grad(lambda a, b: wasserstein.wasserstein_1d(a, b)), few, many)
    lower(jax.vmap(jax.grad(lambda a, b: wasserstein.wasserstein_1d(a, b))), jnp.ones((2, 5)), jnp.ones((2, 5)))


def curvatures(lower):
    params, batch = {"w": jnp.ones((3, 2)), "a": jnp.ones((2, 1))}, jnp.ones((4, 3))

    def outputs(params, batch):
        return jnp.tanh(batch @ params["w"]) @ params["a"]

    def loss(params, batch):
        return jnp.mean(outputs(params, batch) ** 2)

    product = curvature.hessian_product(loss, params, [batch])
    lower(product, jnp.ones(8))
    lower(curvature.gauss_newton_product(outputs, lambda f, x: jnp.mean(f**2), params, [batch]), jnp.ones(8))
    lower(lambda params: hessian.hessian(lambda p: loss(p, batch), params), params)
    lower(lambda params: hessian.gauss_newton_matrix(lambda p: outputs(p, batch)[:, 0], params), params)
    layers = [(jnp.ones((3, 2)), jnp.ones(2)), (jnp.ones((2, 1)), None)]
    lower(lambda layers: hessian.mlp_hessian(layers, batch, lambda f, y: (f[0] - y) ** 2, jnp.ones(4)), layers)
    lower(lambda basis, q: spectrum._advance(basis, q, product(q), 0), jnp.zeros((2, 8)), jnp.ones(8))


def scores(lower):
    """Of predictions and of images; norms, scales and orders; moments of activations, by which units are matched."""
    numbers, pictures, tree = jnp.ones(6), jnp.ones((2, 12, 12, 3)), {"dense": {"kernel": jnp.ones((2, 3, 4))}}
    lower(agreement.explained, numbers, numbers)
    lower(jax.vmap(agreement.kendall_tau), jnp.ones((2, 6)), jnp.ones((2, 6)))
    lower(colour.ssim, pictures, pictures)
    lower(lambda a, b: colour.psnr(colour.squared_error(a, b)), pictures, pictures)
    lower(colour.colourfulness, pictures)
    lower(lambda x: norms.root(norms.power(x, 1.5), 1.5), numbers)
    lower(norms.moments, numbers)
    lower(lambda tree, key: scales.null_replicas(tree, key=key), tree, KEY)
    lower(scales.unit_scale, tree)
    lower(lambda x: (sorting.sort(x), sorting.argsort(x)), numbers)
    units = {"hidden": jnp.ones((5, 4))}
    lower(activation_matching.update_moments, activation_matching.init_moments(units), units, units)


def optimizers(names):
    """An update of two replicas: eigenvectors, QR factors and line searches also where a `cond` holds them."""

    def programs(lower):
        params = {"kernel": jnp.ones((REPLICAS, 4, 3)), "bias": jnp.ones((REPLICAS, 3))}

        def residuals(params):
            return jnp.tanh(jnp.ones((5, 4)) @ params["kernel"] + params["bias"]).ravel()

        def value_fn(params):
            return jnp.sum(residuals(params) ** 2)

        for name in names:
            part = OPTIMIZERS[name]()
            optimizer = optax.with_extra_args_support(part.make(0.1) if part.scheduled else part.make())

            def update(params, state, optimizer=optimizer):
                value, grads = jax.value_and_grad(value_fn)(params)
                extra = {"value": value, "grad": grads, "value_fn": value_fn, "residual_fn": residuals}
                updates, state = optimizer.update(grads, state, params, **extra)
                return optax.apply_updates(params, updates), state

            lower(jax.vmap(update), params, jax.eval_shape(jax.vmap(optimizer.init), params))

    return programs


def small_fits(lower):
    """Fits of functions by L-BFGS, students to critical points; in double precision.

    Not gradient flow: diffrax checks its results by a callback, and the experiment on it computes on the CPU.
    """
    with jax.enable_x64(True):
        arm = grid.ArmNumbers(None, 3)
        where = tuple(np.asarray(part) for part in regression.make_points(regression.make_target("runge"), 5, 5))
        params = jax.tree.map(lambda leaf: leaf[0], grid.initial_params(arm, (3,), "tanh", KEY, 1))
        lower(grid._program("tanh", 4, 1e-9, 2), params, *grid._input(arm, 1), where)
        lower(lambda w: lbfgs_many.fit_lbfgs(lambda w: jnp.sum((w - 1) ** 2), w, steps=3, tolerance=1e-5), jnp.zeros(3))
        problem = students.two_layer_problem(np.linspace(-1, 1, 5)[:, None], np.ones(5), "tanh")
        start = {"w": jnp.ones((2, 1)), "a": jnp.ones((2, 1))}
        for given in ({"jacobian_fn": problem.jacobian, "hessian_fn": problem.hessian}, {}):
            lower(lambda params, given=given: students.polish(problem.residuals, params, **given), start)
        network, x = {"w": jnp.ones((2, 1)), "a": jnp.ones((2, 1))}, jnp.ones((3, 1))
        mean_square = lambda f, y: jnp.mean((f - y) ** 2)  # noqa: E731
        lower(lambda *args: critical_points._derivatives(*args, jnp.tanh, mean_square), network, x, x)
        lower(lambda *args: critical_points._hessian_product(*args, jnp.tanh, mean_square), network, jnp.ones(4), x, x)


def ising(lower):
    lattices = jax.eval_shape(lambda key: metropolis._make(key, (4, 2, 1), False), KEY)
    for field in (False, True):
        fn = functools.partial(metropolis._sample, measurements=2, every=1, with_field=field)
        lower(fn, lattices, jnp.float32(2.0), jnp.float32(0.0))
    spins = jnp.ones((32, 4, 4), jnp.int8)
    lower(functools.partial(wolff._sample, measurements=2, every=1), KEY, spins, jnp.float32(2.0))


def indices(lower):
    draw = functools.partial(epoch_indices, examples=50_000, batch_size=8)
    lower(jax.vmap(draw, (0, None)), jax.random.split(KEY), jnp.int32(3))


def zoo(lower):
    """Networks with hyper-parameters of their own, side by side."""
    pixels, labels = jnp.zeros((16, 8, 8, 1)), jnp.zeros(16, jnp.int32)
    module = make_model("cnn", classes=10, channels=(4, 4), norm="batch", dropout=0.5)
    made = zoo_program.make_program(module, "adam", key=KEY, epochs=2, batch_size=8, peak_epochs=1.0, side_by_side=True)
    hyper = dict.fromkeys(
        ("learning_rate", "weight_decay", "init_scale", "label_smoothing", "dropout"), jnp.ones(3) / 2
    )
    lower(made, zoo_program.Data(pixels, labels, pixels, labels), jnp.arange(3), {**hyper, "epochs": jnp.ones(3, int)})


FAMILIES = {
    "resnet50": {"width": 0.125},
    "densenet121": {},
    "mobilenet_v3_small": {},
    "mobilenet_v3_large": {},
    "efficientnet_b0": {},
}
TEXTS, COLOURS = (f"{CONFIGS.parent / 'tests' / name}:load" for name in ("toy_texts.py", "toy_colours.py"))
CORE = {
    "images, MLP": of_task(lambda: image_task("mlp", (8, 8, 1))),
    "images, CNN": of_task(lambda: image_task("cnn", (8, 8, 1), channels=(4, 4))),
    "PINN": of_task(pinn_task),
    "metrics of replicas": metrics_of_replicas,
    "Wasserstein distances": wassersteins,
    "SOAP, L-BFGS and Gauss-Newton": optimizers(["soap", "lbfgs", "gauss_newton"]),
    "Ising model": ising,
    "order of the data": indices,
}
OTHERS = {
    "Poisson by the accurate recipe": of_config("pdes.py:poisson,accurate,smoke"),
    "images, MLP, one after another": of_task(lambda: image_task("mlp", (8, 8, 1)), Placement("map", devices=1)),
    "images, MLP, two devices": of_task(lambda: image_task("mlp", (8, 8, 1)), Placement("vmap", devices=2)),
    "images, ResNet-18 in bfloat16": of_task(lambda: image_task("resnet18", dtype="bfloat16")),
    "images, ResNet-20 in bfloat16": of_task(lambda: image_task("resnet20", dtype="bfloat16")),
    "images, CNN, one after another": of_task(lambda: image_task("cnn", (8, 8, 1)), Placement("map", devices=1)),
    "Burgers": of_config("pdes.py:burgers,smoke"),
    "heat": of_config("pdes.py:heat,smoke"),
    "QCD": of_config("qcd.py:hotqcd_points,smoke"),
    "functions": of_config("functions.py:runge,smoke", program="loop"),
    "linear mode connectivity": of_config("lmc.py:digits,smoke"),
    "monotonic interpolation": of_config("mli.py:digits,smoke"),
    "designs": of_config("designs.py:digits,smoke"),
    "expanded images": of_config("images.py:digits,cnn,smoke"),
    "Sinkhorn divergences": sinkhorn,
    "curvature": curvatures,
    "scores": scores,
    "other optimisers": optimizers([n for n in OPTIMIZERS if n not in ("soap", "lbfgs", "gauss_newton")]),
    "small fits": small_fits,
    "zoo": zoo,
    **{f"images, {name}": of_task(functools.partial(image_task, name, **small)) for name, small in FAMILIES.items()},
    "speed run": of_config("speedrun.py:smoke", dataset="digits"),
    "texts, convolutions": of_config("text.py:textcnn,smoke", dataset=TEXTS),
    "texts, LSTM": of_config("text.py:lstm,smoke", dataset=TEXTS),
    "texts, transformer": of_config("text.py:transformer,smoke", dataset=TEXTS),
    "colours": of_config("colour.py:smoke", dataset=COLOURS),
    "classes of colour": of_config("colour.py:bins,smoke", dataset=COLOURS),
    "variational networks": of_config("bayes.py:mlp8,digits,smoke", arm=1),
    "graph networks": of_config("graphs.py:csbm,smoke"),
    "metanetworks": of_config("metanets.py:smoke", arm=1),
    "denoisers": of_config("generative.py:smoke", arm=2),
    "identifiability": of_config("identifiability.py:drops,smoke"),
}
