"""Wasserstein distances against loops over scipy and POT: time, memory, agreement.

    pip install -e '.[benchmarks]' && python benchmarks/wasserstein.py

Times are medians of runs that take turns, after compilation. The distances of ten ResNet-18 replicas are taken once, in
a process of their own whose peak memory is read, compilation included.
"""

import argparse
import contextlib
import itertools
import json
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import ot
from common import alternate, figure
from scipy.stats import wasserstein_distance

from sbjax.metrics.neurons import pairwise_sinkhorn
from sbjax.metrics.wasserstein import pairwise_wasserstein, wasserstein, wasserstein_1d
from sbjax.models import make_model

GIB = 1024**2  # in the unit of ru_maxrss


def all_pairs() -> None:
    """All pairs of 64 vectors of 4096 weights."""
    rows = np.random.default_rng(0).normal(size=(64, 4096)).astype(np.float32)
    stacked, wide = {"w": jnp.asarray(rows)}, rows.astype(np.float64)

    def ours():
        jax.block_until_ready(pairwise_wasserstein(stacked))

    def loop(distance, rows):
        return lambda: [distance(a, b) for a, b in itertools.combinations(rows, 2)]

    alone = alternate({"sbjax": ours}, rounds=51)["sbjax"]
    figure("all pairs of 64 vectors of 4096 float32 weights", 1e3 * alone, unit="ms", bar=60)
    contenders = {"sbjax": ours, "scipy": loop(wasserstein_distance, rows), "POT": loop(ot.wasserstein_1d, wide)}
    seconds = alternate(contenders, rounds=3)
    for name in ("scipy", "POT"):
        figure(
            f"the same, over a loop over {name}",
            seconds["sbjax"] / seconds[name],
            unit="ratio",
            bar=1 / 40,
            speedup=seconds[name] / seconds["sbjax"],
            loop_seconds=seconds[name],
        )


def one_pair(n: int = 1_000_000) -> None:
    """Two vectors of a million weights against sorting them."""
    rows = np.random.default_rng(0).normal(size=(2, n)).astype(np.float32)
    a, b = ({"w": jnp.asarray(row)} for row in rows)
    contenders = {
        "sbjax": lambda: jax.block_until_ready(wasserstein(a, b)),
        "numpy": lambda: (np.sort(rows[0]), np.sort(rows[1])),
    }
    seconds = alternate(contenders, rounds=51)
    figure(
        f"one pair of {n:.0e} float32 weights, over numpy's sort of both",
        seconds["sbjax"] / seconds["numpy"],
        unit="ratio",
        bar=1.5,
        sbjax_ms=1e3 * seconds["sbjax"],
        numpy_ms=1e3 * seconds["numpy"],
    )


def resnet_child(replicas: int = 10) -> dict[str, float]:
    """Seconds and peak memory in GiB of all pairs of ResNet-18 replicas, layer by layer."""
    model = make_model("resnet18", classes=10)
    image = jnp.zeros((1, 32, 32, 3))
    keys = jax.random.split(jax.random.key(0), replicas)
    init = jax.jit(lambda keys: jax.lax.map(lambda key: model.init(key, image)["params"], keys))
    stacked = jax.block_until_ready(init(keys))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        distances = jax.block_until_ready(pairwise_wasserstein(stacked, pooled=False))
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": seconds[0],
        "again": seconds[1],
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB,
        "before": before / GIB,
        "layers": len(distances.leaves),
        "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(stacked)),
    }


def resnet() -> None:
    child = subprocess.run([sys.executable, __file__, "--resnet"], check=True, capture_output=True, text=True)
    got = json.loads(child.stdout.splitlines()[-1])
    name = "all 45 pairs of 10 ResNet-18 replicas, layer by layer"
    sizes = {key: got[key] for key in ("layers", "parameters")}
    figure(name, got["seconds"], unit="s", bar=60, without_compilation=got["again"], **sizes)
    figure(f"peak memory of {name}", got["gib"], unit="GiB", bar=8, before=got["before"])


