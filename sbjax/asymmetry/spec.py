"""Specification of an asymmetric network."""

import dataclasses

from sbjax.asymmetry.masks import MaskSpec
from sbjax.common.options import check, describe, one_of, option

KINDS = ("standard", "w", "sigma", "syre", "fixed_bias")


@dataclasses.dataclass(frozen=True)
class AsymmetrySpec:
    """How a network is made asymmetric. Constants are pure functions of (mask_seed, name of the leaf).

    Every kind except 'sigma' replaces parameters W by F + D * W with constants F and D:

    - 'standard': D = 1, F = 0;
    - 'w' (Lim et al., arXiv 2405.20231): D = M in {0, 1}, F = (1 - M) kappa N on the kernels selected by `masks`;
    - 'syre' (Ziyin et al., arXiv 2408.15495): D = 1, F = sigma0 N on all parameters. It breaks symmetry only with
      weight decay on W, see `syre.weighted_decay`. With a larger sigma0 and where=('*kernel',) it is the dense noise
      W + kappa N;
    - 'fixed_bias': D = 0, F = U[-bias_bound, bias_bound] on the hidden biases; a control that hardly breaks symmetry;
    - 'sigma' (arXiv 2405.20231) replaces the activation by sigmoid(F x) x, see `figlu.Gate`.

    Attributes:
        kind: one of these.
        masks: pairs of a glob on flat names and a `MaskSpec`, such as ('dense_0/kernel', MaskSpec(64)). The first
            matching pair applies; a glob without any match is an error.
        gate_scale: standard deviation of the entries of F for 'sigma'; None = 1 / sqrt(d).
        sigma0: standard deviation of F for 'syre'; None = 0.01 / sqrt(d) per leaf, with d its fan-in (for a vector, its
            length: the source does not define d there).
        bias_bound: bound of the frozen biases.
        where: globs on flat names; None = all parameters for 'syre', and all leaves called 'bias' outside the output
            layer for 'fixed_bias'.
        mask_seed: seed of all constants, independent of the seed of a run: replicas share their constants.
        init: distribution of the trainable entries: 'same' as in the standard network, or 'authors': uniform on
            +-1/sqrt(fan-in) for kernels and biases of masked layers (the authors' standard ResNets use another one).

    Raises:
        ValueError: an invalid value; the message names the field and the valid values.

    >>> AsymmetrySpec('syre', sigma0=0.1).kind
    'syre'
    """

    kind: str = option("standard", "how the network is made asymmetric", choices=KINDS)
    masks: tuple[tuple[str, MaskSpec], ...] = option(
        (), "which entries are frozen: pairs of a glob and a mask", only={"kind": one_of("w")}
    )
    gate_scale: float | None = option(
        None, "deviation of F; None = 1/sqrt(d)", above=0, like=1.0, only={"kind": one_of("sigma")}
    )
    sigma0: float | None = option(
        None, "deviation of F; None = 0.01/sqrt(d)", least=0, like=1.0, only={"kind": one_of("syre")}
    )
    bias_bound: float = option(1.0, "of the frozen biases", least=0, only={"kind": one_of("fixed_bias")})
    where: tuple[str, ...] | str | None = option(
        None, "globs of parameters; None = by kind", only={"kind": one_of("syre", "fixed_bias")}
    )
    mask_seed: int = option(0, "of all constants, which all replicas share")
    init: str = option("same", "law of the start", choices=("same", "authors"), only={"kind": one_of("w")})

    def __post_init__(self):
        specs = describe(type(self))
        values, problems = check(specs, {name: getattr(self, name) for name in specs}, where="asymmetry")
        if problems:
            raise ValueError("\n".join(problems))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        # Lists come from configs; what is left is hashable, as a field of a module has to be.
        object.__setattr__(self, "masks", tuple(tuple(pair) for pair in self.masks))
        if self.where is not None:
            globs = (self.where,) if isinstance(self.where, str) else self.where
            object.__setattr__(self, "where", tuple(globs))
        for pair in self.masks:
            if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], MaskSpec):
                raise ValueError(f"asymmetry.masks holds {pair!r}: give pairs such as ('dense_0/kernel', MaskSpec(64))")
        if self.kind == "w" and not self.masks:
            raise ValueError(
                "asymmetry.masks=() masks nothing with asymmetry.kind='w'; name kernels, or use 'standard'"
            )
