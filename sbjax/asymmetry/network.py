"""Asymmetric version of any model, with the interface of a Linen module."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from sbjax import rng, trees
from sbjax.asymmetry import draws
from sbjax.asymmetry.figlu import Gate
from sbjax.asymmetry.spec import AsymmetrySpec
from sbjax.asymmetry.weights import KEY, constants, effective


@dataclasses.dataclass(frozen=True)
class Asymmetric:
    """Wraps a module to compute with weights F + D * W; `init` and `apply` have the interface of a Linen module.

    `init` stores the constants in variables['frozen'] and sets W = 0 where D = 0. There W is not used and has no
    gradient, so it stays zero under any optimiser and weight decay and does not contribute to replica distances.

    Attributes:
        module: a Linen module, or an object with the same `init` and `apply` whose parameters are nested dicts.
        spec: a spec of kind 'w', 'syre' or 'fixed_bias'.
    """

    module: Any
    spec: AsymmetrySpec

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables; constants depend only on spec.mask_seed, parameters on `rngs`.

        Raises:
            ValueError: as `constants`.
        """
        variables = dict(self.module.init(rngs, *args, **kwargs))
        made = constants(variables["params"], self.spec)
        params = variables["params"]
        if self.spec.init == "authors":
            params = _authors_init(params, made, rngs["params"] if isinstance(rngs, Mapping) else rngs)
        params = effective({"params": params, "frozen": {KEY: {"trainable": made.get("trainable")}}})
        frozen = {**variables.get("frozen", {}), KEY: jax.tree.map(jnp.asarray, made)}
        return {**variables, "params": params, "frozen": frozen}

    def apply(self, variables: Mapping[str, PyTree], *args: Any, **kwargs: Any) -> Any:
        """`module.apply` with effective weights.

        Raises:
            ValueError: `mutable` includes 'params' or 'frozen'.
        """
        mutable = kwargs.get("mutable", False)
        names = (mutable,) if isinstance(mutable, str) else mutable
        if mutable is True or (mutable and {"params", "frozen"} & set(names)):
            raise ValueError(f"mutable={mutable!r}: an asymmetric network's 'params' and 'frozen' cannot be mutable")
        frozen = {name: tree for name, tree in variables.get("frozen", {}).items() if name != KEY}
        return self.module.apply({**variables, "params": effective(variables), "frozen": frozen}, *args, **kwargs)


def make_asymmetric(module: Any, spec: AsymmetrySpec) -> Any:
    """The asymmetric version of a module, with the same `init` and `apply`.

    'standard' returns the module itself and 'sigma' the module with FiGLU activations; other kinds wrap any module. W-
    and sigma-asymmetry can be combined: make_asymmetric(make_asymmetric(module, sigma), w).

    Args:
        module: a Linen module; for 'sigma' one of `sbjax.models` with `accepts_gate` (MLP, CNN, ResNet).
        spec: kind of asymmetry and its options.

    Raises:
        ValueError: 'sigma' for a module whose activation cannot be replaced.

    >>> from sbjax.asymmetry.masks import MaskSpec
    >>> from sbjax.models import MLP
    >>> spec = AsymmetrySpec('w', masks=(('dense_0/kernel', MaskSpec(2)),))
    >>> net = make_asymmetric(MLP(classes=3, widths=(4,)), spec)
    >>> y, variables = jax.eval_shape(
    ...     lambda key, x: (net.apply(variables := net.init(key, x), x, train=False), variables),
    ...     jax.random.key(0), jnp.zeros((5, 6)))
    >>> y.shape, sorted(variables)
    ((5, 3), ['frozen', 'params'])
    """
    if spec.kind == "standard":
        return module
    if spec.kind != "sigma":
        return Asymmetric(module, spec)
    if not getattr(module, "accepts_gate", False):
        raise ValueError(
            f"asymmetry.kind='sigma' needs a model whose activation can be replaced (MLP, CNN, ResNet), not "
            f"{type(module).__name__}; use 'w' or 'syre'"
        )
    return module.clone(activation=Gate(spec.gate_scale, spec.mask_seed))


def _authors_init(params: PyTree, made: PyTree, key: jax.Array) -> PyTree:
    """Draw kernels and biases of masked layers from U(+-1/sqrt(fan-in)), with the fan-in of the unmasked kernel."""
    masked = {name.rpartition("/")[0]: leaf.shape for name, leaf in trees.flatten(made["trainable"]).items()}

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layer = name.rpartition("/")[0]
        if layer not in masked:
            return leaf
        bound = draws.fan_in(masked[layer]) ** -0.5
        return jax.random.uniform(rng.stream(key, name), leaf.shape, leaf.dtype, -bound, bound)

    return jax.tree_util.tree_map_with_path(draw, params)
