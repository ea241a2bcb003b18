"""Hyper-parameters of a zoo: every network draws its own, by its number and the seed alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from sbjax import rng


class Laws(NamedTuple):
    """Ranges (least, most) and lists of words; a range of one number fixes it.

    Attributes:
        learning_rate, weight_decay, init_scale: log-uniform; 0 to 0 is allowed for the decay.
        label_smoothing, dropout: uniform.
        epochs: whole numbers, uniform.
        activations, optimizers: one of them, equally likely.
    """

    learning_rate: Sequence[float]
    weight_decay: Sequence[float]
    init_scale: Sequence[float]
    label_smoothing: Sequence[float]
    dropout: Sequence[float]
    epochs: Sequence[int]
    activations: Sequence[str]
    optimizers: Sequence[str]


LOGARITHMIC = ("learning_rate", "weight_decay", "init_scale")
UNIFORM = ("label_smoothing", "dropout")
WORDS = {"activation": "activations", "optimizer": "optimizers"}


def draw(key: Key[Array, ""], networks: Int[np.ndarray, "n"], laws: Laws) -> dict[str, np.ndarray]:
    """Hyper-parameters of the networks with these numbers.

    Returns:
        {'learning_rate': float32 [n], .., 'epochs': int32 [n], 'activation', 'optimizer': int32 [n], the number of the
        word in its list}.

    >>> laws = Laws((1e-3, 1e-1), (0, 0), (1, 1), (0, 0.2), (0, 0), (2, 4), ('relu', 'tanh'), ('adam',))
    >>> few, many = draw(jax.random.key(0), np.arange(2), laws), draw(jax.random.key(0), np.arange(100), laws)
    >>> bool((few['learning_rate'] == many['learning_rate'][:2]).all()), sorted(set(many['epochs'].tolist()))
    (True, [2, 3, 4])
    """
    names = [*LOGARITHMIC, *UNIFORM, "epochs", *WORDS]
    stream = rng.stream(key, "hyper-parameters")
    shares = jax.vmap(lambda net: jax.random.uniform(jax.random.fold_in(stream, net), (len(names),)))(networks)
    share = dict(zip(names, np.asarray(shares, np.float64).T))
    found: dict[str, np.ndarray] = {}
    for name in LOGARITHMIC:
        low, high = map(float, getattr(laws, name))
        found[name] = np.full(len(networks), low) if low == high else low * (high / low) ** share[name]
    for name in UNIFORM:
        low, high = map(float, getattr(laws, name))
        found[name] = low + (high - low) * share[name]
    found = {name: values.astype(np.float32) for name, values in found.items()}
    low, high = laws.epochs
    found["epochs"] = _whole(share["epochs"], high - low + 1) + np.int32(low)
    return found | {name: _whole(share[name], len(getattr(laws, words))) for name, words in WORDS.items()}


def in_words(laws: Laws) -> dict[str, str]:
    """Each law as a sentence for a card."""
    said = {}
    for name in (*LOGARITHMIC, *UNIFORM, "epochs"):
        low, high = getattr(laws, name)
        how = "log-uniform" if name in LOGARITHMIC else "uniform"
        said[name] = f"{low:g}" if low == high else f"{how} from {low:g} to {high:g}"
    for name, words in WORDS.items():
        said[name] = " or ".join(getattr(laws, words))
    return said


def problems(fields: Mapping[str, Sequence[float]]) -> list[str]:
    """What is wrong with ranges, by name of the field."""
    found = []
    for name, value in fields.items():
        if len(value) != 2 or value[0] > value[1]:
            found.append(f"task.{name}={tuple(value)!r} must be two numbers, the least and the most")
        elif name in LOGARITHMIC and value[0] <= 0 and tuple(value) != (0, 0):
            found.append(f"task.{name}={tuple(value)!r} is drawn log-uniformly: its least must be > 0")
    return found


def _whole(shares: np.ndarray, number: int) -> np.ndarray:
    return np.minimum(np.floor(shares * number), number - 1).astype(np.int32)
