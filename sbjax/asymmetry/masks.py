"""Masks of W-asymmetric layers: which entries of a kernel are trainable.

A kernel is [*window, in, out], as in Flax; a *row* is what one output channel sees, kernel[..., o], over the flattened
index (in, *window). Rows that are pairwise distinct and none of them entirely frozen are the condition under which a
network with frozen zeros has no automorphism (Lim et al., arXiv 2405.20231, appendix B); here that is checked, where
the authors' random subsets have it with high probability only.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from sbjax.options import check, describe, option

KINDS = ("random_subsets", "densest", "bounded")
UNITS = ("entry", "filter")


@dataclasses.dataclass(frozen=True)
class MaskSpec:
    """What is frozen in one layer.

    Attributes:
        n_fix: frozen units a row with 'random_subsets'; the smallest number of them with 'bounded'; 0 with 'densest'.
        kappa: standard deviation of the frozen entries; 0 freezes zeros.
        kind: 'random_subsets', a uniform subset of n_fix units for each row, all rows different; 'densest', the subsets
            in order of size and then lexicographic order, from the empty one; 'bounded', the same from size n_fix.
        unit: what is frozen together, an 'entry' of the kernel or a 'filter', the whole window of one input channel.
        allow_all_frozen: let n_fix reach the number of units of a row: the whole layer is then frozen, and its rows
            are all alike. Otherwise that is refused.

    Raises:
        ValueError: naming the field, its value and what is possible.

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
            raise ValueError(f"mask.n_fix={self.n_fix} has no meaning with mask.kind='densest'; use 'bounded', or 0")
        if self.kind == "random_subsets" and not self.n_fix:
            raise ValueError(
                "mask.n_fix=0 makes all rows alike with mask.kind='random_subsets'; use n_fix >= 1 or no mask"
            )


def make_mask(
    spec: MaskSpec, shape: Sequence[int], generator: np.random.Generator, *, name: str = "kernel"
) -> Bool[np.ndarray, "..."]:
    """The mask M of a kernel, True where it is trainable.

    Its rows are pairwise distinct and none is entirely frozen, unless `allow_all_frozen` lets the whole layer be.

    Args:
        spec: what is frozen.
        shape: of the kernel, [*window, in, out].
        generator: of the random subsets; not used by the other kinds.
        name: of the kernel, in errors.

    Raises:
        ValueError: the shape is no kernel's; n_fix reaches the units of a row; there are fewer different rows than
            output channels.

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
        # Rejection would go on for long where nearly all subsets are wanted.
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
    """Proper subsets by size, each size in lexicographic order."""
    sizes = range(smallest, units)
    return itertools.chain.from_iterable(itertools.combinations(range(units), size) for size in sizes)


def _indicator(subsets, rows, units):
    frozen = np.zeros((rows, units), bool)
    for row, subset in enumerate(subsets):
        frozen[row, list(subset)] = True
    return frozen


def _random_rows(rows, units, count, generator):
    """A uniform subset for each row; rows that came before are drawn again."""
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
