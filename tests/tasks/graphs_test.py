"""Classification of nodes: what the loss sees, and batch statistics of the whole graph."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.data.graphs import contextual_sbm
from sbjax.models import make_graph_model
from sbjax.models.graph import make_graph
from sbjax.tasks.graphs import graph_of, make_graph_task

DATA = contextual_sbm(nodes=80, classes=3, features=6, degree=4.0)
NET = make_graph_model("graph", classes=3, widths=(8, 8), aggregated=True)


@pytest.fixture(scope="module")
def made():
    task = make_graph_task(DATA, NET, probe_size=5)
    return task, jax.jit(task.init)(jax.random.key(0))


@pytest.mark.extended
def test_numbers_are_those_of_the_splits(made):
    """Every split by hand, from the logits of the plain graph."""
    task, variables = made
    graph = make_graph(DATA.features, DATA.edges)
    logits = NET.clone(aggregated=False).apply(variables, graph)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(DATA.labels))
    right = np.asarray(logits.argmax(-1)) == DATA.labels
    held = task.evaluate(task.data, variables, 0)
    line = task.lines.evaluate(task.data, variables, 0)
    for name, nodes, found in (
        ("train", DATA.train, line), ("validation", DATA.validation, held), ("test", DATA.test, held),
    ):  # fmt: skip
        loss, accuracy = (found[f"{name}/{what}"] for what in ("loss", "accuracy"))
        np.testing.assert_allclose(loss.total / loss.weight, losses[nodes].mean(), rtol=1e-5)
        np.testing.assert_allclose(accuracy.total / accuracy.weight, right[nodes].mean(), rtol=1e-6)
    np.testing.assert_allclose(task.outputs(task.data, variables), logits[DATA.validation[:5]], atol=1e-5)


def test_the_loss_is_that_of_training_nodes_alone(made):
    """Labels of the others are never read, while their features are: the setting is transductive."""
    task, variables = made
    batch = task.sample(task.data, jax.random.key(0), jnp.int32(0))
    value, aux = task.loss(variables, batch, jax.random.key(0))
    logits, _ = NET.apply(variables, graph_of(DATA), train=True, mutable=["batch_stats"])
    by_hand = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(DATA.labels))[DATA.train].mean()
    np.testing.assert_allclose(value, by_hand, rtol=1e-5)
    assert set(aux.updates) == {"batch_stats"}
    other = np.array(DATA.labels)
    other[DATA.test] = (other[DATA.test] + 1) % 3
    assert task.loss(variables, {**batch, "eval_labels": jnp.asarray(other)}, jax.random.key(0))[0] == value
    moved = np.array(DATA.features)
    moved[DATA.test] += 1.0
    again = make_graph_task(DATA._replace(features=moved), NET)
    assert abs(again.loss(variables, again.data, jax.random.key(0))[0] - value) > 1e-3


def test_one_pass_gives_the_statistics_that_many_average_to(made):
    """The cumulative average of 50 training passes, as published, with momentum 1 / pass."""
    task, variables = made
    found = task.lines.recalibrate(task.data)(variables)["batch_stats"]
    running = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    net = NET.clone()
    for number in range(1, 51):
        _, updates = net.apply(
            {**variables, "batch_stats": jax.tree.map(jnp.zeros_like, running)}, task.data["graph"], train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        once = jax.tree.map(lambda x: x / 0.1, updates["batch_stats"])  # momentum 0.9 from zero
        running = jax.tree.map(lambda mean, x, n=number: mean + (x - mean) / n, running, once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, running)


def test_the_ring_that_specs_are_derived_on_has_the_right_features(made):
    task, variables = made
    small = task.lines.inputs(task.data)
    assert small.features.shape == (4, 6)
    assert task.lines.apply(variables, small).shape == (4, 3)
