"""Figure 2 of arXiv 2409.06402: ResNet-18 on further sets of photographs, raw and expanded, with controls.

    python runs/train.py --config=configs/figure2.py:eurosat --workdir=/tmp/eurosat
    python runs/train.py --config=configs/figure2.py:all --workdir=/tmp/figure2
    python runs/train.py --config=configs/figure2.py:dtd,smoke --workdir=/tmp/smoke

Words: one of eurosat, dtd, aircraft, flowers, pets, stl10, svhn, cars196, food101, imagenette, or `all`, a suite; the
stem: imagenet (default) or cifar; `k3`, `fills` and `smoke` as in `figure1.py`. Where each set is read from, and how to
get it: `sbjax/data/named.py`; images of many sizes are resized to 64 pixels. Of the sets of the paper only Aircraft and
DTD are known. Arms as in `figure1.py`.
"""

from sbjax import config as config_lib
from sbjax.common.options import words as words_of
from sbjax.experiments.images import figures

# Size of the images; 0 = as stored.
SETS = {
    "eurosat": 0,
    "dtd": 64,
    "aircraft": 64,
    "flowers": 64,
    "pets": 64,
    "stl10": 64,
    "svhn": 0,
    "cars196": 64,
    "food101": 64,
    "imagenette": 64,
}
CLAIM = "expanded images raise the test accuracy of ResNet-18 on every set (arXiv 2409.06402, figure 2)"


def get_config(argument=None):
    """The configuration for words such as 'dtd,smoke'; 'eurosat' by default."""
    choices = {"dataset": SETS, "stem": ("imagenet", "cifar")}
    words = config_lib.parse_words(argument, choices, flags=("all", "k3", "fills", "smoke"))
    config = config_lib.base_config()
    config.replicas = 3
    config.train_epochs = 60.0
    config.reports = 15
    config.task.update(part(words["dataset"]))
    config.model = figures.model("resnet18", words["stem"])
    if words["smoke"]:
        config.model.update(figures.SMOKE)
    config.arms = figures.arms(CLAIM, stem=words["stem"], factor=3 if words["k3"] else 2, fills=words["fills"])
    if words["all"]:
        if words["dataset"] in words_of(argument):
            raise config_lib.ConfigError(f"config arguments 'all' and {words['dataset']!r}: give one")
        config.suite = {name: {"task": part(name)} for name in SETS}
    return config_lib.shrink(config) if words["smoke"] else config


def part(name):
    """Fields of `task` of a set."""
    return figures.task(name, image_size=SETS[name])
