"""A zoo: networks by the thousand, each with its own hyper-parameters, in one program and as arrays on disk.

    python runs/train.py --config=configs/zoo.py --workdir=/tmp/zoo                   # 5,000 networks a kind
    python runs/train.py --config=configs/zoo.py:digits,quick --workdir=/tmp/zoo      # 1,000
    python runs/train.py --config=configs/zoo.py:fashion_mnist,quick --workdir=/tmp/zoo_fashion
    python runs/train.py --config=configs/zoo.py:resnet8,cifar10 --workdir=/tmp/zoo_resnet
    python runs/train.py --config=configs/zoo.py:smoke --workdir=/tmp/smoke

Words: cnn, three convolutions of 16 channels and a dense head, 4,970 parameters for a grey image; resnet8; digits,
fashion_mnist, mnist or cifar10 (grey), the latter three at 8 pixels, a fifth of the training images and 1,000 of the
test images; fixed, arms whose networks differ in nothing but their random numbers besides; quick (1,000 networks a
kind, 4 to 16 epochs of the digits, 1 to 4 of a twentieth of another set, without `small`); smoke.

Arms: `standard`; `w`, W-asymmetric: half of the input channels of each filter frozen (cnn: and 3 of the 9 entries of
the first layer's filters, 8 entries of each row of the head; resnet8: as published); `small`, standard and of as many
trained parameters as `w` (cnn). Laws of the cnn, those of `--fields`, are of the kind of arXiv 2002.11448. Of resnet8:
learning rate 0.5 10^-U(0, 2), decay 10^-U(1, 5), label smoothing U(0, 0.2), 10 to 40 epochs, AdamW, a triangle that
peaks at epoch 5 (arXiv 2405.20231).

What to do with a zoo: docs/how_to/zoo.md.
"""

from sbjax import config as config_lib

CNN = {"name": "cnn", "channels": (16, 16, 16), "norm": "none"}
KAPPA = 0.25
W_CNN = {
    "kind": "w",
    "masks": {
        "conv_0/kernel": {"n_fix": 3, "kappa": 2 * KAPPA},
        "conv_1/kernel": {"n_fix": 8, "kappa": KAPPA, "unit": "filter"},
        "conv_2/kernel": {"n_fix": 8, "kappa": KAPPA, "unit": "filter"},
        "head/kernel": {"n_fix": 8, "kappa": 2 * KAPPA},
    },
}
W_RESNET = {"kind": "w", "preset": "resnet8"}
FIXED = {
    **{"learning_rate": (0.01, 0.01), "weight_decay": (1e-3, 1e-3), "init_scale": (1.0, 1.0)},
    **{"label_smoothing": (0.0, 0.0), "dropout": (0.0, 0.0), "epochs_share": 1.0},
    **{"activations": ("relu",), "optimizers": ("adam",)},
}


def get_config(argument=None):
    """The configuration for words such as 'cnn,fashion_mnist,quick'; 'cnn,digits' by default."""
    words = config_lib.parse_words(
        argument,
        {"model": ("cnn", "resnet8"), "dataset": ("digits", "fashion_mnist", "mnist", "cifar10")},
        flags=("fixed", "quick", "smoke"),
    )
    config = config_lib.base_config("zoo")
    config.reference, config.replicas, config.train_epochs = "standard", 5000, 40.0
    config.task.dataset = words["dataset"]
    if words["dataset"] != "digits":
        config.task.update(image_size=8, train_share=0.2, test_examples=1000, grey=words["dataset"] == "cifar10")
    if words["model"] == "cnn":
        config.model = CNN
        arms = {"standard": {}, "w": {"model": {"asymmetry": W_CNN}}, "small": {"model": {"channels": (11, 11, 12)}}}
        arms["small"]["role"] = "control of size"
        arms["small"]["labels"] = {"treatment": "w", "about": "standard networks with as many trained parameters as w"}
    else:
        config.model = {"name": "resnet8", "norm": "batch"}
        arms = {"standard": {}, "w": {"model": {"asymmetry": W_RESNET}}}
        config.task.update(learning_rate=(5e-3, 0.5), weight_decay=(1e-5, 1e-1), init_scale=(1.0, 1.0))
        config.task.update(dropout=(0.0, 0.0), activations=("relu",), optimizers=("adam",), peak_epochs=5.0)
        if words["dataset"] in ("cifar10", "mnist", "fashion_mnist"):
            config.task.update(image_size=16, batch_size=128, grey=False)
    if words["fixed"]:
        arms["fixed"] = {"task": dict(FIXED), "role": "control of hyper-parameters"}
        arms["fixed"]["labels"] = {"about": "standard networks that differ in their random numbers alone"}
        w_model = {"asymmetry": W_CNN if words["model"] == "cnn" else W_RESNET}
        arms["w_fixed"] = {"task": dict(FIXED), "model": w_model, "role": "control of hyper-parameters"}
        arms["w_fixed"]["labels"] = {"treatment": "w", "about": "w networks that differ in random numbers alone"}
    if words["quick"]:
        config.replicas, config.train_epochs = 1000, 16.0
        if words["dataset"] != "digits":
            config.train_epochs, config.task.train_share = 4.0, 0.05
            arms.pop("small", None)
    for order, own in enumerate(arms.values()):
        own |= {"order": order, "role": own.get("role", "treatment" if order else "reference")}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config
