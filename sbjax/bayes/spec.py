"""What a variational posterior is made of, as options."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sbjax.common.options import check, describe, option


@dataclasses.dataclass(frozen=True)
class VariationalSpec:
    """A Gaussian posterior for each dense layer and convolution, over its kernel and bias together.

    Covariance exp(log_variance) I + 1/K sum_k V_k V_k^T with trained V; the diagonal is fixed unless `learn_diagonal`.
    Defaults are those of the networks of arXiv 2405.20231, section 4.2.

    Attributes:
        rank: K; 0 = mean field.
        log_variance: of every entry; the start of what is trained with `learn_diagonal`.
        learn_diagonal: train a log-variance of every entry.
        factor_scale: deviation of the entries of V of dense kernels at the start, over std(W) / sqrt(K), where W is the
            kernel before constants of an asymmetric network enter.
        conv_factor_scale: the same of convolutions.
        bias_factor: deviation of the entries of V of the biases of dense layers at the start.
        prior_precision: p; the prior has the variance 1 / (p m).
        prior_scale: 'layer': m is the number of outputs of a dense layer and of input channels of a convolution, as in
            the released program; 'one': m = 1.
        group: so many examples in a row share the draws of the V_k; 1 as published. Several are cheaper: a dense layer
            then costs one product of matrices and not 1 + K, see `sbjax.bayes.noise.grouped_dense`, and gradients are
            noisier.
        noise_shares: factors of the covariance by glob on names of kernels and biases; the first match counts.

    Raises:
        ValueError: an invalid value; the message names the field and the valid values.

    >>> VariationalSpec(rank=0).log_variance
    -10.0
    """

    rank: int = option(4, "factors of the covariance; 0 = a diagonal one", least=0, most=1000)
    log_variance: float = option(-10.0, "logarithm of the variance of every weight", least=-50, most=10)
    learn_diagonal: bool = option(False, "train the variance of every weight")
    factor_scale: float = option(0.5, "start of factors of dense kernels, over std(W) / sqrt(rank)", least=0)
    conv_factor_scale: float = option(0.0, "start of factors of convolutions, likewise", least=0)
    bias_factor: float = option(0.01, "start of factors of dense biases", least=0)
    prior_precision: float = option(0.01, "of the prior; its variance is 1 / (precision * m)", above=0)
    prior_scale: str = option("layer", "m: outputs or input channels of the layer, or 1", choices=("layer", "one"))
    group: int = option(1, "examples in a row that share a draw of the factors", least=1, most=10**6)
    noise_shares: dict = option({}, "factors of the covariance by glob, {'dense_0/kernel': 0.5}")

    def __post_init__(self):
        specs = describe(type(self))
        values, problems = check(specs, {name: getattr(self, name) for name in specs}, where="posterior")
        if problems:
            raise ValueError("\n".join(problems))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        for glob, share in dict(self.noise_shares).items():
            if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share < float("inf"):
                raise ValueError(f"posterior.noise_shares[{glob!r}]={share!r} must be a number >= 0")

    def __hash__(self):
        return hash((*(getattr(self, name) for name in describe(type(self)) if name != "noise_shares"),
                     tuple(self.noise_shares.items())))  # fmt: skip


def prior_variance(spec: VariationalSpec, kernel: Any) -> float:
    """s^2 of the layer with this kernel [*window, in, out].

    >>> import numpy as np
    >>> prior_variance(VariationalSpec(prior_precision=0.01), np.ones((784, 256)))
    0.390625
    >>> prior_variance(VariationalSpec(prior_precision=1.0), np.ones((3, 3, 16, 32)))
    0.0625
    """
    scale = 1 if spec.prior_scale == "one" else kernel.shape[-1] if kernel.ndim == 2 else kernel.shape[-2]
    return 1 / (spec.prior_precision * scale)


def share(shares: Mapping[str, float], name: str, selects) -> float:
    """The factor of the covariance of a leaf, 1 where no glob matches."""
    return next((float(value) for glob, value in shares.items() if selects(glob, name)), 1.0)
