"""Effective weights F + D * W of a tree of parameters W, with frozen F and D.

Constants are stored in variables['frozen']['asymmetry'] as {'fixed': F, 'trainable': D}, both subtrees of the
parameters: F = 0 and D = 1 for missing leaves. A mask D is boolean, and F is zero where D is true. All functions take
plain dicts of arrays. The gradient with respect to W is automatically D times that of the effective weight.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sbjax import trees
from sbjax.asymmetry import draws
from sbjax.asymmetry.masks import make_mask
from sbjax.asymmetry.spec import AsymmetrySpec
from sbjax.common.names import near

KEY = "asymmetry"


def constants(params: PyTree, spec: AsymmetrySpec) -> dict[str, PyTree]:
    """Constants {'fixed': F, 'trainable': D} for a tree of parameters, as numpy arrays.

    Args:
        params: nested dicts of arrays, or of anything with shape and dtype such as the result of `jax.eval_shape`.
        spec: a spec of kind 'w', 'syre', 'fixed_bias' or 'standard' (which has no constants).

    Raises:
        ValueError: a glob that matches no leaf; as `make_mask`.

    >>> from sbjax.asymmetry.masks import MaskSpec
    >>> spec = AsymmetrySpec('w', masks=(('dense/kernel', MaskSpec(1, kappa=2.0)),))
    >>> made = constants({'dense': {'kernel': np.ones((3, 2)), 'bias': np.ones(2)}}, spec)
    >>> made['trainable']['dense']['kernel'].sum(0).tolist(), sorted(made['fixed']['dense'])
    ([2, 2], ['kernel'])
    """
    leaves = trees.flatten(params)
    fixed, trainable = {}, {}
    for name in _chosen(leaves, spec):
        shape, dtype = leaves[name].shape, leaves[name].dtype
        generator = draws.generator(spec.mask_seed, name)
        if spec.kind == "w":
            mask_spec = next(mask for glob, mask in spec.masks if trees.selects(glob, name))
            trainable[name] = mask = make_mask(mask_spec, shape, generator, name=name)
            values = np.zeros(shape)
            values[~mask] = mask_spec.kappa * generator.standard_normal(np.count_nonzero(~mask))
        elif spec.kind == "syre":
            sigma = 0.01 / np.sqrt(draws.fan_in(shape)) if spec.sigma0 is None else spec.sigma0
            values = sigma * generator.standard_normal(shape)
        else:
            trainable[name] = np.zeros(shape, bool)
            values = generator.uniform(-spec.bias_bound, spec.bias_bound, shape)
        fixed[name] = values.astype(dtype)
    made = {"fixed": trees.nest(fixed), "trainable": trees.nest(trainable)}
    return {part: tree for part, tree in made.items() if tree}


def effective(variables: Mapping[str, PyTree]) -> PyTree:
    """Effective weights F + D * W; W if there are no constants.

    Works on stacked replicas, too; constants may or may not have the replica axis.

    Args:
        variables: {'params': W, 'frozen': {'asymmetry': ..}, ..}.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.array([0.0, 5.0])}, 'trainable': {'w': np.array([True, False])}}}
    >>> effective({'params': {'w': np.array([1.0, 2.0])}, 'frozen': frozen})['w'].tolist()
    [1.0, 5.0]
    """
    made = variables.get("frozen", {}).get(KEY, {})
    return _combine(variables["params"], made.get("fixed"), made.get("trainable"))


def hold(variables: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
    """Replace W by the effective weights P = F + D * W, keeping only D as a constant. Undone by `release`.

    A training loop on P avoids computing F + D * W before every forward pass. Since F is zero where D is one, W = D * P
    is recovered exactly. Variables with an F that has no mask D (syre) are returned unchanged.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.array([0.0, 5.0])}, 'trainable': {'w': np.array([True, False])}}}
    >>> variables = {'params': {'w': np.array([1.0, 0.0])}, 'frozen': frozen}
    >>> held = hold(variables)
    >>> held['params']['w'].tolist(), effective(held)['w'].tolist(), release(held, frozen)['params']['w'].tolist()
    ([1.0, 5.0], [1.0, 5.0], [1.0, 0.0])
    """
    made = variables.get("frozen", {}).get(KEY, {})
    mask = made.get("trainable")
    if mask is None or set(trees.flatten(mask)) != set(trees.flatten(made.get("fixed", {}))):
        return variables
    return {
        **variables,
        "params": effective(variables),
        "frozen": {**variables["frozen"], KEY: {"held": mask}},
    }


def release(variables: Mapping[str, PyTree], frozen: PyTree) -> Mapping[str, PyTree]:
    """Inverse of `hold`: restores W as parameters and the original constants `frozen`."""
    if "held" not in variables.get("frozen", {}).get(KEY, {}):
        return variables
    return {**variables, "params": keep_trainable(variables, variables["params"]), "frozen": frozen}


def keep_trainable(variables: Mapping[str, PyTree], tree: PyTree, other: PyTree = None) -> PyTree:
    """Replace the entries of `tree` (like the parameters) by those of `other` (None = zero) where D = 0.

    >>> frozen = {'asymmetry': {'trainable': {'w': np.array([True, False])}}}
    >>> keep_trainable({'params': {}, 'frozen': frozen}, {'w': np.array([1.0, 2.0])})['w'].tolist()
    [1.0, 0.0]
    """
    made = variables.get("frozen", {}).get(KEY, {})
    return _select(made.get("held", made.get("trainable")), tree, other)


def standard_from(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Variables of the standard network with the same function: effective weights as parameters, no constants.

    Applied to initial variables it gives the control for the initialisation, see `controls.StartedFrom`. Matrices of
    FiGLU layers are kept, since a standard network has no counterpart for them.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.array([0.5])}}}
    >>> standard_from({'params': {'w': np.array([1.0])}, 'frozen': frozen})
    {'params': {'w': array([1.5])}}
    """
    rest = {name: tree for name, tree in variables.items() if name not in ("params", "frozen")}
    frozen = {name: tree for name, tree in variables.get("frozen", {}).items() if name != KEY}
    return {"params": effective(variables), **rest, **({"frozen": frozen} if frozen else {})}


