"""Gauge symmetry of attention, of transformers, and of continuous networks (arXiv 2402.02362, 2606.17830, 2506.22712).

    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/attention.py --workdir=/tmp/attention  # dimensions
    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/attention.py:planted --workdir=/tmp/planted
    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/attention.py:barriers --workdir=/tmp/barriers
    OPENBLAS_NUM_THREADS=1 python runs/train.py --config=configs/attention.py:flows --workdir=/tmp/flows

Words: `dimensions` (continuous symmetries of a transformer, null space against closed count), `planted` (100 gauges at
random, found again), `barriers` (networks trained on the digits, as they are and matched), `flows` (reparametrised
neural differential equations), and smoke.
"""

from sbjax import config as config_lib

PARTS = ("dimensions", "planted", "barriers", "flows")
RMS, LAYER, ROPE = {"norm": "rms"}, {"norm": "layer", "bias": True}, {"norm": "rms", "positions": "rope"}
SMALL = {"width": 6, "size": 4, "heads": 2, "hidden": 5}
ARMS = {
    "dimensions": {
        "rms": RMS,
        "rms_eps0": {**RMS, "eps": 0.0},
        "rms_gelu": {**RMS, "activation": "gelu"},
        "rms_bias": {**RMS, "bias": True},
        "rope": ROPE,
        "rope_bias": {**ROPE, "bias": True},
        "rope_equal": {**ROPE, "rope_base": 1.0},
        "layer": {"norm": "layer"},
        "layer_bias": LAYER,
        "layer_bias_eps0": {**LAYER, "eps": 0.0},
        "layer_rope": {**LAYER, "positions": "rope"},
    },
    "planted": {
        "rms": RMS,
        "rms_tanh": {**RMS, "activation": "tanh", "bias": True},
        "rope": ROPE,
        "layer": LAYER,
        "layer_gelu": {**LAYER, "activation": "gelu"},
        "layer_rope": {**LAYER, "positions": "rope"},
        "rms_noise": {**RMS, "noise": 0.1},
        "layer_noise": {**LAYER, "noise": 0.1},
    },
    "barriers": {"rms": RMS, "layer": LAYER, "rope": ROPE},
    "flows": {
        **{change: {"change": change} for change in ("linear", "coordinates", "pace", "time")},
        **{f"form_{sigma}": {"change": "form", "sigma": sigma} for sigma in ("relu", "tanh", "none")},
    },
}
TINY = {"width": 8, "size": 2, "heads": 2, "depth": 1, "hidden": 8}
SMOKE = {"dimensions": {"depth": 1}, "planted": TINY, "barriers": {**TINY, "learned_steps": 2, "points": 3}}
SMOKE_ARMS = {"dimensions": ["rms", "layer", "rope"], "barriers": ["rms"], "flows": ["pace", "form_relu"]}
# Replicas and steps of the optimiser.
SIZES = {"dimensions": (3, 1), "planted": (100, 1), "barriers": (16, 400), "flows": (20, 1)}


def get_config(argument=None):
    """The configuration; 'dimensions' by default."""
    words = config_lib.parse_words(argument, {"part": PARTS})
    config = config_lib.base_config("exact", "attention")
    config.task.part = part = words["part"]
    if part == "dimensions":
        config.task.update(SMALL)
    config.replicas, config.train_steps = SIZES[part]
    arms = ARMS[part]
    if words["smoke"]:
        config = config_lib.shrink(config)
        config.task.update(SMOKE.get(part, {}))
        chosen = SMOKE_ARMS.get(part, list(arms)[:2])
        arms = {name: arms[name] for name in chosen}
    config.arms = {name: {"order": order, "task": task} for order, (name, task) in enumerate(arms.items())}
    config.reference = next(iter(arms))
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config
