"""Makes `torchvision.npz`: narrow networks of torchvision with random weights, an input, and their logits.

    pip install torch torchvision && python tests/models/torchvision_fixture.py

Weights are small multiples of powers of two, stored as bytes, so that the file is small and float32 has them exactly.
Tests read the file and need no PyTorch.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torchvision.models import densenet, efficientnet, mobilenetv3, resnet

CLASSES = 7
NARROW = 8  # a ResNet-50 with an eighth of the channels


class NarrowResNet(resnet.ResNet):
    """torchvision's, which has no option for its width."""

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = 64 // NARROW
        return super()._make_layer(block, planes // NARROW, blocks, stride, dilate)


def resnet50():
    net = NarrowResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=CLASSES)
    net.conv1, net.bn1 = nn.Conv2d(3, 64 // NARROW, 7, 2, 3, bias=False), nn.BatchNorm2d(64 // NARROW)
    net.fc = nn.Linear(2048 // NARROW, CLASSES)
    return net


def efficientnet_b0():
    rows, _ = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=0.5)
    return efficientnet.EfficientNet(rows, dropout=0.2, num_classes=CLASSES)


def mobilenet(kind):
    rows, last = mobilenetv3._mobilenet_v3_conf(f"mobilenet_v3_{kind}", width_mult=0.25)
    keep = [row for i, row in enumerate(rows) if i in (0, 1, 2, 3, 6, 10, 12)]
    return mobilenetv3.MobileNetV3(rows if kind == "small" else keep, last, num_classes=CLASSES)


NETS = {
    "resnet50": resnet50,
    "densenet121": lambda: densenet.DenseNet(4, (2, 3, 2, 2), 8, num_classes=CLASSES),
    "mobilenet_v3_large": lambda: mobilenet("large"),
    "mobilenet_v3_small": lambda: mobilenet("small"),
    "efficientnet_b0": efficientnet_b0,
}


def weights(name, value, rng):
    """A whole number in [-127, 127] for each entry, and the power of two that they are multiples of."""
    shape = tuple(value.shape)
    if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
        return rng.integers(32, 96, shape), -6  # 0.5 to 1.5
    if value.ndim == 1:
        return rng.integers(-32, 33, shape), -7
    deviation = (2 / (value[0].numel())) ** 0.5
    power = int(np.ceil(np.log2(3 * deviation / 127)))
    return np.clip(np.rint(rng.normal(size=shape) * deviation / 2.0**power), -127, 127), power


def main():
    rng, arrays = np.random.default_rng(0), {}
    x = rng.integers(-64, 65, (2, 3, 40, 40)) / 32
    arrays["x"] = (x * 32).astype(np.int8)
    for net, make in NETS.items():
        model, state = make().eval(), {}
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            numbers, power = weights(name, value, rng)
            arrays[f"{net}/{name}"], arrays[f"{net}/{name}/power"] = numbers.astype(np.int8), np.int8(power)
            state[name] = torch.from_numpy(np.asarray(numbers * 2.0**power, np.float32))
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            arrays[f"{net}/logits"] = model.double()(torch.from_numpy(x)).numpy()
    np.savez_compressed(pathlib.Path(__file__).parent / "torchvision.npz", **arrays)


if __name__ == "__main__":
    main()
