"""Samples of the posterior of a network by blackjax: stochastic gradients (SGLD, SGHMC) and NUTS."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sbjax.asymmetry.weights import keep_trainable
from sbjax.bayes.optional import library
from sbjax.bayes.predictive import Draws, check_examples
from sbjax.common.names import check_choice

METHODS = ("sgld", "sghmc")


def stochastic_gradient(
    network: Any,
    variables: Mapping[str, PyTree],
    inputs: Float[Array, "n ..."],
    labels: Int[Array, " n"],
    *,
    method: str = "sgld",
    step_size: float = 1e-5,
    batch_size: int = 128,
    warmup_steps: int = 1000,
    steps_between: int = 100,
    keep: int = 20,
    prior_variance: float = 1.0,
    temperature: float = 1.0,
    integration_steps: int = 10,
    key: Key[Array, ""],
) -> Draws:
    """States of a chain that starts at a trained network.

    Log-density -|theta|^2 / (2 s^2) + n / b sum over a batch of log p(y | x, theta); a step of SGLD is theta + eps grad
    + sqrt(2 eps T) noise (Welling and Teh, 2011), one of SGHMC several of its discretised dynamics (Chen et al.,
    arXiv 1402.4102). All steps run in one program.

    Args:
        network: with `apply(variables, x, train=False)` to logits.
        variables: of one replica; running statistics and constants stay as they are.
        inputs, labels: the training examples; a step draws `batch_size` of them.
        method: 'sgld' or 'sghmc'.
        step_size: eps.
        warmup_steps: before the first state that is kept.
        steps_between: states that are kept.
        keep: states.
        prior_variance: s^2.
        temperature: T; below 1 a cold posterior.
        integration_steps: of SGHMC, in a step.
        key: of batches and noise.

    Returns:
        `Draws` of `keep` networks.

    Raises:
        ImportError: blackjax is not installed; the message has the line that installs it.
        ValueError: an unknown method, a number that is not positive, a batch of more examples than there are, or a
            chain that diverged.
    """
    check_choice(method, METHODS, what="method")
    positive = {"step_size": step_size, "steps_between": steps_between, "keep": keep, "prior_variance": prior_variance}
    _check_positive(**positive, integration_steps=integration_steps, temperature=temperature)
    if not 1 <= batch_size <= len(labels):
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the {len(labels)} examples")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps={warmup_steps} must be >= 0")
    check_examples(network, variables, inputs, labels)
    blackjax = library("blackjax", what="chains are run")
    log_prior, log_likelihood = _densities(network, variables, prior_variance)
    gradient = blackjax.sgmcmc.gradients.grad_estimator(log_prior, log_likelihood, len(labels))
    sampler = blackjax.sgld(gradient) if method == "sgld" else blackjax.sghmc(gradient, integration_steps)

    def step(state: PyTree, step_key: Key[Array, ""]) -> tuple[PyTree, None]:
        rows_key, noise_key = jax.random.split(step_key)
        whole = batch_size == len(labels)  # then there is no noise of batches
        rows = jnp.arange(batch_size) if whole else jax.random.randint(rows_key, (batch_size,), 0, len(labels))
        moved = sampler.step(noise_key, state, (inputs[rows], labels[rows]), step_size, temperature)
        return keep_trainable(variables, moved), None

    def between(state: PyTree, part_key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
        state, _ = jax.lax.scan(step, state, jax.random.split(part_key, steps_between))
        return state, state

    @jax.jit
    def run(state: PyTree, chain_key: Key[Array, ""]) -> PyTree:
        first, rest = jax.random.split(chain_key)
        state, _ = jax.lax.scan(step, state, jax.random.split(first, warmup_steps))
        return jax.lax.scan(between, state, jax.random.split(rest, keep))[1]

    found = run(sampler.init(variables["params"]), key)
    return _draws(network, variables, found, f"step_size={step_size}: the chain diverged; lower it")


def nuts(
    network: Any,
    variables: Mapping[str, PyTree],
    inputs: Float[Array, "n ..."],
    labels: Int[Array, " n"],
    *,
    warmup_steps: int = 500,
    keep: int = 500,
    prior_variance: float = 1.0,
    key: Key[Array, ""],
) -> Draws:
    """States of a chain of NUTS with Stan's warm-up, with the whole data in every gradient: for tiny networks.

    Args:
        network, variables, inputs, labels, prior_variance: as in `stochastic_gradient`.
        warmup_steps: in which step size and diagonal mass matrix are adapted.
        keep: states, each of which is kept.
        key: of the chain.

    Raises:
        ImportError: blackjax is not installed; the message has the line that installs it.
        ValueError: a number that is not positive, or a chain that diverged.
    """
    _check_positive(warmup_steps=warmup_steps, keep=keep, prior_variance=prior_variance)
    check_examples(network, variables, inputs, labels)
    blackjax = library("blackjax", what="chains are run")
    log_prior, log_likelihood = _densities(network, variables, prior_variance)

    def log_density(params: PyTree) -> Float[Array, ""]:
        return log_prior(params) + jax.vmap(lambda x, y: log_likelihood(params, (x, y)))(inputs, labels).sum()

    warm_key, chain_key = jax.random.split(key)

    @jax.jit
    def run(params: PyTree) -> PyTree:
        adapted, _ = blackjax.window_adaptation(blackjax.nuts, log_density).run(warm_key, params, warmup_steps)
        kernel = blackjax.nuts(log_density, **adapted.parameters)

        def step(state: Any, step_key: Key[Array, ""]) -> tuple[Any, PyTree]:
            state, _ = kernel.step(step_key, state)
            return state, state.position

        return jax.lax.scan(step, adapted.state, jax.random.split(chain_key, keep))[1]

    return _draws(network, variables, run(variables["params"]), "the chain diverged; give a longer warm-up")


def _densities(network: Any, variables: Mapping[str, PyTree], prior_variance: float) -> tuple[Callable, Callable]:
    """log p(theta), and log p(y | x, theta) of one example."""

    def log_prior(params: PyTree) -> Float[Array, ""]:
        return -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)) / (2 * prior_variance)

    def log_likelihood(params: PyTree, example: tuple[Array, Array]) -> Float[Array, ""]:
        x, y = example
        logits = network.apply({**variables, "params": params}, x[None], train=False)[0]
        return jax.nn.log_softmax(logits)[y]

    return log_prior, log_likelihood


def _draws(network: Any, variables: Mapping[str, PyTree], stacked: PyTree, diverged: str) -> Draws:
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(stacked)):
        raise ValueError(diverged)
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return Draws(lambda params, x: network.apply({**rest, "params": params}, x, train=False), stacked)


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be > 0")
