"""Training step of asymmetric networks against the standard network of the same shape.

    pip install -e '.[benchmarks]' && python benchmarks/asymmetric_step.py

Same data, batch of 64 and optimiser (AdamW as in the MNIST recipe of arXiv 2405.20231); least seconds of runs that take
turns. W- and syre-networks read their constants in every step. FiGLU adds a square matrix product to every activation,
forward and backward: its bar holds only where that is small. `silu_over_standard` is what is left of its cost when the
product costs nothing, sigmoid(x) x. The FLOPs of loss and gradient are printed beside.
"""

import jax
import numpy as np
from common import figure, least

from sbjax import asymmetry
from sbjax.data.images import ImageData
from sbjax.frame.arms import step_cost
from sbjax.models import make_model
from sbjax.optimizers import AdamW
from sbjax.tasks.images import make_image_task
from sbjax.training import placement as placement_lib

BATCH, EXAMPLES, BAR = 64, 1024, 1.1
ROUNDS = 60  # short and many: what counts is the least
CNN_MASKS = tuple((f"conv_{i}/kernel", asymmetry.MaskSpec(n_fix, 2.0)) for i, n_fix in enumerate((4, 72, 72)))
CASES = {
    # name: (model, options, steps in a run, W-asymmetric specification)
    "mlp 3x512": (
        "mlp",
        {"widths": (512, 512, 512), "norm": "layer", "activation": "gelu"},
        10,
        asymmetry.mlp_mnist(),
    ),
    "small cnn": ("cnn", {"norm": "batch"}, 2, asymmetry.AsymmetrySpec("w", masks=CNN_MASKS)),
}


def runner(module, steps):
    """A function that trains one network for `steps` steps, and the FLOPs of its loss and gradient."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, EXAMPLES).astype(np.int32)
    held = (images[:8], labels[:8])
    data = ImageData("random", 10, images, labels, *held, *held, (0.5,), (0.25,))
    task = make_image_task(data, module, batch_size=BATCH)
    optimizer = AdamW(weight_decay=0.03).make(1e-3)
    program = placement_lib.Program(
        task, optimizer, placement=placement_lib.Placement(), replicas=1, key=jax.random.key(0)
    )
    carry = [program.init()]

    def run():
        carry[0] = program.advance(carry[0], 0, steps)

    return run, step_cost(task).flops


def main() -> None:
    for name, (model, options, steps, w) in CASES.items():
        module = make_model(model, classes=10, **options)
        specs = {
            "standard": asymmetry.AsymmetrySpec(),
            "w": w,
            "syre": asymmetry.AsymmetrySpec("syre"),
            "sigma": asymmetry.AsymmetrySpec("sigma"),
        }
        made = {kind: runner(asymmetry.make_asymmetric(module, spec), steps) for kind, spec in specs.items()}
        made["silu"] = runner(module.clone(activation="silu"), steps)
        seconds = least({kind: run for kind, (run, _) in made.items()}, rounds=ROUNDS)
        for kind in ("w", "syre", "sigma"):
            figure(
                f"{kind}-asymmetric {name}, training step, over standard",
                seconds[kind] / seconds["standard"],
                unit="ratio",
                bar=BAR,
                asymmetric_ms=1e3 * seconds[kind] / steps,
                standard_ms=1e3 * seconds["standard"] / steps,
                flops_over_standard=made[kind][1] / made["standard"][1],
                **({"silu_over_standard": seconds["silu"] / seconds["standard"]} if kind == "sigma" else {}),
            )


if __name__ == "__main__":
    main()
