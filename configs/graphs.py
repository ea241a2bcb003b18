"""Graph networks with and without permutation symmetries: are independently trained ones linearly connected?

    python runs/train.py --config=configs/graphs.py:csbm --workdir=/tmp/graphs             # synthetic stand-in: minutes
    python runs/train.py --config=configs/graphs.py:csbm,quick --workdir=/tmp/graphs
    python runs/train.py --config=configs/graphs.py:arxiv --workdir=/tmp/arxiv --config.task.data_dir=FOLDER
    python runs/train.py --config=configs/graphs.py:csbm,smoke --workdir=/tmp/smoke

Words: csbm, a contextual stochastic block model (3,000 nodes, 10 classes, mean degree 10), a synthetic graph that
stands in for a citation graph, none of which ships inside a package; arxiv, ogbn-arxiv from its files (hours of a CPU
for each network); quick (1,500 nodes, 200 steps, 5 replicas); smoke (three
arms).

The network of arXiv 2405.20231: three layers of 256 on features plus the mean of the neighbours, batch norm, gelu; Adam
1e-3 after 25 linear steps, full batch, 500 epochs; barriers from three points with batch statistics estimated again in
one pass, which is what its 50 identical passes average to.

Arms: `standard`, also with the second network's units matched to the first's by products of activations, as there;
`w` (6 frozen entries a row, kappa 0.5), `sigma` (FiGLU, matrix of deviation 0.01 / sqrt(256)) and `w_sigma`, both,
which the released program calls W; and of `w` the controls `kappa_0` (frozen zeros) and `from_w` (a standard network
from `w`'s effective start).

What came out on the synthetic graph, in four minutes of two cores: docs/results/graphs.md; on ogbn-arxiv nothing was
run yet. How to: docs/how_to/graphs.md.
"""

from sbjax import config as config_lib

W = {"kind": "w", "preset": "gnn_arxiv"}
GATE = 0.01 / 16  # 0.01 / sqrt(256)
ARMS = {
    "standard": {},
    "w": W,
    "sigma": {"kind": "sigma", "gate_scale": GATE},
    "w_sigma": W | {"with_gate": GATE},
    "kappa_0": W | {"kappa_factor": 0.0},
    "from_w": W | {"start_only": True},
}
CONTROLS = {
    "kappa_0": ("sparsity", "frozen entries of 0"),
    "from_w": ("the start", "a standard network from w's effective start"),
}
PUBLISHED = {"standard": (1.475, 0.24), "standard_rebased": (0.269, 0.02), "sigma": (0.901, 0.11), "w": (0.095, 0.03)}
CLAIM = (
    "the barrier of the test loss falls from 1.475 (standard) to 0.095 (W) on ogbn-arxiv (arXiv 2405.20231, table 1)"
)


def get_config(argument=None):
    """The configuration for words such as 'csbm,quick'; 'csbm' by default."""
    words = config_lib.parse_words(argument, {"dataset": ("csbm", "arxiv")}, flags=("quick", "smoke"))
    data, quick = words["dataset"], words["quick"]
    config = config_lib.base_config()
    config.reference = "standard"
    config.task = {"kind": "graphs", "dataset": {"csbm": "csbm", "arxiv": "ogbn_arxiv"}[data]}
    config.model = {"name": "graph", "widths": (256, 256, 256), "norm": "batch", "activation": "gelu"}
    steps = 200 if quick else 500
    if data == "arxiv":
        config.task.data_dir = ""
    elif quick:
        config.task.nodes = 1500
    config.optimizer.update(name="adam", learning_rate=1e-3, schedule="constant", warmup_share=25 / steps)
    config.replicas, config.train_epochs, config.reports = 5 if quick else 10, float(steps), 4
    config.monitor.kinds = ""
    config.checkpoint.saves = 2
    config.interpolation.update(
        between="pairs", points=3, pairs=10, rebase=True, matching="dot", identifiability=True,
        published=PUBLISHED if data == "arxiv" and not quick else {},
    )  # fmt: skip
    arms = {name: {"model": {"asymmetry": section}} if section else {} for name, section in ARMS.items()}
    for order, (name, arm) in enumerate(arms.items()):
        arm |= {"order": order, "role": "treatment" if order else "reference"}
        if name == "w" and data == "arxiv":
            arm["labels"] = {"claim": CLAIM}
        if name in CONTROLS:
            explanation, about = CONTROLS[name]
            arm |= {"role": f"control of {explanation}", "labels": {"treatment": "w", "about": about}}
    if words["smoke"]:
        arms = {name: arms[name] for name in ("standard", "w_sigma", "from_w")}
    config.arms = arms
    return config_lib.shrink(config) if words["smoke"] else config
