"""Fits of one function from many expansions by L-BFGS, all arms in one compiled program, see `training.fit_many`."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng
from sbjax.expansion.transform import VectorExpansion
from sbjax.models import layers, make_field
from sbjax.optimizers import lbfgs_many as fit_many
from sbjax.tasks import regression

LOSS_LEVELS = (1e-3, 1e-4, 1e-5, 1e-6)
GRADIENT_LEVELS = (1e-3, 1e-4, 1e-5)
ITERATIONS = "iterations/"


class ArmNumbers(NamedTuple):
    """What tells one arm from another.

    Attributes:
        expansion: constants around the input; None = raw.
        width: of the first hidden layer.
        fold: start folded, on raw input, see `sbjax.expansion.folding`.
        bias_scale: the first bias is trained in coordinates this much smaller.
    """

    expansion: VectorExpansion | None = None
    width: int = 32
    fold: bool = False
    bias_scale: float = 1.0

    @property
    def inputs(self) -> int:
        """Entries of the expanded input."""
        return 1 + (len(self.expansion.constants) if self.expansion else 0)


class ArmResult(NamedTuple):
    """Results of one arm, the replica axis first.

    Attributes:
        losses: [replicas, records + 1], training loss at evenly spaced iterations.
        errors: [replicas, records + 1], mean square error on the test points at these iterations.
        numbers: {metric: [replicas]} at the end.
        drawn: [replicas, 401], the fitted function.
        parameters: trained parameters of one replica.
    """

    losses: Float[np.ndarray, "replicas records"]
    errors: Float[np.ndarray, "replicas records"]
    numbers: dict[str, np.ndarray]
    drawn: Float[np.ndarray, "replicas drawn"]
    parameters: int


def run_grid(
    points: regression.Samples,
    arms: Mapping[str, ArmNumbers],
    *,
    replicas: int,
    key: Key[Array, ""],
    widths: tuple[int, ...] = (32, 32),
    activation: str = "tanh",
    steps: int = 2000,
    tolerance: float = 1e-9,
    records: int = 10,
    pad: tuple[int, int] | None = None,
    on_done: Callable[[str, int, float], None] = lambda arm, replica, seconds: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, ArmResult] | None:
    """Fit the points from every arm and replica, in float64 (jax must be in double precision); None if stopped.

    The network has layers `arm.width`, then `widths`. Replica r of every arm draws its weights from the same key as in
    a run of the usual frame: `Field.init` of the arm's own shapes, Glorot's normal distribution.

    'iterations/loss_1e-05' counts until the training loss lies below 1e-5, and 'iterations/gradient_1e-05' until the
    largest entry of the gradient does; the number of `steps` where that was never reached ('reached/..' = 0 there), so
    medians are exact as long as more than half of the replicas have reached it. 'iterations/all' counts until the
    gradient falls below `tolerance` or `steps` are done.

    Args:
        points: to fit, and to judge the fit on.
        pad: entries of the input and width of the first layer of the program; None = the largest of the arms. With
            larger numbers several calls share one compilation.

    Raises:
        ValueError: jax is not in double precision, or `pad` is too small.
    """
    if not jax.config.jax_enable_x64:
        raise ValueError("precision.x64=False: the fits go to the limits of double precision; set it to True")
    least = tuple(max(values) for values in zip(*((arm.inputs, arm.width) for arm in arms.values())))
    pad = pad or least
    if pad[0] < least[0] or pad[1] < least[1]:
        raise ValueError(f"pad={pad} is smaller than the largest arm, {least}")
    where = tuple(np.asarray(part) for part in points)
    jobs, owners = [], []
    for name, arm in arms.items():
        started = initial_params(arm, widths, activation, key, replicas)
        for replica in range(replicas):
            params = jax.tree.map(lambda leaf, r=replica: leaf[r], started)
            jobs.append((_padded(params, pad), *_input(arm, pad[0]), where))
            owners.append((name, replica))
    fit = _program(activation, steps, tolerance, records)
    began = time.perf_counter()

    def tell(number, result):
        del result
        on_done(*owners[number], time.perf_counter() - began)

    results = fit_many.run_all(fit, jobs, on_done=tell, stop=stop)
    if any(result is None for result in results):
        return None
    found = {}
    for i, (name, arm) in enumerate(arms.items()):
        own = jax.tree.map(lambda *leaves: np.stack(leaves), *results[i * replicas : (i + 1) * replicas])
        found[name] = ArmResult(own["losses"], own["mse"], _numbers(own, steps), own["drawn"], _count(arm, widths))
    return found


def initial_params(
    arm: ArmNumbers, widths: tuple[int, ...], activation: str, key: Key[Array, ""], replicas: int
) -> dict[str, PyTree]:
    """Parameters of all replicas, stacked, in the arm's own shapes: on expanded input, or on raw input if folded."""
    keys = jnp.stack([rng.replica_stream(key, "init", replica) for replica in range(replicas)])
    # From here on numpy: small operations in jax would be compiled one by one.
    params = jax.tree.map(np.asarray, _drawn(arm.inputs, (arm.width, *widths), activation)(keys))
    if not arm.fold:
        return params
    kernel, bias = params["dense_0"]["kernel"], params["dense_0"]["bias"]
    constants, before = np.asarray(arm.expansion.constants), arm.expansion.before
    others = np.delete(np.arange(arm.inputs), before)
    shift = np.einsum("c,rch->rh", constants, kernel[:, others])
    folded = {"kernel": kernel[:, before : before + 1], "bias": (bias + shift) / arm.bias_scale}
    return {**params, "dense_0": folded}


