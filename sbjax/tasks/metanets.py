"""Prediction of the accuracy of networks from their parameters, with the zoo on the device."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sbjax.data.shuffle import epoch_indices
from sbjax.metanets import Reading, permuted, statistics, vector
from sbjax.metrics.agreement import explained, kendall_tau
from sbjax.symmetry import random_permutations
from sbjax.tasks.task import Aux, Average, Task

TARGETS = ("accuracy", "logit", "residual")
INPUTS = ("entries", "statistics", "hyperparameters")
EDGE = 1e-3  # accuracies are taken to lie this far from 0 and 1 before a logit
PENALTIES = 10.0 ** np.arange(-6, 4)


class Parts(NamedTuple):
    """Which networks are for training, for choices, and for the test: in the order of their numbers."""

    train: slice
    validation: slice
    test: slice


class Nets(NamedTuple):
    """A zoo as a task needs it.

    Attributes:
        reading: see `sbjax.metanets.reading`.
        entries: [n, size] parameters as vectors.
        columns: [n, c] hyper-parameters as numbers, see `hyperparameter_columns`.
        accuracy: [n].
    """

    reading: Reading
    entries: Float[np.ndarray, "n size"]
    columns: Float[np.ndarray, "n c"]
    accuracy: Float[np.ndarray, " n"]


def parts_of(count: int, train_share: float) -> Parts:
    """The first networks for training, half of the rest for validation, the other half for the test.

    Raises:
        ValueError: fewer than two networks in a part.

    >>> parts_of(100, 0.5)
    Parts(train=slice(0, 50, None), validation=slice(50, 75, None), test=slice(75, 100, None))
    """
    train = round(count * train_share)
    validation = train + (count - train) // 2
    if min(train, validation - train, count - validation) < 2:
        raise ValueError(
            f"train_share={train_share} of {count} networks leaves {train}, {validation - train} and "
            f"{count - validation} for training, validation and test, and each needs two: use more networks"
        )
    return Parts(slice(0, train), slice(train, validation), slice(validation, count))


def hyperparameter_columns(found: Mapping[str, np.ndarray]) -> Float[np.ndarray, "n c"]:
    """Hyper-parameters as columns: numbers as they are, and their logarithms where all are positive; words as 0 and 1.

    Columns that do not vary are left out; at least one column stays.

    >>> found = {'rate': np.array([0.1, 1.0]), 'word': np.array(['a', 'b']), 'same': np.ones(2)}
    >>> hyperparameter_columns(found).round(2).tolist()
    [[0.1, -2.3, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    """
    columns = []
    for values in found.values():
        values = np.asarray(values)
        if values.dtype.kind in "US":
            columns += [(values == word).astype(float) for word in np.unique(values)]
            continue
        values = values.astype(float)
        columns.append(values)
        if (values > 0).all():
            columns.append(np.log(values))
    varied = [column for column in columns if np.ptp(column) > 0]
    length = len(next(iter(found.values()), ()))
    return np.stack(varied, 1) if varied else np.zeros((length, 1))


def make_nets(reading: Reading, params: Any, hyperparameters: Mapping[str, np.ndarray], accuracy: Any) -> Nets:
    """A zoo of parameters with a leading axis of networks, named as in the reading."""
    entries = np.asarray(vector(params, batch_axes=1), np.float32)
    return Nets(reading, entries, hyperparameter_columns(hyperparameters), np.asarray(accuracy, np.float64))


def targets(nets: Nets, parts: Parts, kind: str) -> Float[np.ndarray, " n"]:
    """What is predicted: the accuracy, its logit, or what hyper-parameters leave of it.

    'residual' is the accuracy minus a ridge regression on hyper-parameters and their products, fitted to the training
    networks with the penalty that is best on the validation networks.

    Raises:
        ValueError: an unknown kind, or a part in which the target does not vary.
    """
    if kind not in TARGETS:
        raise ValueError(f"target={kind!r} must be one of {', '.join(TARGETS)}")
    found = nets.accuracy
    if kind == "logit":
        found = np.clip(found, EDGE, 1 - EDGE)
        found = np.log(found / (1 - found))
    if kind == "residual":
        found = found - ridge(products(nets.columns), found, parts)
    for name, part in parts._asdict().items():
        if np.ptp(found[part]) == 0:
            raise ValueError(f"target={kind!r} is the same for all {len(found[part])} networks of the {name} part: "
                             "nothing can be predicted; use a zoo with other networks")  # fmt: skip
    return found


def products(columns: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n k"]:
    """Columns and all products of two of them, standardised."""
    x = standardised(columns, slice(None), None)
    first, second = np.triu_indices(x.shape[1])
    return standardised(np.concatenate([x, x[:, first] * x[:, second]], 1), slice(None), None)


def ridge(x: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"], parts: Parts) -> Float[np.ndarray, " n"]:
    """Predictions of a ridge regression with intercept, fitted to the training part; validation chooses its penalty."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mean, level = x[parts.train].mean(0), y[parts.train].mean()
    u, s, v = np.linalg.svd(x[parts.train] - mean, full_matrices=False)
    seen = u.T @ (y[parts.train] - level)

    def predicted(penalty):
        return level + (x - mean) @ (v.T @ (s / (s**2 + penalty * len(u)) * seen))

    errors = [np.mean((predicted(p)[parts.validation] - y[parts.validation]) ** 2) for p in PENALTIES]
    return predicted(PENALTIES[int(np.argmin(errors))])


def standardised(
    x: Float[np.ndarray, "n k"], rows: slice, groups: Int[np.ndarray, " k"] | None
) -> Float[np.ndarray, "n k"]:
    """Numbers minus their mean over deviation among some rows: of each column, or of groups of columns together.

    What does not vary becomes 0.
    """
    x = np.asarray(x, np.float64)
    groups = np.arange(x.shape[1]) if groups is None else groups
    out = np.zeros_like(x)
    for group in np.unique(groups[groups >= 0]):
        own = groups == group
        mean, deviation = x[rows][:, own].mean(), x[rows][:, own].std()
        out[:, own] = (x[:, own] - mean) / deviation if deviation > 1e-12 else 0.0
    return out


def make_metanet_task(
    nets: Nets,
    module: Any,
    *,
    target: str = "accuracy",
    train_share: float = 0.5,
    batch_size: int = 32,
    eval_batch_size: int = 64,
    probe_size: int = 256,
) -> Task:
    """Regression with the squared error of the standardised target.

    Inputs are standardised on the training networks: statistics and hyper-parameters each by itself, entries array by
    array, so that permuting units commutes with it; entries that are not read become 0.

    Args:
        nets: the zoo.
        module: Linen module from [batch, inputs] to [batch, 1], called with `train=`; its attribute `inputs` is
            'entries' (without it), 'statistics' or 'hyperparameters'.
        target: of `TARGETS`.
        train_share: of the networks, the first ones; half of the rest is for validation, half for the test.
        batch_size: networks in a step.
        eval_batch_size: networks that are evaluated together; bounds memory only.
        probe_size: validation networks whose predictions `Task.outputs` gives.

    Returns:
        A `Task` with 'r2' and 'tau' of 'validation' and 'test', and 'test/r2_permuted': of the test networks with their
        hidden units in another order.

    Raises:
        ValueError: too few networks, a target that does not vary, unknown inputs, a batch that is too large.
    """
    kind = getattr(module, "inputs", "entries")
    if kind not in INPUTS:
        raise ValueError(f"inputs={kind!r} of {type(module).__name__} must be one of {', '.join(INPUTS)}")
    parts = parts_of(len(nets.accuracy), train_share)
    examples = parts.train.stop
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the {examples} training networks: lower it")
    y = targets(nets, parts, target)
    y = (y - y[parts.train].mean()) / y[parts.train].std()
    x = _inputs(nets, parts, kind)
    held = slice(parts.validation.start, parts.test.stop)
    validation = parts.validation.stop - parts.validation.start
    arrays = {
        "inputs": x[parts.train],
        "targets": y[parts.train],
        "held_inputs": np.concatenate([x[held], x[len(y) :]]),
        "held_targets": y[held],
        "probe": x[parts.validation][:probe_size],
    }

    def init(key):
        return module.init(key, jnp.zeros((2, x.shape[1]), jnp.float32), train=False)

    def sample(arrays, key, step):
        rows = epoch_indices(key, step, examples=examples, batch_size=batch_size)
        return {"inputs": arrays["inputs"][rows], "targets": arrays["targets"][rows]}

    def loss(variables, batch, key):
        variables = {name: tree for name, tree in variables.items() if name != "hyper"}
        mutable = [name for name in variables if name not in ("params", "frozen")]
        predicted, updates = module.apply(
            variables, batch["inputs"], train=True, rngs={"dropout": key}, mutable=mutable
        )
        value = jnp.mean((predicted[:, 0] - batch["targets"]) ** 2)
        return value, Aux(dict(updates), {"train/r2": 1 - value})

    def evaluate(arrays, variables, part):
        del part
        found, wanted = predict(arrays["held_inputs"], variables), arrays["held_targets"]
        sides = {"validation": slice(0, validation), "test": slice(validation, len(wanted))}
        numbers = {f"{name}/r2": explained(wanted[rows], found[: len(wanted)][rows]) for name, rows in sides.items()}
        numbers |= {
            f"{name}/tau": kendall_tau(wanted[rows], found[: len(wanted)][rows]) for name, rows in sides.items()
        }
        numbers["test/r2_permuted"] = explained(wanted[validation:], found[len(wanted) :])
        return {name: Average(value, jnp.float32(1)) for name, value in numbers.items()}

    def predict(inputs, variables):
        def one(row):
            return module.apply(variables, row[None], train=False)[0, 0]

        return jax.lax.map(one, inputs, batch_size=eval_batch_size)

    return Task(
        about=(
            ("input", f"float32 [n, {x.shape[1]}]: standardised {kind} of networks"),
            ("output", f"[n, 1]: {target} of the test split, standardised"),
        ),
        data=jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), arrays),
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate,
        parts=1,
        batch_size=batch_size,
        epoch_steps=examples // batch_size,
        primary="test/r2",
        selection="validation/r2",
        goal="max",
        outputs=lambda arrays, variables: module.apply(variables, arrays["probe"], train=False),
        model=module,
    )


def _inputs(nets: Nets, parts: Parts, kind: str) -> Float[np.ndarray, "n k"]:
    """Inputs of all networks, and behind them those of the test networks with permuted units."""
    key = jax.random.key(0)  # the same for all arms

    @jax.jit
    @jax.vmap
    def drawn(number):
        return random_permutations(jax.random.fold_in(key, number), nets.reading.spec)

    if kind == "hyperparameters":
        return standardised(np.concatenate([nets.columns, nets.columns[parts.test]]), parts.train, None)
    tested = nets.entries[parts.test]
    orders = {name: np.asarray(order) for name, order in drawn(jnp.arange(len(tested))).items()}
    entries = np.concatenate([nets.entries, permuted(nets.reading, tested, orders)])
    if kind == "statistics":
        return standardised(statistics(nets.reading, entries), parts.train, None)
    return standardised(entries, parts.train, np.where(nets.reading.kept, nets.reading.leaves, -1))
