"""Networks for the collision of a lattice gas, with and without the symmetry of the lattice (arXiv 2405.13850).

    python runs/train.py --config=configs/lattice_collision.py --workdir=/tmp/lattice_collision

Word: smoke. Arms: plain, augmented by the eight symmetries, equivariant, equivariant and conserving, with few and with
many states for training. Controls: what conservation does alone, averaging over the symmetries, and parameters: a
plain network with few, an equivariant one with as many as the plain one.
"""

from sbjax import config as config_lib

ARMS = {
    "plain": ("reference", {}),
    "augmented": ("control of data", {"method": "augmented"}),
    "equivariant": ("treatment", {"method": "equivariant"}),
    "both": ("treatment", {"method": "equivariant", "conserving": True}),
    "conserving": ("control of conservation", {"conserving": True}),
    "averaged": ("control of the layers", {"method": "averaged"}),
}
ONLY_FEW = ("augmented", "conserving")  # copies of many states add little


def get_config(argument=None):
    """The configuration; 'smoke' makes it small."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config("exact", "lattice_collision")
    arms = {}
    for suffix, points in (("", 100), ("_many", 10_000)):
        for name, (role, own) in ARMS.items():
            if suffix and name in ONLY_FEW:
                continue
            role = "treatment" if suffix and role == "reference" else role
            labels = {"treatment": f"equivariant{suffix}"} if role.startswith("control") else {}
            arms[name + suffix] = {
                "order": len(arms),
                "role": role,
                "labels": labels,
                "task": {"points": points, **own},
            }
    for name, own in {"small": {"fields": 1}, "wide": {"method": "equivariant", "fields": 23}}.items():
        arms[name] = {
            "order": len(arms),
            "role": "control of parameters",
            "labels": {"treatment": "equivariant"},
            "task": {"points": 100, **own},
        }
    if words["smoke"]:  # programs take long to compile: those of the claims
        arms = {
            name: arm
            for name, arm in arms.items()
            if name not in ("averaged", "conserving", "equivariant", "small") and not name.endswith("_many")
        }
    config.arms = arms
    config.reference, config.replicas, config.train_steps = "plain", 10, 3000
    config.monitor.kinds = ""
    config.precision.x64 = True
    return config_lib.shrink(config) if words["smoke"] else config
