"""The networks of this package by family and name, and what a task says of each.

A new network of this package is one file and one line of `FAMILIES`; its options are the fields of its class.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sbjax.models import efficientnet, mobilenet


class Model(NamedTuple):
    """A network of this package.

    Attributes:
        path: import path of its class, or of a function that returns a module.
        fixed: fields of the class that the name stands for.
        defaults: other defaults than those of the class.
    """

    path: str
    fixed: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}


_MOBILE = "sbjax.models.mobilenet:MobileNetV3"
_RESNET, _GROUP = "sbjax.models.resnet:ResNet", "sbjax.models.equivariant:GroupCNN"

FAMILIES: dict[str, dict[str, Model]] = {
    # Images [batch, h, w, c] -> logits [batch, classes].
    "image": {
        "mlp": Model("sbjax.models.mlp:MLP"),
        "cnn": Model("sbjax.models.cnn:CNN"),
        "p4cnn": Model(_GROUP, {"group": "p4"}, {"channels": (16, 32, 32)}),
        "p4mcnn": Model(_GROUP, {"group": "p4m"}, {"channels": (12, 22, 22)}),
        "resnet8": Model(_RESNET, {"stages": (1, 1, 1), "base": 16, "bottleneck": False}),
        "resnet18": Model(_RESNET, {"stages": (2, 2, 2, 2), "base": 64, "bottleneck": False}),
        "resnet20": Model(_RESNET, {"stages": (3, 3, 3), "base": 16, "bottleneck": False}),
        "resnet110": Model(_RESNET, {"stages": (18, 18, 18), "base": 16, "bottleneck": False}),
        "resnet50": Model(_RESNET, {"stages": (3, 4, 6, 3), "base": 64, "bottleneck": True}),
        "densenet121": Model("sbjax.models.densenet:DenseNet", {"depths": (6, 12, 24, 16)}),
        "mobilenet_v3_large": Model(_MOBILE, {"blocks": mobilenet.LARGE, "hidden": 1280}),
        "mobilenet_v3_small": Model(_MOBILE, {"blocks": mobilenet.SMALL, "hidden": 1024}),
        "speedrun": Model("sbjax.models.speedrun:SpeedNet"),
        "efficientnet_b0": Model("sbjax.models.efficientnet:EfficientNet", {"stages": efficientnet.B0}),
    },
    # Places in a vocabulary [batch, length] -> logits [batch, classes].
    "text": {
        "bag": Model("sbjax.models.text:BagOfEmbeddings"),
        "textcnn": Model("sbjax.models.text:TextCNN"),
        "lstm": Model("sbjax.models.text:LSTM"),
        "transformer": Model("sbjax.models.text:TextTransformer"),
    },
    # Graphs -> logits [node, classes].
    "graph": {"graph": Model("sbjax.models.graph:GraphNet")},
    # Images [batch, h, w, c] -> maps [batch, h, w, outputs].
    "map": {"unet": Model("sbjax.models.unet:UNet")},
    # Parameters of networks [batch, size] -> numbers [batch, outputs].
    "metanet": {
        "statistics": Model("sbjax.metanets.baselines:StatNN"),
        "hyperparameters": Model("sbjax.metanets.baselines:HyperParameters"),
        "flat": Model("sbjax.metanets.baselines:Flat"),
        "deepsets": Model("sbjax.metanets.baselines:DeepSets"),
        "dmc": Model("sbjax.metanets.baselines:DMC"),
        "functional": Model("sbjax.metanets.functional:Functional"),
        "neural_graph": Model("sbjax.metanets.graphs:NeuralGraph"),
        "neural_graph_transformer": Model("sbjax.metanets.graphs:NeuralGraphTransformer"),
    },
    # Noisy parameters of networks [batch, size], levels [batch], prompts [batch] -> parameters [batch, size].
    "denoiser": {
        "flat_denoiser": Model("sbjax.metanets.denoisers:FlatDenoiser"),
        "equivariant_denoiser": Model("sbjax.metanets.denoisers:EquivariantDenoiser"),
    },
    # Coordinates [.., d] -> unknowns [.., unknowns].
    "field": {"field": Model("sbjax.models.field:Field", defaults={"widths": (32, 32, 32)})},
    # Temperatures [..] -> masses [.., 3].
    "quasi_parton": {"quasi_parton": Model("sbjax.models.quasi_parton:QuasiPartonMasses")},
}
# What a task says of a network, and not the user.
OF_THE_TASK = {
    "image": ("classes",),
    "text": ("classes", "vocabulary", "expansion"),
    "graph": ("classes", "aggregated"),
    "map": ("outputs", "sites"),
    "metanet": ("outputs", "reading"),
    "denoiser": ("reading",),
    "field": ("unknowns", "lower", "upper", "expansion"),
    "quasi_parton": ("unknowns", "lower", "upper", "expansion"),
}
