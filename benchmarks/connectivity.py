"""Time of a barrier: 25 points of an MLP on images of MNIST's size.

    pip install -e '.[dev]' && python benchmarks/connectivity.py

The network is 784-512-512-512-10 with layer norm and gelu (935,434 parameters), the data are 10,000 random images: time
does not depend on what they show. Least of the runs that take turns, after compilation; `cpu_seconds` is the time
of all threads, which a busy machine moves less.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import figure, least

from sbjax.metrics.connectivity import barrier
from sbjax.models import make_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    module = make_model("mlp", classes=10, widths=(512, 512, 512), norm="layer", activation="gelu")
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(flags.images, 784)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, flags.images))
    a, b = (jax.jit(module.init)(jax.random.key(seed), images[:1]) for seed in (0, 1))

    def evaluate(images, labels, variables):
        logits = module.apply(variables, images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return {"loss": loss, "accuracy": (logits.argmax(-1) == labels).mean(dtype=jnp.float32)}

    evaluate_fn = jax.tree_util.Partial(evaluate, images, labels)
    one = jax.jit(evaluate)
    contenders = {
        "at once": lambda: barrier(evaluate_fn, a, b, batch_size=25),
        "one by one": lambda: barrier(evaluate_fn, a, b, batch_size=1),
        "25 evaluations": lambda: [float(one(images, labels, a)["loss"]) for _ in range(25)],
    }
    seconds = least(contenders, rounds=flags.rounds)
    for name in ("at once", "one by one"):
        began = time.process_time()
        contenders[name]()
        figure(
            f"barrier of 25 points of an MLP on {flags.images} images, points {name}",
            seconds[name],
            unit="s",
            bar=10,
            evaluations_alone=seconds["25 evaluations"],
            cpu_seconds=time.process_time() - began,
        )


if __name__ == "__main__":
    main()
