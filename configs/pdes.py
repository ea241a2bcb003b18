"""Differential equations: raw against expanded coordinates, with the controls that remove the known explanations.

    python runs/train.py --config=configs/pdes.py:list --workdir=-                       # what there is
    python runs/train.py --config=configs/pdes.py:burgers --workdir=/tmp/burgers
    python runs/train.py --config=configs/pdes.py:all,quick --workdir=/tmp/pdes          # fifteen runs
    python runs/train.py --config=configs/pdes.py:heat,smoke --workdir=/tmp/smoke        # seconds, to see that it works

Words: the name of an equation, or all (the fifteen of three groups), or list; one of

    standard    32-32-32 tanh, 2000 + 200 + 200 points, Adam 1e-3 for 5000 steps, then L-BFGS for 500; 20 seeds
    quick       20-20-20 tanh, 500 + 50 + 50 points, Adam for 2000 steps, then L-BFGS for 200; 10 seeds
    accurate    raw only: conditions by the ansatz, Adam, then self-scaled Broyden on adaptive points; 5 seeds

and smoke. All in float64. Hardware: 2 x86-64 cores, 2 GiB; `all,quick` takes an hour. What came
out: docs/results/pdes.md.

Arms: raw; `expanded` [pi, pi, x, pi, pi]; `ones` [x, 1, 1, 1, 1]; `matched_bias`, raw with the bias that the expansion
amounts to: its starting values (folded from the same draw) and its step size, for whichever optimiser; `widened`, raw
with a first layer wide enough for as many parameters as `expanded` has.
"""

import math
import sys

from sbjax import config as config_lib
from sbjax.physics.pdes import EQUATIONS, make_equation

FIFTEEN = tuple(EQUATIONS)[:15]
SCALES = {
    "standard": {"replicas": 20, "width": 32, "points": 2000, "faces": 200, "adam": 5000, "finish": 500},
    "quick": {"replicas": 10, "width": 20, "points": 500, "faces": 50, "adam": 2000, "finish": 200},
    "accurate": {"replicas": 5, "width": 20, "points": 2000, "faces": 200, "adam": 1000, "finish": 40_000},
}
PI = {"kind": "vector", "before": 2, "after": 2, "value": math.pi}
RAW = {"order": 0, "role": "reference"}
ONES = {"kind": "vector", "before": 0, "after": 4, "value": 1.0}


def get_config(argument=None):
    """The configuration for words such as 'heat,quick'; 'burgers,standard' by default."""
    choices = {"equation": ("burgers", *(name for name in EQUATIONS if name != "burgers"), "all", "list")}
    words = config_lib.parse_words(argument, choices | {"scale": tuple(SCALES)})
    if words["equation"] == "list":
        sys.stdout.write(table())
        sys.exit(0)
    scale = SCALES[words["scale"]]
    config = config_lib.base_config("pinn")
    config.replicas = scale["replicas"]
    config.train_steps = scale["adam"]
    config.reports = 20
    config.precision.x64 = True
    config.precision.matmul = "highest"
    config.task.update(points=scale["points"], boundary_points=scale["faces"], initial_points=scale["faces"])
    config.optimizer.update(name="adam", learning_rate=1e-3, schedule="constant", warmup_share=0.0, weight_decay=0.0)
    config.second_phase.update(name="lbfgs", steps=scale["finish"])
    config.monitor.kinds = ""
    config.model = {
        "name": "field",
        "widths": (scale["width"],) * 3,
        "activation": "tanh",
        "normalise": False,
        "features": 0,
        "feature_scale": 1.0,
        "dtype": "float64",
    }
    if words["scale"] == "accurate":
        config.task.update(hard=True, sampler="adaptive", resample_every=500)
        config.optimizer.update(schedule="cosine", learning_rate=5e-3)
        config.second_phase.update(name="ssbroyden")
        config.model.update(normalise=True)
    if words["equation"] == "all":
        config.arms = arms(2, scale["width"]) if words["scale"] != "accurate" else {"raw": RAW}
        config.suite = {name: member(name, words["scale"], scale) for name in FIFTEEN}
    else:
        if words["scale"] == "accurate" and len(make_equation(words["equation"]).coordinates) == 1:
            config.task.points, config.second_phase.steps = 200, 3000
            config.model.widths = (20, 20)
        part = member(words["equation"], words["scale"], scale)
        config.task.update(part["task"])
        config.arms = part["arms"]
    return config_lib.shrink(config) if words["smoke"] else config


def member(name, scale_name, scale):
    """The sections of one equation."""
    coordinates = len(make_equation(name).coordinates)
    task = {"equation": name}
    if scale_name == "accurate":
        if make_equation(name).ansatz is None:
            task["hard"] = False
        return {"task": task, "arms": {"raw": RAW}}
    return {"task": task, "arms": arms(coordinates, scale["width"])}


def arms(coordinates, width):
    """Raw, the two expansions, and the controls."""
    constants = 4
    # As many more units in the first of three layers as come nearest to the expansion's `constants * width` weights.
    more = round(constants * width / (coordinates + 1 + width))
    return {
        "raw": RAW,
        "expanded": {
            "order": 1,
            "role": "treatment",
            "labels": {
                "about": "constants pi around the coordinates",
                "claim": "the training loss of expanded networks is smaller on 'most, about 75 %' of the equations "
                "(arXiv 2409.06402)",
            },
            "expansion": PI,
        },
        "ones": {
            "order": 2,
            "role": "treatment",
            "labels": {"about": "constants 1 around the coordinates"},
            "expansion": ONES,
        },
        "matched_bias": {
            "order": 3,
            "role": "control of starting bias and step",
            "labels": {
                "treatment": "expanded",
                "about": "raw coordinates with the starting values and the step size of the bias that pi amounts to",
            },
            "expansion": PI,
            "task": {"fold": True},
            # 0: as far as the expansion would move the bias, whichever optimiser is chosen.
            "optimizer": {"first_bias_scale": 0.0},
            "second_phase": {"first_bias_scale": 0.0},
        },
        "widened": {
            "order": 4,
            "role": "control of first-layer size",
            "labels": {
                "treatment": "expanded",
                "about": "raw coordinates with a first layer of about as many parameters",
            },
            "model": {"widths": (width + more, width, width)},
        },
    }


def table():
    """The equations as text."""
    lines = []
    for name in EQUATIONS:
        equation = make_equation(name)
        box = [f"{c} in [{a:.4g}, {b:.4g}]" for c, a, b in zip(equation.coordinates, equation.lower, equation.upper)]
        conditions = ", ".join(condition.name for condition in equation.conditions)
        lines += [f"{name:19s}{equation.group:12s}{equation.formula}", f"{'':31s}{', '.join(box)}; {conditions}"]
    return "\n".join(lines) + "\n"
