"""What the configs of the paper's first two figures (arXiv 2409.06402) share: networks, sets and arms."""

from typing import Any

COMMON = {"stem": "imagenet", "width": 1.0, "depth": 1.0, "norm": "batch", "dropout": 0.0, "dtype": "float32"}
# Of a smoke run: the large networks take minutes of a CPU to trace and compile.
SMOKE = {"width": 0.25, "depth": 0.2}
# Options that a network does not share with the others; the mobile networks have dropout of their own.
MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"shortcut": "projection", "activation": "relu"},
    "resnet50": {"shortcut": "projection", "activation": "relu"},
    "densenet121": {"activation": "relu"},
    "mobilenet_v3_small": {"dropout": 0.2},
    "mobilenet_v3_large": {"dropout": 0.2},
    "efficientnet_b0": {"dropout": 0.2, "stochastic_depth": 0.2},
}
STEMS = ("imagenet", "cifar", "stride1")
_MOBILE = ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


def model(name: str, stem: str = "imagenet") -> dict[str, Any]:
    """The section `model` of a network.

    Raises:
        ValueError: a stem that the network does not have.

    >>> model('densenet121')['stem'], model('efficientnet_b0', 'stride1')['dropout']
    ('imagenet', 0.2)
    """
    if stem == "stride1" and name not in _MOBILE:
        raise ValueError(f"stem='stride1' is one of {', '.join(_MOBILE)}; {name} has 'imagenet' and 'cifar'")
    return {**COMMON, **MODELS[name], "name": name, "stem": stem}


def task(dataset: str, *, image_size: int = 0) -> dict[str, Any]:
    """Fields of `task` for photographs: crops of an eighth of the side and, but of digits, mirror images.

    >>> task('dtd', image_size=64)['crop_padding'], task('svhn_cropped')['flip']
    (8, False)
    """
    padding = (image_size or 32) // 8
    return {
        "dataset": dataset,
        "image_size": image_size,
        "crop_padding": padding,
        "flip": not dataset.startswith("svhn"),
    }


def arms(claim: str, *, stem: str = "imagenet", factor: int = 2, fills: bool = False) -> dict[str, dict[str, Any]]:
    """Raw images; the treatment, K = 2 with fill 0.5; and its controls.

    With the ImageNet stem and K = 2 there is the control of the stem: the raw image through the part of the stem that
    meets its pixels in the expanded image, at stride 1. But for a constant, which batch norm takes away, and for
    the border, that network is the expanded one: see `sbjax.models.layers.sub_kernel_init`.

    Args:
        claim: what published work says of the treatment.
        stem: of the network.
        factor: K, of all arms but the raw one.
        fills: further values of new pixels, each an arm: the mean colour, 1 (white), and noise.

    >>> list(arms('', stem='cifar'))
    ['raw', 'expanded', 'zero', 'nearest', 'bilinear']
    """
    about = {
        "expanded": ("0.5", "treatment", "new pixels of a constant 0.5"),
        "zero": ("0.0", "control of fill value", "new pixels of 0"),
        "nearest": ("nearest", "control of resolution", "as many pixels, copies of their neighbours"),
        "bilinear": ("bilinear", "control of resolution", "as many pixels, between their neighbours"),
    }
    if fills:
        about |= {
            "mean": ("mean", "control of fill value", "new pixels of the mean colour"),
            "one": ("1.0", "control of fill value", "new pixels of 1"),
            "noise": ("noise", "control of constancy", "new pixels of uniform noise, the same for all images"),
        }
    found: dict[str, dict[str, Any]] = {"raw": {"order": 0, "role": "reference"}}
    for order, (arm, (fill, role, said)) in enumerate(about.items(), start=1):
        found[arm] = {
            "order": order,
            "role": role,
            "labels": {"about": said} | ({"claim": claim} if role == "treatment" else {"treatment": "expanded"}),
            "expansion": {"kind": "image", "factor": factor, "fill": fill, "offset": 0, "order": "before"},
        }
    if stem == "imagenet" and factor == 2:
        found["stem_control"] = {
            "order": len(found),
            "role": "control of the stem's stride",
            "labels": {
                "about": "raw image, the taps of the stem that meet it in the expanded image, at stride 1",
                "treatment": "expanded",
            },
            "model": {"stem": "sub_kernel"},
        }
    return found
