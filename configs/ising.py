"""The Ising analogy: a field removes the symmetry between two states, as a constant input is said to do.

    python runs/train.py --config=configs/ising.py --workdir=/tmp/ising
    python runs/train.py --config=configs/ising.py:smoke --workdir=/tmp/smoke       # seconds, to see that it works

Replicas of a 32 x 32 lattice are quenched from infinite temperature to T = 1.5 by 1000 Metropolis sweeps, without a
field (`h0`) and with h = 0.45 (`h045`), the values of Fig. 5B of arXiv 2409.06402. Reported: the share of replicas in
either state, their distance from one another, the energy of the bonds, and the landscape in mean field (T = 2) and of a
4 x 4 lattice, both exact. `seed`, `replicas` (a multiple of 32), `train_steps` (sweeps) and the fields of `task` may be
set as in every config.
"""

from sbjax import config as config_lib

CLAIM = "a field of 0.45 leaves one of the two states (arXiv 2409.06402, Fig. 5B)"


def get_config(argument=None):
    """The configuration; the word `smoke` shrinks it."""
    words = config_lib.parse_words(argument, {})
    config = config_lib.base_config("ising")
    config.replicas = 128
    config.train_steps = 1000
    config.reports = 20
    config.reference = "h0"
    config.monitor.kinds = ""
    config.arms = {
        "h0": {"order": 0, "role": "reference", "labels": {"field": 0.0}, "task": {"field": 0.0}},
        "h045": {"order": 1, "role": "treatment", "labels": {"field": 0.45, "claim": CLAIM}, "task": {"field": 0.45}},
    }
    return config_lib.shrink(config) if words["smoke"] else config
