"""Barriers between transformers trained on the digits, matched modulo parts of their gauge group.

Everything that is chosen is chosen without the held-out digits: weight matching sees weights alone, the learned gauge
is trained on training examples.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax import rng, trees
from sbjax.data.digits import load_digits
from sbjax.experiments.exact import attention_parts
from sbjax.experiments.exact.experiment import result
from sbjax.experiments.exact.training import train
from sbjax.metrics.connectivity import barriers
from sbjax.report.statistics import paired
from sbjax.symmetry import attention
from sbjax.symmetry.attention_fold import balance, fold
from sbjax.symmetry.attention_layout import layout_of
from sbjax.symmetry.attention_matching import distance, match_transformers

KIND = "maximum_over_chord"
# Groups: of the stream, of the factors of heads. All permute heads and hidden units but 'naive' and 'balanced'.
GROUPS = {
    "heads": ("identity", "full"),
    "permutations": ("permutation", "permutation"),
    "signed": ("signed", "full"),
    "full": ("orthogonal", "full"),
}
METHODS = ("naive", "balanced", *GROUPS, "learned", "alone", "copy", "copy_matched")

COLUMNS = {
    "accuracy": "test accuracy, percent",
    "end_loss": "test loss",
    "naive": "barrier as they are",
    "balanced": "folded and balanced, not matched (control)",
    "heads": "heads and factors, no stream",
    "permutations": "permutations only",
    "signed_permutations": "signed permutations of the stream, full factors",
    "full": "full group",
    "learned": "full group, then trained",
    "trained_alone": "trained without matching (control)",
    "left_permutations": "share of the naive barrier, permutations",
    "left_full": "share, full group",
    "left_learned": "share, trained",
    "left_alone": "share, trained without matching",
    "gain": "full group less permutations",
    "learned_gain": "trained less permutations",
    "copy": "to a moved copy of itself",
    "copy_matched": "to that copy, matched (control)",
    "apart": "distance as they are",
    "apart_permutations": "distance, permutations",
    "apart_full": "distance, full group",
    "end_accuracy": "accuracy in the middle, full group",
}


def patches(images):
    """Images [n, 8, 8, 1] as 4 tokens of 4 x 4 pixels, in [-1, 1].

    >>> patches(np.zeros((3, 8, 8, 1), np.uint8)).shape
    (3, 4, 16)
    """
    x = np.asarray(images, np.float32)[..., 0] / 127.5 - 1
    return x.reshape(-1, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 16)


def run(plan, task, key, log, stop):
    """Train all networks at once, match disjoint pairs of them, and take losses on the lines between."""
    net, options = attention_parts.network(task)
    data = load_digits()
    x, y = jnp.asarray(patches(data.train_images)), jnp.asarray(data.train_labels)
    nets = _trained(net, x, y, plan, task, key, stop)
    if nets is None:
        return None
    log(f"{len(nets)} networks trained")
    layout = layout_of(nets[0], **options)
    lines, apart = {method: [] for method in METHODS}, {method: [] for method in METHODS}
    for number, (a, b) in enumerate(zip(nets[::2], nets[1::2], strict=True)):
        if stop():
            return None
        for method, ends in _matched(layout, a, b, rng.replica_stream(key, "pair", number)).items():
            lines[method].append(ends)
            apart[method].append(distance(*ends))
    for method, start in (("learned", "full"), ("alone", "balanced")):
        lines[method] = _learned(net, layout, lines[start], x, y, task, rng.stream(key, "gauge"), stop)
        if lines[method] is None:
            return None
    lines = {method: ends for method, ends in lines.items() if ends}
    heights, curves = _measured(net, lines, task, jnp.asarray(patches(data.test_images)), jnp.asarray(data.test_labels))
    log(", ".join(f"{method} {np.median(height):.3f}" for method, height in heights.items()))
    accuracy, loss = (curves[name]["naive"][:, [0, -1]].ravel() for name in ("test/accuracy", "test/loss"))
    cells = {
        **attention_parts.labels(task),
        "parameters": trees.size(nets[0]),
        "accuracy": _median(100 * accuracy),
        "end_loss": _median(loss),
        **{_COLUMN.get(method, method): _median(height) for method, height in heights.items()},
        **_shares(heights),
        "gain": _median(heights["full"] - heights["permutations"]),
        "learned_gain": _median(heights["learned"] - heights["permutations"]),
        "apart": _median(apart["naive"]),
        "apart_permutations": _median(apart["permutations"]),
        "apart_full": _median(apart["full"]),
        "end_accuracy": _median(100 * curves["test/accuracy"]["full"][:, task.points // 2]),
    }
    metrics = {f"barrier/{method}": height for method, height in heights.items()}
    return result({"exact/error": heights["copy_matched"], **metrics}, cells, trees.size(nets[0]))


def _trained(net, x, y, plan, task, key, stop):
    """Parameters of all networks, trees of numpy arrays in single precision; None if `stop()` was true."""
    keys = jnp.stack([rng.replica_stream(key, "start", seed) for seed in range(plan.replicas)])

    def loss(params, _, key):
        chosen = jax.random.randint(key, (task.batch_size,), 0, len(x))
        return _cross_entropy(net, params, x[chosen], y[chosen])

    params = jax.vmap(lambda one: net.init(one, x[:1])["params"])(keys)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    steps, rate = plan.train_steps, task.learning_rate
    params = train(loss, params, jnp.zeros(plan.replicas), keys, steps=steps, rate=rate, stop=stop)
    if params is None:
        return None
    return [jax.tree.map(np.asarray, trees.take(params, seed)) for seed in range(plan.replicas)]


def _measured(net, lines, task, x, y):
    """Barriers [pair] by method, and curves [pair, points] by metric and method, all lines in one program."""

    def evaluate(variables):
        logits = net.apply(variables, x)
        return {
            "test/loss": optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(),
            "test/accuracy": (logits.argmax(-1) == y).mean(dtype=jnp.float32),
        }

    flat = [end for ends in lines.values() for line in ends for end in line]
    stacked = {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trees.stack(flat))}
    pairs = [(i, i + 1) for i in range(0, len(flat), 2)]
    found = barriers(evaluate, stacked, pairs, alphas=np.linspace(0, 1, task.points))

    def by_method(values):
        return dict(zip(lines, values.reshape(len(lines), -1, *values.shape[1:]), strict=True))

    curves = {name: by_method(curve) for name, curve in found.curves.items()}
    return by_method(found.heights["test/loss"][KIND]), curves


def _shares(heights):
    """What is left of the naive barrier, over the pairs that have one."""
    there = heights["naive"] > 0
    return {
        f"left_{method}": _median(heights[method][there] / heights["naive"][there])
        for method in ("permutations", "full", "learned", "alone")
        if there.any()
    }


_COLUMN = {"signed": "signed_permutations", "alone": "trained_alone"}


def _median(values):
    """The cell of a median with its 95 % bootstrap interval."""
    values = np.asarray(values, float)
    found = paired(np.zeros_like(values), values)
    return {"value": found.difference, "low": found.low, "high": found.high}


def _cross_entropy(net, params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(net.apply({"params": params}, x), y).mean()


def _matched(layout, a, b, key):
    """The two ends of a line, by method."""
    sides = [balance(layout, fold(layout, params))[0] for params in (a, b)]
    found = {"naive": (a, b), "balanced": tuple(sides)}
    for method, (stream, factors) in GROUPS.items():
        if method == "signed" and layout.norm != "rms":
            continue
        best = match_transformers(layout, a, b, key=key, stream=stream, factors=factors, max_sweeps=60)
        found[method] = (best.reference, best.params)
    copy = attention.transform(layout, sides[0], attention.random_gauge(key, layout, a))
    best = match_transformers(layout, a, copy, key=key)
    found |= {"copy": (sides[0], copy), "copy_matched": (best.reference, best.params)}
    return found


def _learned(net, layout, lines, x, y, task, key, stop):
    """Lines after training the continuous gauge of all pairs at once on the loss at random points of them."""
    a, b = (
        jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trees.stack([line[side] for line in lines]))
        for side in (0, 1)
    )
    free = _free(layout, trees.take(b, 0))
    free = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(lines), *leaf.shape)), free)

    def loss(free, ends, key):
        choose, place = jax.random.split(key)
        chosen = jax.random.randint(choose, (task.batch_size,), 0, len(x))
        moved = attention.transform(layout, ends[1], _gauge(layout, ends[1], free))
        alpha = jax.random.uniform(place, dtype=jnp.float32)
        between = jax.tree.map(lambda u, v: (1 - alpha) * u + alpha * v, ends[0], moved)
        return _cross_entropy(net, between, x[chosen], y[chosen])

    keys = jax.random.split(key, len(lines))
    free = train(loss, free, (a, b), keys, steps=task.learned_steps, rate=task.learned_rate, stop=stop)
    if free is None:
        return None
    move = jax.jit(jax.vmap(lambda b, free: attention.transform(layout, b, _gauge(layout, b, free))))
    moved = move(b, free)
    return [(trees.take(a, i), trees.take(moved, i)) for i in range(len(lines))]


def _free(layout, params):
    """Zeros for the continuous part of the group: generators of the stream, of factors, and log scales."""
    gauge = attention.identity_gauge(layout, params)
    d = len(gauge.stream) - (layout.norm == "layer")
    layers = []
    for part in gauge.layers:
        if isinstance(part, attention.AttentionGauge):
            heads, k = part.qk.shape[:2]
            qk = np.zeros((2, heads, k // 2)) if layout.rope else np.zeros(part.qk.shape)
            layers.append({"qk": qk, "vo": np.zeros(part.vo.shape)})
        else:
            layers.append({"scale": np.zeros(len(part.scale))})
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {"stream": np.zeros((d, d)), "layers": layers})


def _gauge(layout, params, free):
    """The gauge of `free`: Cayley transforms for the stream, exponentials for scales, 1 + X for factors."""
    identity = attention.identity_gauge(layout, params)
    skew, one = free["stream"] - free["stream"].T, jnp.eye(len(free["stream"]), dtype=free["stream"].dtype)
    stream = jnp.linalg.solve(one - skew, one + skew)
    if layout.norm == "layer":
        basis = jnp.asarray(_basis(len(identity.stream)), stream.dtype)
        stream = basis @ stream @ basis.T + 1 / len(basis)
    layers = []
    for part, own in zip(identity.layers, free["layers"], strict=True):
        if isinstance(part, attention.AttentionGauge):
            turn = jnp.exp(jax.lax.complex(own["qk"][0], own["qk"][1])) if layout.rope else None
            qk = attention.plane_matrix(turn) if layout.rope else _near_one(own["qk"])
            layers.append(part._replace(qk=qk, vo=_near_one(own["vo"])))
        else:
            free_scale = layout.activation == "relu"
            layers.append(part._replace(scale=jnp.exp(own["scale"]) if free_scale else jnp.ones_like(own["scale"])))
    return attention.Gauge(stream, tuple(layers))


def _near_one(matrices):
    return jnp.eye(matrices.shape[-1], dtype=matrices.dtype) + matrices


_basis = functools.cache(attention.mean_free_basis)
