"""Figure 1 of arXiv 2409.06402: five families of networks on four sets of images, raw and expanded, with controls.

    python runs/train.py --config=configs/figure1.py:cifar10,resnet18 --workdir=/tmp/cell
    python runs/train.py --config=configs/figure1.py:cifar10,mobilenet_v3_small,stride1 --workdir=/tmp/stride1
    python runs/train.py --config=configs/figure1.py:cifar10,all --workdir=/tmp/column
    python runs/train.py --config=configs/figure1.py:cifar10,efficientnet_b0,smoke --workdir=/tmp/smoke

Words: one of cifar10, cifar100, imagenet_r, imagenet100; one of resnet18, resnet50, densenet121,
mobilenet_v3_small, mobilenet_v3_large, efficientnet_b0; the stem: imagenet (default), cifar, or of the last three
stride1. `all`: a suite of the five families (MobileNetV3-Small among them) on the set that is named, or on all four;
`k3`: K = 3 in all arms but the raw one; `fills`: further values of the new pixels, the mean colour, 1 and noise;
`smoke`: a quarter of the width, a fifth of the depth, a few steps. Every report reads its arms at equal steps and at
equal FLOPs; that of a suite draws the figure.

Where each set is read from, and how to get it: `sbjax/data/named.py`. ImageNet-100 is read from folders of pictures in
`imagenet100` of `task.data_dir`, or from TFDS' imagenet2012 with `--config.task.classes=FILE`, the list of its classes.
Which stem, size and schedule the paper has is not known; these are the usual ones:
SGD, batch 128, 30 epochs, crops and mirror images before the expansion.

Arms: raw; `expanded` (K = 2, fill 0.5); `zero` (fill value control); `nearest` and `bilinear` (resolution controls);
with the ImageNet stem `stem_control`, the raw image through the part of the stem that meets it in the expanded image,
at stride 1: the expanded network but for a constant and the border.
"""

from sbjax import config as config_lib
from sbjax.common.options import words as words_of
from sbjax.experiments.images import figures

# Size of the images; 0 = as stored.
SETS = {"cifar10": 0, "cifar100": 0, "imagenet_r": 64, "imagenet100": 64}
FAMILIES = ("resnet18", "resnet50", "densenet121", "mobilenet_v3_small", "efficientnet_b0")
CLAIM = "test accuracy of every network is higher with expanded images, on every set (arXiv 2409.06402, figure 1)"


def get_config(argument=None):
    """The configuration for words such as 'cifar10,resnet18,smoke', which is 'cifar10,resnet18' by default."""
    choices = {"dataset": SETS, "model": figures.MODELS, "stem": figures.STEMS}
    words = config_lib.parse_words(argument, choices, flags=("all", "k3", "fills", "smoke"))
    config = config_lib.base_config()
    config.replicas = 3
    config.train_epochs = 30.0
    config.reports = 15
    config.task.update(part(words["dataset"]))
    config.arms = figures.arms(CLAIM, stem=words["stem"], factor=3 if words["k3"] else 2, fills=words["fills"])
    given = words_of(argument or "")
    if words["all"]:
        if words["model"] in given:
            raise config_lib.ConfigError(f"config arguments 'all' and {words['model']!r}: give one")
        sets = [name for name in SETS if name in given] or list(SETS)
        config.model = dict(figures.COMMON, stem=words["stem"])
        config.suite = {
            f"{name}_{model}": {"task": part(name), "model": section(model, words)}
            for name in sets
            for model in FAMILIES
        }
    else:
        config.model = section(words["model"], words)
    return config_lib.shrink(config) if words["smoke"] else config


def part(name):
    """Fields of `task` of a set."""
    return figures.task(name, image_size=SETS[name])


def section(name, words):
    """The section `model`, narrow in a smoke run."""
    try:
        model = figures.model(name, words["stem"])
    except ValueError as error:
        raise config_lib.ConfigError(f"config arguments: {error}") from error
    return {**model, **figures.SMOKE} if words["smoke"] else model
