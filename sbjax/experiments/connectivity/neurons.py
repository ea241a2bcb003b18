"""Neurons of trained networks: what goes into dense layers and comes out, and which neurons can be told apart."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng, trees
from sbjax.asymmetry.weights import KEY, effective
from sbjax.frame.errors import ConfigError
from sbjax.symmetry import identifiability as lib
from sbjax.symmetry.activation_matching import init_moments, match_moments, update_moments
from sbjax.symmetry.permutation import Spec
from sbjax.tasks.task import Task, Variables

MOST_NEURONS = 128
"""Of a layer, drawn at random where it has more, between which costs are computed."""
VARIANCE = 0.9
"""Share of the variance of a layer's inputs that its subspace holds, as published."""


def outputs(task: Task, data: PyTree, variables: Variables, part: Any) -> dict[str, Any]:
    """What every module gives on a part of the training examples, as `activation_matching.recorded` reads it."""
    seen = _watched(task, data, variables, part, lambda module, args, out: out)
    return {f"{name}/__call__": (out,) for name, out in seen.items()}


def dense_layers(task: Task, data: PyTree, variables: Variables, part: Any) -> dict[str, tuple[Array, Array]]:
    """Inputs and outputs of the hidden dense layers on a part of the training examples, by name, in order of use.

    The last dense layer is the output: its neurons are the classes, and are told apart by what they are asked for.
    """

    def look(module, args, out):
        return (args[0], out) if isinstance(module, nn.Dense) else None

    seen = _watched(task, data, variables, part, look)
    return dict(list(seen.items())[:-1])


def check(task: Task) -> None:
    """Refuse a network without hidden dense layers, before anything is trained.

    Raises:
        ConfigError: naming the field.
    """
    variables = jax.eval_shape(task.init, jax.random.key(0))
    if not jax.eval_shape(lambda v: dense_layers(task, task.data, v, 0), variables):
        raise ConfigError(
            "interpolation.identifiability=True needs a network with a hidden dense layer, and this one has none; "
            "set it to False"
        )


def identify(
    task: Task, variables: Variables, pairs: Sequence[tuple[int, int]], *, key: Key[Array, ""]
) -> dict[str, Any]:
    """Which neurons of the hidden dense layers can be told apart, in one network and between two.

    Args:
        task: with `lines`, on whose training examples layers are watched.
        variables: of all replicas, stacked.
        pairs: of replicas that are compared.
        key: chooses neurons of layers that have more than `MOST_NEURONS`.

    Returns:
        `{'layers': {name: ..}, 'swap', 'in_place'}`. Of a layer, a number a replica: 'dimension' k and 'coherence' of
        the subspace of its inputs, and the numbers of `sbjax.symmetry.identifiability.Identifiability`; and 'in_place',
        a number a pair: the share of its units that the best permutation, by correlation of their pre-activations,
        leaves in place. 'swap', a number a replica, is the mean of 'relative' over layers, 'in_place' that of its.
    """
    watch = jax.jit(lambda data, v, part: dense_layers(task, data, v, part))
    used = sorted({replica for pair in pairs for replica in pair})
    seen = {replica: _all_parts(task, watch, trees.take(variables, replica)) for replica in used}
    layers: dict[str, dict[str, list[float]]] = {}
    for replica in used:
        network = trees.take(variables, replica)
        for name, (inputs, _) in seen[replica].items():
            chosen = _chosen(rng.stream(key, f"neurons/{name}"), network["params"], name)
            for what, value in _layer(network, name, inputs, chosen).items():
                layers.setdefault(name, {}).setdefault(what, []).append(value)
    for name, found in layers.items():
        found["in_place"] = [_in_place(seen[i][name][1], seen[j][name][1]) for i, j in pairs]
    return {
        "layers": layers,
        "replicas": used,
        "swap": np.mean([found["relative"] for found in layers.values()], axis=0).tolist(),
        "in_place": np.mean([found["in_place"] for found in layers.values()], axis=0).tolist(),
    }


def _watched(
    task: Task, data: PyTree, variables: Variables, part: Any, look: Callable[[Any, Any, Any], Any]
) -> dict[str, Any]:
    """What `look(module, arguments, output)` says of every call of a module that is not None, by name of the module."""
    seen: dict[str, Any] = {}

    def intercept(call, args, kwargs, context):
        out = call(*args, **kwargs)
        called = context.method_name == "__call__" and context.module.path
        if called and (found := look(context.module, args, out)) is not None:
            seen["/".join(context.module.path)] = found
        return out

    with nn.intercept_methods(intercept):
        task.lines.evaluate(data, variables, part)
    return seen


def _all_parts(task: Task, watch: Callable, network: Variables) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    parts = [jax.device_get(watch(task.data, network, part)) for part in range(task.lines.parts)]
    flat = lambda x: x.reshape(-1, x.shape[-1])  # noqa: E731
    return {
        name: tuple(np.concatenate([flat(part[name][side]) for part in parts]) for side in (0, 1)) for name in parts[0]
    }


def _layer(network: Variables, name: str, inputs: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    weights = trees.flatten(effective(network))[f"{name}/kernel"]
    made = network.get("frozen", {}).get(KEY, {})
    constants = {part: trees.flatten(tree).get(f"{name}/kernel") for part, tree in made.items()}
    constants = {part: np.asarray(leaf)[:, chosen] for part, leaf in constants.items() if leaf is not None}
    basis = lib.subspace_basis(inputs, variance=VARIANCE).vectors
    costs = lib.realisation_costs(basis, np.asarray(weights)[:, chosen], **constants)
    return {
        "dimension": basis.shape[1],
        "coherence": lib.coherence(basis),
        **lib.summarise(costs)._asdict(),
    }


def _chosen(key: Key[Array, ""], params: Any, name: str) -> np.ndarray:
    neurons = trees.flatten(params)[f"{name}/kernel"].shape[-1]
    return np.sort(np.asarray(jax.random.permutation(key, neurons))[:MOST_NEURONS])


def _in_place(a: Float[np.ndarray, "n unit"], b: Float[np.ndarray, "n unit"]) -> float:
    """Share of units that lie where the best matching by correlation puts them."""
    moments = update_moments(
        init_moments({"units": a}), {"units": jax.numpy.asarray(a)}, {"units": jax.numpy.asarray(b)}
    )
    order = match_moments(Spec({"units": a.shape[-1]}, {"units": ()}, {}), moments)["units"]
    return float(np.mean(order == np.arange(len(order))))
