"""Neuron identifiability: which neurons of an asymmetric network can be told apart, and does that predict its barrier?

    python runs/train.py --config=configs/identifiability.py:drops --workdir=/tmp/drops       # hours of a CPU
    python runs/train.py --config=configs/identifiability.py:drops,quick --workdir=/tmp/drops
    python runs/train.py --config=configs/identifiability.py:scatter --workdir=/tmp/scatter
    python runs/train.py --config=configs/identifiability.py:scatter,smoke --workdir=/tmp/smoke

Words: drops, Gaussian classes on subspaces of k = 2, 8, 32 of 512 dimensions, a standard and a W-asymmetric MLP on each
(512-512-512-512-20, layer norm, gelu, 64 frozen entries a row and 256 in the output, kappa 1; AdamW 1e-3, decay 0.01,
batch 128, 50,000 examples, 100 epochs, 10 replicas: as published, of which the epochs are those of its other runs), and
its controls: frozen zeros, and a standard network from its effective start; scatter, the embedded digits as vectors, W
masks over kappa and frozen entries, inputs turned to three coherences, and the other kinds of asymmetry; quick (drops:
10,000 examples, 10 epochs, widths of 256, 5 replicas; scatter: 5 replicas, without matching); smoke (three or four
arms).

Published: at k = 2, 8, 32 the accuracy of the W-asymmetric network drops by 46.4, 15.7 and 6.1 points in the middle of
the line (arXiv 2606.04754, sigma_F = 1).

What came out: docs/results/identifiability.md. How to: docs/how_to/asymmetric.md.
"""

from sbjax import config as config_lib

DIMENSIONS = (2, 8, 32)
KAPPAS = (0.0, 0.1, 0.3, 1.0, 3.0)
FROZEN = (4, 16)  # of the 64 inputs
COHERENCES = (0.4, 1.0)
CLAIM = "the accuracy drops by {} points in the middle (arXiv 2606.04754)"
SMOKE = {"drops": ("standard_k2", "w_k2", "w_k8"), "scatter": ("standard", "w_16_kappa_1", "syre", "from_w")}
DROPS = {2: 46.4, 8: 15.7, 32: 6.1}
CONTROLS = {
    "kappa_0": ("sparsity", "frozen entries of 0", {"kappa_factor": 0.0}),
    "from_w": ("the start", "a standard network from the effective start of w", {"start_only": True}),
}


def get_config(argument=None):
    """The configuration for words such as 'scatter,quick'; 'drops' by default."""
    words = config_lib.parse_words(argument, {"what": ("drops", "scatter")}, flags=("quick", "smoke"))
    what, quick = words["what"], words["quick"]
    config = config_lib.base_config()
    config.monitor.kinds = ""
    config.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.01, schedule="constant", warmup_share=0.0)
    config.reports, config.checkpoint.saves, config.replicas = 2, 1, 5 if quick else 10
    config.interpolation.update(between="pairs", points=25 if not quick else 11, pairs=10, identifiability=True)
    arms = (drops if what == "drops" else scatter)(config, quick)
    if words["smoke"]:
        arms = {name: arms[name] for name in SMOKE[what]}
    for order, arm in enumerate(arms.values()):
        arm |= {"order": order, "role": arm.get("role", "treatment" if order else "reference")}
    config.reference, config.arms = next(iter(arms)), arms
    return config_lib.shrink(config) if words["smoke"] else config


def drops(config, quick):
    """Arms: a standard and a W-asymmetric network at every dimension, and two controls of the latter."""
    width = 256 if quick else 512
    config.task = {"kind": "identifiability", "dataset": "gaussian", "batch_size": 128}
    config.task.examples, config.train_epochs = (10_000, 10.0) if quick else (50_000, 100.0)
    config.model = {"name": "mlp", "widths": (width,) * 3, "norm": "layer", "activation": "gelu"}
    counts = (64, *(width // 8,) * 2, width // 2)
    masks = {f"dense_{i}/kernel": {"n_fix": n_fix, "kappa": 1.0} for i, n_fix in enumerate(counts)}
    arms = {}
    for k in DIMENSIONS:
        arms[f"standard_k{k}"] = {"task": {"dimension": k}, "labels": {"k": k, "kind": "standard"}}
        labels = {"k": k, "kind": "w", "claim": CLAIM.format(DROPS[k])}
        arms[f"w_k{k}"] = {"task": {"dimension": k}, "model": {"asymmetry": w(masks)}, "labels": labels}
        for name, (explanation, about, change) in CONTROLS.items():
            arms[f"{name}_k{k}"] = {"role": f"control of {explanation}", "task": {"dimension": k}}
            arms[f"{name}_k{k}"] |= {"model": {"asymmetry": w(masks) | change}}
            arms[f"{name}_k{k}"]["labels"] = {"k": k, "kind": name, "treatment": f"w_k{k}", "about": about}
    return arms


def scatter(config, quick):
    """Arms: kappa, masks and coherence, and the other kinds."""
    config.task = {"kind": "identifiability", "dataset": "digits", "batch_size": 32}
    config.train_epochs = 15.0
    config.interpolation.rebase = not quick
    config.model = {"name": "mlp", "widths": (64, 64), "norm": "layer", "activation": "gelu"}
    arms = {"standard": {}}
    for n_fix in FROZEN:
        for kappa in KAPPAS:
            arms[f"w_{n_fix}_kappa_{word(kappa)}"] = {"model": {"asymmetry": w(alike(n_fix, kappa))}}
    for coherence in COHERENCES:
        turned = {"task": {"coherence": coherence}}
        for kappa in (0.0, 1.0):
            arms[f"w_16_kappa_{word(kappa)}_nu_{word(coherence)}"] = turned | {
                "model": {"asymmetry": w(alike(16, kappa))}
            }
    for sigma0 in (None, 0.1, 1.0):
        section = {"kind": "syre"} | ({"sigma0": sigma0, "where": ("*kernel",)} if sigma0 else {})
        arms["syre" if sigma0 is None else f"syre_{word(sigma0)}"] = {"model": {"asymmetry": section}}
    arms["sigma"] = {"model": {"asymmetry": {"kind": "sigma", "gate_scale": 1.0}}}
    arms["fixed_bias"] = {"model": {"asymmetry": {"kind": "fixed_bias", "bias_bound": 1.0}}}
    about = "a standard network from the effective start of w_16_kappa_1"
    arms["from_w"] = {"role": "control of the start", "labels": {"treatment": "w_16_kappa_1", "about": about}}
    arms["from_w"]["model"] = {"asymmetry": w(alike(16, 1.0)) | {"start_only": True}}
    return arms


def alike(n_fix, kappa):
    """The same masks in both hidden layers; the output is not masked."""
    return {f"dense_{i}/kernel": {"n_fix": n_fix, "kappa": kappa} for i in range(2)}


def word(number):
    """A number in the name of an arm, which has no dots."""
    return f"{number:g}".replace(".", "_")


def w(masks):
    """A W-asymmetric network."""
    return {"kind": "w", "masks": masks}
