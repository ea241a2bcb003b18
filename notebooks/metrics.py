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
# # Replica distances of your own parameters
#
# How far apart do independently trained copies of a network end up? `sbjax.metrics` answers for any pytree of weights,
# whatever trained it. **A smaller distance means that more symmetry is broken.** Read it beside accuracy, for a network
# that learned nothing is very symmetric, and beside its null. Runs in under a minute on a CPU.

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
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from sbjax import trees
from sbjax.data import images
from sbjax.metrics.replica import (
    function_distance,
    marginal_distance,
    neuron_cloud_distance,
    null_replicas,
    replica_outputs,
    unmatched_distance,
)
from sbjax.metrics.wasserstein import pairwise_wasserstein, wasserstein

jax.config.update("jax_default_matmul_precision", "highest")  # accelerators round products otherwise

# %% [markdown]
# ## 1. Parameters from anywhere
#
# Eight copies of a small network learn the bundled digits in a plain optax loop, each from its own initialisation and
# with its own batches. Put your list of pytrees in the place of `replicas`, and your network in that of `apply`.

# %%
REPLICAS, STEPS, EARLY = 8, 1000, 20
LAYERS = {"hidden_0": (64, 64), "hidden_1": (64, 32), "head": (32, 10)}
data = images.load("digits")


def flat(pixels):
    return jnp.asarray(pixels.reshape(len(pixels), -1) / 255, jnp.float32)


x, y = flat(data.train_images), jnp.asarray(data.train_labels)
probe, test_x, test_y = flat(data.validation_images), flat(data.test_images), jnp.asarray(data.test_labels)


def init(key):
    def layer(key, d_in, d_out):
        return {"kernel": (2 / d_in) ** 0.5 * jax.random.normal(key, (d_in, d_out)), "bias": jnp.zeros(d_out)}

    return {name: layer(k, *shape) for k, (name, shape) in zip(jax.random.split(key, 3), LAYERS.items())}


def apply(params, x):
    for name in ("hidden_0", "hidden_1"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def loss(params, rows):
    return optax.softmax_cross_entropy_with_integer_labels(apply(params, x[rows]), y[rows]).mean()


optimizer = optax.adam(3e-3)


def step(carry, key):
    params, state = carry
    grads = jax.grad(loss)(params, jax.random.randint(key, (128,), 0, len(x)))
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), None


def train(key):
    """Parameters of one copy at the start, early and at the end."""
    init_key, batch_key = jax.random.split(key)
    keys = jax.random.split(batch_key, STEPS)
    start = init(init_key)
    early, _ = jax.lax.scan(step, (start, optimizer.init(start)), keys[:EARLY])
    end, _ = jax.lax.scan(step, early, keys[EARLY:])
    return start, early[0], end[0]


start, early, end = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), REPLICAS))
replicas = [trees.take(end, r) for r in range(REPLICAS)]
jax.tree.map(jnp.shape, replicas[0])

# %% [markdown]
# ## 2. Two trees, all pairs
#
# `wasserstein` compares the entries of two trees, leaf by leaf and pooled: on the line, $W_p$ is a comparison of sorted
# entries. It works under `jit`, `vmap` and `grad`, for leaves of any shape and size, and in units of one weight.

# %%
pair = wasserstein(replicas[0], replicas[1])
for name, distance in pair.leaves.items():
    print(f"{name:16} {distance:.4f}")
print(f"{'pooled':16} {pair.pooled:.4f}")

# %% [markdown]
# `trees.stack` makes one tree with the replica axis first, which is what all below takes; `where` chooses leaves.

# %%
stacked = trees.stack(replicas)
pairs = pairwise_wasserstein(stacked, where="*/kernel")

figure, panels = plt.subplots(1, len(pairs.leaves), figsize=(9, 3), layout="constrained")
for panel, name in zip(panels, LAYERS):
    matrix = np.where(np.eye(REPLICAS, dtype=bool), np.nan, pairs.leaves[f"{name}/kernel"])
    drawn = panel.imshow(matrix, vmin=0)
    panel.set(title=name, xlabel="replica", xticks=range(REPLICAS), yticks=range(REPLICAS))
    figure.colorbar(drawn, ax=panel)
panels[0].set_ylabel("replica")
figure.suptitle("$W_1$ between the kernels of replicas (units of one weight)", fontsize="medium")
plt.show()

# %% [markdown]
# ## 3. Four kinds of distance
#
# All are means over pairs of replicas with a 95 % bootstrap interval over replicas.
#
# - **D1, marginal**: between the sorted entries of each array.
# - **D2, neuron cloud**: between the neurons of each layer, in any order.
# - **D0, unmatched**: entry by entry.
# - **D4, function**: between outputs on a probe batch.
#
# The *null* is what independent draws of the same shapes, means and scales give; *excess* is distance minus null. The
# *raw* form is in units of one weight (output) and moves with the norm of the weights; the *scale-free* form divides
# each layer by its standard deviation.


# %%
def outputs(stacked):
    return replica_outputs(apply, stacked, probe)


def four_kinds(stacked, key=None):
    null = null_replicas(stacked, key=key)
    return {
        "D1 marginal": marginal_distance(stacked, key=key),
        "D2 neuron cloud": neuron_cloud_distance(stacked, key=key),
        "D0 unmatched": unmatched_distance(stacked, key=key),
        "D4 function": function_distance(outputs(stacked), None if null is None else outputs(null)),
    }


def accuracy(stacked):
    return 100 * np.mean(replica_outputs(apply, stacked, test_x).argmax(-1) == test_y, axis=1)


def estimate(value):
    return f"{value.value:7.4f} [{value.low:7.4f}, {value.high:7.4f}]"


