"""Laplace approximation of a trained network, by laplax: a Gaussian at the trained weights, of the loss's curvature.

From laplax come the curvature and the covariance; not its scores, of which `multiclass_brier` (0.0.2) is minus the
Brier score over the number of classes. Use `sbjax.metrics.calibration`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sbjax import rng
from sbjax.asymmetry.weights import keep_trainable
from sbjax.bayes.optional import library
from sbjax.bayes.predictive import check_examples, check_samples
from sbjax.common.names import check_choice

CURVATURES = ("full", "diagonal", "lanczos", "lobpcg")


@dataclasses.dataclass(frozen=True)
class LaplacePosterior:
    """N(theta*, (H + p I)^-1) over the trained weights of one network.

    Attributes:
        network: with `apply(variables, x, train=False)`.
        variables: of one replica.
        scale: `(tree of standard normal numbers) -> deviation of the weights`.
        linearised: outputs of the network linearised at theta*, for which the curvature is that of the posterior
            (Immer et al., arXiv 2008.08400); else of the network itself.
    """

    network: Any
    variables: Mapping[str, PyTree]
    scale: Callable[[PyTree], PyTree]
    linearised: bool = True

    def outputs(
        self, x: Float[Array, "n ..."], *, samples: int, key: Key[Array, ""]
    ) -> Float[Array, "samples n outputs"]:
        """One draw after another."""
        check_samples(samples)
        params = self.variables["params"]

        def apply(weights: PyTree) -> Array:
            return self.network.apply({**self.variables, "params": weights}, x, train=False)

        def one(sample_key: Key[Array, ""]) -> Array:
            moved = keep_trainable(self.variables, self.draw(sample_key))
            if not self.linearised:
                return apply(jax.tree.map(jnp.add, params, moved))
            value, change = jax.jvp(apply, (params,), (moved,))
            return value + change

        return jax.lax.map(one, jax.random.split(key, samples))

    def draw(self, key: Key[Array, ""]) -> PyTree:
        """A deviation from the trained weights."""
        leaves, structure = jax.tree.flatten(self.variables["params"])
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return self.scale(structure.unflatten(noise))


def laplace(
    network: Any,
    variables: Mapping[str, PyTree],
    inputs: Float[Array, "n ..."],
    labels: Int[Array, " n"],
    *,
    curvature: str = "diagonal",
    prior_precision: float = 1.0,
    rank: int = 20,
    linearised: bool = True,
    key: Key[Array, ""] | None = None,
) -> LaplacePosterior:
    """The Laplace approximation of a trained classifier.

    Precision H + p I, with the Gauss-Newton matrix H = sum_i J_i^T (diag(q_i) - q_i q_i^T) J_i of the cross-entropy
    summed over all examples given, q their probabilities. Give the whole training split: a part of it stands for itself
    alone. Frozen entries of an asymmetric network have no curvature, and no noise in predictions.

    Args:
        network: with `apply(variables, x, train=False)` to logits.
        variables: of one replica, trained.
        inputs, labels: the training examples.
        curvature: 'full' (d x d: small networks), 'diagonal', or of low rank by 'lanczos' or 'lobpcg'.
        prior_precision: p > 0; weight decay of the loss summed over examples, if it was trained with one.
        rank: of the last two.
        linearised: see `LaplacePosterior`.
        key: of the start of 'lanczos'; None = that of seed 0.

    Raises:
        ImportError: laplax is not installed; the message has the line that installs it.
        ValueError: an unknown curvature, prior_precision <= 0, or a rank < 1; examples as `check_examples` refuses.
    """
    check_choice(curvature, CURVATURES, what="curvature")
    if not prior_precision > 0:
        raise ValueError(f"prior_precision={prior_precision} must be > 0")
    if rank < 1:
        raise ValueError(f"rank={rank} must be >= 1")
    check_examples(network, variables, inputs, labels)
    laplax = library("laplax", what="Laplace approximations are made")
    library("loguru", what="Laplace approximations are made").logger.disable("laplax")  # it tells of every step
    key = rng.stream(jax.random.key(0), "laplace") if key is None else key

    def model(input: Array, params: PyTree) -> Array:
        return network.apply({**variables, "params": params}, input[None], train=False)[0]

    given = {"rank": rank, "key": key} if curvature in ("lanczos", "lobpcg") else {}
    # Of n examples given n count: the factor is left at 1.
    make, _ = laplax.laplace(
        model,
        variables["params"],
        {"input": inputs, "target": labels},
        loss_fn="cross_entropy",
        curv_type=curvature,
        **given,
    )
    made = make({"prior_prec": prior_precision})
    return LaplacePosterior(network, variables, made.scale_mv(made.state), linearised)
