"""Whole training steps of convolutional networks at 32 pixels, batch 128, against PyTorch with channels last.

    pip install -e '.[benchmarks]' torchvision && python benchmarks/convolution_nets.py
    python benchmarks/convolution_nets.py --only=resnet18,efficientnet_b0 --stem=imagenet --rounds=3

Both stems; float32; SGD with Nesterov momentum and decay; medians of steps that take turns. Ours includes drawing the
batch, standardising it and the checks for finite numbers; PyTorch's draws a batch from tensors in memory. Networks are
torchvision's, but ResNet-20. Without PyTorch, or without torchvision, ours are timed alone.
"""

import argparse
import json
import sys

import jax
import numpy as np
from common import alternate, figure

from sbjax.data.images import ImageData
from sbjax.models import make_model
from sbjax.optimizers import Sgd
from sbjax.tasks.images import make_image_task
from sbjax.training import placement as placement_lib

BATCH, EXAMPLES, SIDE = 128, 1024, 32
BARS = {
    "resnet20": 1.0,
    "resnet18": 1.0,
    "resnet50": 1.3,
    "densenet121": 1.3,
    "mobilenet_v3_small": 1.5,
    "efficientnet_b0": 1.5,
}
STEMS = ("cifar", "imagenet")


def ours(name, stem):
    """A function that makes one step."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, SIDE, SIDE, 3), np.uint8)
    labels = rng.integers(0, 10, EXAMPLES).astype(np.int32)
    held = (images[:8], labels[:8])
    data = ImageData("random", 10, images, labels, *held, *held, (0.5,) * 3, (0.25,) * 3)
    options = {} if name == "resnet20" else {"stem": stem}
    task = make_image_task(data, make_model(name, classes=10, **options), batch_size=BATCH)
    program = placement_lib.Program(
        task, Sgd().make(0.05), placement=placement_lib.Placement(), replicas=1, key=jax.random.key(0)
    )
    state = [program.init(), 0]

    def run():
        state[0] = program.advance(state[0], state[1], state[1] + 1)
        state[1] += 1

    return run


def import_torchvision():
    """The models of torchvision, whose compiled part is not needed and may be of another build of PyTorch."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        sys.modules[__name__].library = library  # it goes when nobody holds it
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
    from torchvision import models

    return models


def theirs(name, stem):
    """A function that makes one step with PyTorch."""
    import torch
    from torch import nn

    if name == "resnet20":
        from replicas import torch_resnet20

        net = torch_resnet20()
    else:
        net = getattr(import_torchvision(), name)(num_classes=10)
    if stem == "cifar" and name in ("resnet18", "resnet50"):
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    elif stem == "cifar" and name == "densenet121":
        net.features.conv0, net.features.pool0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    elif stem == "cifar" and name != "resnet20":
        net.features[0][0].stride = (1, 1)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randint(0, 256, (EXAMPLES, 3, SIDE, SIDE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (EXAMPLES,))
    lose = nn.CrossEntropyLoss()

    def run():
        indices = torch.randint(0, EXAMPLES, (BATCH,))
        x = ((images[indices].float() / 255 - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        loss = lose(net(x), labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def has_torch(names) -> bool:
    """Whether the networks can be had; else a sentence says what is missing."""
    try:
        import torch  # noqa: F401

        if set(names) - {"resnet20"}:
            import_torchvision()
    except ImportError as error:
        print(f"{error}: ours are timed alone; pip install torch torchvision", file=sys.stderr)
        return False
    return True


def main() -> None:
    """Time all cases, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BARS), help="networks, separated by commas")
    parser.add_argument("--stem", default=",".join(STEMS), help="stems, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := [name for name in names if name not in BARS]:
        parser.error(f"--only={unknown[0]!r} is unknown; there are {', '.join(BARS)}")
    compared = has_torch(names)
    for name in names:
        for stem in given.stem.split(","):
            if name == "resnet20" and stem != "cifar":
                continue  # it has one stem
            contenders = {"ours": ours(name, stem)} | ({"torch": theirs(name, stem)} if compared else {})
            seconds = alternate(contenders, rounds=given.rounds)
            said = f"{name}, {stem} stem, training step"
            if compared:
                figure(
                    f"{said}, over PyTorch",
                    seconds["ours"] / seconds["torch"],
                    unit="ratio",
                    bar=BARS[name],
                    ours_ms=1e3 * seconds["ours"],
                    torch_ms=1e3 * seconds["torch"],
                )
            else:
                print(json.dumps({"name": said, "value": float(f"{1e3 * seconds['ours']:.4g}"), "unit": "ms"}))
            jax.clear_caches()


if __name__ == "__main__":
    main()
