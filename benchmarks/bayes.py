"""A step of variational training against that of the plain network, and several posteriors in one program.

    pip install -e '.[benchmarks]' && python benchmarks/bayes.py

MLP of 8 hidden layers of 256 with layer norm on 784 inputs, batch of 250, Adam, one program of several steps; least
seconds of runs that take turns. The variational network has noise of its own for each example from a covariance of rank
4: in multiplications, forward and backward, it costs 1 + K = 5 of the plain ones, and with masks another one for the
diagonal; where 25 examples share a draw of the factors, little more than the plain one. The FLOPs of loss and gradient
are printed beside. Ten posteriors: a smaller network (2 hidden layers of 64, batch of 32), trained in one program by
`vmap`, against one after another. What came out, and which bars are missed: docs/speed.md.
"""

import jax
import numpy as np
from common import figure, least

from sbjax.asymmetry import AsymmetrySpec, MaskSpec, make_asymmetric
from sbjax.bayes import Predictive, Variational, VariationalSpec
from sbjax.data.images import ImageData
from sbjax.experiments.bayes.experiment import with_divergence
from sbjax.frame.arms import step_cost
from sbjax.models import make_model
from sbjax.optimizers import Adam
from sbjax.tasks.images import make_image_task
from sbjax.training import placement as placement_lib

STEP_BAR, TOGETHER_BAR, REPLICAS, ROUNDS = 2.5, 0.6, 10, 20
MASKS = AsymmetrySpec("w", masks=(("dense_*/kernel", MaskSpec(8, 0.5)),))


def network(depth, width, *, variational=True, masked=False, **spec):
    """The network of a case."""
    module = make_model("mlp", classes=10, widths=(width,) * depth, norm="layer")
    module = make_asymmetric(module, MASKS) if masked else module
    return Predictive(Variational(module, VariationalSpec(**spec)), 1) if variational else module


def runner(module, steps, *, batch, replicas=1, how="auto"):
    """A function that trains for `steps` steps, and the FLOPs of loss and gradient of one replica."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1024, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, 1024).astype(np.int32)
    held = (images[:8], labels[:8])
    data = ImageData("random", 10, images, labels, *held, *held, (0.5,), (0.25,))
    task = make_image_task(data, module, batch_size=batch)
    if isinstance(module, Predictive):
        task = with_divergence(task, examples=1024)
    placement = placement_lib.Placement(replicas=how)
    program = placement_lib.Program(
        task, Adam().make(5e-4), placement=placement, replicas=replicas, key=jax.random.key(0)
    )
    carry = [program.init()]

    def run():
        carry[0] = program.advance(carry[0], 0, steps)

    return run, step_cost(task).flops


def steps_against_plain():
    """Seconds of a step of each kind of network, over those of the plain one."""
    steps = 3
    kinds = {
        "plain": network(8, 256, variational=False),
        "mean-field": network(8, 256, rank=0),
        "rank 4, 25 examples a draw": network(8, 256, group=25),
        "rank 4": network(8, 256),
        "rank 4, W-asymmetric": network(8, 256, masked=True),
    }
    made = {name: runner(module, steps, batch=250) for name, module in kinds.items()}
    seconds = least({name: run for name, (run, _) in made.items()}, rounds=ROUNDS)
    for name in list(kinds)[1:]:
        figure(
            f"variational MLP-8, {name}, training step, over plain",
            seconds[name] / seconds["plain"],
            unit="ratio",
            bar=STEP_BAR,
            variational_ms=1e3 * seconds[name] / steps,
            plain_ms=1e3 * seconds["plain"] / steps,
            flops_over_plain=made[name][1] / made["plain"][1],
        )


def posteriors_together():
    """Ten posteriors in one program, over ten one after another."""
    steps = 20
    module = network(2, 64)
    kinds = {
        "together": runner(module, steps, batch=32, replicas=REPLICAS, how="vmap")[0],
        "one by one": runner(module, steps, batch=32, replicas=1)[0],
    }
    seconds = least(kinds, rounds=ROUNDS)
    figure(
        "ten variational posteriors in one program, over one by one",
        seconds["together"] / (REPLICAS * seconds["one by one"]),
        unit="ratio",
        bar=TOGETHER_BAR,
        together_ms=1e3 * seconds["together"] / steps,
        one_ms=1e3 * seconds["one by one"] / steps,
    )


def main() -> None:
    steps_against_plain()
    posteriors_together()


if __name__ == "__main__":
    main()
