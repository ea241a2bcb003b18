"""Effective weights F + D * W of a tree of parameters W, with frozen F and D.

The constants live in variables['frozen']['asymmetry'] as {'fixed': F, 'trainable': D}, each a part of the tree of
parameters: a leaf without F has F = 0, one without D has D = 1. D is boolean where it is a mask, and F is zero where
it is true. Every function here takes plain dicts of arrays, and no gradient needs a hook: that of W is D times that of
the effective weight.
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
from sbjax.names import near

KEY = "asymmetry"


def constants(params: PyTree, spec: AsymmetrySpec) -> dict[str, PyTree]:
    """The constants {'fixed': F, 'trainable': D} of a tree of parameters, as numpy arrays.

    Args:
        params: nested dicts of arrays or of anything with shape and dtype, such as the result of `jax.eval_shape`.
        spec: of kind 'w', 'syre', 'fixed_bias', or 'standard' ({} then).

    Raises:
        ValueError: a pattern that matches no leaf or a leaf that is no kernel, or as `make_mask`.

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
    made = {"fixed": _nest(fixed), "trainable": _nest(trainable)}
    return {part: tree for part, tree in made.items() if tree}


def effective(variables: Mapping[str, PyTree]) -> PyTree:
    """The parameters F + D * W that the network computes with; W itself without constants.

    Works on stacked replicas as well: the constants may have the leading axis or not.

    Args:
        variables: {'params': W, 'frozen': {'asymmetry': ..}, ..}.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.array([0.0, 5.0])}, 'trainable': {'w': np.array([True, False])}}}
    >>> effective({'params': {'w': np.array([1.0, 2.0])}, 'frozen': frozen})['w'].tolist()
    [1.0, 5.0]
    """
    made = variables.get("frozen", {}).get(KEY, {})
    return _combine(variables["params"], made.get("fixed"), made.get("trainable"))


def hold(variables: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
    """The same network with its effective weights P = F + D * W as parameters and D alone as constants.

    A loop of training steps that holds P saves the pass over W, F and D before every forward pass. As F is zero where D
    is one, W = D * P loses no bit. Variables that are not masked throughout (syre) come back as they are.

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
    """The inverse of `hold`: W as parameters and `frozen`, the constants before, as constants."""
    if "held" not in variables.get("frozen", {}).get(KEY, {}):
        return variables
    return {**variables, "params": keep_trainable(variables, variables["params"]), "frozen": frozen}


def keep_trainable(variables: Mapping[str, PyTree], tree: PyTree, other: PyTree = None) -> PyTree:
    """`tree`, which is like the parameters, with `other` (None = zero) where D = 0; held or not.

    >>> frozen = {'asymmetry': {'trainable': {'w': np.array([True, False])}}}
    >>> keep_trainable({'params': {}, 'frozen': frozen}, {'w': np.array([1.0, 2.0])})['w'].tolist()
    [1.0, 0.0]
    """
    made = variables.get("frozen", {}).get(KEY, {})
    return _select(made.get("held", made.get("trainable")), tree, other)


def standard_from(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Variables of the standard network that computes the same: effective weights as parameters, no constants.

    Taken at the start of training this is the control for the initialisation: a standard network that starts from an
    asymmetric one's effective weights. The matrices of FiGLU layers stay, as they are no weights of a standard network.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.array([0.5])}}}
    >>> standard_from({'params': {'w': np.array([1.0])}, 'frozen': frozen})
    {'params': {'w': array([1.5])}}
    """
    rest = {name: tree for name, tree in variables.items() if name not in ("params", "frozen")}
    frozen = {name: tree for name, tree in variables.get("frozen", {}).items() if name != KEY}
    return {"params": effective(variables), **rest, **({"frozen": frozen} if frozen else {})}


def trainable_size(variables: Mapping[str, PyTree]) -> int:
    """Number of entries that training can move: those of the parameters less those with D = 0. One replica.

    >>> frozen = {'asymmetry': {'fixed': {'w': np.zeros(2)}, 'trainable': {'w': np.array([True, False])}}}
    >>> trainable_size({'params': {'w': np.ones(2), 'b': np.ones(3)}, 'frozen': frozen})
    4
    """
    made = variables.get("frozen", {}).get(KEY, {})
    masked = jax.tree.leaves(made.get("trainable", {}))
    return trees.size(variables["params"]) - sum(int(np.count_nonzero(np.asarray(mask) == 0)) for mask in masked)


def fingerprint(frozen: PyTree) -> str:
    """SHA-256 of names, shapes, dtypes and bytes of all leaves, in the order of their names.

    Args:
        frozen: constants, usually variables['frozen'] (FiGLU's matrices are in it too).

    Raises:
        ValueError: called on abstract values, inside `jax.jit`.

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
    """Refuse networks whose frozen constants differ: what lies between their parameters means nothing.

    Raises:
        ValueError: naming the two that differ.

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
    """The output layer of a network by its flat names: 'head', or else the last of 'dense_0', 'dense_1', ..

    Raises:
        ValueError: there is neither.

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


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'a/b': x} -> {'a': {'b': x}}."""
    tree = {}
    for name, leaf in flat.items():
        *above, last = name.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


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
