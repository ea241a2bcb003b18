"""Weight matching against the algorithm of git-re-basin as published; planted permutations; derivation of a spec.

    python benchmarks/matching.py

The published algorithm is written from its description (arXiv 2209.04836, algorithm 1, with jax for the products, as in
its authors' code): it starts at the identity and solves every permutation in every sweep. Both match the same two
ResNet-20 of four times the width, one descent each, in turns; compilation is left out of both.
"""

import jax
import jax.numpy as jnp
import numpy as np
from common import figure, least
from scipy.optimize import linear_sum_assignment

from sbjax import trees
from sbjax.models import make_model
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Move, Spec, invert, permute, random_permutations
from sbjax.symmetry.spec import derive_spec

TRIALS = 100


def published(spec, reference, model, seed, max_sweeps=100):
    """Coordinate descent in random order until no permutation gains more than 1e-12."""
    a, b = trees.flatten(reference), trees.flatten(model)
    axes = {}
    for name, moves in spec.moves.items():
        for move in moves:
            axes.setdefault(move.leaf, {})[move.axis] = name
    names = list(spec.sizes)
    orders = {name: jnp.arange(n) for name, n in spec.sizes.items()}
    rng = np.random.default_rng(seed)
    for _ in range(max_sweeps):
        progress = False
        for name in rng.permutation(names):
            n = spec.sizes[name]
            gram = jnp.zeros((n, n))
            for move in spec.moves[name]:
                other = b[move.leaf]
                for axis, neighbour in axes[move.leaf].items():
                    if axis != move.axis:
                        other = jnp.take(other, orders[neighbour], axis=axis)
                rows = (jnp.moveaxis(leaf, move.axis, 0).reshape(n, -1) for leaf in (a[move.leaf], other))
                gram += jnp.einsum("ik,jk->ij", *rows)
            _, new = linear_sum_assignment(np.asarray(gram), maximize=True)
            new = jnp.array(new)
            before, after = (jnp.vdot(gram, jnp.eye(n)[order]) for order in (orders[name], new))
            progress |= bool(after > before + 1e-12)
            orders[name] = new
        if not progress:
            break
    return orders


def objective(spec, reference, model, permutations):
    a, b = trees.flatten(reference), trees.flatten(permute(spec, model, permutations))
    return sum(float(np.vdot(np.asarray(a[name], np.float64), np.asarray(b[name], np.float64))) for name in a)


def speed():
    """Two inits, and a planted permutation with noise of 0.3, 1 and 3 standard deviations; the worst of each number."""
    net = make_model("resnet20", classes=10, width=4.0, norm="layer")
    init = jax.jit(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)))["params"])
    a, other = init(jax.random.key(0)), init(jax.random.key(1))
    spec = derive_spec(lambda params, x: net.apply({"params": params}, x), a, jnp.zeros((1, 8, 8, 3)), verify=False)
    rng = np.random.default_rng(0)
    planted = random_permutations(jax.random.key(2), spec)

    def copy(noise):
        noisy = jax.tree.map(lambda x: x + np.float32(noise * np.std(x) * rng.normal(size=x.shape)), a)
        return permute(spec, noisy, planted)

    cases = {"two inits": other} | {f"planted, noise {noise}": copy(noise) for noise in (0.3, 1.0, 3.0)}
    for name, b in cases.items():
        found = {}

        def ours(b=b, found=found):
            found["ours"] = match_weights(spec, a, b, key=jax.random.key(0)).permutations

        def theirs(b=b, found=found):
            found["published"] = jax.block_until_ready(published(spec, a, b, 0))

        seconds = least({"ours": ours, "published": theirs}, rounds=7)
        reached = {who: objective(spec, a, b, permutations) for who, permutations in found.items()}
        figure(
            f"weight matching of ResNet-20 4x over the published algorithm, {name}: time",
            seconds["ours"] / seconds["published"],
            unit="ratio",
            bar=0.5,
            ours_ms=1e3 * seconds["ours"],
            published_ms=1e3 * seconds["published"],
        )
        figure(
            f"weight matching of ResNet-20 4x over the published algorithm, {name}: objective of theirs over ours",
            reached["published"] / reached["ours"],
            unit="ratio",
            bar=1 + 1e-5,
            **reached,
        )


def residual(stream=30, inner=50):
    """x + W_out relu(W_in x), where neither inputs nor outputs are fixed: the hard case of git-re-basin's issue 8."""
    shapes = {"in": (stream, inner), "out": (inner, stream)}
    moves = {"stream": (Move("in", 0), Move("out", 1)), "inner": (Move("in", 1), Move("out", 0))}
    return shapes, Spec({"stream": stream, "inner": inner}, moves, {})


def planted():
    """How many of 100 planted permutations are missed, in residual networks of widths 30 and 50."""
    shapes, spec = residual()
    missed = {"ours": 0, "published": 0}
    for seed in range(TRIALS):
        rng = np.random.default_rng(seed)
        a = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        hidden = random_permutations(jax.random.key(seed), spec)
        b, undo = permute(spec, a, hidden), invert(hidden)
        found = {"ours": match_weights(spec, a, b, key=jax.random.key(seed)).permutations}
        found["published"] = published(spec, a, b, seed)
        for who, permutations in found.items():
            missed[who] += not all(np.array_equal(permutations[name], undo[name]) for name in undo)
    figure(
        f"planted permutations missed of {TRIALS} in residual networks of widths 30 and 50",
        missed["ours"],
        unit="trials",
        bar=0.01 * TRIALS,
        published=missed["published"],
    )


def derivation():
    """Seconds to derive the spec of ResNet-18, alone and with its verification, which compiles the network."""
    net = make_model("resnet18", classes=10, norm="batch")
    x = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    contenders = {
        "derived": lambda: derive_spec(net.apply, shapes, x, verify=False),
        "derived and verified": lambda: derive_spec(net.apply, shapes, x),
    }
    for name, seconds in least(contenders, rounds=2).items():
        figure(f"spec of ResNet-18 {name}", seconds, unit="s", bar=5)


def main() -> None:
    speed()
    planted()
    derivation()


if __name__ == "__main__":
    main()
