"""Linear mode connectivity: are independently trained networks connected by a straight line once symmetry is removed?

    python runs/train.py --config=configs/lmc.py:mnist --workdir=/tmp/lmc               # the published recipe: hours
    python runs/train.py --config=configs/lmc.py:mnist,quick --workdir=/tmp/lmc
    python runs/train.py --config=configs/lmc.py:cifar10,quick --workdir=/tmp/lmc_resnet
    python runs/train.py --config=configs/lmc.py:digits,smoke --workdir=/tmp/smoke

Words: mnist (MLP 784-512-512-512-10, layer norm, gelu; AdamW 1e-3, decay 0.03, batch 64, 25 epochs; 20 replicas, 10
disjoint pairs), cifar10 (ResNet-20, layer norm; AdamW to 1e-2, batch 128, crop and flip, 100 epochs; 10 replicas),
digits (the MLP at width 128 on embedded images); quick (mnist: 3 epochs, 6 replicas; cifar10: 10 % of the data, 5
epochs, 4 replicas, 16 pixels, five arms, 5 % of the test images; digits: 6 replicas); smoke.

What came out, on 2 x86-64 cores in a quarter of an hour each: docs/results/lmc.md.

Arms: `standard`, and re-based, that is, with the second network's units matched to the first's; `w` (W-asymmetric, the
published masks) and its controls `kappa_0` (frozen zeros) and `from_w` (a standard network from `w`'s effective start);
`sigma` (FiGLU); `syre`; `fixed_bias`; `narrow`, a standard network with as many trainable parameters as `w`.

Source: Lim et al., arXiv 2405.20231, table 1. What differs: their decay acts on all parameters, ours on kernels; their
warm-up for ResNet-20 grows by 1.259 an epoch from 1e-4, ours linearly; their sigma-asymmetric ResNets go to 1e-3.
"""

from sbjax import config as config_lib

MLP = {"name": "mlp", "widths": (512, 512, 512), "norm": "layer", "activation": "gelu", "dropout": 0.0}
SMALL = {**MLP, "widths": (128, 128)}
RESNET = {"name": "resnet20", "width": 1.0, "norm": "layer", "activation": "relu", "dropout": 0.0}
SMALL_MASKS = {
    "dense_0/kernel": {"n_fix": 8, "kappa": 1.0},
    "dense_1/kernel": {"n_fix": 16, "kappa": 0.5},
    "dense_2/kernel": {"n_fix": 64, "kappa": 0.25},
}
W = {
    "mnist": {"kind": "w", "preset": "mlp_mnist"},
    "cifar10": {"kind": "w", "preset": "resnet20"},
    "digits": {"kind": "w", "masks": SMALL_MASKS},
}
# Standard networks with as many trainable parameters as `w`, to 1 %; ResNet-20, to 4 %.
NARROW = {"mnist": {"widths": (476, 476, 476)}, "cifar10": {"width": 0.9375}, "digits": {"widths": (116, 116)}}
GATE_SCALE = {"mnist": 1.0, "cifar10": None, "digits": 1.0}
# Of `w`: the explanation that each removes, and what it is.
CONTROLS = {
    "kappa_0": ("sparsity", "frozen entries of 0"),
    "from_w": ("the start", "a standard network from w's effective start"),
    "narrow": ("number of trainable parameters", "a standard network with as many as w"),
}
PUBLISHED = {
    "mnist": {"standard": (0.188, 0.12), "standard_rebased": (-0.006, 0.0), "sigma": (0.117, 0.01), "w": (-0.012, 0.0)},
    "cifar10": {
        "standard": (3.287, 0.32),
        "standard_rebased": (2.041, 0.21),
        "sigma": (2.521, 0.46),
        "w": (0.934, 0.72),
        "fixed_bias": (5.81, 3.67),
    },
    "digits": {},
}
CLAIMS = {
    "mnist": "the barrier of the test loss falls from 0.188 (standard) to -0.012 (W) (arXiv 2405.20231, table 1)",
    "cifar10": "the barrier of the test loss falls from 3.287 (standard) to 0.934 (W) (arXiv 2405.20231, table 1)",
    "digits": "",
}


def get_config(argument=None):
    """The configuration for words such as 'mnist,quick'; 'mnist' by default."""
    words = config_lib.parse_words(argument, {"dataset": ("mnist", "cifar10", "digits")}, flags=("quick", "smoke"))
    data, quick = words["dataset"], words["quick"]
    config = config_lib.base_config()
    config.reference = "standard"
    config.task.dataset = data
    config.model = {"mnist": MLP, "cifar10": RESNET, "digits": SMALL}[data]
    config.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.03, schedule="constant", warmup_share=0.0)
    config.task.batch_size = 64
    config.replicas, config.train_epochs, config.reports = 20, 25.0, 5
    config.checkpoint.saves = 2
    if data == "digits":
        config.task.batch_size, config.train_epochs = 32, 20.0
    if data == "cifar10":
        config.task.update(batch_size=128, crop_padding=4, flip=True)
        config.optimizer.update(learning_rate=1e-2, weight_decay=0.0, warmup_share=0.2)
        config.replicas, config.train_epochs = 10, 100.0
    if quick:
        config.replicas = 6
        if data == "mnist":
            config.train_epochs = 3.0
        if data == "cifar10":
            config.task.update(train_share=0.1, image_size=16, eval_share=0.05)
            config.replicas, config.train_epochs, config.interpolation.points = 4, 5.0, 11
    config.interpolation.update(between="pairs", rebase=True, published=PUBLISHED[data] if not quick else {})
    arms = {
        "standard": {},
        "w": asymmetric(W[data]),
        "sigma": asymmetric({"kind": "sigma"} | ({"gate_scale": GATE_SCALE[data]} if GATE_SCALE[data] else {})),
        "syre": asymmetric({"kind": "syre"}),
        "kappa_0": asymmetric(W[data] | {"kappa_factor": 0.0}),
        "fixed_bias": asymmetric({"kind": "fixed_bias", "bias_bound": 1.0}),
        "from_w": asymmetric(W[data] | {"start_only": True}),
        "narrow": {"model": NARROW[data]},
    }
    for order, (name, arm) in enumerate(arms.items()):
        arm |= {"order": order, "role": "treatment" if order else "reference"}
        if name == "w" and CLAIMS[data]:
            arm["labels"] = {"claim": CLAIMS[data]}
        if name in CONTROLS:
            explanation, about = CONTROLS[name]
            arm |= {"role": f"control of {explanation}", "labels": {"treatment": "w", "about": about}}
    if quick and data == "cifar10":
        arms = {name: arms[name] for name in ("standard", "w", "sigma", "kappa_0", "from_w")}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config


def asymmetric(section):
    """An arm whose network is asymmetric."""
    return {"model": {"asymmetry": section}}
