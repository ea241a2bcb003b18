"""Classification of the nodes of one graph: every step sees the whole graph, the loss is that of its training nodes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax.data.graphs import GraphData
from sbjax.metrics.interpolation import recalibrate_batch_stats
from sbjax.models.graph import Graph, aggregate, make_graph
from sbjax.tasks import classification
from sbjax.tasks.task import Aux, Average, Lines, Task

_RING = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])


def graph_of(data: GraphData, *, aggregated: bool = True) -> Graph:
    """The undirected graph of a data set; its features aggregated once, which needs no parameters, or as they are."""
    graph = make_graph(data.features, data.edges)
    return graph._replace(features=aggregate(graph, graph.features)) if aggregated else graph


def make_graph_task(data: GraphData, module: Any, *, aggregated: bool = True, probe_size: int = 256) -> Task:
    """Classification of nodes with the cross-entropy loss; full batch, so that an epoch is a step.

    The setting is transductive: features and edges of all nodes are seen in training, and batch statistics are over all
    of them, as in the program of arXiv 2405.20231.

    Args:
        data: one graph.
        module: from a `Graph` to logits [node, classes], called with `train=`, such as `sbjax.models.graph.GraphNet`.
        aggregated: whether the module expects features that are aggregated once.
        probe_size: validation nodes whose logits `Task.outputs` returns.

    Returns:
        A `Task` with metrics 'validation/accuracy', 'validation/loss', 'test/accuracy', 'test/loss'.
    """
    graph = graph_of(data, aggregated=aggregated)
    split = np.full(len(data.labels), classification.PADDING, np.int8)
    split[data.validation], split[data.test] = classification.VALIDATION, classification.TEST
    arrays = {
        "graph": graph,
        "eval_labels": data.labels,
        "eval_split": split,
        "train": data.train.astype(np.int32),
        "probe": data.validation[:probe_size].astype(np.int32),
    }

    def init(key):
        # Parameters depend on the number of features alone.
        return module.init(key, _ring(graph.features[:1]), train=False)

    def loss(variables, batch, key):
        variables = {name: tree for name, tree in variables.items() if name != "hyper"}
        mutable = [name for name in variables if name not in ("params", "frozen")]
        rngs = {"dropout": key}
        logits, updates = module.apply(variables, batch["graph"], train=True, rngs=rngs, mutable=mutable)
        logits, labels = logits[batch["train"]], batch["eval_labels"][batch["train"]]
        value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        correct = logits.argmax(-1) == labels
        return value, Aux(dict(updates), {"train/accuracy": correct.mean(dtype=jnp.float32)})

    def evaluate(arrays, variables, part):
        del part
        return classification.averages(module.apply(variables, arrays["graph"], train=False), arrays)

    def evaluate_line(arrays, variables, part):
        del part
        logits = module.apply(variables, arrays["graph"], train=False)[arrays["train"]]
        labels = arrays["eval_labels"][arrays["train"]]
        per_node = {
            "train/loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
            "train/accuracy": (logits.argmax(-1) == labels).astype(jnp.float32),
        }
        return {name: Average(value.sum(), jnp.float32(len(data.train))) for name, value in per_node.items()}

    def train_pass(variables, graph):
        noise = {"dropout": jax.random.key(0)}
        return module.apply(variables, graph, train=True, rngs=noise, mutable=["batch_stats"])

    lines = Lines(
        evaluate=evaluate_line,
        parts=1,
        # Every pass over the whole graph has the same statistics: one gives what many average to.
        recalibrate=lambda arrays: recalibrate_batch_stats(
            train_pass, jax.tree.map(lambda leaf: leaf[None], arrays["graph"])
        ),
        apply=lambda variables, graph: module.apply(variables, graph, train=False),
        inputs=lambda arrays: _ring(arrays["graph"].features[: len(_RING)]),
    )
    nodes, features = data.features.shape
    return Task(
        about=(
            ("input", f"a sbjax.models.graph.Graph with {features} features a node; trained on {nodes} nodes"),
            ("output", f"logits [node, {data.classes}]"),
        ),
        data=jax.tree.map(jnp.asarray, arrays),
        init=init,
        sample=lambda arrays, key, step: arrays,
        loss=loss,
        evaluate=evaluate,
        parts=1,
        batch_size=1,
        epoch_steps=1,
        primary="test/accuracy",
        selection="validation/accuracy",
        goal="max",
        outputs=lambda arrays, variables: module.apply(variables, arrays["graph"], train=False)[arrays["probe"]],
        lines=lines,
        model=module,
    )


def _ring(features) -> Graph:
    """A small graph with features of this dimension: rows are repeated where there are too few."""
    features = jnp.asarray(features)
    few = jnp.concatenate([features] * -(-len(_RING) // len(features)))[: len(_RING)]
    return make_graph(np.zeros((len(_RING), 1)), _RING)._replace(features=few)
