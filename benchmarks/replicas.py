"""Replicas in one program against PyTorch training the same networks one after another.

    pip install -e '.[benchmarks]' && python benchmarks/replicas.py

Same network, batch, optimiser (SGD, Nesterov momentum) and number of steps on random images; medians of runs that take
turns. Ours includes drawing the batch, standardising it and the checks for finite numbers.
"""

import os
import sys

import jax
import numpy as np
import torch
from common import alternate, figure
from torch import nn

from sbjax import trees
from sbjax.data.images import ImageData
from sbjax.models import make_model
from sbjax.optimizers import Sgd
from sbjax.tasks.images import make_image_task
from sbjax.training import placement as placement_lib

BATCH, EXAMPLES = 128, 2048


class Block(nn.Module):
    """ResNet-20's block with a projection shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return torch.relu(self.path(x) + self.shortcut(x))


def torch_mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def torch_cnn():
    layers, inputs = [], 1
    for outputs in (32, 64, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def torch_resnet20():
    layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for outputs in (16, 32, 64):
        for block in range(3):
            layers.append(Block(inputs, outputs, 2 if outputs > 16 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


CASES = {
    # name: (model, options, PyTorch's, image shape, replicas, steps, bar)
    "mlp": ("mlp", {"norm": "none"}, torch_mlp, (28, 28, 1), 10, 100, 0.5),
    "small cnn": ("cnn", {"norm": "batch"}, torch_cnn, (28, 28, 1), 10, 5, 1.0),
    "resnet20": ("resnet20", {"norm": "batch"}, torch_resnet20, (32, 32, 3), 1, 5, 1.5),
}


def ours(model, options, shape, replicas, steps):
    """A function that trains `replicas` copies for `steps` steps, and the parameters of one."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (EXAMPLES, *shape), np.uint8), rng.integers(0, 10, EXAMPLES).astype(np.int32)
    channels = shape[-1]
    data = ImageData(
        "random",
        10,
        images,
        labels,
        images[:8],
        labels[:8],
        images[:8],
        labels[:8],
        (0.5,) * channels,
        (0.25,) * channels,
    )
    task = make_image_task(data, make_model(model, classes=10, **options), batch_size=BATCH)
    optimizer = Sgd(weight_decay=0.0).make(0.01)
    program = placement_lib.Program(
        task, optimizer, placement=placement_lib.Placement(), replicas=replicas, key=jax.random.key(0)
    )
    carry = [program.init()]

    def run():
        carry[0] = program.advance(carry[0], 0, steps)

    return run, trees.size(jax.eval_shape(task.init, jax.random.key(0))["params"])


def theirs(make, shape, replicas, steps):
    """The same in PyTorch (channels first), one replica after another."""
    height, width, channels = shape
    x, y = torch.randn(EXAMPLES, channels, height, width), torch.randint(0, 10, (EXAMPLES,))
    models = [make().train() for _ in range(replicas)]
    optimizers = [torch.optim.SGD(m.parameters(), 0.01, momentum=0.9, nesterov=True) for m in models]

    def run():
        for model, optimizer in zip(models, optimizers, strict=True):
            for _ in range(steps):
                rows = torch.randint(0, EXAMPLES, (BATCH,))
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()

    return run, sum(p.numel() for p in models[0].parameters())


def main() -> None:
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    torch.manual_seed(0)
    for name, (model, options, make, shape, replicas, steps, bar) in CASES.items():
        run_ours, size = ours(model, options, shape, replicas, steps)
        run_theirs, torch_size = theirs(make, shape, replicas, steps)
        if size != torch_size:
            sys.exit(f"{name}: {size} parameters here, {torch_size} in PyTorch: not the same network")
        seconds = alternate({"sbjax": run_ours, "torch": run_theirs}, rounds=7)
        figure(
            f"{replicas} {name}, training step, over PyTorch {torch.__version__}",
            seconds["sbjax"] / seconds["torch"],
            unit="ratio",
            bar=bar,
            sbjax_ms=1e3 * seconds["sbjax"] / steps,
            torch_ms=1e3 * seconds["torch"] / steps,
        )


if __name__ == "__main__":
    main()
