"""Continuous symmetries counted, and planted gauges found again: the parts of `attention` that need no training."""

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import rng, trees
from sbjax.experiments.exact.experiment import counted, result
from sbjax.models.transformer import Transformer, rope_frequencies
from sbjax.symmetry import attention, attention_dimension
from sbjax.symmetry.attention_fold import fold
from sbjax.symmetry.attention_layout import layout_of
from sbjax.symmetry.attention_matching import distance, match_transformers

CLOSE = 1e-5  # of a recovered matrix
EXACT = 1e-9  # of a recovered scale, all of which are powers of two

COLUMNS = {
    "norm": "norm",
    "positions": "positions",
    "bias": "biases",
    "activation": "activation",
    "eps": "epsilon of the norms",
    "parameters": "parameters",
    "counted": "continuous symmetries, null space",
    "closed": "closed count",
    "kept": "least singular value kept",
    "dropped": "largest one dropped",
    "qk": "of them of a head's queries and keys",
    "qk_commutant": "null space of its commutant",
    "stream": "of the stream",
    "stream_null": "null space of its norm",
    "discrete": "permutations, signs and scales exact",
    "matrices": "stream and factors to 1e-5",
    "all": "all",
    "worst": "largest error of a matrix",
    "off": "distance after matching",
    "sweeps": "most sweeps",
    "change": "change of outputs",
}


def network(task, classes: int = 10):
    """The transformer of an arm, and the keyword arguments of its layout."""
    net = Transformer(
        classes=classes,
        width=task.width,
        depth=task.depth,
        heads=task.heads,
        size=task.size,
        hidden=task.hidden,
        norm=task.norm,
        eps=task.eps,
        activation=task.activation,
        positions=task.positions,
        rope_base=task.rope_base,
        bias=task.bias,
    )
    rope = rope_frequencies(task.size, task.rope_base) if task.positions == "rope" else ()
    return net, {"norm": task.norm, "activation": task.activation, "rope": rope}


def labels(task):
    """The cells that say which network it is."""
    positions = task.positions if task.rope_base > 1 or task.positions != "rope" else "rope, equal frequencies"
    return {
        "norm": task.norm,
        "positions": positions,
        "bias": "yes" if task.bias else "no",
        "activation": task.activation,
        "eps": task.eps,
    }


def generic(net, key, inputs):
    """Parameters at random in double precision, gains and biases too, so that nothing is special."""
    params = net.init(key, inputs)["params"]
    random = _random(rng.stream(key, "generic"))
    return jax.tree.map(lambda leaf: np.asarray(leaf, float) + 0.2 * random.normal(size=leaf.shape), params)


