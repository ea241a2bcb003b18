"""A target with f(T x) = p f(x) learned from little: plain, augmented, with a penalty, by projector, by tied layers.

`data='plane'`: T is a reflection of the plane at a skew line, along a direction that is not orthogonal to it. With
`side='one'` all training points lie on one side of the line. `data='images'`: T is the flip of images, see
`involution_images`. Source of the task: arXiv 2106.12891; sizes are ours.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import rng, trees
from sbjax.common.options import one_of, option
from sbjax.experiments.exact import involution_images
from sbjax.experiments.exact.experiment import ExactExperiment, measured, over, result
from sbjax.experiments.exact.training import init_mlp, train
from sbjax.frame.errors import ConfigError
from sbjax.landscape.layered import forward
from sbjax.symmetry import involution as symmetry

METHODS = ("plain", "augmented", "penalty", "projector", "tied")
WAVES, TESTED = 10, 2000
PLANE = {"data": one_of("plane")}


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("involution", "which experiment with closed forms")
    method: str = option("plain", "how the symmetry is used", choices=METHODS)
    data: str = option(
        "plane", "points of the plane, or digits that are flipped at random", choices=("plane", "images")
    )
    sign: int = option(1, "p of f(T x) = p f(x): 1 or -1", least=-1, most=1, only=PLANE)
    side: str = option("both", "of the fixed line on which training points lie", choices=("both", "one"), only=PLANE)
    points: int = option(200, "for training", least=2, most=10**5)
    width: int = option(32, "of both hidden layers, or channels of the first convolution", least=1, most=1000)
    learning_rate: float = option(3e-3, "of Adam, falling to zero", above=0, most=1)
    penalty: float = option(1.0, "factor of |f(T x) - p f(x)|^2", above=0, most=1e6, only={"method": one_of("penalty")})


def check(plan, arm):
    """Refuse a sign of zero.

    Raises:
        ConfigError: sign 0, single precision.
    """
    if arm.task.sign == 0:
        raise ConfigError("task.sign=0 must be 1 or -1")
    if arm.task.data == "plane" and not plan.precision.x64:
        raise ConfigError("precision.x64=False: a symmetry to 1e-12 needs double precision; set it to True")


REFLECTION = symmetry.oblique_reflection([1.0, 0.4], [1.0, -0.7], 0.3)


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task, seeds = arm.task, plan.replicas
    size = task.width**2 if task.data == "plane" else 9 * task.width
    points = 2 * 8 * task.points if task.data == "plane" else 4 * 64 * task.points
    return {"points of all seeds": seeds * points, "weights and their moments": 3 * 4 * seeds * size}


def run_arm(plan, arm, key, log, stop):
    """Train `replicas` networks, each on its own target and points."""
    task, seeds = arm.task, plan.replicas
    if task.data == "images":
        return _images(plan, task, key, log, stop)
    drawn = [_draw(rng.replica_stream(key, "points", seed), task) for seed in range(seeds)]
    data, tests = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *part) for part in zip(*drawn))
    keys = jnp.stack([rng.replica_stream(key, "start", seed) for seed in range(seeds)])
    init, apply = _network(task)
    params = jax.vmap(init)(keys)

    def loss(params, data, _):
        x, y = data
        error = jnp.mean((apply(params, x) - y) ** 2)
        if task.method == "penalty":
            error += task.penalty * jnp.mean((apply(params, REFLECTION(x)) - task.sign * apply(params, x)) ** 2)
        return error

    params = train(loss, params, data, keys, steps=plan.train_steps, rate=task.learning_rate, stop=stop)
    if params is None:
        return None
    errors, violations = jax.vmap(lambda params, test: _measures(apply, params, test, task.sign))(params, tests)
    log(f"relative error {np.median(errors):.3g}, violation {np.median(violations):.1e}")
    metrics = {"test/error": np.asarray(errors).tolist(), "test/violation": np.asarray(violations).tolist()}
    cells = {
        "method": task.method,
        "sign": task.sign,
        "side": task.side,
        "error": measured(errors),
        "violation": measured(violations),
    }
    return result(metrics, cells, trees.size(jax.tree.map(lambda leaf: leaf[0], params)))


def _images(plan, task, key, log, stop):
    keys = jnp.stack([rng.replica_stream(key, "start", seed) for seed in range(plan.replicas)])
    found = involution_images.run(
        keys,
        method=task.method,
        images=task.points,
        channels=task.width,
        steps=plan.train_steps,
        rate=task.learning_rate,
        penalty=task.penalty,
        stop=stop,
    )
    if found is None:
        return None
    log(f"error {np.median(found.errors):.3g}, violation {np.median(found.violations):.1e}")
    metrics = {"test/error": found.errors, "test/violation": found.violations}
    cells = {"method": task.method, "error": measured(found.errors), "violation": measured(found.violations)}
    return result(metrics, cells, found.parameters)


def _network(task):
    """Initialisation, and `(params, x) -> outputs`, of the arm."""
    if task.method == "tied":
        return _tied(task)

    def init(key):
        return init_mlp(key, (2, task.width, task.width, 1))

    def plain(params, x):
        return forward(params, x, jnp.tanh)

    if task.method != "projector":
        return init, plain
    return init, lambda params, x: symmetry.projected(lambda x: plain(params, x), REFLECTION, task.sign)(x)


def _tied(task):
    """Units in pairs, as many parameters as the others: width / sqrt(2) pairs with two kernels between them."""
    pairs = max(1, round(task.width / np.sqrt(2)))

    def init(key):
        first, second = jax.random.split(key)
        params = init_mlp(first, (2, pairs, pairs, 1))
        crossed = init_mlp(second, (pairs, pairs))["dense_0"]["kernel"] / np.sqrt(2)
        params["dense_1"]["kernel"] /= np.sqrt(2)
        return {**params, "crossed": crossed}

    def apply(params, x):
        first, second, last = (params[f"dense_{i}"] for i in range(3))
        kernel, bias, readout = symmetry.tied_units(
            first["kernel"], first["bias"], last["kernel"], REFLECTION, task.sign
        )
        h = jnp.tanh(x @ kernel + bias)
        kernel, bias = symmetry.paired_layer(second["kernel"], params["crossed"], second["bias"])
        return jnp.tanh(h @ kernel + bias) @ readout + last["bias"] * (1 + task.sign) / 2

    return init, apply


def _draw(key, task):
    """Training data and test data of one seed: a sum of plane waves, projected."""
    waves, phases, inputs, others = jax.random.split(key, 4)
    frequencies = jax.random.normal(waves, (2, WAVES)) * 1.5
    shifts = jax.random.uniform(phases, (WAVES,), maxval=2 * np.pi)

    def target(x):
        found = symmetry.projected(lambda x: jnp.sin(x @ frequencies + shifts).sum(-1), REFLECTION, task.sign)(x)
        return found[:, None] / np.sqrt(WAVES / 4)

    x, tested = jax.random.normal(inputs, (task.points, 2)), jax.random.normal(others, (TESTED, 2))
    if task.side == "one":
        across = x @ jnp.asarray([1.0, 0.4]) < 0.3
        x = jnp.where(across[:, None], REFLECTION(x), x)
    y = target(x)
    if task.method == "augmented":
        x, y = jnp.concatenate([x, REFLECTION(x)]), jnp.concatenate([y, task.sign * y])
    return (x, y), (tested, target(tested))


def _measures(apply, params, test, sign):
    x, y = test
    size = jnp.sqrt(jnp.mean(y**2))
    found, moved = apply(params, x), apply(params, REFLECTION(x))
    return jnp.sqrt(jnp.mean((found - y) ** 2)) / size, jnp.sqrt(jnp.mean((moved - sign * found) ** 2)) / size


def compare(found):
    """Each arm against the plain one, the augmented one and the penalty for the same targets: ratios by seed."""
    columns = {"gain": "plain", "over_copies": "augmented", "over_penalty": "penalty"}
    columns = {column: ({"method": method}, "test/error") for column, method in columns.items()}
    return over(found, ["sign", "side"], columns)


EXPERIMENT = ExactExperiment(
    Fields,
    title="A target with an involution",
    columns={
        "method": "method",
        "sign": "p",
        "side": "training points on sides",
        "error": "test error",
        "gain": "over plain",
        "over_copies": "over augmented",
        "over_penalty": "over the penalty",
        "violation": "violation of f(T x) = p f(x)",
    },
    note="Medians and quartiles over seeds; ratios of errors: medians of pairs of one seed with 95 % intervals. In the "
    "plane: root mean squares over test points, relative to that of the target. Of images: share of wrong classes, and "
    "root mean square of the change of logits relative to theirs.",
    digits=3,
    primary="test/error",
    smoke={"points": 20, "width": 4},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
    compare=compare,
)
