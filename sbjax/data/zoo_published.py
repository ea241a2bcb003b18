"""Published zoos, as `sbjax.data.zoo.Zoo`. Nothing is unpickled: a pickle runs whatever code its author put in it.

- `read_small_cnn_zoo`: the Small CNN Zoo of Unterthiner et al., arXiv 2002.11448 (weights.npy, metrics.csv.gz,
  layout.csv), as it is published;
- `read_model_zoo`: the zoos of Schuerholt et al., arXiv 2209.14764: a folder a network with params.json and
  result.json, which are read as they are. Their parameters are pickles of PyTorch, 'checkpoints', and have to be
  converted once, where PyTorch is; so has the data set file, 'dataset.pt', a pickled Python object.
"""

import csv
import gzip
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbjax import trees
from sbjax.common.files import FileError, read_json, read_lines
from sbjax.common.names import expanded
from sbjax.data.zoo import Zoo

CONVERT = (
    "convert it where PyTorch is: for path in pathlib.Path(ZOO).glob('*/checkpoint_*/checkpoints'): "
    "safetensors.torch.save_file({k: v.clone() for k, v in torch.load(path, map_location='cpu', weights_only=True)"
    ".items()}, f'{path}.safetensors')"
)
_ACTIVATIONS = {"leakyrelu": "leaky_relu"}


def read_small_cnn_zoo(folder: str | os.PathLike, *, step: int | None = None, networks: int = 0) -> Zoo:
    """The Small CNN Zoo: one of its four archives, unpacked.

    Args:
        folder: with `weights.npy` [checkpoint, 4970], `metrics.csv` or `metrics.csv.gz`, a row a checkpoint, and
            `layout.csv`, which says where each array is in a row.
        step: whose checkpoints are taken, by the column `step`; None = the last one.
        networks: at most so many, from the front; 0 = all.

    Returns:
        The networks with a checkpoint at that step. `accuracy` and `loss` are those of the test split at all steps up
        to it, `about['steps']`; NaN where a network has no checkpoint. Hyper-parameters are the columns 'config.*'
        without that word.

    Raises:
        FileNotFoundError, FileError: a file is missing, or does not hold what it should.
    """
    path = expanded(folder)
    layout = _layout(path / "layout.csv")
    weights = _matrix(path / "weights.npy", layout)
    rows = list(_metrics(path))
    if len(rows) != len(weights):
        raise FileError(f"{path}: weights.npy has {len(weights)} rows and metrics.csv {len(rows)}; fetch both anew")
    steps = np.array([_number(row, "step", path) for row in rows]).astype(int)
    step = int(steps.max()) if step is None else step
    kept = np.flatnonzero(steps == step)[: networks or None]
    if not len(kept):
        known = ", ".join(map(str, np.unique(steps).tolist()[:12]))
        raise FileError(f"{path} has no checkpoint of step {step}; give one of {known}")
    place = {rows[row]["modeldir"]: net for net, row in enumerate(kept)}
    columns = [int(one) for one in np.unique(steps[steps <= step])]
    curves = np.full((2, len(kept), len(columns)), np.nan)
    for row, at in zip(rows, steps):
        net = place.get(row["modeldir"])
        if net is not None and at <= step:
            for curve, name in zip(curves, ("test_accuracy", "test_loss")):
                curve[net, columns.index(at)] = _number(row, name, path)
    params = {}
    for name, (start, stop, shape) in layout.items():
        params[name] = np.ascontiguousarray(weights[kept, start:stop], np.float32).reshape(len(kept), *shape)
    kernels = [params[f"conv_{i}/kernel"] for i in range(sum(name.endswith("kernel") for name in params) - 1)]
    hyper = _hyperparameters(
        {name[7:]: [rows[row][name] for row in kept] for name in rows[0] if name.startswith("config.")}
    )
    hyper["activation"] = np.array([_ACTIVATIONS.get(name, name) for name in hyper["activation"].tolist()])
    return Zoo(
        kind="small_cnn_zoo",
        params=trees.nest(params),
        hyperparameters=hyper,
        accuracy=curves[0],
        loss=curves[1],
        model={
            "name": "sbjax.models.zoo:StridedCNN",
            "channels": tuple(leaf.shape[-1] for leaf in kernels),
            "activation": str(hyper["activation"][0]),
        },
        classes=params["head/bias"].shape[-1],
        input_shape=(32, 32, kernels[0].shape[-2]),
        index=kept,
        about={"steps": columns, "source": "arXiv 2002.11448"},
    )


