"""Masks of W-asymmetric layers: which entries of a kernel are trainable.

A kernel is [*window, in, out], as in Flax; a *row* is the mask of one output channel, kernel[..., o], over the
flattened index (in, *window). A network with frozen zeros has no automorphism if rows are pairwise distinct and none is
entirely frozen (Lim et al., arXiv 2405.20231, appendix B). Here this is guaranteed; the authors' independent random
subsets satisfy it with high probability only.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from sbjax.common.options import check, describe, option

KINDS = ("random_subsets", "densest", "bounded")
UNITS = ("entry", "filter")


@dataclasses.dataclass(frozen=True)
class MaskSpec:
    """Specification of the frozen entries of one layer.

    Attributes:
        n_fix: frozen units per row for 'random_subsets'; their minimum for 'bounded'; 0 for 'densest'.
        kappa: standard deviation of the frozen entries; 0 freezes zeros.
        kind: 'random_subsets': a uniformly random subset of n_fix units for each row, all different. 'densest': subsets
            by size, then lexicographically, starting with the empty one. 'bounded': the same, starting at size n_fix.
        unit: what is frozen as one: an 'entry' of the kernel, or a 'filter', the whole window of one input channel.
        allow_all_frozen: accept n_fix >= units per row, which freezes the whole layer; its rows are then equal.

    Raises:
        ValueError: an invalid value; the message names the field and the valid values.

    >>> MaskSpec(64, 0.5)
    MaskSpec(n_fix=64, kappa=0.5, kind='random_subsets', unit='entry', allow_all_frozen=False)
    """

    n_fix: int = option(0, "frozen units a row", least=0)
    kappa: float = option(1.0, "deviation of the frozen entries; 0 freezes zeros", least=0)
    kind: str = option("random_subsets", "which units of a row are frozen", choices=KINDS)
    unit: str = option("entry", "what is frozen together", choices=UNITS)
    allow_all_frozen: bool = option(False, "let n_fix freeze the whole layer")

    def __post_init__(self):
        specs = describe(type(self))
        _, problems = check(specs, {name: getattr(self, name) for name in specs}, where="mask")
        if problems:
            raise ValueError("\n".join(problems))
        if self.kind == "densest" and self.n_fix:
            raise ValueError(f"mask.n_fix={self.n_fix} has no effect with mask.kind='densest'; use 'bounded', or 0")
        if self.kind == "random_subsets" and not self.n_fix:
            raise ValueError(
                "mask.n_fix=0 makes all rows equal with mask.kind='random_subsets'; use n_fix >= 1 or no mask"
            )


def make_mask(
    spec: MaskSpec, shape: Sequence[int], generator: np.random.Generator, *, name: str = "kernel"
) -> Bool[np.ndarray, "..."]:
    """Mask M of a kernel, True where it is trainable.

    Rows are pairwise distinct and none is entirely frozen, except if `allow_all_frozen` freezes the whole layer.

    Args:
        spec: specification of the frozen entries.
        shape: shape of the kernel, [*window, in, out].
        generator: source of the random subsets; not used by the other kinds.
        name: name of the kernel in errors.

    Raises:
        ValueError: `shape` is not that of a kernel; n_fix >= units per row; fewer distinct rows than output channels.

    >>> from sbjax.asymmetry import draws
    >>> make_mask(MaskSpec(kind='densest'), (3, 5), draws.generator(0, 'w')).T.astype(int).tolist()
    [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]]
    >>> make_mask(MaskSpec(4), (3, 3, 2, 6), draws.generator(0, 'w')).sum((0, 1, 2)).tolist()
    [14, 14, 14, 14, 14, 14]
    """
    if len(shape) < 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}: only kernels [.., in, out] can be masked; change the pattern"
        )
    *window, inputs, rows = shape
    units = inputs if spec.unit == "filter" else inputs * math.prod(window)
    if spec.n_fix >= units:
        if not spec.allow_all_frozen:
            raise ValueError(
                f"{name}: n_fix={spec.n_fix} freezes all {units} {_plural(spec.unit)} that an output channel sees; "
                "lower it, or set allow_all_frozen=True to freeze the whole layer"
            )
        return np.zeros(tuple(shape), bool)
    possible = _different_rows(spec, units)
    if possible < rows:
        raise ValueError(
            f"{name}: n_fix={spec.n_fix} of {units} {_plural(spec.unit)} gives {possible} different rows, but there "
            f"are {rows} output channels; change n_fix, or leave the layer out"
        )
    if spec.kind != "random_subsets":
        frozen = _indicator(itertools.islice(_enumerated(units, spec.n_fix), rows), rows, units)
    elif possible <= 4 * rows:
        # Rejection sampling would be slow if most of the subsets are needed.
        subsets = list(itertools.combinations(range(units), spec.n_fix))
        frozen = _indicator((subsets[i] for i in generator.permutation(possible)[:rows]), rows, units)
    else:
        frozen = _random_rows(rows, units, spec.n_fix, generator)
    if spec.unit == "filter":
        return np.ascontiguousarray(np.broadcast_to(~frozen.T, tuple(shape)))
    return np.ascontiguousarray(np.moveaxis(~frozen.reshape(rows, inputs, *window), (0, 1), (-1, -2)))


def _different_rows(spec, units):
    if spec.kind == "random_subsets":
        return math.comb(units, spec.n_fix)
    return sum(math.comb(units, size) for size in range(spec.n_fix, units))


def _enumerated(units, smallest):
    """Proper subsets of at least `smallest` units, by size and then lexicographically."""
    sizes = range(smallest, units)
    return itertools.chain.from_iterable(itertools.combinations(range(units), size) for size in sizes)


def _indicator(subsets, rows, units):
    frozen = np.zeros((rows, units), bool)
    for row, subset in enumerate(subsets):
        frozen[row, list(subset)] = True
    return frozen


def _random_rows(rows, units, count, generator):
    """Distinct random subsets: duplicates of earlier rows are drawn again."""
    frozen = np.zeros((rows, units), bool)
    again = np.arange(rows)
    while again.size:
        chosen = generator.random((again.size, units)).argpartition(count, axis=1)[:, :count]
        frozen[again] = False
        frozen[again[:, None], chosen] = True
        first = np.unique(np.packbits(frozen, axis=1), axis=0, return_index=True)[1]
        again = np.setdiff1d(np.arange(rows), first)
    return frozen


def _plural(unit):
    return "entries" if unit == "entry" else "filters"
