"""Published hyperparameters of W-asymmetric networks (arXiv 2405.20231, appendix)."""

from sbjax.asymmetry.masks import MaskSpec
from sbjax.asymmetry.spec import AsymmetrySpec

# Frozen entries per row by pattern, at width 1; three times as many at width 8.
_RESNET20 = (
    ("conv_stem/kernel", 12),
    ("stage_1_*/conv_shortcut/kernel", 6),
    ("stage_2_*/conv_shortcut/kernel", 8),
    ("stage_0_*/kernel", 36),
    ("stage_1_*/kernel", 54),
    ("stage_2_*/kernel", 72),
    ("head/kernel", 8),
)


def mlp_mnist(mask_seed: int = 0, *, init: str = "same") -> AsymmetrySpec:
    """For MNIST: `make_model('mlp', classes=10, widths=(512, 512, 512), norm='layer', activation='gelu')`.

    >>> [(mask.n_fix, mask.kappa) for _, mask in mlp_mnist().masks]
    [(64, 1.0), (64, 1.0), (64, 0.5), (256, 0.25)]
    """
    settings = ((64, 1.0), (64, 1.0), (64, 0.5), (256, 0.25))
    masks = tuple((f"dense_{i}/kernel", MaskSpec(n_fix, kappa)) for i, (n_fix, kappa) in enumerate(settings))
    return AsymmetrySpec("w", masks=masks, mask_seed=mask_seed, init=init)


def resnet20(width: int = 1, mask_seed: int = 0, *, n_fix_stem: int | None = None, init: str = "same") -> AsymmetrySpec:
    """For CIFAR: `make_model('resnet20', classes=10, width=width, norm='layer')`; kappa is 2 everywhere.

    Args:
        width: 1 or 8, the published ones.
        mask_seed, init: as in `AsymmetrySpec`.
        n_fix_stem: frozen entries per row of the first convolution; None = the published 12 at width 1 and 36 at width
            8. A row has only 27 entries, so that 36 freezes the layer; 12 keeps it trainable.

    Raises:
        ValueError: a width other than 1 and 8.

    >>> resnet20(8).masks[0]
    ('conv_stem/kernel', MaskSpec(n_fix=36, kappa=2.0, kind='random_subsets', unit='entry', allow_all_frozen=True))
    """
    if width not in (1, 8):
        raise ValueError(f"width={width!r}: settings were published for widths 1 and 8; give your own AsymmetrySpec")
    factor = 1 if width == 1 else 3
    masks = tuple((glob, MaskSpec(factor * n_fix, 2.0)) for glob, n_fix in _RESNET20)
    if n_fix_stem is not None:
        masks = ((masks[0][0], MaskSpec(n_fix_stem, 2.0)), *masks[1:])
    elif width == 8:
        masks = ((masks[0][0], MaskSpec(36, 2.0, allow_all_frozen=True)), *masks[1:])
    return AsymmetrySpec("w", masks=masks, mask_seed=mask_seed, init=init)


def resnet8(mask_seed: int = 0, *, init: str = "same") -> AsymmetrySpec:
    """For CIFAR, `make_model('resnet8', classes=10)`: 8 frozen filters per row, 8 frozen entries in the head, kappa 2.

    As published, this freezes the first convolution entirely, since it has only three input channels.

    >>> [mask.unit for _, mask in resnet8().masks]
    ['filter', 'filter', 'entry']
    """
    masks = (
        ("conv_stem/kernel", MaskSpec(8, 2.0, unit="filter", allow_all_frozen=True)),
        ("stage_*/kernel", MaskSpec(8, 2.0, unit="filter")),
        ("head/kernel", MaskSpec(8, 2.0)),
    )
    return AsymmetrySpec("w", masks=masks, mask_seed=mask_seed, init=init)


def gnn_arxiv(mask_seed: int = 0, *, init: str = "same") -> AsymmetrySpec:
    """For ogbn-arxiv: `make_graph_model('graph', classes=40)`; 6 frozen entries per row of every kernel, kappa 0.5.

    The released program also has FiGLU in this network (matrix of deviation 0.01 / sqrt(256)); the paper does not say.

    >>> gnn_arxiv().masks
    (('dense_*/kernel', MaskSpec(n_fix=6, kappa=0.5, kind='random_subsets', unit='entry', allow_all_frozen=False)),)
    """
    return AsymmetrySpec("w", masks=(("dense_*/kernel", MaskSpec(6, 0.5)),), mask_seed=mask_seed, init=init)
