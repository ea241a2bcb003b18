# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Six designs, ranked by replica distance
#
# Networks of Flax Linen, Flax NNX, Equinox and of a file with PyTorch's names learn the bundled digits, five copies
# each, in one plain optax loop. `sbjax` measures the copies as they are. **A smaller distance means that more symmetry
# is broken**; what a ranking by it may and may not say is the last section. Runs in under a minute on a CPU.

# %%
import importlib.util
import pathlib
import subprocess
import sys

if (
    importlib.util.find_spec("sbjax") is None
):  # in Colab: upload a wheel, or the folder of the sources, beside this page
    found = [*pathlib.Path().glob("sbjax-*.whl"), *(file.parent for file in pathlib.Path().glob("*/setup.cfg"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", str(found[0].resolve())], check=True)

# %%
import itertools
import pathlib
import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy
from flax import linen, nnx
from safetensors.numpy import save_file

from sbjax import ImageExpansion, marginal_distance, neuron_cloud_distance, unmatched_distance, with_expansion
from sbjax.data import images
from sbjax.training.params_files import read_params

jax.config.update("jax_default_matmul_precision", "highest")  # accelerators round products otherwise

# %% [markdown]
# ## 1. One loop for all
#
# A design is two functions: `init(key)` gives weights and what else a network carries (running statistics, else
# nothing), and `forward(weights, rest, x, training)` gives logits and the rest after them. Every copy has its own
# initialisation and its own batches.

# %%
COPIES, STEPS, BATCH, RATE = 5, 200, 128, 1e-2
data = images.load("digits")


def scaled(pixels):
    return jnp.asarray(pixels / 255, jnp.float32)


x, y = scaled(data.train_images), jnp.asarray(data.train_labels)
test_x, test_y = scaled(data.test_images), jnp.asarray(data.test_labels)
optimizer = optax.adam(RATE)


def train(init, forward):
    """Weights and rest of every copy, and its test accuracy in percent."""

    def loss(weights, rest, rows):
        logits, rest = forward(weights, rest, x[rows], True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean(), rest

    @jax.jit
    def step(weights, rest, state, rows):
        grads, rest = jax.grad(loss, has_aux=True)(weights, rest, rows)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(weights, updates), rest, state

    @jax.jit
    def accuracy(weights, rest):
        logits, _ = forward(weights, rest, test_x, False)
        return 100 * jnp.mean(logits.argmax(-1) == test_y)

    copies = []
    for key in jax.random.split(jax.random.key(0), COPIES):
        init_key, batch_key = jax.random.split(key)
        weights, rest = init(init_key)
        state = optimizer.init(weights)
        for rows in np.asarray(jax.random.randint(batch_key, (STEPS, BATCH), 0, len(x))):
            weights, rest, state = step(weights, rest, state, rows)
        copies.append((weights, rest))
    return copies, [accuracy(*copy).item() for copy in copies]


designs, percent = {}, {}

# %% [markdown]
# ## 2. Six designs
#
# **Flax Linen**: an MLP with layer norm, and a small CNN, once on the digits and once on digits that are expanded by a
# constant 0.5 between their pixels.


# %%
class LinenMLP(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for width in (32, 32):
            x = linen.relu(linen.LayerNorm()(linen.Dense(width)(x)))
        return linen.Dense(10)(x)


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(8, (5, 5))(x))
        x = linen.relu(linen.Conv(16, (5, 5), strides=2)(x))
        return linen.Dense(10)(x.max((1, 2)))


def linen_design(init, apply):
    return lambda key: (init(key, x[:1])["params"], {}), lambda weights, rest, x, _: (
        apply({"params": weights}, x),
        rest,
    )


mlp, cnn, between = LinenMLP(), LinenCNN(), ImageExpansion(factor=2, fill=0.5)
for name, init, apply in [
    ("Linen MLP, layer norm", mlp.init, mlp.apply),
    ("Linen CNN", cnn.init, cnn.apply),
    ("Linen CNN, expanded", with_expansion(cnn.init, between), with_expansion(cnn.apply, between)),
]:
    copies, percent[name] = train(*linen_design(init, apply))
    designs[name] = [weights for weights, _ in copies]

# %% [markdown]
# **Flax NNX**: a CNN with batch norm. A whole module is a replica; its running statistics are no weights, and are not
# counted.


# %%
class NNXCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.fc = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x, training):
        x = nnx.relu(self.bn1(self.conv1(x), use_running_average=not training))
        x = nnx.relu(self.bn2(self.conv2(x), use_running_average=not training))
        return self.fc(x.mean((1, 2)))


graph = nnx.graphdef(NNXCNN(nnx.Rngs(0)))


def nnx_init(key):
    return nnx.state(NNXCNN(nnx.Rngs(key)), nnx.Param, nnx.BatchStat)


def nnx_forward(weights, rest, x, training):
    model = nnx.merge(graph, weights, rest, copy=True)  # forward changes the copy
    return model(x, training), nnx.state(model, nnx.BatchStat)


copies, percent["NNX CNN, batch norm"] = train(nnx_init, nnx_forward)
designs["NNX CNN, batch norm"] = [nnx.merge(graph, *copy) for copy in copies]

# %% [markdown]
# **Equinox**: an MLP. Its kernels count neurons in their first axis.

# %%
shape = eqx.nn.MLP(64, 10, width_size=32, depth=2, key=jax.random.key(0))
_, static = eqx.partition(shape, eqx.is_inexact_array)


def eqx_init(key):
    model = eqx.nn.MLP(64, 10, width_size=32, depth=2, key=key)
    return eqx.filter(model, eqx.is_inexact_array), {}


def eqx_forward(weights, rest, x, _):
    return jax.vmap(eqx.combine(weights, static))(x.reshape(len(x), -1)), rest


copies, percent["Equinox MLP"] = train(eqx_init, eqx_forward)
designs["Equinox MLP"] = [eqx.combine(weights, static) for weights, _ in copies]

# %% [markdown]
# **PyTorch's names**: a flat dict as `state_dict()` gives it, with kernels [out, in, height, width], in files that
# another program could have written. Here JAX trains it. It is the same network as the NNX one, drawn from the same
# distribution with other random numbers: a yardstick of what chance alone does to a ranking. `read_params` leaves out
# running statistics and counters, and says so.


# %%
def torch_init(key):
    keys = jax.random.split(jax.random.fold_in(key, 1), 3)
    draw = jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0)
    weights = {"conv1.weight": draw(keys[0], (8, 1, 3, 3)), "conv2.weight": draw(keys[1], (16, 8, 3, 3))}
    weights |= {"fc.weight": draw(keys[2], (10, 16)), "fc.bias": jnp.zeros(10)}
    rest = {}
    for name, width in (("bn1", 8), ("bn2", 16)):
        weights |= {f"{name}.weight": jnp.ones(width), f"{name}.bias": jnp.zeros(width)}
        rest |= {f"{name}.running_mean": jnp.zeros(width), f"{name}.running_var": jnp.ones(width)}
        rest[f"{name}.num_batches_tracked"] = jnp.int32(0)
    return weights, rest


def torch_forward(weights, rest, x, training):
    after = dict(rest)

    def batch_norm(name, x):
        mean, var = rest[f"{name}.running_mean"], rest[f"{name}.running_var"]
        if training:
            batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            after[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch_mean
            after[f"{name}.running_var"] = 0.9 * var + 0.1 * batch_var
            after[f"{name}.num_batches_tracked"] += 1
            mean, var = batch_mean, batch_var
        factor = weights[f"{name}.weight"] * jax.lax.rsqrt(var + 1e-5)
        return (x - mean[:, None, None]) * factor[:, None, None] + weights[f"{name}.bias"][:, None, None]

    x = x.transpose(0, 3, 1, 2)
    for layer, stride in ((1, 1), (2, 2)):
        x = jax.lax.conv_general_dilated(x, weights[f"conv{layer}.weight"], (stride, stride), "SAME")
        x = jax.nn.relu(batch_norm(f"bn{layer}", x))
    return x.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"], after


copies, percent["torch names, batch norm"] = train(torch_init, torch_forward)
with tempfile.TemporaryDirectory() as folder:
    for r, (weights, rest) in enumerate(copies):
        save_file({name: np.asarray(leaf) for name, leaf in (weights | rest).items()}, f"{folder}/copy_{r}.safetensors")
    loaded = [read_params(path) for path in sorted(pathlib.Path(folder).glob("*.safetensors"))]
designs["torch names, batch norm"] = [one.params for one in loaded]
print("left out of every file:")
for name, why in sorted(loaded[0].left_out.items()):
    print(f"  {name:24} {why}")

# %% [markdown]
# The same from a shell: `python runs/measure.py --params=a.safetensors,b.safetensors,.. --neuron_axis=0`.

# %% [markdown]
# ## 3. Three distances and their nulls
#
# Each takes the list of copies as it is. D0 compares entry by entry, D1 sorted entries, D2 neurons in any order.
# Scale-free: every layer is divided by its standard deviation. Each has its null, 95 % intervals are a bootstrap over
# copies. The *null* is the distance between independent normal draws of the same shapes, means and scales.

# %%
FIRST_AXIS = ("Equinox MLP", "torch names, batch norm")  # kernels [out, in, ..]


def distances(name, copies):
    key = jax.random.key(1)
    return {
        "D0": unmatched_distance(copies, key=key).scale_free.total,
        "D1": marginal_distance(copies, key=key).scale_free.total,
        "D2": neuron_cloud_distance(copies, neuron_axis=0 if name in FIRST_AXIS else -1, key=key).scale_free.total,
    }


measured = {name: distances(name, copies) for name, copies in designs.items()}


def share(total):
    """Excess in percent of the null, with the ends of its interval."""
    return 100 * np.array(total.excess) / total.null.value


for kind in ("D0", "D1", "D2"):
    print(f"{kind}, smaller first    accuracy   distance                  null     excess, % of null")
    for name in sorted(designs, key=lambda name: share(measured[name][kind])[0]):
        total, (middle, low, high) = measured[name][kind], share(measured[name][kind])
        distance, low_end, high_end = total.distance
        print(
            f"{name:24} {np.mean(percent[name]):5.1f} %   {distance:.3f} [{low_end:.3f}, {high_end:.3f}]   "
            f"{total.null.value:.3f}   {middle:+6.1f} [{low:+6.1f}, {high:+6.1f}]"
        )
    print()

# %% [markdown]
# The null differs from design to design, most of all for D1, which falls with the size of a layer. So the order above
# is that of the excess, in percent of the null: below zero, copies are more alike than independent draws. The
# null is drawn once, and what that leaves open is part of the interval of the excess.

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
for panel, kind in zip(panels, ("D0", "D1", "D2")):
    for name, marker in zip(designs, "os^Dvp"):
        middle, low, high = share(measured[name][kind])
        accuracies = np.array(percent[name])
        mean = accuracies.mean()
        panel.errorbar(
            middle,
            mean,
            xerr=[[middle - low], [high - middle]],
            yerr=[[mean - accuracies.min()], [accuracies.max() - mean]],
            fmt=marker,
            capsize=3,
            label=name,
        )
    panel.axvline(0, color="grey", lw=1, ls=":")
    panel.set(title=kind, xlabel="excess, % of null")
panels[0].set_ylabel("test accuracy, %")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
plt.show()

# %% [markdown]
# ## 4. What may be read off this
#
# How many pairs of designs does a distance tell apart, how far are the two that are the same network, and does the
# order go with accuracy? The p-value is exact, over all 720 orders of six designs, two-sided.

# %%
twins = ("NNX CNN, batch norm", "torch names, batch norm")
pairs = list(itertools.combinations(range(len(designs)), 2))
orders = np.array(list(itertools.permutations(range(len(designs)))))
ranks = scipy.stats.rankdata([np.mean(percent[name]) for name in designs])

print("     pairs apart   away from the null   twins differ by   rank correlation with accuracy")
for kind in ("D0", "D1", "D2"):
    middle, low, high = np.array([share(measured[name][kind]) for name in designs]).T
    apart = sum(high[i] < low[j] or high[j] < low[i] for i, j in pairs)
    away = np.sum((low > 0) | (high < 0))
    between = abs(np.subtract(*(share(measured[name][kind])[0] for name in twins)))
    placed = scipy.stats.rankdata(middle)
    every = [np.corrcoef(placed[order], ranks)[0, 1] for order in orders]
    rho = every[0]
    p = np.mean(np.abs(every) >= abs(rho) - 1e-9)
    print(f"{kind} {apart:8} of {len(pairs)} {away:15} of {len(designs)} {between:14.1f} % {rho:15.2f}, p = {p:.2f}")

# %% [markdown]
# **May be read:**
#
# - An excess whose interval lies below zero: these copies are more alike than independent draws of the same shapes,
#   means and scales. Smaller = more symmetry is broken, in that design, by that distance.
# - Two designs whose intervals of the excess have no point in common differ, as far as five copies can tell.
#
# **May not be read:**
#
# - An order within intervals that overlap. The twins are one network, and yet they have two places in every table.
# - Distances without their nulls: arrays of other sizes are at other distances by size alone.
# - D0 as a ranking where all of it is at its null: the order of hidden units is free in every design, and entry by
#   entry independent copies are as far apart as independent draws.
# - A distance as a figure of merit. It says how alike copies are, not how good; a network that has learned nothing is
#   still where it was drawn. So accuracy stands beside it.
# - A correlation from six points: at 5 % it takes a rank correlation of 0.886 or more, and here three were looked at.
# - More than the numbers bear: five copies, 200 steps, one data set. Intervals of 95 % from five copies hold the true
#   value in about 89 % of cases, and 15 pairs times three distances are many comparisons.
#
# For an answer, take ten copies or more, a full training, and decide on the distance and the pairs beforehand:
# `runs/measure.py --config=configs/designs.py:digits,brief --against=..` compares a brief ranking with full runs.
