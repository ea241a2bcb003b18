"""Handwritten digits: raw against expanded input, with a control for resolution.

    python runs/train.py --config=configs/quickstart.py --workdir=/tmp/quickstart

Hardware: 2 x86-64 cores, 1.0 GiB. Time: 1.5 minutes. What came out: docs/results/quickstart.md.
"""

from sbjax import config as config_lib


def get_config(argument=None):
    """The configuration; the word `smoke` shrinks it to seconds."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config()
    config.train_epochs = 30.0
    config.reports = 15
    config.task.dataset = "digits"
    config.task.batch_size = 64
    config.model = {"name": "cnn", "norm": "batch", "dropout": 0.0, "activation": "relu", "dtype": "float32"}
    config.arms = {
        "raw": {"order": 0, "role": "reference"},
        "expanded": {
            "order": 1,
            "role": "treatment",
            "labels": {
                "about": "a grid twice as fine, new pixels of a constant 0.5",
                "claim": "networks with expanded images are more accurate, such as 94 % on CIFAR-10 with ResNet-18 "
                "(arXiv 2409.06402)",
            },
            "expansion": {"kind": "image", "factor": 2, "fill": "0.5", "offset": 0, "order": "before"},
        },
        "nearest": {
            "order": 2,
            "role": "control of resolution",
            "labels": {"treatment": "expanded", "about": "as many pixels, copies of their neighbours"},
            "expansion": {"kind": "image", "factor": 2, "fill": "nearest"},
        },
    }
    return config_lib.shrink(config) if words["smoke"] else config
