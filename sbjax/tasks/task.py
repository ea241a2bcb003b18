"""What is learned: a task is data and four pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

Variables = dict[str, PyTree]  # {'params': .., 'batch_stats': .., 'frozen': ..}; only 'params' is trained
Batch = Any


class Grid(NamedTuple):
    """Where a solution is drawn.

    Attributes:
        points: [*shape, d], a coordinate an axis.
        reference: [*shape, unknowns], float64.
        coordinates, unknowns: their names.
        predict: `(variables) -> [*shape, unknowns]`.
    """

    points: np.ndarray
    reference: np.ndarray
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...]
    predict: Callable[[Variables], Array]


class Average(NamedTuple):
    """A weighted sum and its weight, so that parts of different size add up to an exact mean."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


class Aux(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
        updates: collections of the variables that the forward pass replaces (running batch statistics); {} if none.
        scalars: named numbers to average over the steps between two reports, such as 'train/accuracy'.
    """

    updates: Variables
    scalars: dict[str, Float[Array, ""]]


class Lines(NamedTuple):
    """What is evaluated on straight lines between networks, beside `Task.evaluate`.

    Attributes:
        evaluate: `(data, variables, part) -> {'train/name': Average}` on part `part` of `parts` of fixed training
            examples, without augmentation and dropout: the loss that is minimised, on examples that do not change.
        parts: number of parts.
        recalibrate: `(data) -> (variables -> variables)` with running statistics of these examples.
        apply: `(variables, inputs) -> outputs` without dropout, for following axes of parameters.
        inputs: `(data) -> a few inputs`.
    """

    evaluate: Callable[[PyTree, Variables, Int[Array, ""]], dict[str, Average]]
    parts: int
    recalibrate: Callable[[PyTree], Callable[[Variables], Variables]]
    apply: Callable[[Variables, Array], Array]
    inputs: Callable[[PyTree], Array]


class Task(NamedTuple):
    """One replica's learning problem. Every function is pure and is mapped over replicas by the caller.

    Attributes:
        data: arrays that live on the device and are handed to `sample` and `evaluate`. They are an argument and
            not a closure, so that they are placed once on every device and never baked into a compiled program.
        init: `(key) -> variables`.
        sample: `(data, key, step) -> batch`, pure in (key, step): a resumed run needs no iterator state.
        loss: `(variables, batch, key) -> (value, Aux)`; `key` is for dropout and other noise of this step.
        evaluate: `(data, variables, part) -> {'split/name': Average}` on part `part` of `parts` parts of the held-out
            data. It is cut in parts so that it fits memory without a rolled loop, which is slow for convolutions
            on CPU.
        parts: number of parts.
        batch_size: examples in a batch; the leading axis that data parallelism splits.
        epoch_steps: steps in an epoch, or None where the word has no meaning.
        primary: the number that arms are compared by, 'test/accuracy'.
        selection: the number that checkpoints are chosen by, 'validation/accuracy': never one of the test split.
        goal: 'max' if larger numbers of these two are better, else 'min'.
        outputs: `(data, variables) -> array`, what the network says on a fixed probe batch of held-out data that is not
            of the test split; None where that has no meaning.
        residuals: `(variables, batch, key) -> r` with loss = |r|^2, for Gauss-Newton methods; None where the loss is no
            sum of squares.
        grid: where predictions are drawn beside a reference; None where there is nothing of the kind.
        lines: what is evaluated between networks; None where that is not done.
        model: the network itself, such as a Linen module, for who loads a trained one.
    """

    data: PyTree
    init: Callable[[Key[Array, ""]], Variables]
    sample: Callable[[PyTree, Key[Array, ""], Int[Array, ""]], Batch]
    loss: Callable[[Variables, Batch, Key[Array, ""]], tuple[Float[Array, ""], Aux]]
    evaluate: Callable[[PyTree, Variables, Int[Array, ""]], dict[str, Average]]
    parts: int
    batch_size: int
    epoch_steps: int | None
    primary: str
    selection: str
    goal: str
    outputs: Callable[[PyTree, Variables], Array] | None = None
    residuals: Callable[[Variables, Batch, Key[Array, ""]], Float[Array, " n"]] | None = None
    grid: Grid | None = None
    lines: Lines | None = None
    model: Any = None
