"""Functions of one variable fitted by L-BFGS: raw against expanded input, over sizes, constants and places.

    python runs/train.py --config=configs/functions.py:list --workdir=-                       # what there is
    python runs/train.py --config=configs/functions.py:runge --workdir=/tmp/runge
    python runs/train.py --config=configs/functions.py:all --workdir=/tmp/functions            # ten runs
    python runs/train.py --config=configs/functions.py:sine,smoke --workdir=/tmp/smoke         # seconds

Words: the name of a function, or all, or list; one of

    full        10 seeds, at most 2000 iterations
    quick       5 seeds, at most 500 iterations

and smoke. 32-32-32 tanh in float64 on 256 points, judged on 2000 others; optax's L-BFGS with 10 pairs until no entry of
the gradient is larger than 1e-9. All arms are one compiled program (`task.program='grid'`).

Arms: raw; sizes 3, 5, 7 with the constants 0, 0.5, 1, e, pi, 10 around the data (`size5_middle_pi` is
[pi, pi, x, pi, pi]) or behind it (`size5_first_pi`); `matched_bias`, raw with the starting values and the unit of the
bias that size5_middle_pi amounts to; `widened`, raw with a first layer wide enough for as many parameters.

`all` takes 13 minutes of 2 x86-64 cores. What came out: docs/results/functions.md.
"""

import math
import sys

from sbjax import config as config_lib
from sbjax.tasks.regression import TARGETS, describe

SCALES = {"full": {"replicas": 10, "steps": 2000}, "quick": {"replicas": 5, "steps": 500}}
CONSTANTS = {"0": 0.0, "0.5": 0.5, "1": 1.0, "e": math.e, "pi": math.pi, "10": 10.0}
SIZES = (3, 5, 7)
WIDTH = 32

CLAIM = "with inputs of size 5, 12 % fewer iterations and a test MSE 66.3 % smaller, on average (arXiv 2602.17952)"


def get_config(argument=None):
    """The configuration for words such as 'runge,quick'; 'sine,full' by default."""
    words = config_lib.parse_words(argument, {"function": (*TARGETS, "all", "list"), "scale": tuple(SCALES)})
    if words["function"] == "list":
        sys.stdout.write(describe())
        sys.exit(0)
    scale = SCALES[words["scale"]]
    config = config_lib.base_config("functions")
    config.replicas = scale["replicas"]
    config.train_steps = scale["steps"]
    config.reports = 20
    config.precision.x64 = True
    config.precision.matmul = "highest"
    config.task.program = "grid"
    config.optimizer.update(name="lbfgs", schedule="constant", warmup_share=0.0, weight_decay=0.0)
    config.monitor.kinds = ""
    config.model = {"name": "field", "widths": (WIDTH,) * 3, "activation": "tanh", "dtype": "float64"}
    config.arms = arms()
    if words["function"] == "all":
        config.suite = {name: {"task": {"function": name}} for name in TARGETS}
    else:
        config.task.function = words["function"]
    return config_lib.shrink(config) if words["smoke"] else config


def arms():
    """Raw, the grid of expansions, and two controls."""
    found = {"raw": {"role": "reference"}}
    for size in SIZES:
        for place, before in (("middle", (size - 1) // 2), ("first", 0)):
            for name, value in CONSTANTS.items():
                # A dot in the name of an arm would be taken for a level of the config.
                arm = f"size{size}_{place}_{name.replace('.', '_')}"
                found[arm] = {
                    "role": "treatment",
                    # Of so many arms those with pi in the middle are drawn.
                    "labels": {
                        **{"size": size, "place": place, "constant": name},
                        "shown": place == "middle" and name == "pi",
                    },
                    "expansion": vector(before, size - 1 - before, value),
                }
    added = 4  # constants of the expansion that the controls are for
    found["matched_bias"] = {
        "role": "control of starting bias and step",
        "labels": {
            "treatment": "size5_middle_pi",
            "about": "raw input with the starting values and the unit of the bias that the constants of "
            "size5_middle_pi amount to",
        },
        "expansion": vector(2, 2, math.pi),
        "task": {"fold": True},
        # sqrt(1 + sum c_j^2) is the unit of the bias b_0 + sum c_j w_j for a method that only knows lengths and angles.
        "optimizer": {"first_bias_scale": math.sqrt(1 + added * math.pi**2)},
    }
    # As many more units in the first of three layers as come nearest to the expansion's weights.
    more = round(added * WIDTH / (2 + WIDTH))
    found["widened"] = {
        "role": "control of first-layer size",
        "labels": {
            "treatment": "size5_middle_pi",
            "about": "raw input with a first layer of about as many parameters",
        },
        "model": {"widths": (WIDTH + more, WIDTH, WIDTH)},
    }
    found["size5_middle_pi"]["labels"]["claim"] = CLAIM
    for order, arm in enumerate(found.values()):
        arm["order"] = order
    return found


def vector(before, after, value):
    """The section of an expansion."""
    return {"kind": "vector", "before": before, "after": after, "value": value}
