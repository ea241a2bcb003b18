"""Predictions under a posterior, whatever it is: one interface for all of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import trees
from sbjax.bayes.variational import NOISE, Variational


@runtime_checkable
class Posterior(Protocol):
    """Something that gives outputs of a network under drawn weights."""

    def outputs(
        self, x: Float[Array, "n ..."], *, samples: int, key: Key[Array, ""]
    ) -> Float[Array, "samples n outputs"]:
        """Outputs of the network (logits of a classifier) for `samples` draws of its weights."""
        ...


def predict(
    posterior: Posterior, x: Float[Array, "n ..."], *, samples: int, key: Key[Array, ""]
) -> Float[Array, "n classes"]:
    """Logarithm of the probabilities of classes, averaged over the posterior: log 1/S sum_s softmax(outputs_s).

    Args:
        posterior: a `VariationalPosterior`, `Draws` of weights (an ensemble, chains of a sampler), a
            `LaplacePosterior`, or anything with their method `outputs`.
        x: inputs as the network takes them.
        samples: S.
        key: of the draws; not used by an ensemble, whose members are fixed.

    Raises:
        ValueError: samples < 1, or more than an ensemble has members.

    >>> class Sure:
    ...     def outputs(self, x, *, samples, key):
    ...         return jnp.zeros((samples, len(x), 2))
    >>> jnp.exp(predict(Sure(), jnp.ones((1, 3)), samples=4, key=jax.random.key(0))).round(3).tolist()
    [[0.5, 0.5]]
    """
    check_samples(samples)
    return averaged(posterior.outputs(x, samples=samples, key=key))


def averaged(outputs: Float[Array, "samples n classes"]) -> Float[Array, "n classes"]:
    """log of the mean over samples of softmax(outputs), by logsumexp.

    >>> jnp.exp(averaged(jnp.log(jnp.array([[[1.0, 3.0]], [[3.0, 1.0]]])))).tolist()
    [[0.5, 0.5]]
    """
    return jax.nn.logsumexp(jax.nn.log_softmax(outputs), axis=0) - jnp.log(len(outputs))


@dataclasses.dataclass(frozen=True)
class VariationalPosterior:
    """A trained variational network; weights are drawn for each example, see `sbjax.bayes.noise`.

    Attributes:
        network: the network.
        variables: of one replica.
    """

    network: Variational
    variables: Mapping[str, PyTree]

    def outputs(
        self, x: Float[Array, "n ..."], *, samples: int, key: Key[Array, ""]
    ) -> Float[Array, "samples n outputs"]:
        """One draw after another, so that memory is that of one."""
        check_samples(samples)
        return jax.lax.map(
            lambda one: self.network.apply(self.variables, x, train=False, rngs={NOISE: one}),
            jax.random.split(key, samples),
        )


@dataclasses.dataclass(frozen=True)
class Draws:
    """Given weights, each as likely as the others: members of a deep ensemble, or states of a sampler.

    Attributes:
        apply: `(variables, x) -> outputs` of one network.
        variables: of all networks, stacked in a leading axis: the replicas of an arm are an ensemble.

    >>> draws = Draws(lambda variables, x: x * variables['w'], {'w': jnp.array([[1.0, 2.0], [3.0, 4.0]])})
    >>> draws.outputs(jnp.ones((1, 2)), samples=2).tolist()
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """

    apply: Callable[[PyTree, Array], Array]
    variables: PyTree

    def outputs(
        self, x: Float[Array, "n ..."], *, samples: int, key: Key[Array, ""] | None = None
    ) -> Float[Array, "samples n outputs"]:
        """Of so many networks, evenly over all of them; the key is not used.

        Raises:
            ValueError: more samples than networks.
        """
        check_samples(samples)
        count = len(jax.tree.leaves(self.variables)[0])
        if samples > count:
            raise ValueError(f"samples={samples}: there are {count} networks; ask for at most so many")
        chosen = jnp.arange(samples) * count // samples
        return jax.lax.map(lambda i: self.apply(jax.tree.map(lambda leaf: leaf[i], self.variables), x), chosen)


@dataclasses.dataclass(frozen=True)
class Predictive:
    """A variational network that answers with averaged probabilities; `init` and `apply` of a Linen module.

    In training it is the network, with noise. In evaluation it returns `predict` instead of logits, which the softmax
    of whatever reads it leaves as they are, so that losses and accuracies of a task are those of the average.

    Attributes:
        network: the variational network.
        samples: draws in evaluation; 0 = the means of the weights.
        seed: of these draws, which are the same in every evaluation.
    """

    network: Variational
    samples: int = 25
    seed: int = 0

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """As of the network."""
        return self.network.init(rngs, *args, **kwargs)

    def apply(self, variables: Mapping[str, PyTree], x: Array, *, train: bool = False, **kwargs: Any) -> Any:
        """Logits in training, logarithms of averaged probabilities else."""
        if train or not self.samples or kwargs:
            return self.network.apply(variables, x, train=train, **kwargs)
        posterior = VariationalPosterior(self.network, variables)
        return predict(posterior, x, samples=self.samples, key=jax.random.key(self.seed))


def check_examples(network: Any, variables: Mapping[str, PyTree], inputs: Array, labels: Array) -> None:
    """Refuse examples that a classifier was not trained on: jax takes the nearest class for a label beyond the last.

    Raises:
        ValueError: no examples, labels of another number, beyond the classes or no whole numbers; inputs or weights
            that are not finite; variables without 'params'.
    """
    if "params" not in variables:
        raise ValueError(
            f"variables hold {', '.join(variables) or 'nothing'}: give {{'params': ..}} of a trained network"
        )
    count = len(inputs)
    if not count or np.shape(labels) != (count,) or not np.issubdtype(np.asarray(labels).dtype, np.integer):
        raise ValueError(f"labels have the shape {np.shape(labels)}: give the class of each of {count} examples, >= 1")
    classes = jax.eval_shape(lambda v: network.apply(v, inputs[:1], train=False), variables).shape[-1]
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= classes:
        raise ValueError(f"labels lie in {low} to {high}: give one of 0 to {classes - 1} for each example")
    for what, tree in (("inputs", inputs), ("weights", variables["params"])):
        if not trees.all_finite(tree):
            raise ValueError(f"{what} have entries that are not finite: a posterior is that of a trained network")


def check_samples(samples: int) -> None:
    """Refuse no draws at all.

    Raises:
        ValueError: samples < 1.
    """
    if samples < 1:
        raise ValueError(f"samples={samples} must be >= 1")
