"""Network architectures as Linen modules, by name. Variables are plain dicts; `init` and `apply` are pure."""

from sbjax.models.cnn import CNN
from sbjax.models.densenet import DenseNet
from sbjax.models.efficientnet import EfficientNet
from sbjax.models.equivariant import GroupCNN
from sbjax.models.field import Field
from sbjax.models.graph import GraphNet
from sbjax.models.mlp import MLP
from sbjax.models.mobilenet import MobileNetV3
from sbjax.models.registry import (
    FAMILIES,
    make_denoiser,
    make_field,
    make_graph_model,
    make_map_model,
    make_metanet,
    make_model,
    make_quasi_partons,
    make_text_model,
    model_specs,
)
from sbjax.models.resnet import ResNet
from sbjax.models.torchvision import from_torchvision
from sbjax.models.unet import UNet

__all__ = [
    "CNN",
    "FAMILIES",
    "MLP",
    "DenseNet",
    "EfficientNet",
    "Field",
    "GraphNet",
    "GroupCNN",
    "MobileNetV3",
    "ResNet",
    "UNet",
    "from_torchvision",
    "make_denoiser",
    "make_field",
    "make_graph_model",
    "make_map_model",
    "make_metanet",
    "make_model",
    "make_quasi_partons",
    "make_text_model",
    "model_specs",
]
