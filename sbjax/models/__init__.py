"""Network architectures as Linen modules, by name. Variables are plain dicts; `init` and `apply` are pure."""

from sbjax.models.cnn import CNN
from sbjax.models.equivariant import GroupCNN
from sbjax.models.field import Field
from sbjax.models.mlp import MLP
from sbjax.models.registry import FAMILIES, make_field, make_model, make_quasi_partons, make_text_model, model_specs
from sbjax.models.resnet import ResNet

__all__ = [
    "CNN",
    "FAMILIES",
    "MLP",
    "Field",
    "GroupCNN",
    "ResNet",
    "make_field",
    "make_model",
    "make_quasi_partons",
    "make_text_model",
    "model_specs",
]
