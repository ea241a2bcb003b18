"""Targets with f(T x) = p f(x) for an affine involution T, with and without the symmetry built in (arXiv 2106.12891).

    python runs/train.py --config=configs/involution.py --workdir=/tmp/involution                # three minutes
    python runs/train.py --config=configs/involution.py:images --workdir=/tmp/involution_images  # two minutes

Words: `plane` (the default; T is an oblique reflection), `images` (digits that are flipped at random, by a
convolutional network), and smoke. Augmentation by T is the control that says whether the architecture matters.
"""

from sbjax import config as config_lib

ROLES = {
    "plain": "reference",
    "augmented": "control of data",
    "penalty": "control of the loss",
    "projector": "treatment",
    "tied": "treatment",
}


def get_config(argument=None):
    """The configuration; 'plane' by default."""
    words = config_lib.parse_words(argument, {"data": ("plane", "images")})
    config = config_lib.base_config("exact", "involution")
    config.task.data = words["data"]
    plane = words["data"] == "plane"
    arms = {}
    for suffix, shared in (("", {}), ("_one_side", {"side": "one"}), ("_odd", {"sign": -1})) if plane else (("", {}),):
        for method, role in ROLES.items():
            role = "treatment" if suffix and role == "reference" else role
            labels = {"treatment": f"projector{suffix}"} if role.startswith("control") else {}
            arms[method + suffix] = {
                "order": len(arms),
                "role": role,
                "labels": labels,
                "task": {"method": method, **shared},
            }
    if words["smoke"]:
        arms = {name: arm for name, arm in arms.items() if name in (ROLES if plane else ("plain", "projector", "tied"))}
    config.arms = arms
    config.reference = "plain"
    if plane:
        config.replicas, config.train_steps = 20, 3000
    else:
        config.replicas, config.train_steps, config.task.width = 10, 600, 8
    config.monitor.kinds = ""
    config.precision.x64 = plane
    return config_lib.shrink(config) if words["smoke"] else config