def show(title, stacked):
    percent, kinds = accuracy(stacked), four_kinds(stacked, jax.random.key(1))
    print(
        f"{title}: median test accuracy {np.median(percent):.1f} %, from {percent.min():.1f} to {percent.max():.1f}\n"
    )
    print(f"{'':26} {'distance':>8} {'null':>26} {'excess':>7}")
    for kind, distance in kinds.items():
        for form in ("raw", "scale_free"):
            total = getattr(distance, form).total
            print(f"{kind:15} {form:10} {estimate(total.distance)} {total.null.value:8.4f} {estimate(total.excess)}")
    return kinds


final = show(f"step {STEPS}", stacked)

# %% [markdown]
# What each kind cannot see:
#
# - **D1**: any structure, for every permutation of the entries of an array is at distance zero.
# - **D2**: whether a permutation of neurons is the same where a layer is written and where the next one reads it.
# - **D0**: whether a difference is a symmetry or another function.
# - **D4**: anything outside the probe batch.
#
# D0, D1 and D2 also move when a ReLU layer is scaled and the next one scaled back, which leaves the function as it is.
# Each row below compares copy 0 with a copy of itself in which one thing is changed.

# %%
one, rng = replicas[0], np.random.default_rng(0)
first, second = one["hidden_0"], one["hidden_1"]
order = rng.permutation(LAYERS["hidden_0"][1])
written = {"kernel": first["kernel"][:, order], "bias": first["bias"][order]}
read = second | {"kernel": second["kernel"][order]}
tripled = {"kernel": 3 * first["kernel"], "bias": 3 * first["bias"]}
shuffled = first | {"kernel": rng.permutation(first["kernel"].ravel()).reshape(first["kernel"].shape)}
dark = np.flatnonzero(probe.max(0) == 0)  # pixels that are black in every probe image

changed = {
    "hidden units permuted": one | {"hidden_0": written, "hidden_1": read},
    "layer times 3, next over 3": one | {"hidden_0": tripled, "hidden_1": second | {"kernel": second["kernel"] / 3}},
    "permuted, next layer not": one | {"hidden_0": written},
    "kernel entries shuffled": one | {"hidden_0": shuffled},
    "weights of black pixels + 1": one | {"hidden_0": first | {"kernel": first["kernel"].at[dark].add(1)}},
}
seen = {
    what: {
        kind[:2]: distance.raw.total.distance.value for kind, distance in four_kinds(trees.stack([one, two])).items()
    }
    for what, two in {"another copy (1)": replicas[1], **changed}.items()
}
print(f"{'copy 0 and':27}" + "".join(f"{kind:>9}" for kind in ("D1", "D2", "D0", "D4")))
for what, row in seen.items():
    print(f"{what:27}" + "".join(f"{value:9.4f}" for value in row.values()))

# %%
zeros = {
    "hidden units permuted": {"D1", "D4"},
    "layer times 3, next over 3": {"D4"},
    "permuted, next layer not": {"D1", "D2"},
    "kernel entries shuffled": {"D1"},
    "weights of black pixels + 1": {"D4"},
}
for what, kinds in zeros.items():
    assert {kind for kind, value in seen[what].items() if value < 1e-4} == kinds, what

# %% [markdown]
# ## 4. Along training
#
# At the start the copies are independent draws, so that every excess is about zero; what training takes from it or adds
# to it is the reading. A distance that falls while accuracy rises says that the copies became alike; one that is small
# at chance accuracy says nothing.

# %%
at_start = show("start", start)

# %%
at_early = show(f"step {EARLY}", early)

# %%
titles = ["start", f"step {EARLY}", f"step {STEPS}"]
ticks = [f"{title}\n{np.median(accuracy(stage)):.0f} %" for title, stage in zip(titles, (start, early, end))]

figure, panels = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for panel, kind in zip(panels, final):
    totals = [kinds[kind].scale_free.total for kinds in (at_start, at_early, final)]
    for name, style in (("distance", "o-"), ("null", "s:")):
        middle, low, high = np.array([getattr(total, name) for total in totals]).T
        panel.errorbar(range(3), middle, (middle - low, high - middle), fmt=style, label=name, capsize=3)
    panel.set(title=kind, xlim=(-0.4, 2.4), ylim=(0, 1.1 * panel.get_ylim()[1]))
    panel.set_xticks(range(3), ticks)
panels[0].set_ylabel("scale-free distance")
panels[0].legend(loc="lower left")
figure.supxlabel("stage, and median test accuracy", fontsize="medium")
plt.show()

# %% [markdown]
# Here the weights end as far apart as independent draws, or nearly so, while the outputs draw together.

# %% [markdown]
# ## 5. numpy, files, other frameworks
#
# Trees of numpy arrays do as well, and so does a flat dict of names such as `hidden_0/kernel`, which is what an `.npz`
# file gives. For PyTorch take `{name.replace(".", "/"): tensor.numpy() for name, tensor in model.state_dict().items()}`
# and `neuron_cloud_distance(.., neuron_axis=0)`, for its kernels count neurons in the first axis.

# %%
with tempfile.TemporaryDirectory() as folder:
    for r, params in enumerate(replicas):
        np.savez(pathlib.Path(folder) / f"replica_{r}.npz", **trees.flatten(params))
    loaded = [dict(np.load(path)) for path in sorted(pathlib.Path(folder).glob("*.npz"))]

same = marginal_distance(trees.stack(loaded)).raw.total.distance
assert same == marginal_distance(stacked).raw.total.distance
print(f"{len(loaded)} files of {list(loaded[0])}\nD1 {estimate(same)}")
