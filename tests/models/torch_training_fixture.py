"""Makes `torch_training.npz`: losses of 50 steps of narrow ResNet-18s that PyTorch trains.

    pip install torch && python tests/models/torch_training_fixture.py

Weights and batches are whole numbers of numpy's generator over a power of two, so that both sides have them exactly and
only the losses are stored: by stem and precision. Tests read the file and need no PyTorch.
"""

import pathlib

import numpy as np

STEPS, BATCH, CLASSES, CHANNELS = 50, 32, 10, 8
STEMS = {"cifar": 16, "imagenet": 32}  # and the side of the images
MOMENTUM, DECAY = 0.9, 5e-4
# In single precision, inputs of relu near zero change their sign with round-off, and a gradient of so small a network
# with them: at a rate of 5e-4 PyTorch's own losses in float32 are 0.08 from those in float64 after 50 steps, at 3e-5
# 5e-4.
RATES = {"float32": 1e-5, "float64": 2e-3}


def state_of(stem):
    """A state dict in torchvision's names and layout, float64."""
    rng = np.random.default_rng(len(stem))
    state = {}

    def uniform(name, shape, fan):
        wide = 2.0 ** np.round(np.log2(np.sqrt(6 / fan)))
        state[name] = rng.integers(-(2**7), 2**7, shape) / 2**7 * wide

    def conv(name, out, inputs, size):
        uniform(f"{name}.weight", (out, inputs, size, size), size * size * inputs)

    def norm(name, channels):
        state[f"{name}.weight"] = rng.integers(32, 96, channels) / 64
        state[f"{name}.bias"] = rng.integers(-32, 32, channels) / 64
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = np.zeros(channels), np.ones(channels)

    conv("conv1", CHANNELS, 3, 3 if stem == "cifar" else 7)
    norm("bn1", CHANNELS)
    inputs = CHANNELS
    for stage in range(4):
        out = CHANNELS * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            conv(f"{name}.conv1", out, inputs, 3)
            norm(f"{name}.bn1", out)
            conv(f"{name}.conv2", out, out, 3)
            norm(f"{name}.bn2", out)
            if inputs != out:
                conv(f"{name}.downsample.0", out, inputs, 1)
                norm(f"{name}.downsample.1", out)
            inputs = out
    uniform("fc.weight", (CLASSES, inputs), inputs)
    state["fc.bias"] = rng.integers(-8, 8, CLASSES) / 64
    return state


def batches_of(stem):
    """Images [step, batch, h, w, c] and labels."""
    rng = np.random.default_rng(7)
    side = STEMS[stem]
    images = rng.integers(-(2**6), 2**6, (STEPS, BATCH, side, side, 3)) / 2**5
    labels = rng.integers(0, CLASSES, (STEPS, BATCH))
    return images + labels[..., None, None, None] / 2 - 2.0, labels


def train(stem, dtype):
    import torch
    from torch import nn
    from torch.nn import functional

    def block(x, p, name, stride):
        def conv_norm(x, conv, norm, stride, size):
            x = functional.conv2d(x, p[f"{name}.{conv}.weight"], stride=stride, padding=size // 2)
            return functional.batch_norm(
                x, None, None, p[f"{name}.{norm}.weight"], p[f"{name}.{norm}.bias"], training=True, eps=1e-5
            )

        y = functional.relu(conv_norm(x, "conv1", "bn1", stride, 3))
        y = conv_norm(y, "conv2", "bn2", 1, 3)
        if f"{name}.downsample.0.weight" in p:
            x = conv_norm(x, "downsample.0", "downsample.1", stride, 1)
        return functional.relu(x + y)

    def logits(x, p):
        wide = stem == "imagenet"
        x = functional.conv2d(x, p["conv1.weight"], stride=2 if wide else 1, padding=3 if wide else 1)
        x = functional.batch_norm(x, None, None, p["bn1.weight"], p["bn1.bias"], training=True, eps=1e-5)
        x = functional.relu(x)
        if wide:
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(4):
            for number in range(2):
                x = block(x, p, f"layer{stage + 1}.{number}", 2 if stage and not number else 1)
        return functional.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])

    params = {
        name: nn.Parameter(torch.tensor(value, dtype=dtype))
        for name, value in state_of(stem).items()
        if "running" not in name
    }
    groups = [
        {"params": [p for p in params.values() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in params.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    rate = RATES[str(dtype).removeprefix("torch.")]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
    losses = []
    for images, labels in zip(*batches_of(stem)):
        x = torch.tensor(images, dtype=dtype).permute(0, 3, 1, 2).contiguous()
        loss = functional.cross_entropy(logits(x, params), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def main():
    import torch

    found = {}
    for stem in STEMS:
        for name in ("float32", "float64"):
            found[f"{stem}_{name}"] = train(stem, getattr(torch, name))
    np.savez(pathlib.Path(__file__).parent / "torch_training.npz", version=torch.__version__, **found)


if __name__ == "__main__":
    main()
