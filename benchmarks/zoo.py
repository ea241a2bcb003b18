"""Training of a zoo against training its networks one by one: examples a second of the CNN of 4,970 parameters.

    python benchmarks/zoo.py

Digits at 8 pixels, batches of 64, Adam, each network with hyper-parameters of its own, as a zoo is trained:
`TOGETHER` networks in one program, and as many calls at a time as there are cores. One by one: the same program
for one network, one call after another. Evaluations are on all networks and the data of an epoch; least of three turns.
The bars: at least 10,000 examples a second, and not slower than one by one; `side by side` is `vmap`.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from common import figure, least

from sbjax.data import images
from sbjax.experiments.zoo import laws, program
from sbjax.experiments.zoo.blocks import TOGETHER
from sbjax.models import make_model

NETWORKS, EPOCHS, BATCH = 16, 2, 64
LAWS = laws.Laws((5e-4, 5e-2), (1e-5, 1e-1), (0.1, 2.0), (0, 0.2), (0, 0.5), (EPOCHS, EPOCHS), ("relu",), ("adam",))


def main():
    """Print the figures."""
    data = program.standardised(images.load("digits"))
    module = make_model("cnn", classes=10, channels=(16, 16, 16), norm="none", activation="relu", dropout=0.5)
    key = jax.random.key(0)
    drawn = laws.draw(key, np.arange(NETWORKS), LAWS)
    hyper = {name: drawn[name] for name in drawn if name not in laws.WORDS}
    numbers = jnp.arange(NETWORKS, dtype=jnp.int32)

    def compiled(together, side_by_side=False):
        made = program.make_program(
            module, "adam", key=key, epochs=EPOCHS, batch_size=BATCH, peak_epochs=1.0, side_by_side=side_by_side
        )
        first = {name: values[:together] for name, values in hyper.items()}
        return made.lower(data, numbers[:together], first).compile()

    def run(made, together, workers):
        def call(start):
            rows = slice(start, start + together)
            own = {name: values[rows] for name, values in hyper.items()}
            return jax.block_until_ready(made(data, numbers[rows], own))

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(call, range(0, NETWORKS, together)))

    cores = len(os.sched_getaffinity(0))
    programs = {1: compiled(1), TOGETHER: compiled(TOGETHER), "vmap": compiled(NETWORKS, side_by_side=True)}
    seconds = least(
        {
            "zoo": lambda: run(programs[TOGETHER], TOGETHER, cores),
            "one call at a time": lambda: run(programs[TOGETHER], TOGETHER, 1),
            "one by one": lambda: run(programs[1], 1, 1),
            "side by side": lambda: run(programs["vmap"], NETWORKS, 1),
        },
        rounds=3,
    )
    steps = len(data.train_labels) // BATCH
    examples = NETWORKS * EPOCHS * steps * BATCH
    rates = {name: examples / value for name, value in seconds.items()}
    figure("zoo: microseconds an example", 1e6 / rates["zoo"], unit="us", bar=100.0, examples_a_second=rates["zoo"])
    for name, said in {"zoo": "zoo", "one call at a time": "one call at a time", "side by side": "by vmap"}.items():
        told = {"examples_a_second": rates[name], "one_by_one": rates["one by one"]}
        figure(f"{said}, over one by one", seconds[name] / seconds["one by one"], unit="ratio", bar=1.05, **told)


if __name__ == "__main__":
    main()
