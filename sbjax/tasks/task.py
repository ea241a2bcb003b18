"""A learning problem as data and pure functions: initialise, sample a batch, loss, evaluate."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

Variables = dict[str, PyTree]  # {'params': .., 'batch_stats': .., 'frozen': ..}; only 'params' is trained
Batch = Any


class Grid(NamedTuple):
    """Grid of points on which predictions are plotted beside a reference.

    Attributes:
        points: [*shape, d], one grid axis per coordinate.
        reference: [*shape, unknowns], float64.
        coordinates: names of the coordinates.
        unknowns: names of the unknowns.
        predict: `(variables) -> [*shape, unknowns]`.
    """

    points: np.ndarray
    reference: np.ndarray
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...]
    predict: Callable[[Variables], Array]


class Average(NamedTuple):
    """A weighted sum and its total weight; adding both over parts of unequal size gives the exact mean."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Array:
        """What is reported: the mean."""
        return self.total / self.weight


class RootMean(Average):
    """Reported as the root of the mean: a root-mean-square error is not the mean of those of the parts.

    >>> RootMean(np.float64(50.0), np.float64(2.0)).value.item()
    5.0
    """

    __slots__ = ()

    @property
    def value(self) -> Array:
        """The root of the mean."""
        return (self.total / self.weight) ** 0.5


class Decibels(Average):
    """Reported as -10 log10 of the mean: a peak signal-to-noise ratio of mean squared errors, at a peak of 1.

    >>> Decibels(np.float64(0.02), np.float64(2.0)).value.item()
    20.0
    """

    __slots__ = ()

    @property
    def value(self) -> Array:
        """-10 log10 of the mean; infinite where the mean is 0."""
        mean = self.total / self.weight
        log = np.log10 if isinstance(mean, np.ndarray | np.generic) else jnp.log10
        with np.errstate(divide="ignore"):
            return -10 * log(mean)


class Aux(NamedTuple):
    """Auxiliary outputs of a loss.

    Attributes:
        updates: variable collections that the forward pass replaces (running batch statistics); {} if none.
        scalars: named metrics, averaged over the steps between two reports, such as 'train/accuracy'.
    """

    updates: Variables
    scalars: dict[str, Float[Array, ""]]


class Lines(NamedTuple):
    """Functions for evaluating networks on straight lines in parameter space.

    Attributes:
        evaluate: `(data, variables, part) -> {'train/name': Average}` on part `part` of a fixed set of training
            examples: the training loss without augmentation and dropout.
        parts: number of parts.
        recalibrate: `(data) -> (variables -> variables)`, which recomputes running statistics on these examples.
        apply: `(variables, inputs) -> outputs` without dropout; traced to derive the permutation spec.
        inputs: `(data) -> inputs`, a few examples for `apply`.
    """

    evaluate: Callable[[PyTree, Variables, Int[Array, ""]], dict[str, Average]]
    parts: int
    recalibrate: Callable[[PyTree], Callable[[Variables], Variables]]
    apply: Callable[[Variables, Array], Array]
    inputs: Callable[[PyTree], Array]


@runtime_checkable
class Stream(Protocol):
    """Data that do not fit into memory: entries of `Task.data`, made anew for every step and every part.

    Of `Task.data` itself, these entries are of the same shapes and without meaning.
    """

    def train(self, step: int) -> dict[str, np.ndarray]:
        """What `Task.sample` reads at a step; a function of the step alone."""
        ...

    def evaluate(self, part: int) -> dict[str, np.ndarray]:
        """What `Task.evaluate` reads of a part."""
        ...

    def close(self) -> None:
        """Lets go of what works ahead; the next call starts it again."""
        ...


class Task(NamedTuple):
    """The learning problem of one replica. All functions are pure; the caller maps them over replicas.

    Attributes:
        data: arrays on the device, passed to `sample` and `evaluate` as an argument. A closure would embed them as
            constants in the compiled program.
        init: `(key) -> variables`.
        sample: `(data, key, step) -> batch`, a pure function of (key, step): resuming needs no iterator state.
        loss: `(variables, batch, key) -> (value, Aux)`; `key` is for dropout and other noise of this step.
        evaluate: `(data, variables, part) -> {'split/name': Average}` on part `part` of the held-out data. The caller
            loops over parts in Python to bound memory: convolutions inside a rolled XLA loop are slow on CPU.
        parts: number of parts of `evaluate`.
        batch_size: examples in a batch: the leading axis, which data parallelism splits.
        epoch_steps: steps in an epoch; None if the task has no epochs.
        primary: metric that arms are compared by, such as 'test/accuracy'.
        selection: metric that checkpoints are selected by, such as 'validation/accuracy'; never from the test split.
        goal: 'max' if larger values of these two metrics are better, else 'min'.
        outputs: `(data, variables) -> array`, network outputs on a fixed held-out batch outside the test split; None if
            not defined.
        residuals: `(variables, batch, key) -> r` with loss = |r|^2, for Gauss-Newton methods; None if the loss is not a
            sum of squares.
        grid: points for plots of predictions; None if there are none.
        lines: functions for evaluation between networks; None if not supported.
        log_probabilities: `(data, variables, part) -> [rows, classes]`, of a classifier: normalised logarithms of
            probabilities on part `part` of `data['eval_inputs']`, whose labels and splits are `data['eval_labels']` and
            `data['eval_split']`; see `sbjax.tasks.classification`. None if the task does not classify.
        model: the network itself, such as a Linen module; for users who load a trained one.
        stream: where entries of `data` come from that differ from step to step; None if all is in `data`.
        besides: what some steps compute besides loss and gradient, for the count of FLOPs: pairs of a function
            `(variables, batch, key)` and the number of steps from one time to the next.
        about: what goes in and comes out, in words, for the card of an exported network: pairs (name, text).
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
    log_probabilities: Callable[[PyTree, Variables, Int[Array, ""]], Float[Array, "rows classes"]] | None = None
    model: Any = None
    stream: Stream | None = None
    about: tuple[tuple[str, str], ...] = ()
    besides: tuple[tuple[Callable[[Variables, Batch, Key[Array, ""]], PyTree], int], ...] = ()


def data_of(task: Task, *, step: int | None = None, part: int | None = None) -> PyTree:
    """`task.data` with what its stream has for a step or a part.

    Args:
        step: for `Task.sample`.
        part: for `Task.evaluate`.
    """
    if task.stream is None:
        return task.data
    return {**task.data, **(task.stream.train(step) if step is not None else task.stream.evaluate(part))}
