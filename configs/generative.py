"""Networks that make networks: diffusion over checkpoints of small perceptrons, prompted by the loss that is wanted.

    python runs/train.py --config=configs/generative.py --workdir=/tmp/generative
    python runs/train.py --config=configs/generative.py:smoke --workdir=/tmp/generative_smoke

Words: quick (2 replicas, 600 steps); smoke.

Arms: `flat`, a perceptron on all parameters in a row; `permuted`, the same with hidden units in a random order at each
step; `equivariant`, layers of the permutation spec. Control: `shuffled`, equivariant, with prompts of other networks.

For comparison, without a generative model: the training network whose loss is nearest to the prompt; the mean of the
five nearest; the nearest one with as much noise as held-out networks are away from the training ones. The distance of
what is sampled to the nearest training network, units matched, over that of held-out networks says whether it is new.

Published (arXiv 2209.12892): prompts are reached over most of the range of losses, with permutations as augmentation;
arXiv 2506.07998: such models memorise. What came out: docs/results/metanets.md.
"""

from sbjax import config as config_lib

FLAT = {"name": "flat_denoiser"}
EQUIVARIANT = {"name": "equivariant_denoiser"}


def get_config(argument=None):
    """The configuration for words such as 'quick'."""
    words = config_lib.parse_words(argument, {}, flags=("quick", "smoke"))
    config = config_lib.base_config("generative")
    config.model = EQUIVARIANT
    config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=1e-4, schedule="cosine", warmup_share=0.05)
    config.replicas, config.train_epochs, config.train_steps, config.reports = 5, 0.0, 2000, 8
    config.monitor.kinds, config.checkpoint.saves = "", 2
    config.reference = "flat"
    if words["quick"]:
        config.replicas, config.train_steps = 2, 600
    flat, equivariant = dict(FLAT), dict(EQUIVARIANT)
    if words["smoke"]:
        flat |= {"width": 16, "depth": 1}
        equivariant |= {"channels": 8, "depth": 1}
    reached = "prompted losses are reached (arXiv 2209.12892)"
    config.arms = {
        "flat": {"order": 0, "role": "reference", "model": flat},
        "permuted": {"order": 1, "role": "treatment", "model": flat, "task": {"permuted": True}},
        "equivariant": {"order": 2, "role": "treatment", "model": equivariant, "labels": {"claim": reached}},
        "shuffled": {"order": 3, "role": "control of prompts", "model": equivariant, "task": {"shuffled": True},
                     "labels": {"treatment": "equivariant", "about": "prompts of other networks"}},
    }  # fmt: skip
    return config_lib.shrink(config) if words["smoke"] else config