def agreement(cases: int = 40) -> None:
    """Largest relative difference to scipy and POT over random sizes, equal or not, weights and orders."""
    rng = np.random.default_rng(0)
    worst = {}
    for dtype in (np.float64, np.float32):
        with precision(dtype == np.float64):
            for case in range(cases):
                sizes = rng.integers(1, 5000, 2)
                sizes = sizes if case % 2 else sizes[[0, 0]]
                a, b = (rng.normal(shift, scale, n).astype(dtype) for n, shift, scale in zip(sizes, (0, 0.3), (1, 2)))
                masses = [rng.uniform(0.1, 1, n).astype(dtype) for n in sizes] if case % 4 == 3 else [None, None]
                for p in (1, 2):
                    got = float(wasserstein(a, b, p, weights_a=masses[0], weights_b=masses[1]).pooled)
                    wide = [None if w is None else w / w.sum(dtype=np.float64) for w in masses]
                    pot = float(ot.wasserstein_1d(*(x.astype(np.float64) for x in (a, b)), *wide, p=p)) ** (1 / p)
                    _note(worst, ("POT", dtype), abs(got - pot) / pot)
                    if p == 1:
                        scipy = wasserstein_distance(a, b, *masses)
                        _note(worst, ("scipy", dtype), abs(got - scipy) / scipy)
    for (name, dtype), value in worst.items():
        bar = 1e-6 if dtype == np.float64 else 1e-5
        figure(f"largest relative difference to {name}, {dtype.__name__}", float(value), unit="ratio", bar=bar)


def gradient(n: int = 64, m: int = 48, step: float = 1e-6) -> None:
    """Largest difference of an entry of the gradient to a central difference, over the largest entry."""
    worst = 0.0
    with precision(True):
        rng = np.random.default_rng(0)
        for p, size, weighted in itertools.product((1, 2, 3), (n, m), (False, True)):
            a, b = rng.normal(size=n), rng.normal(0.3, 2, size)
            masses = [jnp.asarray(rng.uniform(0.1, 1, len(x))) if weighted else None for x in (a, b)]

            def distance(a, b=b, p=p, masses=masses):
                return wasserstein_1d(a, jnp.asarray(b), p, *masses)

            exact = np.asarray(jax.grad(distance)(jnp.asarray(a)))
            ends = [jax.lax.map(distance, jnp.asarray(a + sign * step * np.eye(n))) for sign in (1, -1)]
            numeric = np.asarray(ends[0] - ends[1]) / (2 * step)
            worst = max(worst, np.abs(exact - numeric).max() / np.abs(numeric).max())
    figure("largest relative difference of the gradient to finite differences", float(worst), unit="ratio", bar=1e-6)


def sinkhorn() -> None:
    clouds = jax.random.normal(jax.random.key(0), (10, 64, 289))
    pairwise_sinkhorn(clouds)
    began = time.perf_counter()
    _, unconverged = pairwise_sinkhorn(clouds)
    seconds = time.perf_counter() - began
    name = "Sinkhorn pairs of 45 not converged, 10 clouds of 64 neurons in 289 dimensions"
    figure(name, unconverged, unit="pairs", bar=0, seconds=seconds)


def _note(worst, key, value):
    worst[key] = max(worst.get(key, 0.0), value)


@contextlib.contextmanager
def precision(double: bool):
    """For all threads: `jax.enable_x64` holds in this one only, and XLA may sort on another."""
    jax.config.update("jax_enable_x64", double)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resnet", action="store_true", help="only the ResNet-18 replicas, as the child process")
    if parser.parse_args().resnet:
        print(json.dumps(resnet_child()))
        return
    for measure in (all_pairs, one_pair, resnet, agreement, gradient, sinkhorn):
        measure()


if __name__ == "__main__":
    main()
