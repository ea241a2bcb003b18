"""A small fast network on CIFAR-10, by the public speed-run recipe of arXiv 2404.00498, as plain JAX.

    python runs/train.py --config=configs/speedrun.py --workdir=/tmp/speedrun
    python runs/train.py --config=configs/speedrun.py --config.train_epochs=2 --workdir=/tmp/two_epochs
    python runs/train.py --config=configs/speedrun.py:arms --config.task.train_share=0.2 --workdir=/tmp/arms
    python runs/train.py --config=configs/speedrun.py:smoke --workdir=/tmp/smoke

Words: `arms`, with the raw images also the expanded ones and all controls of `figure1.py` that this network has;
`smoke`.

Published, on lossless images: 94.0 % test accuracy after 9.9 epochs, 0.35 PFLOP, some 4 s of an A100; it has not been
trained to its end here. What is as published: the network; batches of 1,024 (an epoch is 43 steps here, of 45,000
images); Nesterov momentum 0.85, peak learning rate 1.5 of the mean loss, 64 times that of the biases of batch norm;
the rate's triangle; label smoothing 0.2; crops by 2 pixels of reflected images; flips that alternate; look-ahead;
mirrored and moved views in evaluations. What is not: biases do not decay, the bias of the whitening layer is trained
to the end, running statistics are not averaged by look-ahead, and images are 32-bit floats.

Which filters whiten is computed from the first 5,000 training images, expanded where the arm expands them.
"""

from sbjax import config as config_lib
from sbjax.experiments.images import figures

CLAIM = "networks with expanded images are more accurate (arXiv 2409.06402, figure 1); this network is not in it"
BATCH, MOMENTUM = 1024, 0.85


def get_config(argument=None):
    """The configuration for words such as 'arms,smoke'."""
    words = config_lib.parse_words(argument, {}, flags=("arms", "smoke"))
    config = config_lib.base_config()
    config.replicas = 1
    config.train_epochs = 9.9
    config.reports = 10
    config.task.update(
        dataset="cifar10",
        batch_size=BATCH,
        crop_padding=2,
        reflect=True,
        flip=True,
        alternate_flips=True,
        views="shift",
        label_smoothing=0.2,
    )
    config.model = {"name": "speedrun", "channels": (64, 256, 256), "width": 1.0, "dtype": "float32"}
    config.optimizer = {
        "name": "look_ahead_sgd",
        # 11.5 / 1000 for the summed loss of 1,024 examples that momentum carries on: of the mean loss, 1.5.
        "learning_rate": round(11.5 * (1 - MOMENTUM) / (2 - MOMENTUM), 4),
        "momentum": MOMENTUM,
        "weight_decay": round(0.0153 / 11.5, 6),
        "norm_bias_scale": 64.0,
        "look_ahead_steps": 5,
        "look_ahead_decay": 0.95,
        "schedule": "triangle",
        "first_factor": 0.2,
        "peak_share": 0.23,
        "last_factor": 0.07,
    }
    config.monitor.kinds = ""
    config.arms = figures.arms(CLAIM, stem="none") if words["arms"] else {"raw": {"order": 0, "role": "reference"}}
    if words["smoke"]:
        config_lib.shrink(config)
        config.model.width = 0.25
    return config
