"""Networks that read networks: which metanetwork predicts the test accuracy of a network best, from its weights?

    python runs/train.py --config=configs/zoo.py:digits --workdir=/tmp/digits                    # first: the networks
    python runs/train.py --config=configs/metanets.py --config.task.zoo=/tmp/digits --workdir=/tmp/metanets
    python runs/train.py --config=configs/metanets.py:kinds --config.task.zoo=/tmp/digits --workdir=/tmp/metanets_kinds
    python runs/train.py --config=configs/metanets.py:smoke --workdir=/tmp/metanets_smoke   # makes its own networks

Words: order (all metanetworks on the standard networks of the zoo), graphs (of these statistics, messages, attention),
kinds (four metanetworks on standard and on W-asymmetric networks, each W arm beside its standard partner); fixed; brief
(without graphs, which take minutes); quick (5 replicas, 15 epochs); smoke.

Controls. `order`: hyper-parameters alone, without any weight; a graph without messages; and what hyper-parameters leave
of the accuracy, by statistics and by the functional. `kinds`: of the W arm of the flat perceptron, smaller standard
networks, standard networks of which as many entries are read, hyper-parameters alone on both kinds, and the target that
these leave; with `fixed`, networks of equal hyper-parameters (of a zoo made with the same word).

Published (arXiv 2405.20231, ResNet-8 on CIFAR-10, 10,000 networks a kind, R^2 / tau on standard ones): perceptron .330
/ .389, DeepSets .855 / .617, DMC .950 / .787, StatNN .976 / .866; on W-asymmetric ones .594 / .864, .936 / .858, .967 /
.911, .978 / .935. On the CNNs of arXiv 2302.14040 (grey CIFAR-10), tau: StatNN .915, functional (HNP) .934.

What came out: docs/results/metanets.md. How to: docs/how_to/metanets.md.
"""

from sbjax import config as config_lib

FLAT = {"name": "flat", "widths": (64,)}
DEEPSETS = {"name": "deepsets", "width": 64}
DMC = {"name": "dmc", "channels": (2, 4, 8, 16, 32, 64, 64, 64, 64, 64)}
STATISTICS = {"name": "statistics", "widths": (256, 256)}
HYPER = {"name": "hyperparameters", "widths": (64, 64)}
FUNCTIONAL = {"name": "functional", "channels": (16, 16, 5), "head": (128,)}
GRAPH = {"name": "neural_graph", "layers": 3, "nodes": 32, "edges": 16, "head": (64,)}
ATTENTION = {"name": "neural_graph_transformer", "layers": 2, "nodes": 16, "edges": 8, "heads": 4, "head": (64,)}
SMALL = {
    "flat": {"widths": (8,)},
    "deepsets": {"width": 8},
    "dmc": {"channels": (2, 4)},
    "statistics": {"widths": (8,)},
    "hyperparameters": {"widths": (8,)},
    "functional": {"channels": (4, 4), "head": (8,)},
    "neural_graph": {"layers": 1, "nodes": 8, "edges": 4, "head": (8,)},
    "neural_graph_transformer": {"layers": 1, "nodes": 8, "edges": 4, "heads": 2, "head": (8,)},
}
SLOW = ("neural_graph", "neural_graph_transformer")
CLAIMS = {
    "functional": "tau .934 against .915 of StatNN (arXiv 2302.14040, table)",
    "w_flat": "R^2 rises from .330 to .594 (arXiv 2405.20231)",
}


