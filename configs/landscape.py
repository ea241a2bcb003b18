"""The geometry of the loss landscape: counts of critical points, and students that learn from a teacher.

    python runs/train.py --config=configs/landscape.py:counts --workdir=/tmp/counts             # seconds
    python runs/train.py --config=configs/landscape.py:two_layer --workdir=/tmp/two_layer
    python runs/train.py --config=configs/landscape.py:two_layer,g --workdir=/tmp/two_layer_g
    python runs/train.py --config=configs/landscape.py:deep --workdir=/tmp/deep
    python runs/train.py --config=configs/landscape.py:two_layer,quick --workdir=/tmp/quick     # fewer seeds and steps

Words: an experiment, `standard` or `quick`, and `smoke`; with two_layer also `sigmoid` or `g`, the activation.

    two_layer     students of widths 2 to 45 (g: 20) of a teacher of width 4: shares at zero loss, where others end
    deep          the same with three hidden layers and tanh
    counts        exact numbers of subspaces of global minima and critical points, paths of zero loss
    recovery      the teacher's weights from over-parameterised students (Expand-and-Cluster)
    mnist         loss, gradient and update of networks on MNIST by width
    copy_average  narrower students of an erf teacher: copy neurons, or average them

`replicas` are the seeds, `train_steps` the steps of the optimiser; other fields are in `task`, see the modules of
`sbjax/landscape`. A run that was stopped goes on with the first arm that is not finished. Students are polished by many
small eigenvalue problems, one student a device: set OPENBLAS_NUM_THREADS=1 in the environment, or their threads wait
for each other, on busy cores many times as long as they work.
"""

from sbjax import config as config_lib
from sbjax.experiments.landscape.experiment import EXPERIMENTS


def by_width(widths, digits=1):
    """An arm for each width; as many digits in all names."""
    return {f"m{width:0{digits}}": {"labels": {"width": width}, "task": {"width": width}} for width in widths}


def by_neurons(*pairs):
    """An arm for each pair of neurons of student and teacher."""
    return {
        f"n{n}_k{k}": {"labels": {"students": n, "teachers": k}, "task": {"students": n, "teachers": k}}
        for n, k in pairs
    }


# Seeds, steps and arms; `quick` and `smoke` change some of them. The reference is the first arm where none is named.
SETTINGS = {
    "two_layer": {
        "replicas": 50,
        "train_steps": 20_000,
        "arms": by_width((2, 3, 4, 5, 6, 8, 10, 20, 45), 2),
        "reference": "m04",
        "quick": {"replicas": 10, "train_steps": 5000, "arms": by_width((4, 5, 6, 8, 10), 2)},
        "smoke": {"arms": by_width((4, 5), 2)},
    },
    "deep": {
        "replicas": 50,
        "train_steps": 100_000,
        # With 921 parameters an eigenvalue problem of each of 1000 Newton steps would take over an hour.
        "arms": by_width((3, 4, 5, 8), 2)
        | {"m20": {"labels": {"width": 20}, "task": {"width": 20, "newton_steps": 100}}},
        "reference": "m04",
        "quick": {"replicas": 10, "train_steps": 5000, "arms": by_width((3, 4, 5, 8), 2)},
        "smoke": {"arms": by_width((4,), 2)},
    },
    "counts": {
        "replicas": 10,
        "train_steps": 1,
        "arms": {
            f"r{'_'.join(map(str, widths))}": {"labels": {"layers": len(widths)}, "task": {"widths": widths}}
            for widths in ((4,), (10,), (4, 4, 4))
        },
        "quick": {},
        "smoke": {},
    },
    "recovery": {
        "replicas": 12,
        "train_steps": 1500,
        "arms": {name: {"task": {"activation": name}} for name in ("g", "sigmoid", "tanh")}
        | {"deep": {"task": {"activation": "tanh", "teachers": "2-2:3,3-3:3", "expansion": 3.0}}},
        "quick": {"replicas": 6, "train_steps": 500},
        "smoke": {"arms": {"g": {"task": {"activation": "g"}}}},
    },
    "mnist": {
        "replicas": 10,
        "train_steps": 500,
        "arms": by_width((10, 20, 50, 100, 250, 1000), 4),
        "quick": {"replicas": 5, "train_steps": 100, "arms": by_width((10, 20, 50, 100), 4)},
        "smoke": {"arms": by_width((10, 20), 4)},
    },
    "copy_average": {
        "replicas": 100,
        "train_steps": 50,
        "arms": by_neurons((1, 4), (2, 4), (3, 6), (4, 6)),
        "quick": {"replicas": 10},
        "smoke": {"arms": by_neurons((1, 4))},
    },
}
DOUBLE = ("two_layer", "deep", "counts", "recovery", "copy_average")


def get_config(argument=None):
    """The configuration for words such as 'two_layer,g,quick'; 'two_layer,sigmoid,standard' by default."""
    choices = {"experiment": EXPERIMENTS, "activation": ("sigmoid", "g"), "scale": ("standard", "quick")}
    words = config_lib.parse_words(argument, choices)
    experiment = words["experiment"]
    settings = dict(SETTINGS[experiment])
    quick, smoke = settings.pop("quick"), settings.pop("smoke")
    if words["scale"] == "quick":
        settings |= quick
    config = config_lib.base_config("landscape", experiment)
    if words["activation"] != "sigmoid":
        if experiment != "two_layer":
            raise config_lib.ConfigError(
                f"config argument 'g' goes with two_layer, not with {experiment}; leave it out"
            )
        config.task.activation = words["activation"]
        settings["arms"] = {name: arm for name, arm in settings["arms"].items() if name != "m45"}  # as published
    if words["smoke"]:
        config = config_lib.shrink(config)
        settings = {name: settings[name] for name in ("arms", "reference") if name in settings} | smoke
    config.reference = settings.pop("reference", next(iter(settings["arms"])))
    arms = settings.pop("arms")
    config.arms = {
        name: {**arm, "order": order, "role": "reference" if name == config.reference else "treatment"}
        for order, (name, arm) in enumerate(arms.items())
    }
    config.update(settings)
    config.monitor.kinds = ""
    config.precision.x64 = experiment in DOUBLE
    config.precision.matmul = "highest"
    return config
