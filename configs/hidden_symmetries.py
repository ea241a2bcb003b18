"""Hidden symmetries of ReLU networks at random, by their functional dimension (arXiv 2306.06179).

    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/hidden_symmetries.py --workdir=/tmp/hidden   # minutes

Words: `line` (one input, exact), `inputs` (width and depth with several inputs, by lines), `bias` (the same networks by
points, lines and all regions: what sampling misses), `all` of them (the default), and smoke.
"""

from sbjax import config as config_lib

WIDTHS, DEPTHS = (2, 4, 8, 16), (1, 2, 3, 4)
# Inputs and width; each with 1 to 4 hidden layers, the last with 1 and 2.
SHAPES = ((2, 2), (2, 4), (2, 8), (4, 2), (4, 4), (4, 8), (8, 8), (8, 16))
# Inputs, width, depth, and whether all regions can be enumerated.
WATCHED = ((1, 4, 2, "line"), (2, 4, 2, "regions"), (4, 4, 3, "regions"), (4, 8, 3, ""))
POINTS, LINES = (4, 16, 64, 256), (4, 16, 64)  # 256 lines are arms of `inputs`


def get_config(argument=None):
    """The configuration; 'all' by default."""
    words = config_lib.parse_words(argument, {"part": ("all", "line", "inputs", "bias")})
    arms = {}
    if words["part"] in ("all", "line"):
        arms |= {
            f"line_w{width}_d{depth}": {"inputs": 1, "width": width, "depth": depth}
            for width in WIDTHS
            for depth in DEPTHS
        }
    if words["part"] in ("all", "inputs"):
        arms |= {
            f"n{inputs}_w{width}_d{depth}": {
                "inputs": inputs,
                "width": width,
                "depth": depth,
                "look": "lines",
                "budget": 8 if words["smoke"] else 256,
                "networks": 40,
            }
            for inputs, width in SHAPES
            for depth in DEPTHS
            if width < 16 or depth < 3
        }
    if words["part"] in ("all", "bias"):
        for inputs, width, depth, exact in WATCHED:
            shape = {"inputs": inputs, "width": width, "depth": depth, "networks": 40}
            name = f"n{inputs}_w{width}_d{depth}"
            arms |= {f"{name}_{n}_points": {**shape, "look": "points", "budget": n} for n in POINTS}
            arms |= {f"{name}_{n}_lines": {**shape, "look": "lines", "budget": n} for n in LINES}
            arms |= {f"{name}_{exact}": {**shape, "look": exact}} if exact else {}
    config = config_lib.base_config("exact", "hidden_symmetries")
    config.replicas, config.train_steps = 200, 1
    if words["part"] in ("inputs", "bias"):  # all arms have as many networks: that is the number of replicas
        config.replicas = arms[next(iter(arms))]["networks"]
        arms = {
            name: {field: value for field, value in task.items() if field != "networks"} for name, task in arms.items()
        }
    if words["smoke"]:
        config = config_lib.shrink(config)
        arms = {name: {**task, **({"networks": 2} if "networks" in task else {})} for name, task in arms.items()}
        arms = {name: task for name, task in arms.items() if task["width"] < 8 and task.get("budget", 1) <= 16}
    config.arms = {name: {"order": order, "task": task} for order, (name, task) in enumerate(arms.items())}
    config.reference = next(iter(arms))
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config