def get_config(argument=None):
    """The configuration for words such as 'kinds,quick'; 'order' by default."""
    words = config_lib.parse_words(
        argument, {"what": ("order", "kinds", "graphs")}, flags=("fixed", "brief", "quick", "smoke")
    )
    if words["fixed"] and words["what"] != "kinds":
        raise config_lib.ConfigError("config argument 'fixed' goes with 'kinds': leave it out, or give 'kinds'")
    config = config_lib.base_config("metanets")
    config.model = STATISTICS
    config.optimizer.update(name="adamw", learning_rate=3e-3, weight_decay=0.01, schedule="cosine", warmup_share=0.05)
    config.replicas, config.train_epochs, config.reports = (5, 15.0, 5) if words["quick"] else (10, 80.0, 20)
    config.monitor.kinds, config.checkpoint.saves = "", 2
    config.reference = "standard_flat" if words["what"] == "kinds" else "statistics"
    quick = words["quick"] or words["smoke"]
    arms = kinds(quick, words["fixed"]) if words["what"] == "kinds" else order(quick)
    if words["what"] == "graphs":
        arms = {name: arms[name] for name in ("statistics", "neural_graph", "attention", "set_graph")}
    if words["brief"]:
        arms = {name: arm for name, arm in arms.items() if arm["model"]["name"] not in SLOW}
    for place, (name, arm) in enumerate(arms.items()):
        arm |= {"order": place, "role": arm.get("role", "reference" if name == config.reference else "treatment")}
        if name in CLAIMS:
            arm["labels"] = {**arm.get("labels", {}), "claim": CLAIMS[name]}
    if words["smoke"]:
        keep = {"order": ("statistics", "functional", "flat"), "kinds": ("standard_flat", "w_flat")}
        keep["graphs"] = ("statistics", "neural_graph")
        arms = {name: arms[name] for name in keep[words["what"]]}
        for arm in arms.values():
            arm["model"] = arm["model"] | SMALL[arm["model"]["name"]]
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config


def order(quick):
    """Arms: the metanetworks, and controls of the functional."""
    arms = {
        "statistics": {"model": STATISTICS},
        "flat": {"model": FLAT},
        "functional": {"model": FUNCTIONAL},
        "dmc": {"model": DMC},
        "deepsets": {"model": DEEPSETS | {"width": 16}} if quick else {"model": DEEPSETS},
        "neural_graph": {"model": GRAPH},
        "attention": {"model": ATTENTION},
    }
    arms["hyperparameters"] = control(HYPER, "hyper-parameters", "predicted without a weight", "functional")
    arms["set_graph"] = control(GRAPH | {"messages": False}, "messages", "a graph without messages", "neural_graph")
    left = {"target": "residual"}
    arms["statistics_left"] = control(STATISTICS, "hyper-parameters", "what these leave", "statistics") | {"task": left}
    arms["statistics_left"]["labels"]["treatment"] = "functional"
    arms["functional_left"] = control(FUNCTIONAL, "hyper-parameters", "what these leave", "functional") | {"task": left}
    arms["functional_left"]["labels"]["against"] = "statistics_left"
    return arms


def kinds(quick, fixed):
    """Arms: standard and W-asymmetric networks, and controls of the latter's flat perceptron."""
    arms, sets = {}, DEEPSETS | ({"width": 16} if quick else {})
    for name, model in {"flat": FLAT, "deepsets": sets, "dmc": DMC, "statistics": STATISTICS}.items():
        arms[f"standard_{name}"] = {"model": model}
        arms[f"w_{name}"] = {"model": model, "task": {"nets": "w"}, "labels": {"against": f"standard_{name}"}}
    small = control(FLAT, "size", "smaller standard networks", "w_flat", "standard_flat")
    arms["small_flat"] = small | {"task": {"nets": "small"}}
    fewer = control(FLAT, "size", "standard networks, as many entries read", "w_flat", "standard_flat")
    arms["fewer_flat"] = fewer | {"task": {"as_large_as": "w"}}
    arms["standard_hyperparameters"] = control(
        HYPER, "hyper-parameters", "no weight is read", "w_flat", "standard_flat"
    )
    other = control(HYPER, "hyper-parameters", "no weight is read", "w_flat", "standard_hyperparameters")
    arms["w_hyperparameters"] = other | {"task": {"nets": "w"}}
    left = control(FLAT, "hyper-parameters", "what these leave", "w_flat", "standard_flat")
    arms["standard_left"] = left | {"task": {"target": "residual"}}
    left = control(FLAT, "hyper-parameters", "what these leave", "w_flat", "standard_left")
    arms["w_left"] = left | {"task": {"nets": "w", "target": "residual"}}
    if fixed:
        alike = control(FLAT, "hyper-parameters", "all have the same", "w_flat", "standard_flat")
        arms["fixed_flat"] = alike | {"task": {"nets": "fixed"}}
        alike = control(FLAT, "hyper-parameters", "all have the same", "w_flat", "fixed_flat")
        arms["w_fixed_flat"] = alike | {"task": {"nets": "w_fixed"}}
    return arms


def control(model, explanation, about, treatment, against=None):
    """An arm that removes an explanation of a treatment's gain."""
    labels = {"treatment": treatment, "about": about, "against": against or treatment}
    return {"model": model, "role": f"control of {explanation}", "labels": labels}
