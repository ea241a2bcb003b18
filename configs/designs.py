"""Designs of one small CNN, to be ranked by replica distance and by test accuracy.

    python runs/measure.py --config=configs/designs.py:fashion_mnist,brief --workdir=/tmp/brief
    python runs/train.py --config=configs/designs.py:fashion_mnist --workdir=/tmp/full
    python runs/measure.py --config=configs/designs.py:fashion_mnist,brief --workdir=/tmp/brief --against=/tmp/full

Words: one of digits, mnist, fashion_mnist, cifar10; `brief` (10 % of the data, one epoch); `rotated`
(every image turned by a multiple of 90 degrees: there the p4 network has the right symmetry and the wrongly equivariant
one cannot fit); `smoke`.

What came out, on 2 x86-64 cores in 54 minutes: docs/results/designs.md.

Arms: `plain`, a CNN with batch norm; dropout 0.2, 0.4, 0.6; group norm, layer norm, no norm; half and double width;
tanh; input expansion K = 2 with fill 0.5, and its controls zero fill and nearest; p4 equivariance; `wrong`, the p4
network whose logits change sign at a quarter turn. For mirrors as well: `--config.arms.p4.model.name=p4mcnn
--config.arms.p4.model.channels="(6,11,11)"`.
"""

from sbjax import config as config_lib

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")
CHANNELS = (16, 32, 32)
PLAIN = {"name": "cnn", "channels": CHANNELS, "norm": "batch", "dropout": 0.0, "activation": "relu", "dtype": "float32"}
# As many parameters as the plain network: a p4 layer of c / 2 channels has as many as a plain one of c.
CONTROLS = {"zero": "control of fill value", "nearest": "control of resolution"}
P4 = {**PLAIN, "name": "p4cnn", "channels": (8, 16, 16), "readout": "invariant"}


def get_config(argument=None):
    """The configuration for words such as 'cifar10,brief'; 'digits' by default."""
    words = config_lib.parse_words(argument, {"dataset": DATASETS}, flags=("brief", "rotated", "smoke"))
    config = config_lib.base_config()
    config.reference = "plain"
    config.task.dataset = words["dataset"]
    config.task.quarter_turns = words["rotated"]
    config.task.batch_size = 32 if words["dataset"] == "digits" else 64
    if words["dataset"] == "cifar10":
        config.task.crop_padding = 4
        config.task.flip = True
    config.optimizer.learning_rate = 0.05
    config.replicas = 10
    config.train_epochs = 20.0 if words["dataset"] == "digits" else 4.0
    config.reports = 2
    config.monitor.kinds = "unmatched,marginal,neuron_cloud,function"
    config.monitor.at = "start,10%,end"
    if words["brief"]:
        config.task.train_share = 0.1 if words["dataset"] != "digits" else 0.5  # of 1,294 digits a tenth is 4 batches
        config.train_epochs = 1.0
        config.reports = 1
        config.monitor.at = "start,end"
    config.model = PLAIN

    def expanded(fill):
        return {"expansion": {"kind": "image", "factor": 2, "fill": fill, "offset": 0, "order": "before"}}

    arms = {
        "plain": {},
        "dropout_20": {"model": {"dropout": 0.2}},
        "dropout_40": {"model": {"dropout": 0.4}},
        "dropout_60": {"model": {"dropout": 0.6}},
        "group_norm": {"model": {"norm": "group"}},
        "layer_norm": {"model": {"norm": "layer"}},
        "no_norm": {"model": {"norm": "none"}},
        "half_width": {"model": {"channels": (8, 16, 16)}},
        "double_width": {"model": {"channels": (32, 64, 64)}},
        "tanh": {"model": {"activation": "tanh"}},
        "p4": {"model": P4},
        "wrong": {"model": {**P4, "readout": "sign"}},
        "expanded": expanded("0.5"),
        "zero": expanded("0.0"),
        "nearest": expanded("nearest"),
    }
    for order, (name, arm) in enumerate(arms.items()):
        # All designs are drawn, however many they are.
        arm |= {"order": order, "role": "treatment" if order else "reference", "labels": {"shown": True}}
        if name in CONTROLS:
            arm["role"] = CONTROLS[name]
            arm["labels"] |= {"treatment": "expanded"}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config
