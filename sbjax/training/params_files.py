"""Parameters on disk, written by whatever program: orbax folders, .npz, .safetensors."""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from sbjax import trees
from sbjax.common.names import expanded
from sbjax.training import params_formats
from sbjax.training.params_buffers import find_buffers, integers, without
from sbjax.training.params_formats import ParamsError

__all__ = ["Loaded", "ParamsError", "load_params", "read_params"]


class Loaded(NamedTuple):
    """Parameters of a file.

    Attributes:
        params: nested dicts of arrays.
        left_out: flat names of what the file has besides, with what it is.
    """

    params: PyTree
    left_out: dict[str, str]


def load_params(path: str | os.PathLike, *, buffers: bool = False, where: trees.Where = None) -> PyTree:
    """The weights in a file or folder, in the dtype in which they are saved.

    - orbax: the folder of one saved tree; a step of a CheckpointManager, of which the item 'params', else 'default',
      else the only item is taken; or a manager's folder, of which the newest step is taken, however steps are named
      ('20', '00000020', 'ckpt_20'). A checkpoint of `sbjax` is compared with its SHA-256 first.
    - .npz and .safetensors, one file or a folder of shards with its index: names are cut at '/' or '.' to a nested
      tree: 'layer1.0.weight' -> layer1/0/weight. Beside an array 'w', 'w.absmax' stays one name.

    A tree with a top entry 'params', as Flax variables have, stands for that entry. Leaves boxed as `{'value': array}`,
    as NNX states are saved, are unboxed. What is no weight is left out, see `params_buffers.find_buffers`, and said by
    `read_params`.

    Args:
        path: `~` and variables are expanded.
        buffers: whether to keep what is no weight.
        where: leaves that will be used; others may hold what is no number.

    Raises:
        ParamsError: it does not exist, is damaged or is of another kind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f'{folder}/a.npz', **{'fc.weight': np.ones(2), 'bn.running_mean': np.ones(2)})
    ...     load_params(f'{folder}/a.npz'), read_params(f'{folder}/a.npz').left_out
    ({'fc': {'weight': array([1., 1.])}}, {'bn/running_mean': 'running statistics'})
    """
    return read_params(path, buffers=buffers, where=where).params


def read_params(path: str | os.PathLike, *, buffers: bool = False, where: trees.Where = None) -> Loaded:
    """As `load_params`, with what was left out."""
    if not os.fspath(path):
        raise ParamsError(f"the path of a parameter file is empty; give {params_formats.KNOWN}")
    path = expanded(path)
    try:
        there = path.exists()
    except OSError as error:
        raise ParamsError(f"{path} cannot be opened: {error.strerror}; give {params_formats.KNOWN}") from error
    if not there:
        raise ParamsError(f"{path} does not exist; give {params_formats.KNOWN}")
    tree = params_formats.read_tree(path)
    text = {name for name, leaf in trees.flatten(tree).items() if np.asarray(leaf).dtype.kind in "SUT"}
    tree = without(tree, text)
    if not trees.flatten(tree):
        held = f"only text, as {min(text)!r}" if text else "no arrays"
        raise ParamsError(f"{path} holds {held}; save the weights anew")
    left_out = {}
    if not buffers:
        tree, left_out = _collection(tree)
    tree = _unboxed(tree)
    objects = [name for name, leaf in trees.flatten(tree).items() if np.asarray(leaf).dtype.kind == "O"]
    if chosen := [name for name in objects if trees.selects(where, name)]:
        raise ParamsError(
            f"{path}: the array {chosen[0]!r} holds Python objects and no numbers; leave it out with `where` "
            "(--where), or save the file without it"
        )
    tree = without(tree, set(objects))
    left_out |= dict.fromkeys(objects, "Python objects")
    if not buffers:
        found = find_buffers(tree)
        tree = without(tree, set(found))
        left_out |= found
    return Loaded(tree, left_out | dict.fromkeys(sorted(text), "text") | integers(tree))


def _collection(tree: PyTree) -> tuple[PyTree, dict[str, str]]:
    """The entry 'params' of a tree, or of the one entry that it has, and what is beside it."""
    outer = tree
    while isinstance(outer, dict) and "params" not in outer and len(outer) == 1:
        outer = next(iter(outer.values()))
    if not isinstance(outer, dict) or "params" not in outer:
        return tree, {}
    beside = {name: node for name, node in outer.items() if name != "params"}
    names = {name: f"{name}/*" if isinstance(node, dict | list) else name for name, node in beside.items()}
    return outer["params"], dict.fromkeys(names.values(), "beside 'params'")


def _unboxed(tree: PyTree) -> PyTree:
    """A tree without the boxes `{'value': array}` of an NNX state, where all arrays, or all of an entry, are in one."""
    if not isinstance(tree, dict):
        return tree
    if _boxes(tree) and not _is_box(tree):
        return _opened(tree)
    return {name: _opened(node) if (_boxes(node) or 0) > 1 else node for name, node in tree.items()}


def _boxes(node: PyTree) -> int | None:
    """How many boxes there are, None where an array is in none."""
    if not isinstance(node, dict | list):
        return None
    if _is_box(node):
        return 1
    counts = [_boxes(child) for child in (node.values() if isinstance(node, dict) else node)]
    return None if None in counts else sum(counts)


def _is_box(node: PyTree) -> bool:
    return isinstance(node, dict) and set(node) == {"value"} and not isinstance(node["value"], dict | list)


def _opened(node: PyTree) -> PyTree:
    if _is_box(node):
        return node["value"]
    if isinstance(node, list):
        return [_opened(child) for child in node]
    return {name: _opened(child) for name, child in node.items()}
