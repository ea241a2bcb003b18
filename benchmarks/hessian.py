"""Curvature against PyTorch: a dense Hessian, a spectral density, and students polished to a vanishing gradient.

    pip install -e '.[benchmarks]' && python benchmarks/hessian.py [hessian|density|students ..]

The dense Hessian is that of a 2-29-30-1 tanh network (1018 parameters) on the 41 x 41 grid in double precision, against
`torch.func.hessian`. The density is that of the small CNN on 2000 images in single precision, with as many products and
probes as the one of PyTorch: PyHessian's algorithm (one gradient graph on all images, every product a pass back through
it, full reorthogonalisation), whose own code calls `torch.eig`, which PyTorch no longer has. Contenders take turns; the
least of the turns counts, since what disturbs a turn only lengthens it. The students are 50 networks 2-5-1 with sigmoid
units that learn from four, in one program.
"""

import argparse
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from common import figure, least
from torch import nn

from sbjax.experiments.landscape.students import polish_students, train_adam, two_layer_problem
from sbjax.landscape.teacher_student import grid_inputs, init_students, two_layer, two_layer_teacher
from sbjax.metrics.curvature import hessian_product, in_batches
from sbjax.metrics.hessian import hessian, mlp_hessian
from sbjax.metrics.shares import share_below
from sbjax.metrics.spectrum import spectral_density
from sbjax.models import make_model

STEPS, IMAGES = 10, 2000


def dense_hessian() -> None:
    rng = np.random.default_rng(0)
    sizes = (2, 29, 30, 1)
    layers = [(rng.normal(size=io) / np.sqrt(io[0]), rng.normal(size=io[1])) for io in itertools.pairwise(sizes)]
    axis = np.linspace(-5, 5, 41)
    inputs = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    targets = np.sin(inputs[:, 0]) + inputs[:, 1]

    def squared(output, target):
        return (output[0] - target) ** 2

    def loss(layers):
        x = inputs
        for i, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            x = jnp.tanh(x) if i < len(layers) - 1 else x
        return jnp.mean((x[:, 0] - targets) ** 2)

    fast = jax.jit(lambda layers: mlp_hessian(layers, jnp.asarray(inputs), squared, jnp.asarray(targets)))
    general = jax.jit(lambda layers: hessian(loss, layers))
    flat = torch.cat([torch.tensor(part).ravel() for layer in layers for part in layer])
    x, y = torch.tensor(inputs), torch.tensor(targets)

    def torch_loss(w):
        out, start = x, 0
        for i, (kernel, bias) in enumerate(layers):
            k = w[start : start + kernel.size].reshape(kernel.shape)
            start += kernel.size
            out = out @ k + w[start : start + bias.size]
            start += bias.size
            out = torch.tanh(out) if i < len(layers) - 1 else out
        return ((out[:, 0] - y) ** 2).mean()

    theirs = torch.func.hessian(torch_loss)(flat).numpy()
    error = np.abs(np.asarray(fast(layers)) - theirs).max() / np.abs(theirs).max()
    seconds = least(
        {
            "mlp_hessian": lambda: jax.block_until_ready(fast(layers)),
            "hessian": lambda: jax.block_until_ready(general(layers)),
            "torch": lambda: torch.func.hessian(torch_loss)(flat),
        },
        rounds=3,
    )
    figure(
        "dense Hessian, 1018 parameters, 1681 points: mlp_hessian over torch.func.hessian",
        seconds["mlp_hessian"] / seconds["torch"],
        unit="ratio",
        bar=0.2,
        seconds=seconds["mlp_hessian"],
        seconds_of_any_loss=seconds["hessian"],
        torch_seconds=seconds["torch"],
        relative_error=error,
    )


def density() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(IMAGES, 28, 28, 1)).astype(np.float32)
    labels = rng.integers(0, 10, IMAGES)
    module = make_model("cnn", classes=10, norm="none")
    params = jax.jit(module.init)(jax.random.key(0), images[:1])["params"]
    n = sum(leaf.size for leaf in jax.tree.leaves(params))

    def loss(params, batch):
        logits = module.apply({"params": params}, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    with jax.enable_x64(False):
        batches = in_batches((jnp.asarray(images), jnp.asarray(labels, jnp.int32)), 100)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    layers, inputs = [], 1
    for outputs in (32, 64, 64):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():  # the same function
        for name, layer in zip(("conv_0", "conv_1", "conv_2"), [m for m in model if isinstance(m, nn.Conv2d)]):
            layer.weight.copy_(torch.tensor(np.asarray(params[name]["kernel"]).transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
        model[-1].weight.copy_(torch.tensor(np.asarray(params["head"]["kernel"]).T))
        model[-1].bias.copy_(torch.tensor(np.asarray(params["head"]["bias"])))
    x, y = torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels)
    probe = torch.sign(torch.randn(n, generator=torch.Generator().manual_seed(0)))
    nodes = {}

    def ours():
        with jax.enable_x64(False):
            product = hessian_product(loss, params, batches)
            nodes["ours"] = spectral_density(product, n, key=jax.random.key(0), steps=STEPS).nodes[0]

    contenders = {"ours": ours, "torch": lambda: nodes.update(torch=torch_density(model, x, y, probe))}
    seconds = least(contenders, rounds=2)
    figure(
        f"spectral density, small CNN, {IMAGES} images, {STEPS} steps, 1 probe: ours over PyTorch",
        seconds["ours"] / seconds["torch"],
        unit="ratio",
        bar=1.0,
        seconds=seconds["ours"],
        torch_seconds=seconds["torch"],
        top_node_gap=abs(nodes["ours"][-1] / nodes["torch"][-1] - 1),
    )


def torch_density(model, x, y, probe):
    """Nodes of one probe."""
    params = list(model.parameters())
    slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), params, create_graph=True)
    slope = torch.cat([part.ravel() for part in slopes])
    basis, diagonal, beside = [probe / probe.norm()], [], []
    for step in range(STEPS):
        image = torch.autograd.grad(slope, params, grad_outputs=basis[-1], retain_graph=True)
        image = torch.cat([part.ravel() for part in image])
        diagonal.append(float(image @ basis[-1]))
        every = torch.stack(basis)
        image = image - every.T @ (every @ image)
        image = image - every.T @ (every @ image)
        if step < STEPS - 1:
            beside.append(float(image.norm()))
            basis.append(image / image.norm())
    return np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))


def students() -> None:
    """As the experiment `configs/landscape.py:two_layer` trains its arm of width 5: Adam, then polished."""
    inputs = grid_inputs()
    targets = two_layer(two_layer_teacher(), inputs, "sigmoid")[:, 0]
    problem = two_layer_problem(inputs, targets, "sigmoid")
    began = time.perf_counter()
    starts = init_students(jax.random.key(0), 50, 5)
    found = polish_students(
        problem, train_adam(problem, starts, steps=20_000).params, steps=5000, newton_steps=2000, chunk=50
    )
    seconds = time.perf_counter() - began
    figure(
        "50 students 2-5-1 in one program: largest gradient entry",
        float(np.max(found.gradient)),
        unit="",
        bar=1e-12,
        share_below_bar=float(np.mean(np.asarray(found.gradient) < 1e-12)),
        share_at_zero_loss=share_below(found.loss, 1e-14).value,
    )
    figure("50 students 2-5-1 in one program: compilation and run", seconds, unit="s", bar=600)


PARTS = {"hessian": dense_hessian, "density": density, "students": students}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these")
    jax.config.update("jax_enable_x64", True)
    for name in parser.parse_args().parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