@functools.cache
def _drawn(inputs, widths, activation):
    """Draws by key, of one shape: compiled once, whatever the constants are."""
    options = {"widths": widths, "activation": activation, "dtype": "float64"}
    field = make_field("field", unknowns=1, lower=(-1.0,), upper=(1.0,), x64=True, **options)
    return jax.jit(jax.vmap(lambda key: field.init(key, jnp.zeros(inputs))["params"]))


def _padded(params, pad):
    """The first layer with zeros to its padded shape; units of zeros with zeros behind them stay zero."""
    inputs, width = pad
    first, second = params["dense_0"], params["dense_1"]
    missing = width - first["kernel"].shape[1]
    kernel = np.pad(first["kernel"], ((0, inputs - first["kernel"].shape[0]), (0, missing)))
    return {
        **params,
        "dense_0": {"kernel": kernel, "bias": np.pad(first["bias"], (0, missing))},
        "dense_1": {**second, "kernel": np.pad(second["kernel"], ((0, missing), (0, 0)))},
    }


def _input(arm, inputs):
    """Slope and offset of the input z = slope x + offset, and the scale of the first bias."""
    slope, offset = np.zeros(inputs), np.zeros(inputs)
    if arm.expansion is None or arm.fold:
        slope[0] = 1
    else:
        before, constants = arm.expansion.before, arm.expansion.constants
        slope[before] = 1
        offset[:before] = constants[:before]
        offset[before + 1 : arm.inputs] = constants[before:]
    return slope, offset, np.float64(arm.bias_scale)


def apply_padded(
    params: PyTree, slope: Array, offset: Array, bias_scale: Array, x: Float[Array, " n"], activation: str
) -> Float[Array, " n"]:
    """The network of a padded arm: its first layer acts on slope x + offset."""
    act = layers.ACTIVATIONS[activation]
    first = params["dense_0"]
    h = act(x[:, None] * (slope @ first["kernel"]) + (bias_scale * first["bias"] + offset @ first["kernel"]))
    last = len(params) - 1
    for i in range(1, last):
        h = act(h @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"])
    return (h @ params[f"dense_{last}"]["kernel"] + params[f"dense_{last}"]["bias"])[:, 0]


@functools.cache
def _program(activation, steps, tolerance, records):
    """One fit; the same compiled program for all arms and functions of the same padded shapes."""

    @jax.jit
    def fit(params, slope, offset, bias_scale, where):
        x, y, test_x, test_y = where
        flat, unravel = jax.flatten_util.ravel_pytree(params)  # one leaf: less to do for the line search

        def net(flat, x):
            return apply_padded(unravel(flat), slope, offset, bias_scale, x, activation)

        fitted = fit_many.fit_lbfgs(
            lambda flat: jnp.mean((net(flat, x) - y) ** 2), flat, steps=steps, tolerance=tolerance, records=records,
            loss_levels=LOSS_LEVELS, gradient_levels=GRADIENT_LEVELS,
        )  # fmt: skip
        errors = jax.vmap(lambda flat: net(flat, test_x) - test_y)(fitted.path)
        drawn = net(fitted.params, jnp.linspace(regression.LOWER, regression.UPPER, regression.DRAWN))
        return {
            "losses": fitted.losses,
            "iterations": fitted.iterations,
            "loss": fitted.loss_reached,
            "gradient": fitted.gradient_reached,
            "mse": jnp.mean(errors**2, -1),
            "max": jnp.max(jnp.abs(errors[-1])),
            "drawn": drawn,
        }

    return fit


def _numbers(own, steps):
    numbers = {"train/loss": own["losses"][:, -1], "test/mse": own["mse"][:, -1], "test/max": own["max"]}
    numbers[f"{ITERATIONS}all"] = own["iterations"].astype(float)
    for what, levels in (("loss", LOSS_LEVELS), ("gradient", GRADIENT_LEVELS)):
        for level, first in zip(levels, own[what].T):
            numbers[f"{ITERATIONS}{what}_{level:g}"] = np.where(first < 0, steps, first).astype(float)
            numbers[f"reached/{what}_{level:g}"] = (first >= 0).astype(float)
    return numbers


def _count(arm, widths):
    inputs = 1 if arm.fold else arm.inputs
    sizes = (inputs, arm.width, *widths, 1)
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))
