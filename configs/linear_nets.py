"""Components of the set of deep linear networks with one product, and paths within one (arXiv 2505.23681).

    python runs/train.py --config=configs/linear_nets.py --workdir=/tmp/linear_nets     # a minute

Word: smoke. An arm for each depth and width, and one for three scalar layers with a skip connection; `replicas` are
pairs of networks.
"""

from sbjax import config as config_lib


def get_config(argument=None):
    """The configuration; 'smoke' makes it small."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config("exact", "linear_nets")
    config.arms = {
        f"l{layers}_n{width}": {"order": order, "task": {"layers": layers, "width": width}}
        for order, (layers, width) in enumerate(((2, 1), (3, 1), (2, 4), (3, 2), (3, 8), (4, 3), (5, 2)))
    }
    config.arms["l3_n1_skip"] = {"order": len(config.arms), "task": {"layers": 3, "width": 1, "skip": True}}
    config.reference, config.replicas, config.train_steps = "l2_n1", 100, 1
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config_lib.shrink(config) if words["smoke"] else config
