"""Parameters on disk, written by whatever program: orbax folders, .npz, .safetensors."""

import os
import pathlib
import zipfile

import numpy as np
from jaxtyping import PyTree

from sbjax.training.checkpoint_files import find_fault

KNOWN = "an orbax folder, .npz or .safetensors"


class ParamsError(ValueError):
    """A file of parameters that cannot be read. The message names it and the remedy."""


def load_params(path: str | os.PathLike) -> PyTree:
    """The parameters in a file or folder.

    - orbax: the folder of one saved tree; a step of a CheckpointManager, of which the item 'params' (else 'default') is
      taken; or a manager's folder, of which the newest step is taken. A checkpoint of `sbjax` is compared with its
      SHA-256 first.
    - .npz and .safetensors: names are cut at '/' or '.' to a nested tree: 'layer1.0.weight' -> layer1/0/weight.

    A tree with a top entry 'params', as Flax variables have, stands for that entry.

    Raises:
        ParamsError: it does not exist, is damaged or is of another kind.
    """
    path = pathlib.Path(path).absolute()
    if not path.exists():
        raise ParamsError(f"{path} does not exist; give {KNOWN}")
    try:
        if path.is_dir():
            tree = _load_orbax(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                tree = _nest(dict(arrays))
        elif path.suffix == ".safetensors":
            from safetensors.flax import load_file  # reads bfloat16, which numpy's own reader does not

            tree = _nest(load_file(path))
        else:
            raise ParamsError(f"{path} has the suffix {path.suffix!r}; give {KNOWN}")
    except ParamsError:
        raise
    except ImportError as error:
        raise ParamsError(
            f"{path} cannot be read: {error}. Install what is missing: pip install safetensors"
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ParamsError(f"{path} cannot be read as {KNOWN}: {error}") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # derives from Exception alone
            raise ParamsError(f"{path} is damaged or no safetensors file: {error}") from error
        raise
    return tree["params"] if isinstance(tree, dict) and "params" in tree else tree


def _load_orbax(path: pathlib.Path) -> PyTree:
    import jax
    import orbax.checkpoint as ocp

    steps = [int(child.name) for child in path.iterdir() if child.is_dir() and child.name.isdigit()]
    if steps and not (path / "_METADATA").exists():
        path = path / str(max(steps))
    digest = path.parent / f"{path.name}.sha256"
    if digest.exists() and (fault := find_fault(path, digest)) is not None:
        raise ParamsError(f"{path} is damaged: {fault}; give an earlier step")
    path = next((path / item for item in ("params", "default") if (path / item).is_dir()), path)
    if not (path / "_METADATA").exists():
        raise ParamsError(f"{path} is no orbax checkpoint: it has no file _METADATA; give {KNOWN}")
    with ocp.StandardCheckpointer() as checkpointer:
        # Onto this machine's device, whatever machine saved it.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = checkpointer.metadata(path).item_metadata.tree
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
        return checkpointer.restore(path, target)


def _nest(arrays):
    tree = {}
    for name, array in arrays.items():
        *parents, last = name.replace(".", "/").split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"the name {name!r} runs through another array")
        node[last] = array
    return tree
