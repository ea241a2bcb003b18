"""Weights of torchvision's networks for the same networks here."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jaxtyping import PyTree

from sbjax import trees
from sbjax.common.names import near
from sbjax.models.densenet import DenseNet
from sbjax.models.efficientnet import EfficientNet
from sbjax.models.mobilenet import MobileNetV3
from sbjax.models.resnet import ResNet

# Layers here -> those of torchvision; {n+1} is the group n and one more.
_NAMES: dict[type, dict[str, str]] = {
    ResNet: {
        r"conv_stem": "conv1",
        r"norm_stem": "bn1",
        r"stage_(\d+)_block_(\d+)/conv_shortcut": "layer{0+1}.{1}.downsample.0",
        r"stage_(\d+)_block_(\d+)/norm_shortcut": "layer{0+1}.{1}.downsample.1",
        r"stage_(\d+)_block_(\d+)/conv_(\d+)": "layer{0+1}.{1}.conv{2+1}",
        r"stage_(\d+)_block_(\d+)/norm_(\d+)": "layer{0+1}.{1}.bn{2+1}",
        r"head": "fc",
    },
    DenseNet: {
        r"(conv|norm)_stem": "features.{0}0",
        r"block_(\d+)_layer_(\d+)/(conv|norm)_(\d+)": "features.denseblock{0+1}.denselayer{1+1}.{2}{3+1}",
        r"transition_(\d+)/(conv|norm)": "features.transition{0+1}.{1}",
        r"norm_last": "features.norm5",
        r"head": "classifier",
    },
    MobileNetV3: {
        r"conv_stem": "features.0.0",
        r"norm_stem": "features.0.1",
        r"block_(\d+)/(.*)": "features.{0+1}.block.{part}",
        r"conv_last": "features.{last}.0",
        r"norm_last": "features.{last}.1",
        r"hidden": "classifier.0",
        r"head": "classifier.3",
    },
    EfficientNet: {
        r"conv_stem": "features.0.0",
        r"norm_stem": "features.0.1",
        r"stage_(\d+)_block_(\d+)/(.*)": "features.{0+1}.{1}.block.{part}",
        r"conv_last": "features.{last}.0",
        r"norm_last": "features.{last}.1",
        r"head": "classifier.1",
    },
}
_ENTRIES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Modules of an inverted residual block, in order; torchvision numbers those that are there.
_PARTS = ("expand", "depthwise", "squeeze", "project")
_INSIDE = {"conv": "0", "norm": "1", "reduce": "fc1", "restore": "fc2"}


def from_torchvision(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, PyTree]:
    """Variables of a network of this package from the weights of torchvision's.

    Kernels of convolutions [out, in, kh, kw] become [kh, kw, in, out], those of dense layers are transposed, and
    counters of batches are left out. In evaluation the logits are torchvision's, on images standardised in the same
    way. In training, note that PyTorch keeps the unbiased variance of a batch in its running statistics and this
    package the biased one, and that PyTorch's momentum is one minus that of this package.

    Args:
        state_dict: names to arrays: numpy's, or tensors on the CPU: `net.state_dict()`, or `numpy.load` of a file.
        model: of `make_model`: 'resnet18', 'resnet50', 'densenet121', 'mobilenet_v3_large', 'mobilenet_v3_small' or
            'efficientnet_b0', of the same width, number of classes and (ResNet, DenseNet) stem.

    Returns:
        {'params': .., 'batch_stats': ..} for `model.apply`, in the dtype of its parameters.

    Raises:
        ValueError: another kind of network; an array that is missing, left over or of another shape.

    >>> from sbjax.models import make_model
    >>> from_torchvision({}, make_model('resnet50', classes=10))
    Traceback (most recent call last):
        ...
    ValueError: state_dict has no 'bn1.running_mean' for 'norm_stem/mean'; give ...
    """
    if type(model) not in _NAMES:
        raise ValueError(
            f"model={type(model).__name__}: torchvision has weights for {', '.join(kind.__name__ for kind in _NAMES)}"
        )
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"state_dict is a {type(state_dict).__name__} and no dictionary; give net.state_dict()")
    state = {name: value for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    stem = next((value for name, value in state.items() if name in _STEMS), None)
    channels = 3 if stem is None else np.shape(stem)[1]
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    wanted = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves = {collection: trees.flatten(tree) for collection, tree in wanted.items()}
    names = _torch_names([leaf for flat in leaves.values() for leaf in flat], _NAMES[type(model)])
    if left := sorted(set(state) - set(names.values())):
        if missing := sorted(set(names.values()) - set(state)):
            left[0] += f", and lacks {missing[0]!r}"
        raise ValueError(
            f"state_dict has {len(left)} arrays that {type(model).__name__} does not know, such as {left[0]}"
        )

    def read(leaf, like):
        if (name := names[leaf]) not in state:
            raise ValueError(
                f"state_dict has no {name!r} for {leaf!r}{near(name, state)}; give the whole dictionary of the network"
            )
        try:
            value = np.asarray(state[name], np.float64 if np.dtype(like.dtype).itemsize > 4 else np.float32)
        except (TypeError, ValueError, RuntimeError) as error:  # of a tensor on an accelerator, or of bfloat16
            raise ValueError(f"{name!r} is no array ({error}); give value.detach().float().cpu().numpy()") from error
        if leaf.endswith("kernel"):
            value = value.reshape(value.shape[:2]) if value.ndim == 4 and len(like.shape) == 2 else value
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        if value.shape != like.shape:
            raise ValueError(
                f"{name!r} gives {leaf!r} the shape {value.shape} and the model has {like.shape}: make the model "
                "with the same width, classes, stem and norm"
            )
        return jnp.asarray(value, like.dtype)

    return {
        collection: unflatten_dict({leaf: read(leaf, like) for leaf, like in flat.items()}, sep="/")
        for collection, flat in leaves.items()
    }


_STEMS = ("conv1.weight", "features.conv0.weight", "features.0.0.weight")


def _torch_names(leaves: list[str], table: Mapping[str, str]) -> dict[str, str]:
    """torchvision's name of every leaf."""
    top = {leaf.split("/")[0] for leaf in leaves}
    stages = [int(found[1]) for name in top if (found := re.match(r"(?:stage|block)_(\d+)", name))]
    parts: dict[str, set[str]] = {}
    for leaf in leaves:
        if found := re.match(rf"(.*)/(?:.*_)?({'|'.join(_PARTS)})/", leaf):
            parts.setdefault(found[1], set()).add(found[2])
    names = {}
    for leaf in leaves:
        layer, entry = leaf.rsplit("/", 1)
        pattern, groups = next((p, found.groups()) for p in table if (found := re.fullmatch(p, layer)))
        known = {"last": max(stages, default=0) + 2} | {str(i): group for i, group in enumerate(groups)}
        known |= {f"{i}+1": int(group) + 1 for i, group in enumerate(groups) if group.isdigit()}
        if "{part}" in table[pattern]:
            known["part"] = _part(groups[-1], [p for p in _PARTS if p in parts[layer.split("/")[0]]])
        names[leaf] = (
            f"{re.sub(r'{([^}]+)}', lambda m, known=known: str(known[m[1]]), table[pattern])}.{_ENTRIES[entry]}"
        )
    return names


def _part(layer: str, present: list[str]) -> str:
    """'conv_expand' -> '0.0', 'norm_project' -> '3.1', 'squeeze/reduce' -> '2.fc1'."""
    first, second = re.fullmatch(r"(\w+?)[_/](\w+)", layer).groups()
    part, inside = (first, second) if first in _PARTS else (second, first)
    return f"{present.index(part)}.{_INSIDE[inside]}"
