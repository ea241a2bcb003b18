"""The equation of state of QCD from quasi-partons: raw against expanded temperature, with the controls.

    python runs/train.py --config=configs/qcd.py --workdir=/tmp/qcd
    python runs/train.py --config=configs/qcd.py:quick --workdir=/tmp/qcd-quick
    python runs/train.py --config=configs/qcd.py:wuppertal_budapest_2013 --workdir=/tmp/qcd-wb
    python runs/train.py --config=configs/qcd.py:smoke --workdir=/tmp/qcd-smoke        # to see that it works

Words: hotqcd_2014 (the default), hotqcd_points (the points of lattice QCD themselves), wuppertal_budapest_2010 or
wuppertal_budapest_2013; one of

    standard    20 seeds, 5000 steps
    quick       5 seeds, 1000 steps

and smoke. Three networks of 15,905 parameters give the masses of light quarks, strange quarks and gluons at 50
temperatures in 0.155 to 0.4 GeV, every 5 MeV as the points of the lattice; entropy density and trace anomaly of their
gas are fitted to the parametrisation, by Adam from 1e-3, times 0.9 every 2000 steps. Arms are compared by the mean
absolute error of P/T^4 at the temperatures half-way between, at the last step; the report shows beside it the best of
50 reports, since the authors of the network keep the best of all epochs. In float32. Hardware: 2 x86-64 cores.

`standard` takes 9 minutes of them. What came out: docs/results/qcd.md.

Arms: raw; `expanded` [pi, pi, T, pi, pi]; `ones` [1, 1, T, 1, 1]; `matched_bias`, raw with the bias that the expansion
by pi amounts to: its starting values (folded from the same draw) and its step size; `widened`, raw with a first layer
of 18 instead of 16 units (68 more parameters a network, where the expansion has 64).
"""

import math

from sbjax import config as config_lib
from sbjax.physics.lattice import NAMES

SCALES = {"standard": {"replicas": 20, "steps": 5000}, "quick": {"replicas": 5, "steps": 1000}}


def get_config(argument=None):
    """The configuration for words such as 'quick'."""
    words = config_lib.parse_words(argument, {"parametrisation": NAMES, "scale": tuple(SCALES)})
    scale = SCALES[words["scale"]]
    config = config_lib.base_config("qcd")
    config.replicas = scale["replicas"]
    config.train_steps = scale["steps"]
    config.reports = 50
    config.precision.matmul = "highest"
    config.task.parametrisation = words["parametrisation"]
    config.optimizer.update(name="adam", learning_rate=1e-3, warmup_share=0.0, weight_decay=0.0)
    config.optimizer.update(schedule="step", decay_every_steps=2000, decay_factor=0.9)
    config.monitor.kinds = ""
    config.model = {
        "name": "quasi_parton",
        "first": 16,
        "width": 32,
        "blocks": 7,
        "largest": 3.0,
        "dtype": "float32",
    }
    config.arms = {
        "raw": {"order": 0, "role": "reference"},
        "expanded": {
            "order": 1,
            "role": "treatment",
            "labels": {
                "about": "constants pi around the temperature",
                "claim": "a smaller error of P/T^4 and eps/T^4 with expansion, in curves without printed numbers "
                "(arXiv 2409.06402, Fig. 3)",
            },
            "expansion": around(math.pi),
        },
        "ones": {
            "order": 2,
            "role": "treatment",
            "labels": {"about": "constants 1 around the temperature"},
            "expansion": around(1.0),
        },
        "matched_bias": {
            "order": 3,
            "role": "control of starting bias and step",
            "labels": {
                "treatment": "expanded",
                "about": "raw input with the starting values and the step size of the bias that the constants "
                "amount to",
            },
            "expansion": around(math.pi),
            "task": {"fold": True},
            # The bias b = b_0 + sum c_j w_j moves (1 + sum |c_j|) times as far a step of Adam as b_0 alone.
            "optimizer": {"first_bias_scale": 1 + 4 * math.pi},
        },
        "widened": {
            "order": 4,
            "role": "control of first-layer size",
            "labels": {"treatment": "expanded", "about": "raw input with a first layer of about as many parameters"},
            "model": {"first": 18},
        },
    }
    return config_lib.shrink(config) if words["smoke"] else config


def around(value):
    """Two constants on either side."""
    return {"kind": "vector", "before": 2, "after": 2, "value": value}
