"""Readers of parameter files. Whatever a damaged file raises becomes one sentence that names the file."""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import PyTree

from sbjax.training.checkpoint_files import find_fault

KNOWN = "an orbax folder, .npz or .safetensors"
INDEX = ".safetensors.index.json"

_TORCH = (
    "convert it where PyTorch is: import torch, safetensors.torch; state = torch.load({name!r}, map_location='cpu', "
    "weights_only=True); safetensors.torch.save_file({{k: v.clone() for k, v in state.items()}}, 'model.safetensors')"
)
REMEDIES = {
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt"), _TORCH),
    ".npy": "a single array has no name: numpy.savez('weights.npz', w=numpy.load({name!r}))",
    **dict.fromkeys((".h5", ".keras", ".hdf5"), "save model.get_weights() by numpy.savez"),
    **dict.fromkeys((".msgpack", ".pkl", ".pickle"), "load it where it was written and save it by numpy.savez"),
}
# Of the safetensors format; floats of fewer than 16 bits, which numpy's own reader lacks, by ml_dtypes.
DTYPES = {
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
    "C64": np.dtype("<c8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")
_STEP = re.compile(r"(?:(.+)_)?(\d+)")


class ParamsError(ValueError):
    """A file of parameters that cannot be read. The message names it and the remedy."""


def read_tree(path: pathlib.Path) -> PyTree:
    """All arrays of a file or folder, as nested dicts of numpy arrays.

    Raises:
        ParamsError: it is damaged or of another kind.
    """
    if path.is_dir():
        return _folder(path)
    if path.name.endswith(INDEX):
        return _guarded(path, "an index of safetensors", lambda: _nest(path, _shards(path)))
    if path.suffix == ".npz":
        return _guarded(path, ".npz", lambda: _nest(path, _npz(path)))
    if path.suffix == ".safetensors":
        return _guarded(path, ".safetensors", lambda: _nest(path, _safetensors(path)))
    remedy = REMEDIES.get(path.suffix.lower())
    told = f"; {remedy.format(name=path.name)}" if remedy else ""
    raise ParamsError(f"{path} has the suffix {path.suffix!r}; give {KNOWN}{told}")


def _guarded(path: pathlib.Path, kind: str, read: Callable[[], PyTree]) -> PyTree:
    """What `read` returns. Files from elsewhere make their readers raise anything, so anything is caught."""
    try:
        return read()
    except ParamsError:
        raise
    except ImportError as error:
        raise ParamsError(f"{path} cannot be read: {_said(error)}. Install what is missing") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ParamsError(f"{path} is damaged or no safetensors file: {_said(error)}; write it anew") from error
        raise ParamsError(f"{path} cannot be read as {kind}: {_said(error)}; write it anew, or give {KNOWN}") from error


def _said(error: Exception) -> str:
    """Kind and first line of an error."""
    line = " ".join((str(error).strip().splitlines() or [""])[0].split()).rstrip(".;")
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__


def _npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:  # which numpy would leave open where it is damaged
        start = file.read(6)
        file.seek(0)
        if start and not start.startswith(
            (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")
        ):  # numpy would take it for pickled
            raise ParamsError(
                f"{path} cannot be read as .npz: it does not begin as one; it is damaged or another kind of file under "
                f"that name; write it anew, or give {KNOWN}"
            )
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ParamsError(f"{path} is a .npy, not a .npz; {REMEDIES['.npy'].format(name=path.name)}")
        names = [name.removesuffix(".npy") for name in found.zip.namelist()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ParamsError(f"{path} has the array {twice!r} twice; write it anew")
        arrays = {name: _member(found, name) for name in found.files}
    for name, array in arrays.items():
        if array is not None and array.dtype.kind == "V":
            raise ParamsError(
                f"{path}: the array {name!r} has the dtype {array.dtype}, as numpy saves bfloat16 and records; "
                "save it as float32, or as .safetensors"
            )
    return {name: array for name, array in arrays.items() if array is not None}


def _member(found, name):
    """An array of a .npz; None for another file in it, and an empty one of objects where it holds such."""
    try:
        array = found[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return np.array(None, object)
    return array if isinstance(array, np.ndarray) else None


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """By the header, which the library checks first."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy"):
        pass
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        arrays = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                file.seek(start + begin)
                arrays[name] = _decoded(path, name, entry, file.read(end - begin))
    return arrays


def _decoded(path, name, entry, content):
    if entry["dtype"] == "F4":  # two to a byte, the first in the lower half
        packed = np.frombuffer(content, np.uint8)
        halves = np.stack([packed & 15, packed >> 4], -1).reshape(entry["shape"])
        return halves.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    if entry["dtype"] not in DTYPES:
        raise ParamsError(
            f"{path}: the array {name!r} has the dtype {entry['dtype']}, which is not read; save it as F32"
        )
    return np.frombuffer(content, DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of all files that an index names."""
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    arrays = {}
    for shard in sorted(set(places.values())):
        if pathlib.PurePath(shard).name != shard:
            raise ParamsError(f"{index} names the shard {shard!r}, which is no file beside it; write it anew")
        path = index.parent / shard
        if not path.exists():
            raise ParamsError(f"{path} does not exist, and {index.name} names it; fetch all shards")
        found = _guarded(path, ".safetensors", lambda path=path: _safetensors(path))
        wanted = [name for name, place in places.items() if place == shard]
        if missing := [name for name in wanted if name not in found]:
            raise ParamsError(f"{path} has no array {missing[0]!r}, and {index.name} says so; fetch both anew")
        arrays |= {name: found[name] for name in wanted}
    return arrays


def _folder(path: pathlib.Path) -> PyTree:
    files = sorted(child.name for child in path.iterdir() if child.is_file())
    indices = [name for name in files if name.endswith(INDEX)]
    tensors = [name for name in files if name.endswith(".safetensors")]
    if len(indices) > 1 or (len(tensors) > 1 and not indices):
        listed = ", ".join((indices or tensors)[:4])
        raise ParamsError(f"{path} holds {listed}: give one of them, or, of shards, their index model{INDEX}")
    if tensors and not indices and (shard := _SHARD.search(tensors[0])) and int(shard[2]) > 1:
        raise ParamsError(
            f"{path} holds {tensors[0]}, shard {int(shard[1])} of {int(shard[2])}, and no index; fetch the others and "
            f"model{INDEX}, or give the file itself, if that part is meant"
        )
    if indices or tensors:
        return read_tree(path / (indices or tensors)[0])
    foreign = [name for name in files if pathlib.PurePath(name).suffix in REMEDIES]
    if foreign and not (path / "_METADATA").exists():
        told = REMEDIES[pathlib.PurePath(foreign[0]).suffix].format(name=foreign[0])
        raise ParamsError(f"{path} holds {foreign[0]}; give {KNOWN}; {told}")
    return _guarded(path, "an orbax folder", lambda: _orbax(path))


def _orbax(path: pathlib.Path) -> PyTree:
    import jax
    import orbax.checkpoint as ocp

    path = _item(_newest_step(path))
    restored_as = ocp.RestoreArgs(restore_type=np.ndarray)  # in the saved dtype, from whatever machine
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        if metadata is None:
            raise ParamsError(f"{path} is damaged: its _METADATA cannot be read; give an earlier step")
        saved = metadata.tree
        return checkpointer.restore(path, restore_args=jax.tree.map(lambda _: restored_as, saved))


def _newest_step(path: pathlib.Path) -> pathlib.Path:
    """The newest step in a manager's folder, however it names steps, compared with its digest where there is one."""
    if not (path / "_METADATA").exists():
        matched = {child: _STEP.fullmatch(child.name) for child in path.iterdir() if child.is_dir()}
        steps = {child: m for child, m in matched.items() if m and not child.name.startswith("ocdbt.process")}
        prefixes = sorted({m[1] or "" for m in steps.values()})
        if len(prefixes) > 1 and "" not in prefixes:
            listed = ", ".join(f"{prefix}_*" for prefix in prefixes)
            raise ParamsError(f"{path} holds steps of several names, {listed}; give one of its folders")
        steps = {child: int(m[2]) for child, m in steps.items() if (m[1] or "") == prefixes[0]}
        path = max(steps, key=steps.get) if steps else path
    digest = path.parent / f"{path.name}.sha256"
    if digest.exists() and (fault := find_fault(path, digest)) is not None:
        raise ParamsError(f"{path} is damaged: {fault}; give an earlier step")
    return path


def _item(path: pathlib.Path) -> pathlib.Path:
    """The tree in a step: itself, or its item 'params', 'default', or the only one."""
    if (path / "_METADATA").exists():
        return path
    items = sorted(child.name for child in path.iterdir() if (child / "_METADATA").exists())
    chosen = [name for name in ("params", "default") if name in items] or items
    if len(chosen) > 1 and "params" not in items and "default" not in items:
        raise ParamsError(f"{path} holds the items {', '.join(items)}; give one of them, such as {path / items[0]}")
    if not chosen:
        held = ", ".join(sorted(child.name for child in path.iterdir())[:6]) or "nothing"
        raise ParamsError(f"{path} is no orbax checkpoint: it has no file _METADATA, and holds {held}; give {KNOWN}")
    return path / chosen[0]


def _nest(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A nested dict from names cut at '/' and '.'. An array whose name begins with that of another stays beside it."""
    cut = {name: tuple(name.replace(".", "/").split("/")) for name in arrays}
    owners: dict[tuple[str, ...], str] = {}
    for name, parts in cut.items():
        if parts in owners:
            raise ParamsError(
                f"{path} has the arrays {owners[parts]!r} and {name!r}, which are one name, since names are cut at '/' "
                "and '.'; rename one of them and save it again"
            )
        owners[parts] = name
    tree: dict[str, Any] = {}
    for name, parts in cut.items():
        above = next((i for i in range(1, len(parts)) if parts[:i] in owners), len(parts))
        *parents, last = (*parts[: above - 1], ".".join(parts[above - 1 :]))
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = arrays[name]
    return tree
