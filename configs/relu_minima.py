"""Spurious minima of two-layer ReLU networks, in closed form (arXiv 2210.06088).

    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/relu_minima.py --workdir=/tmp/relu_minima   # a minute
    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/relu_minima.py:search --workdir=/tmp/relu_search

Words: `families` (an arm for each number k of units, and one for the real k at which families turn) or `search`
(gradient descent from 100 starts with k, k + 1 and k + 2 units), and smoke.
"""

from sbjax import config as config_lib

FAMILIES = (6, 7, 8, 10, 12, 15, 20, 30, 50, 80, 120, 200, 400)
SEARCH = (6, 8, 12, 16, 20)


def get_config(argument=None):
    """The configuration; 'families' by default."""
    words = config_lib.parse_words(argument, {"part": ("families", "search")})
    config = config_lib.base_config("exact", "relu_minima")
    config.task.part = part = words["part"]
    if part == "families":
        arms = {f"k{k:03}": {"k": k} for k in FAMILIES} | {"turning": {"part": "turning", "k": 30}}
        config.replicas, config.train_steps = 1, 1
    else:
        arms = {f"k{k:02}_n{k + extra:02}": {"k": k, "extra": extra} for k in SEARCH for extra in (0, 1, 2)}
        config.replicas, config.train_steps = 100, 5_000
    if words["smoke"]:
        config = config_lib.shrink(config)
        names = list(arms)
        arms = {name: arms[name] for name in (*names[:3], *(name for name in names if name == "turning"))}
    config.arms = {name: {"order": order, "task": task} for order, (name, task) in enumerate(arms.items())}
    config.reference = next(iter(arms))
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config
