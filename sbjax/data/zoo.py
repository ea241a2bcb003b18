"""Zoos: many trained networks of one architecture, with their hyper-parameters and accuracies, as arrays.

`read` takes a zoo that `task.kind='zoo'` has made; published ones are read by `sbjax.data.zoo_published`.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, PyTree

from sbjax import trees
from sbjax.common.files import FileError, read_json
from sbjax.common.names import expanded
from sbjax.data import zoo_blocks
from sbjax.data.zoo_blocks import CARD, CONSTANTS

_FORM = {
    "format": int,
    "kind": str,
    "networks": int,
    "model": {"name": str},
    "classes": int,
    "input_shape": [int],
    "asymmetry": dict,
    "words": {str: [str]},
    "fingerprint": str,
    "identity": str,
    "blocks": {str: str},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Zoo:
    """Trained networks of one architecture, stacked along the first axis of every array.

    Attributes:
        kind: name of the arm that made them: 'standard', 'w', ..
        params: nested dicts of [n, ...] arrays by Flax names, what is trained and nothing else. Of an asymmetric
            network these are the trainable weights W, with zeros where an entry is frozen.
        hyperparameters: of each network, {'learning_rate': [n], 'optimizer': [n] of words, ..}.
        accuracy: of the test split, in [0, 1], after each epoch; a network that is trained for fewer epochs keeps its
            last one. `accuracy[:, -1]` is that of `params`.
        loss: mean cross-entropy of the test split, likewise.
        model: {'name': .., option: ..} of `sbjax.models.make_model`. Its 'activation' is that of the first network;
            `hyperparameters['activation']` has each one's.
        classes: outputs.
        input_shape: (height, width, channel) of an image.
        asymmetry: options of `sbjax.asymmetry.options.build_asymmetric`; {} of a standard network.
        masks: D, True where an entry is *trainable* and False where it is frozen, for the leaves that have frozen
            entries; None without any. All networks of a zoo share them.
        constants: F, the frozen values, 0 where an entry is trainable; None likewise.
        batch_stats: running statistics [n, ...]; None without batch normalisation.
        index: number of each network in its zoo, which decides its random numbers.
        about: the card as a dict.
    """

    kind: str
    params: PyTree
    hyperparameters: dict[str, np.ndarray]
    accuracy: Float[np.ndarray, "n epoch"]
    loss: Float[np.ndarray, "n epoch"]
    model: Mapping[str, Any]
    classes: int
    input_shape: tuple[int, ...]
    asymmetry: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    masks: PyTree | None = None
    constants: PyTree | None = None
    batch_stats: PyTree | None = None
    index: Int[np.ndarray, "n"] | None = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def size(self) -> int:
        """Parameters of one network, frozen entries included."""
        return sum(leaf[0].size for leaf in trees.flatten(self.params).values())

    @property
    def trainable_size(self) -> int:
        """Parameters of one network that are trained."""
        return self.size - sum(int(np.sum(~mask)) for mask in trees.flatten(self.masks or {}).values())

    @property
    def module(self) -> Any:
        """The network that the first one is, with `init` and `apply` of a Linen module."""
        return self.make_module(0)

    def make_module(self, net: int) -> Any:
        """The module of one network: they differ in nothing but the activation."""
        from sbjax.asymmetry.options import build_asymmetric
        from sbjax.models import make_model

        options = dict(self.model)
        if "activation" in self.hyperparameters and "activation" in options:
            options["activation"] = str(self.hyperparameters["activation"][net])
        network = make_model(options.pop("name"), classes=self.classes, **options)
        return build_asymmetric(network, self.asymmetry or None)

    def variables(self, net: int) -> dict[str, PyTree]:
        """Flax variables of one network, for `module.apply`."""
        found = {"params": trees.nest({name: leaf[net] for name, leaf in trees.flatten(self.params).items()})}
        if self.batch_stats is not None:
            found["batch_stats"] = trees.nest({n: leaf[net] for n, leaf in trees.flatten(self.batch_stats).items()})
        if self.constants is not None:
            constants = {"fixed": self.constants, **({} if self.masks is None else {"trainable": self.masks})}
            found["frozen"] = {"asymmetry": constants}
        return found

    def apply(self, net: int, images: Float[np.ndarray, "batch h w c"]) -> Any:
        """Logits [batch, classes] of one network in evaluation mode; images are standardised as in training."""
        return self.make_module(net).apply(self.variables(net), images, train=False)

    def take(self, networks: Any) -> "Zoo":
        """The zoo of some networks: indices or a boolean mask."""

        def rows(tree):
            return (
                None
                if tree is None
                else trees.nest({name: leaf[networks] for name, leaf in trees.flatten(tree).items()})
            )

        return dataclasses.replace(
            self,
            params=rows(self.params),
            hyperparameters={name: values[networks] for name, values in self.hyperparameters.items()},
            accuracy=self.accuracy[networks],
            loss=self.loss[networks],
            batch_stats=rows(self.batch_stats),
            index=None if self.index is None else self.index[networks],
        )

    def finite(self) -> "Zoo":
        """The networks without a NaN or an infinity among parameters, statistics and last losses; others diverged."""
        kept = np.isfinite(self.loss[:, -1])
        for tree in (self.params, self.batch_stats or {}):
            for leaf in trees.flatten(tree).values():
                kept &= np.isfinite(leaf.reshape(len(leaf), -1)).all(1)
        return self if kept.all() else self.take(kept)


def read(folder: str | os.PathLike, *, finite: bool = True) -> Zoo:
    """The zoo in a folder `zoo/ARM` of a run, in the order of the networks' numbers.

    Args:
        folder: with `zoo.json` and the blocks that it lists. `~` and variables are expanded.
        finite: leave out networks that have diverged, see `Zoo.finite`.

    Raises:
        FileNotFoundError: there is no finished zoo.
        FileError: a file is damaged, was changed, or belongs to another zoo.
    """
    path = expanded(folder)
    if not (path / CARD).exists():
        blocks = len(list(path.glob("block-*.safetensors")))
        inside = sorted(found.parent.relative_to(path).as_posix() for found in path.glob(f"**/{CARD}"))
        told = f"it holds {blocks} blocks of a run that is not finished: go on with it" if blocks else (
            f"give one of {', '.join(inside[:6])} in it" if inside else "give the folder zoo/ARM of a run of kind 'zoo'"
        )  # fmt: skip
        raise FileNotFoundError(f"{path} has no {CARD}; {told}")
    card = read_json(path / CARD, _FORM, remedy=zoo_blocks.REMEDY)
    if card["format"] != zoo_blocks.FORMAT:
        raise FileError(f"{path / CARD} has the format {card['format']}, this version reads {zoo_blocks.FORMAT}")
    arrays = _joined(path, card)
    order = np.argsort(arrays["index"], kind="stable")
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, leaf in arrays.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = leaf[order]
    frozen = _constants(path, card)
    zoo = Zoo(
        kind=card["kind"],
        params=trees.nest(parts["params"]),
        hyperparameters=_in_words(parts["hyperparameters"], card["words"]),
        accuracy=parts["accuracy"][""],
        loss=parts["loss"][""],
        model=card["model"],
        classes=card["classes"],
        input_shape=tuple(card["input_shape"]),
        asymmetry=card["asymmetry"],
        masks=trees.nest(frozen["trainable"]) if frozen.get("trainable") else None,
        constants=trees.nest(frozen["fixed"]) if frozen.get("fixed") else None,
        batch_stats=trees.nest(parts["batch_stats"]) if "batch_stats" in parts else None,
        index=parts["index"][""],
        about=card,
    )
    return zoo.finite() if finite else zoo


def _joined(path: Path, card: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of all blocks, one behind the other."""
    found = []
    for name, expected in card["blocks"].items():
        if Path(name).name != name:
            raise FileError(f"{path / CARD} names the block {name!r}, which is no file beside it; {zoo_blocks.REMEDY}")
        try:
            arrays, about = zoo_blocks.read_block(path / name)
        except FileNotFoundError:
            raise FileError(f"{path / name} is missing, and {CARD} lists it; {zoo_blocks.REMEDY}") from None
        if about["digest"] != expected:
            raise FileError(f"{path / name} is not the block that {CARD} lists (SHA-256 differs); {zoo_blocks.REMEDY}")
        for what in ("identity", "fingerprint"):
            if about[what] != card[what]:
                raise FileError(f"{path / name} is of another zoo: its {what} is not that of {CARD}; make it anew")
        found.append(arrays)
    names = {frozenset(arrays) for arrays in found}
    if len(names) != 1 or not {"accuracy", "loss", "index"} <= next(iter(names)):
        raise FileError(f"{path}: the blocks do not hold the same arrays; {zoo_blocks.REMEDY}")
    return {name: np.concatenate([arrays[name] for arrays in found]) for name in found[0]}


def _in_words(codes: Mapping[str, np.ndarray], words: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
    """Hyper-parameters with words in place of their numbers in a list."""
    return {name: np.array(words[name])[values] if name in words else values for name, values in codes.items()}


def _constants(path: Path, card: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """{'fixed': .., 'trainable': ..} by flat name; {} without an asymmetry."""
    if not card["fingerprint"]:
        return {}
    try:
        arrays, about = zoo_blocks.read_block(path / CONSTANTS)
    except FileNotFoundError:
        raise FileError(f"{path / CONSTANTS} is missing; {zoo_blocks.REMEDY}") from None
    if about["fingerprint"] != card["fingerprint"]:
        raise FileError(f"{path / CONSTANTS} is of another zoo than {CARD}; {zoo_blocks.REMEDY}")
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, leaf in arrays.items():
        part, _, rest = name.partition("/")
        found.setdefault(part, {})[rest] = leaf[0]
    return found