def read_model_zoo(folder: str | os.PathLike, *, epoch: int, networks: int = 0) -> Zoo:
    """A zoo of Schuerholt et al.: a folder a network.

    Args:
        folder: with folders that each hold `params.json` (settings), `result.json` (a line an epoch) and, for the
            epoch, `checkpoint_EPOCH/checkpoints.safetensors` or `.npz`, the state dict 'module_list.0.weight', ..,
            converted from the `checkpoints` beside it. EPOCH may have leading zeros.
        epoch: whose checkpoints are taken.
        networks: at most so many, in the order of the names; 0 = all.

    Returns:
        The networks with a checkpoint of that epoch. `accuracy` and `loss` are those of the test split at all epochs up
        to it, NaN where `result.json` has none; hyper-parameters are those of params.json that are numbers or words.

    Raises:
        FileNotFoundError, FileError: no such network; parameters that are pickles; arrays of another network.
    """
    path = expanded(folder)
    if path.is_file():
        raise FileError(f"{path} is a pickled data set, which is not read: give the folder of the networks' folders")
    params, settings, curves = [], [], []
    for own in sorted(child for child in path.iterdir() if child.is_dir()):
        file = _checkpoint(own, epoch)
        if file is None or (networks and len(params) == networks):
            continue
        params.append(_flax_names(file))
        settings.append(read_json(own / "params.json", remedy="fetch it anew"))
        curves.append(_curves(own / "result.json", epoch))
    if not params:
        raise FileNotFoundError(f"{path} has no folder NETWORK/checkpoint_{epoch:06d}; give another epoch or folder")
    shapes = [{name: leaf.shape for name, leaf in one.items()} for one in params]
    if any(other != shapes[0] for other in shapes):
        raise FileError(f"{path} holds networks of several shapes; give a folder of one architecture")
    hyper = _hyperparameters({name: [one.get(name) for one in settings] for name in settings[0]})
    if "model::nlin" in hyper:
        hyper["activation"] = np.array([_ACTIVATIONS.get(x, x) for x in hyper.pop("model::nlin").tolist()])
    model, image = _pooled_cnn(shapes[0], path)
    return Zoo(
        kind="model_zoo",
        params=trees.nest({name: np.stack([one[name] for one in params]) for name in params[0]}),
        hyperparameters=hyper,
        accuracy=np.array([one[0] for one in curves]),
        loss=np.array([one[1] for one in curves]),
        model=model | ({"activation": str(hyper["activation"][0])} if "activation" in hyper else {}),
        classes=shapes[0]["head/bias"][0],
        input_shape=(image, image, shapes[0]["conv_0/kernel"][2]),
        index=np.arange(len(params)),
        about={"epoch": epoch, "source": "arXiv 2209.14764"},
    )


def _layout(path: Path) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    """(start, stop, shape) of each array of a row, by Flax name, in the order of the layers."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder of weights.npy, metrics.csv.gz and layout.csv")
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = re.fullmatch(r".*/(conv2d|dense)(?:_(\d+))?/(kernel|bias):0", row.get("varname") or "")
            shape = tuple(int(size) for size in re.findall(r"\d+", row.get("shape") or ""))
            try:
                start, stop = int(row["start_idx"]), int(row["end_idx"])
            except (KeyError, TypeError, ValueError):
                start = stop = -1
            if name is None or start < 0 or stop - start != np.prod(shape):
                raise FileError(f"{path}: the row {dict(row)} names no array of this zoo; fetch it anew")
            layer = "head" if name[1] == "dense" else f"conv_{name[2] or 0}"
            found[f"{layer}/{name[3]}"] = (start, stop, shape)
    if "head/bias" not in found or "conv_0/kernel" not in found:
        raise FileError(f"{path} has no rows conv2d/kernel:0 and dense/bias:0; fetch it anew")
    return dict(sorted(found.items()))


def _matrix(path: Path, layout: Mapping[str, tuple[int, int, tuple[int, ...]]]) -> np.ndarray:
    """The rows, left on disk."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder of weights.npy, metrics.csv.gz and layout.csv")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise FileError(f"{path} holds no plain array ({str(error)[:80]}); Python objects are not read") from error
    size = max(stop for _, stop, _ in layout.values())
    if found.ndim != 2 or found.shape[1] != size or found.dtype.kind != "f":
        raise FileError(f"{path} holds {found.dtype} {found.shape}, and layout.csv speaks of rows of {size} floats")
    return found


