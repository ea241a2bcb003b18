"""Targets with f(T x) = p f(x) for an affine involution T, with and without the symmetry built in (arXiv 2106.12891).

    python runs/train.py --config=configs/involution.py --workdir=/tmp/involution     # two minutes

Word: smoke. Augmentation by T is the control that says whether the architecture matters.
"""

from sbjax import config as config_lib

ROLES = {
    "plain": "reference",
    "augmented": "control of data",
    "penalty": "control of the loss",
    "projector": "treatment",
}


def get_config(argument=None):
    """The configuration; 'smoke' makes it small."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config("exact", "involution")
    arms = {}
    for suffix, shared in (("", {}), ("_one_side", {"side": "one"}), ("_odd", {"sign": -1})):
        for method, role in ROLES.items():
            role = "treatment" if suffix and role == "reference" else role
            labels = {"treatment": f"projector{suffix}"} if role.startswith("control") else {}
            arms[method + suffix] = {
                "order": len(arms),
                "role": role,
                "labels": labels,
                "task": {"method": method, **shared},
            }
    config.arms = arms
    config.reference, config.replicas, config.train_steps = "plain", 20, 3000
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config_lib.shrink(config) if words["smoke"] else config
