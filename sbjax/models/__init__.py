"""Network architectures as Linen modules, by name. Variables are plain dicts; `init` and `apply` are pure."""

import functools
from typing import Any

from flax import linen as nn

from sbjax.models import equivariant, layers
from sbjax.models.cnn import CNN
from sbjax.models.equivariant import GroupCNN
from sbjax.models.field import Field
from sbjax.models.mlp import MLP
from sbjax.models.resnet import ResNet
from sbjax.names import near

MODELS = {
    "mlp": MLP,
    "cnn": CNN,
    "p4cnn": functools.partial(GroupCNN, group="p4", channels=(16, 32, 32)),
    "p4mcnn": functools.partial(GroupCNN, group="p4m", channels=(12, 22, 22)),
    "resnet8": functools.partial(ResNet, stages=(1, 1, 1), base=16),
    "resnet18": functools.partial(ResNet, stages=(2, 2, 2, 2), base=64),
    "resnet20": functools.partial(ResNet, stages=(3, 3, 3), base=16),
}
COMMON = ("norm", "dropout", "activation", "dtype")
OPTIONS = {
    "mlp": ("widths", *COMMON),
    "cnn": ("channels", *COMMON),
    "p4cnn": ("channels", "readout", *COMMON),
    "p4mcnn": ("channels", "readout", *COMMON),
    "resnet8": ("width", "stem", "shortcut", *COMMON),
    "resnet18": ("width", "stem", "shortcut", *COMMON),
    "resnet20": ("width", "stem", "shortcut", *COMMON),
}


def make_model(name: str, *, classes: int, **options: Any) -> nn.Module:
    """A model by name, called as `module.apply(variables, x, train=.., rngs={'dropout': key}, mutable=[..])`.

    Args:
        name: 'mlp', 'cnn', 'p4cnn', 'p4mcnn', 'resnet8', 'resnet18' or 'resnet20'.
        classes: number of outputs.
        options: fields of the module: norm, dropout, activation, dtype; widths (mlp); channels (cnn, p4cnn, p4mcnn);
            readout (p4cnn, p4mcnn); width, stem, shortcut (ResNets).

    Raises:
        ValueError: an unknown name or option (with near names), or an impossible value.

    >>> make_model('cnn', classes=10, channels=(8, 8)).channels
    (8, 8)
    """
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is unknown{near(name, MODELS)}; known: {', '.join(MODELS)}")
    for option in options:
        if option not in OPTIONS[name]:
            known = OPTIONS[name]
            raise ValueError(f"model.{option} is unknown for {name!r}{near(option, known)}; known: {', '.join(known)}")
    known = {
        "norm": layers.NORMS,
        "activation": tuple(layers.ACTIVATIONS),
        "dtype": ("float32", "bfloat16", "float16", "float64"),
        "stem": ("cifar", "imagenet"),
        "shortcut": ("projection", "identity"),
        "readout": equivariant.READOUTS,
    }
    for option, words in known.items():
        if option in options and options[option] not in words:
            value = options[option]
            raise ValueError(f"model.{option}={value!r} is unknown{near(value, words)}; known: {', '.join(words)}")
    if not 0 <= options.get("dropout", 0.0) < 1:
        raise ValueError(f"model.dropout={options['dropout']} must lie in [0, 1)")
    if not options.get("width", 1.0) > 0:
        raise ValueError(f"model.width={options['width']} must be > 0")
    for option in ("widths", "channels"):
        sizes = options.get(option, (1,))
        whole = isinstance(sizes, list | tuple) and all(isinstance(size, int) for size in sizes)
        if not whole or not sizes or min(sizes) < 1:
            raise ValueError(f"model.{option}={sizes!r} must be a list of numbers >= 1, such as (128, 128)")
    options = {key: tuple(value) if key in ("widths", "channels") else value for key, value in options.items()}
    return MODELS[name](classes=classes, **options)


FIELD_OPTIONS = ("widths", "activation", "normalise", "features", "feature_scale", "dtype")


def make_field(name: str, *, x64: bool = False, **options: Any) -> Field:
    """The network of a differential equation.

    Args:
        name: 'field'.
        x64: whether jax is in double precision.
        options: fields of `Field`.

    Raises:
        ValueError: an unknown name or option (with near names), or an impossible value.

    >>> make_field('field', unknowns=1, lower=(0.,), upper=(1.,), widths=(32, 32)).activation
    'tanh'
    """
    if name != "field":
        raise ValueError(f"model.name={name!r} is no network for equations{near(name, ['field'])}; use 'field'")
    if unknown := [option for option in options if option not in Field.__dataclass_fields__]:
        raise ValueError(
            f"model.{unknown[0]} is unknown for 'field'{near(unknown[0], FIELD_OPTIONS)}; "
            f"known: {', '.join(FIELD_OPTIONS)}"
        )
    options = {"widths": (32, 32, 32), **options}
    sizes = options["widths"]
    if not isinstance(sizes, list | tuple) or not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(f"model.widths={sizes!r} must be a list of numbers >= 1, such as (32, 32, 32)")
    for option, words in (("activation", tuple(layers.ACTIVATIONS)), ("dtype", ("float32", "float64"))):
        if options.get(option, words[0]) not in words:
            value = options[option]
            raise ValueError(f"model.{option}={value!r} is unknown{near(value, words)}; known: {', '.join(words)}")
    if options.get("dtype") == "float64" and not x64:
        raise ValueError("model.dtype='float64' needs precision.x64=True")
    if options.get("features", 0) < 0 or not options.get("feature_scale", 1.0) > 0:
        raise ValueError(
            f"model.features={options.get('features', 0)} must be >= 0 and "
            f"model.feature_scale={options.get('feature_scale', 1.0)} > 0"
        )
    return Field(**options | {"widths": tuple(sizes)})
