"""Sharpness and symmetry-breaking distances along training, beside the replica distances (arXiv 2502.05300).

    python runs/train.py --config=configs/symmetry_along.py --workdir=/tmp/along
    python runs/train.py --config=configs/symmetry_along.py:decay --workdir=/tmp/along_decay

Handwritten digits. Words: `decay`, multi-layer perceptrons with weight decay, which is said to restore symmetries, from
none to strong; without it the arms of the quickstart, raw against expanded images with the control of resolution;
`smoke`. What came out of `decay`, in six minutes on two busy cores: docs/results/quickstart.md.
"""

from sbjax import config as config_lib

DECAYS = {"none": 0.0, "weak": 1e-4, "medium": 1e-3, "strong": 1e-2}


def get_config(argument=None):
    """The configuration; 'smoke' makes it small."""
    words = config_lib.parse_words(argument, {}, flags=("decay", "smoke"))
    config = config_lib.base_config()
    config.train_epochs = 15.0
    config.reports = 4
    config.task.dataset = "digits"
    config.task.batch_size = 64
    config.monitor.kinds = "unmatched,matched,sharpness,breaking"
    config.monitor.at = "start,10%,50%,end"
    config.monitor.batches, config.monitor.products = 2, 12
    if words["decay"]:
        config.train_epochs = 150.0
        config.model = {"name": "mlp", "widths": (64, 64), "norm": "none", "activation": "relu"}
        config.reference = "none"
        config.arms = {
            name: {
                "order": order,
                "role": "treatment" if order else "reference",
                "optimizer": {"weight_decay": decay},
            }
            for order, (name, decay) in enumerate(DECAYS.items())
        }
    else:
        config.train_epochs, config.monitor.batches = 8.0, 1
        config.monitor.at = "start,50%,end"
        config.model = {"name": "cnn", "channels": (8, 16, 16), "norm": "batch", "dropout": 0.0, "activation": "relu"}
        config.arms = {
            "raw": {"order": 0, "role": "reference"},
            "expanded": {
                "order": 1,
                "role": "treatment",
                "expansion": {"kind": "image", "factor": 2, "fill": "0.5", "offset": 0, "order": "before"},
            },
            "nearest": {
                "order": 2,
                "role": "control of resolution",
                "labels": {"treatment": "expanded"},
                "expansion": {"kind": "image", "factor": 2, "fill": "nearest"},
            },
        }
    if words["smoke"] and not words["decay"]:  # programs take long to compile
        del config.arms["nearest"]
        config.model.channels = (4, 8)
    return config_lib.shrink(config) if words["smoke"] else config