def dimensions(plan, task, key, log, stop):
    """Null space of the Jacobian of a whole network, of a head's commutant and of a norm, against closed counts."""
    closed, found, gaps = [], [], []
    net, options = network(task, classes=4)

    def outputs(params, inputs):
        return net.apply({"params": params}, inputs)

    for seed in range(plan.replicas):
        if stop():
            return None
        inputs = rng.normal(rng.replica_stream(key, "inputs", seed), (1, 5, task.size + 1)).astype(float)
        params = generic(net, rng.replica_stream(key, "network", seed), inputs)
        layout = layout_of(params, **options)
        number = trees.size(params)
        inputs = rng.normal(rng.replica_stream(key, "inputs", seed), (number // 2, 5, task.size + 1)).astype(float)
        parts = attention_dimension.transformer_dimensions(layout, params, eps=task.eps)
        null = attention_dimension.null_dimension(outputs, params, jnp.asarray(inputs))
        closed.append(sum(parts.values()))
        found.append(null.dimension)
        gaps.append((null.kept, null.dropped))
    if layout.rope:
        head = attention_dimension.rope_dimension(layout.rope)
        matrices = attention_dimension.rotations(layout.rope, range(5))
    else:
        head, matrices = task.size**2, [np.eye(task.size)]
    log(f"{found[0]} of {number} directions change nothing, {closed[0]} expected")
    cells = {
        **labels(task),
        "parameters": number,
        "counted": found[0],
        "closed": closed[0],
        "kept": min(kept for kept, _ in gaps),
        "dropped": max(dropped for _, dropped in gaps),
        "qk": head,
        "qk_commutant": attention_dimension.commutant(matrices).dimension,
        "stream": attention_dimension.stream_dimension(task.norm, task.width, eps=task.eps),
        "stream_null": attention_dimension.norm_null_space(task.norm, task.width, eps=task.eps).dimension,
        "all": counted(np.equal(closed, found)),
    }
    return result({"exact/error": np.abs(np.subtract(closed, found))}, cells, number)


def planted(plan, task, key, log, stop):
    """A gauge at random planted into a folded copy of a network, with or without noise, and matched to the network."""
    net, options = network(task)
    discrete, matrices, worst, off, sweeps, change = [], [], [], [], [], []
    inputs = rng.normal(rng.stream(key, "inputs"), (8, 8, 8)).astype(float)
    apply = jax.jit(lambda params: net.apply({"params": params}, jnp.asarray(inputs)))
    for seed in range(plan.replicas):
        if stop():
            return None
        params = generic(net, rng.replica_stream(key, "network", seed), inputs)
        layout = layout_of(params, **options)
        gauge = attention.random_gauge(rng.replica_stream(key, "gauge", seed), layout, params)
        copy = _noisy(fold(layout, params), task.noise, rng.replica_stream(key, "noise", seed))
        copy = attention.transform(layout, copy, gauge)
        found = match_transformers(layout, params, copy, key=rng.replica_stream(key, "matching", seed))
        left = attention.compose(found.gauge, attention.invert(found.reference_gauge))
        exact, error = compare(attention.compose(gauge, left), scales=not task.noise)
        discrete.append(exact)
        matrices.append(error < CLOSE)
        worst.append(error)
        off.append(distance(found.reference, found.params))
        sweeps.append(len(found.history) - 1)
        before = apply(copy)
        change.append(float(jnp.abs(apply(found.params) - before).max() / jnp.abs(before).max()))
    log(f"{np.sum(discrete)} of {len(discrete)} exact, largest error {max(worst):.1e}")
    cells = {
        **labels(task),
        "parameters": trees.size(params),
        "discrete": counted(discrete),
        "matrices": counted(matrices),
        "all": counted(np.logical_and(discrete, matrices)),
        "worst": max(worst),
        "off": max(off),
        "sweeps": max(sweeps),
        "change": max(change),
    }
    return result({"exact/error": worst}, cells, trees.size(params))


def compare(gauge: attention.Gauge, *, scales: bool = True) -> tuple[bool, float]:
    """Whether permutations and signs, and scales if asked for, are those of the identity, and the largest error of a
    matrix.

    >>> part = attention.DenseGauge(np.array([1, 0]), np.ones(2))
    >>> compare(attention.Gauge(np.eye(2), (part,)))
    (False, 0.0)
    """
    exact, errors = True, [np.abs(gauge.stream - np.eye(len(gauge.stream))).max()]
    for part in gauge.layers:
        if isinstance(part, attention.AttentionGauge):
            exact &= bool((part.heads == np.arange(len(part.heads))).all())
            errors += [np.abs(matrix - np.eye(matrix.shape[-1])).max() for matrix in (part.qk, part.vo)]
        else:
            exact &= bool((part.order == np.arange(len(part.order))).all() and (part.scale > 0).all())
            exact &= not scales or bool(np.abs(part.scale - 1).max() < EXACT)
    return exact, float(max(errors))


def _noisy(params, noise, key):
    random = _random(key)
    return jax.tree.map(lambda x: x + noise * x.std() * random.normal(size=x.shape), params) if noise else params


def _random(key):
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