def trainable_size(variables: Mapping[str, PyTree]) -> int:
    """Number of trainable entries of one replica: all parameters except those with D = 0.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.zeros(2)}, 'trainable': {'w': np.array([True, False])}}}
    >>> trainable_size({'params': {'w': np.ones(2), 'b': np.ones(3)}, 'frozen': frozen})
    4
    """
    made = variables.get("frozen", {}).get(KEY, {})
    masked = jax.tree.leaves(made.get("trainable", {}))
    return trees.size(variables["params"]) - sum(int(np.count_nonzero(np.asarray(mask) == 0)) for mask in masked)


def fingerprint(frozen: PyTree) -> str:
    """SHA-256 of names, shapes, dtypes and bytes of all leaves, sorted by name.

    Args:
        frozen: constants, usually variables['frozen'], which includes the matrices of FiGLU.

    Raises:
        ValueError: abstract values, as inside `jax.jit`.

    >>> fingerprint({'w': np.zeros(2, np.float32)})[:12], fingerprint({'w': np.zeros(2, np.float64)})[:12]
    ('a358723d34d9', '9c7165af00cc')
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(trees.flatten(frozen).items()):
        if isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct):
            raise ValueError(f"fingerprint: leaf {name!r} has no values yet; call it outside jax.jit and eval_shape")
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name}\0{array.shape}\0{array.dtype.name}\0".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def check_same_constants(*networks: Mapping[str, PyTree]) -> None:
    """Check that networks share their frozen constants; otherwise distances and interpolation are meaningless.

    Raises:
        ValueError: naming the first two that differ.

    >>> check_same_constants({'params': {'w': 1.0}}, {'params': {'w': 2.0}})
    """
    prints = [fingerprint(network.get("frozen", {})) for network in networks]
    for index, found in enumerate(prints):
        if found != prints[0]:
            raise ValueError(
                f"networks 0 and {index} have different frozen constants (fingerprints {prints[0][:12]} and "
                f"{found[:12]}): build both from the same AsymmetrySpec with the same mask_seed"
            )


def output_layer(names: Mapping[str, Any]) -> str:
    """Name of the output layer, from flat names: 'head', otherwise the last of 'dense_0', 'dense_1', ..

    Raises:
        ValueError: no layer of these names.

    >>> output_layer({'dense_9/bias': 0, 'dense_10/bias': 0, 'norm_11/bias': 0})
    'dense_10'
    """
    tops = {name.split("/")[0] for name in names}
    numbers = [int(top[6:]) for top in tops if top.startswith("dense_") and top[6:].isdigit()]
    if "head" not in tops and not numbers:
        raise ValueError(
            f"asymmetry.where=None: no layer called 'head' or 'dense_0', .. among {', '.join(sorted(tops))}; name the "
            "biases to be frozen in asymmetry.where"
        )
    return "head" if "head" in tops else f"dense_{max(numbers)}"


def _chosen(leaves: Mapping[str, Any], spec: AsymmetrySpec) -> list[str]:
    """Names of the leaves that get constants."""
    if spec.kind in ("standard", "sigma"):
        return []
    if spec.kind == "fixed_bias" and spec.where is None:
        last = output_layer(leaves)
        return [name for name in leaves if name.split("/")[-1] == "bias" and name.split("/")[0] != last]
    field = "masks" if spec.kind == "w" else "where"
    globs = [glob for glob, _ in spec.masks] if spec.kind == "w" else spec.where or ("*",)
    for glob in globs:
        if not any(trees.selects(glob, name) for name in leaves):
            raise ValueError(
                f"asymmetry.{field}: {glob!r} matches no parameter{near(glob, leaves)}; there are {', '.join(leaves)}"
            )
    return [name for name in leaves if trees.selects(globs, name)]


def _combine(weights, fixed, trainable):
    if isinstance(weights, Mapping):
        fixed, trainable = fixed or {}, trainable or {}
        return {key: _combine(leaf, fixed.get(key), trainable.get(key)) for key, leaf in weights.items()}
    if trainable is not None:
        weights = trainable.astype(weights.dtype) * weights
    return weights if fixed is None else fixed + weights


def _select(mask, chosen, other):
    if mask is None:
        return chosen
    if isinstance(mask, Mapping):
        other = other or {}
        return {key: _select(mask.get(key), leaf, other.get(key)) for key, leaf in chosen.items()}
    return mask.astype(chosen.dtype) * chosen if other is None else jnp.where(mask, chosen, other)
