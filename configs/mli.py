"""Monotonic linear interpolation: does the training loss fall all the way on the line from start to end?

    python runs/train.py --config=configs/mli.py:cifar10 --workdir=/tmp/mli                 # 300 networks a kind: days
    python runs/train.py --config=configs/mli.py:cifar10,quick --workdir=/tmp/mli
    python runs/train.py --config=configs/mli.py:digits,smoke --workdir=/tmp/smoke

ResNet-8, as many networks a kind as replicas, each with hyper-parameters of its own: learning rate 0.5 10^-U(0, 2),
decay 0.1 10^-U(0, 4), label smoothing U(0, 0.2), the same ones for all kinds. AdamW, warm-up over a fifth of the
training, then a cosine (published: a triangle, and 10 to 40 epochs by network; here 25 for all).

Words: cifar10 or digits; quick (50 networks a kind, 10 % of the data at 16 pixels, batch 128, 5 epochs, 250 examples
for losses on lines); smoke.

What came out of cifar10,quick, on 2 x86-64 cores in 9 minutes: docs/results/mli.md.

Arms: `standard`, `sigma`, `w` (eight whole filters frozen for each output channel).

Source: Lim et al., arXiv 2405.20231, section on monotonic linear interpolation.
"""

from sbjax import config as config_lib

RESNET = {"name": "resnet8", "width": 1.0, "norm": "batch", "activation": "relu", "dropout": 0.0}
# Which of the two chords the global convexity was measured with is not known.
PUBLISHED = {
    **{"standard/networks": 300, "standard/monotonic": 0.263, "standard/delta": (0.079, 0.109)},
    **{"standard/local_convexity": (0.548, 0.139), "standard/global_convexity": (0.823, 0.229)},
    **{"sigma/networks": 276, "sigma/monotonic": 0.873, "sigma/delta": (0.004, 0.047)},
    **{"sigma/local_convexity": (0.675, 0.143), "sigma/global_convexity": (0.976, 0.098)},
    **{"w/networks": 300, "w/monotonic": 1.0, "w/delta": (-0.027, 0.026)},
    **{"w/local_convexity": (0.769, 0.165), "w/global_convexity": (1.0, 0.0)},
}
W = {"asymmetry": {"kind": "w", "preset": "resnet8"}}
CLAIM = (
    "the training loss falls all the way for 26.3 % of the standard networks, 87.3 % with sigma and all with W "
    "(arXiv 2405.20231)"
)


def get_config(argument=None):
    """The configuration for words such as 'cifar10,quick'; 'cifar10' by default."""
    words = config_lib.parse_words(argument, {"dataset": ("cifar10", "digits")}, flags=("quick", "smoke"))
    config = config_lib.base_config()
    config.reference = "standard"
    config.task.dataset = words["dataset"]
    config.task.batch_size = 512
    config.model = RESNET
    config.optimizer.update(name="adamw", learning_rate=0.5, weight_decay=0.1, schedule="cosine", warmup_share=0.2)
    config.population.update(learning_rate=2.0, weight_decay=4.0, label_smoothing=0.2)
    config.replicas, config.train_epochs, config.reports = 300, 25.0, 2
    config.monitor.kinds = ""
    config.checkpoint.saves = 2
    if words["dataset"] == "cifar10":
        config.task.update(crop_padding=2, flip=True)
    else:
        config.task.batch_size, config.replicas = 64, 20
    if words["quick"]:
        config.replicas = 50
        config.train_epochs = 5.0
        config.task.batch_size = 128
        if words["dataset"] == "cifar10":
            config.task.update(train_share=0.1, image_size=16, eval_share=0.1)
        config.interpolation.examples = 250
    comparable = words["dataset"] == "cifar10" and not words["quick"]
    config.interpolation.update(between="start", points=25, published=PUBLISHED if comparable else {})
    config.arms = {
        "standard": {"order": 0, "role": "reference"},
        "sigma": {"order": 1, "role": "treatment", "model": {"asymmetry": {"kind": "sigma"}}},
        "w": {"order": 2, "role": "treatment", "labels": {"claim": CLAIM}, "model": W},
    }
    return config_lib.shrink(config) if words["smoke"] else config
