"""Variational networks, asymmetric or not: do they train, and are their probabilities calibrated?

    python runs/train.py --config=configs/bayes.py:mlp16 --workdir=/tmp/bayes               # the published recipe: days
    python runs/train.py --config=configs/bayes.py:mlp16,quick --workdir=/tmp/bayes_quick
    python runs/train.py --config=configs/bayes.py:resnet20,batch --workdir=/tmp/bayes_resnet
    python runs/train.py --config=configs/bayes.py:mlp8,digits,smoke --workdir=/tmp/smoke

Words: mlp8, mlp16 (so many hidden layers of 256, relu; Adam 5e-4, prior precision 0.01, log-variance -10), resnet20,
resnet110 (Adam 1e-3, prior precision 1, log-variance -12); cifar10, fashion_mnist, mnist, digits; layer, batch, the
normalisation of all arms; quick (mlp: pictures of 16 pixels, batch 100, 5 seeds, little of the test split); smoke.
As published: rank 4, batch 250, 10,000 steps, 10 seeds, 25 draws in evaluation, crops, and for CIFAR mirror images.

Arms: `standard`; `w`, W-asymmetric with kappa 0.5; and its controls: `kappa_0`, frozen zeros; `from_w`, a standard
network from w's effective start; `less_noise`, a standard network whose noise is scaled to the share of weights that w
trains; `w_kl_1`, the divergence weighed against as many examples as there are, and not 8 (mnist: 4) times as many.

Source: Lim et al., arXiv 2405.20231, section 4.2; Tomczak et al., NeurIPS 2020. What differs: 45,000 training images,
for 5,000 are for validation (published: 50,000); crops with zeros around the image (published: reflected). The released
program compares batch norm (standard) with layer norm (W) for ResNets; here both have the one that is asked for.
"""

from sbjax import config as config_lib

MLP_MASKS = {"kind": "w", "masks": {"dense_*/kernel": {"n_fix": 8, "kappa": 0.5}}}
RESNET_MASKS = {"kind": "w", "preset": "resnet20", "kappa_factor": 0.25}  # kappa is 2 there, and 0.5 here
PUBLISHED = {
    "mlp8": "56.4 % of CIFAR-10 (standard) and 57.1 % (W) are classified rightly (arXiv 2405.20231, table 4)",
    "mlp16": "13.5 % of CIFAR-10 (standard) and 55.2 % (W) are classified rightly (arXiv 2405.20231, table 4)",
    "resnet20": "82.0 % of CIFAR-10 (standard) and 81.9 % (W) are classified rightly (arXiv 2405.20231, table 4)",
    "resnet110": "75.7 % of CIFAR-10 (standard) and 77.4 % (W) are classified rightly (arXiv 2405.20231, table 4)",
}


def get_config(argument=None):
    """The configuration for words such as 'mlp16,quick'; 'mlp8,cifar10,layer' by default."""
    words = config_lib.parse_words(
        argument,
        {
            "model": ("mlp8", "mlp16", "resnet20", "resnet110"),
            "dataset": ("cifar10", "fashion_mnist", "mnist", "digits"),
            "norm": ("layer", "batch"),
        },
        flags=("quick", "smoke"),
    )
    name, data, is_mlp = words["model"], words["dataset"], words["model"].startswith("mlp")
    config = config_lib.base_config("bayes")
    config.reference = "standard"
    config.model = {"name": name, "norm": words["norm"], "activation": "relu", "dropout": 0.0}
    if is_mlp:
        config.model = {**config.model, "name": "mlp", "widths": (256,) * int(name[3:])}
    config.task.update(dataset=data, batch_size=250, crop_padding=4, flip=data == "cifar10", samples=25)
    config.task.update(multiplier=8.0 if data == "cifar10" else 4.0)
    if is_mlp:
        config.task.update(start="uniform", log_variance=-10.0, prior_precision=0.01)
    else:
        config.task.update(start="normal", log_variance=-12.0, prior_precision=1.0)
    config.optimizer.update(name="adam", learning_rate=5e-4 if is_mlp else 1e-3, schedule="constant", weight_decay=0.0)
    config.optimizer.warmup_share = 0.0
    config.replicas, config.train_steps, config.reports = 10, 10_000, 2
    config.monitor.kinds = ""
    config.calibration.bins = 15
    if data == "digits":
        config.task.update(crop_padding=0, multiplier=1.0, batch_size=100)
    if words["quick"]:
        config.task.update(batch_size=100, eval_share=0.2, samples=10)
        if data == "cifar10":
            config.task.update(image_size=16, crop_padding=2)
        config.replicas, config.train_steps, config.reports = 5, 2000, 2
    masks = MLP_MASKS if is_mlp else RESNET_MASKS
    arms = {
        "standard": {},
        "w": {"model": {"asymmetry": masks}},
        "kappa_0": {"model": {"asymmetry": {**masks, "kappa_factor": 0.0}}},
        "from_w": {"model": {"asymmetry": {**masks, "start_only": True}}},
        "less_noise": {"task": {"noise_of": masks}},
        "w_kl_1": {"model": {"asymmetry": masks}, "task": {"multiplier": 1.0}},
    }
    if config.task.multiplier == 1:
        arms["w_kl_1"]["task"]["multiplier"] = 1 / 8
    about = {
        "kappa_0": ("sparsity", "frozen entries of 0"),
        "from_w": ("the start", "a standard network from w's effective start"),
        "less_noise": ("less noise", "a standard network whose covariances are scaled to the share that w trains"),
        "w_kl_1": ("a cold posterior", "the divergence weighed against each example once"),
    }
    for order, (arm, own) in enumerate(arms.items()):
        own |= {"order": order, "role": "treatment" if order else "reference"}
        if arm == "w" and data == "cifar10":
            own["labels"] = {"claim": PUBLISHED[name]}
        if arm in about:
            explanation, said = about[arm]
            own |= {"role": f"control of {explanation}", "labels": {"treatment": "w", "about": said}}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config
