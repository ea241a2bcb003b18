"""Symmetry by duality: correlators of random networks, and what breaking their symmetry does (arXiv 2106.00694).

    python runs/train.py --config=configs/duality.py --workdir=/tmp/duality                  # two minutes
    python runs/train.py --config=configs/duality.py:hot --workdir=/tmp/duality_hot          # ten minutes

Words: `correlators` (the default), `hot` or `cold` (Fashion-MNIST, read by TFDS: `pip install 'sbjax[tfds]'`; with
one-hot or one-cold targets, five epochs, ten seeds), and smoke.
"""

from sbjax import config as config_lib

WIDTHS, MEANS = (1, 2, 8, 50), (0.0, 0.3)
PLACES = tuple((shifted, mean) for shifted in (5, 10) for mean in (0.05, 0.1, 0.2))
EPOCH = 54_000 // 64


def get_config(argument=None):
    """The configuration; 'correlators' by default."""
    words = config_lib.parse_words(argument, {"part": ("correlators", "hot", "cold")})
    config = config_lib.base_config("exact", "duality")
    if words["part"] == "correlators":
        arms = {
            f"n{width:02}_{'mean' if mean else 'zero'}": {
                "role": "control of the mean" if mean else "treatment",
                "labels": {"treatment": f"n{width:02}_zero"} if mean else {},
                "task": {"width": width, "mean": mean, "shifted": 2 if mean else 0},
            }
            for width in WIDTHS
            for mean in MEANS
        }
        config.replicas, config.train_steps = 5, 1
        config.precision.x64 = True
    else:
        config.task.part, config.task.target = "training", words["part"]
        arms = {"zero": {"role": "reference"}}
        for shifted, mean in PLACES:
            arms[f"k{shifted:02}_{_name(mean)}"] = {"role": "treatment", "task": {"shifted": shifted, "mean": mean}}
        for direction, role in (("outputs", "control of the direction"), ("entries", "control of the norm")):
            for mean in (0.1, 0.2):
                task = {"shifted": 10, "mean": mean, "direction": direction}
                arms[f"{direction}_{_name(mean)}"] = {
                    "role": role,
                    "labels": {"treatment": f"k10_{_name(mean)}"},
                    "task": task,
                }
        for name, rate in (("slow", 3e-4), ("fast", 3e-3)):
            arms[f"zero_{name}"] = {"role": "treatment", "task": {"learning_rate": rate}}
            task = {"shifted": 10, "mean": 0.2, "learning_rate": rate}
            arms[f"k10_m20_{name}"] = {"role": "treatment", "task": task}
        config.replicas, config.train_steps = 10, 5 * EPOCH
    for order, arm in enumerate(arms.values()):
        arm["order"] = order
    if words["smoke"]:
        config = config_lib.shrink(config)
        arms = dict(list(arms.items())[:3])
        if words["part"] == "correlators":
            config.task.networks, config.task.rotations = 1000, 3
        else:
            config.task.dataset = "digits"
    config.arms = arms
    first = next(iter(arms))
    arms[first]["role"], config.reference = "reference", first
    config.arms = arms
    config.monitor.kinds = ""
    return config


def _name(mean):
    return f"m{round(100 * mean):02}"
