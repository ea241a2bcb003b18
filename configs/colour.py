"""Colourisation: a* and b* of a picture from its lightness, by a small U-Net; raw against expanded input, and controls.

    python runs/train.py --config=configs/colour.py:cifar10 --workdir=/tmp/colour
    python runs/train.py --config=configs/colour.py:cifar10,bins,brief --workdir=/tmp/bins
    python runs/train.py --config=configs/colour.py:smoke --workdir=/tmp/smoke \\
        --config.task.dataset=docs/examples/my_data.py:colour_digits

Words: one of cifar10, eurosat, oxford_flowers102 (the last two at 64 pixels); l2, l1 or bins, the loss; brief (raw,
expanded and nearest alone); smoke. Any other set of pictures in colour: `--config.task.dataset=NAME`, `folder:PATH` or
`FILE.py:FUNCTION`. Sets of TFDS need `pip install 'sbjax[tfds]'` and data prepared by TFDS
(`--config.task.data_dir=DIR`).

CIFAR-10: 10,000 training images, 10 epochs, the first 2,000 test and 1,000 validation images. An epoch of an arm and
seed is about 2.2 TFLOP, of an arm with four times the pixels 9.5.

Arms: raw; `expanded` (K = 2, fill 0.5). Controls: `zero` (fill value), `nearest` and `bilinear` (resolution),
`equal_flops` (raw, a U-Net of twice the width, which costs what the expanded one does), `channel` (a second channel of
0.5, no new pixels). The loss is taken at the pixels of the picture in all of them.
"""

from sbjax import config as config_lib

CLAIM = "networks that colour images gain from expanded input (arXiv 2409.06402)"
WIDTH = 16
IMAGE = {"kind": "image", "factor": 2, "offset": 0, "order": "before"}
# Role, what it is, and in what it differs.
ARMS = {
    "expanded": ("treatment", "new pixels of a constant 0.5", {"expansion": {**IMAGE, "fill": "0.5"}}),
    "zero": ("control of fill value", "new pixels of 0", {"expansion": {**IMAGE, "fill": "0.0"}}),
    "nearest": (
        "control of resolution", "as many pixels, copies of their neighbours",
        {"expansion": {**IMAGE, "fill": "nearest"}},
    ),
    "bilinear": (
        "control of resolution", "as many pixels, between their neighbours",
        {"expansion": {**IMAGE, "fill": "bilinear"}},
    ),
    "equal_flops": (
        "control of computation", "raw, a network twice as wide: FLOPs of the expanded one",
        {"model": {"name": "unet", "width": 2 * WIDTH}},
    ),
    "channel": (
        "control of the constant", "a channel of 0.5 beside the lightness, no new pixels",
        {"expansion": {"kind": "vector", "before": 0, "after": 1, "value": "0.5"}},
    ),
}  # fmt: skip
BRIEF = ("expanded", "nearest")


def get_config(argument=None):
    """The configuration for words such as 'cifar10,l1,brief,smoke'."""
    words = config_lib.parse_words(
        argument,
        {"dataset": ("cifar10", "eurosat", "oxford_flowers102"), "loss": ("l2", "l1", "bins")},
        flags=("brief", "smoke"),
    )
    config = config_lib.base_config("colour")
    config.task.dataset = words["dataset"]
    config.task.loss = words["loss"]
    if words["dataset"] == "cifar10":
        config.task.train_share = 2 / 9  # 10,000 of the 45,000 that are not for validation
        config.task.eval_share = 0.2
    else:
        config.task.image_size = 64
    config.model = {"name": "unet", "width": WIDTH, "depth": 4}
    config.train_epochs = 10.0
    config.optimizer = {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine"}
    config.replicas = 5
    config.reports = 5
    arms = {"raw": {"order": 0, "role": "reference"}}
    for arm, (role, about, own) in ARMS.items():
        if words["brief"] and arm not in BRIEF:
            continue
        labels = {"about": about} | ({"claim": CLAIM} if role == "treatment" else {"treatment": "expanded"})
        arms[arm] = {"order": len(arms), "role": role, "labels": labels, **own}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config