def _metrics(path: Path) -> Iterator[dict[str, str]]:
    for name, opener in (("metrics.csv.gz", gzip.open), ("metrics.csv", open)):
        if (path / name).exists():
            with opener(path / name, "rt", newline="", encoding="utf-8") as file:
                yield from csv.DictReader(file)
            return
    raise FileNotFoundError(f"{path} has neither metrics.csv.gz nor metrics.csv; fetch it")


def _number(row: Mapping[str, str], name: str, path: Path) -> float:
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        raise FileError(f"{path}: metrics.csv has no number in the column {name!r}: {row.get(name)!r}") from None


def _hyperparameters(columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Columns of numbers, or else of words; others, such as lists, are left out."""
    found = {}
    for name, values in columns.items():
        try:
            found[name] = np.array([float("nan" if value is None else value) for value in values])
        except (TypeError, ValueError):
            if all(isinstance(value, str) for value in values):
                found[name] = np.array(values)
    return found


def _checkpoint(folder: Path, epoch: int) -> Path | None:
    """The file with the parameters of an epoch; None where there is no such checkpoint."""
    for name in (f"checkpoint_{epoch:06d}", f"checkpoint_{epoch}"):
        for suffix in (".safetensors", ".npz"):
            if (file := folder / name / f"checkpoints{suffix}").exists():
                return file
        if (file := folder / name / "checkpoints").exists():
            raise FileError(f"{file} is a pickle of PyTorch, which is not read, for it can run any code; {CONVERT}")
    return None


def _flax_names(file: Path) -> dict[str, np.ndarray]:
    """A state dict 'module_list.N.weight' by Flax names: convolutions, one hidden dense layer, the head."""
    arrays = _arrays(file)
    numbers = sorted(
        {int(m[1]) for name in arrays if (m := re.fullmatch(r"module_list\.(\d+)\.(?:weight|bias)", name))}
    )
    weights = [arrays.get(f"module_list.{number}.weight") for number in numbers]
    ranks = [getattr(weight, "ndim", 0) for weight in weights]
    if len(arrays) != 2 * len(numbers) or len(ranks) < 3 or ranks != [4] * (len(ranks) - 2) + [2, 2]:
        raise FileError(f"{file} holds {', '.join(sorted(arrays)[:4])}, ..: not the arrays of a CNN of these zoos")
    found = {}
    for place, (number, weight) in enumerate(zip(numbers, weights)):
        layer = f"conv_{place}" if weight.ndim == 4 else "dense_0" if place == len(numbers) - 2 else "head"
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        found[f"{layer}/kernel"] = np.ascontiguousarray(kernel, np.float32)
        found[f"{layer}/bias"] = np.asarray(arrays[f"module_list.{number}.bias"], np.float32)
    return found


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        if file.suffix == ".npz":
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        from safetensors.numpy import load_file

        return load_file(file)
    except Exception as error:  # of a damaged file the readers raise anything
        raise FileError(
            f"{file} cannot be read ({type(error).__name__}: {str(error)[:100]}); convert it anew"
        ) from error


def _curves(file: Path, epoch: int) -> tuple[list[float], list[float]]:
    """Accuracy and loss of the test split after the epochs 1, .., epoch, by 'training_iteration'."""
    found = {record.get("training_iteration"): record for _, record in read_lines(file)}
    told = [[found.get(i, {}).get(name) for i in range(1, epoch + 1)] for name in ("test_acc", "test_loss")]
    accuracy, loss = ([float("nan") if x is None else float(x) for x in row] for row in told)
    return accuracy, loss


def _pooled_cnn(shapes: Mapping[str, tuple[int, ...]], path: Path) -> tuple[dict[str, Any], int]:
    """Model and image size that these arrays are of."""
    convolutions = sorted(
        (name for name in shapes if re.fullmatch(r"conv_\d+/kernel", name)), key=lambda n: int(n[5:-7])
    )
    kernels, channels = ([shapes[name][axis] for name in convolutions] for axis in (0, 3))
    for image in (28, 32):
        for pooled in range(len(kernels) + 1):
            side = image
            for i, size in enumerate(kernels):
                side = (side - size + 1) // (2 if i < pooled else 1)
            if side > 0 and side**2 * channels[-1] == shapes["dense_0/kernel"][0]:
                options = {"channels": tuple(channels), "kernels": tuple(kernels), "pooled": pooled}
                options["hidden"] = shapes["dense_0/kernel"][1]
                return {"name": "sbjax.models.zoo:PooledCNN", **options}, image
    raise FileError(f"{path}: no image of 28 or 32 pixels fits these arrays: {json.dumps(shapes)[:200]}")
