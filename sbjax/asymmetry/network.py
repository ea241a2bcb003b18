"""Asymmetric networks with the interface of a Linen module, without a second copy of any model."""

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
    """A module that computes with F + D * W; `init` and `apply` are called as those of a Linen module.

    `init` puts the constants in variables['frozen'], and W = 0 where D = 0: there W is never read and has no gradient,
    so that it stays zero under any optimiser and weight decay, and replicas do not differ by it.

    Attributes:
        module: a Linen module, or anything with such `init` and `apply` whose parameters are nested dicts.
        spec: of kind 'w', 'syre' or 'fixed_bias'.
    """

    module: Any
    spec: AsymmetrySpec

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables; the constants depend on spec.mask_seed alone, the parameters on `rngs`.

        Raises:
            ValueError: as `constants`.
        """
        variables = dict(self.module.init(rngs, *args, **kwargs))
        made = constants(variables["params"], self.spec)
        params = variables["params"]
        if self.spec.init == "authors":
            params = _authors_law(params, made, rngs["params"] if isinstance(rngs, Mapping) else rngs)
        params = effective({"params": params, "frozen": {KEY: {"trainable": made.get("trainable")}}})
        frozen = {**variables.get("frozen", {}), KEY: jax.tree.map(jnp.asarray, made)}
        return {**variables, "params": params, "frozen": frozen}

    def apply(self, variables: Mapping[str, PyTree], *args: Any, **kwargs: Any) -> Any:
        """As the module's `apply`, with effective weights.

        Raises:
            ValueError: `mutable` covers 'params' or 'frozen', which a pass must not change.
        """
        mutable = kwargs.get("mutable", False)
        names = (mutable,) if isinstance(mutable, str) else mutable
        if mutable is True or (mutable and {"params", "frozen"} & set(names)):
            raise ValueError(f"mutable={mutable!r}: an asymmetric network's 'params' and 'frozen' cannot be mutable")
        frozen = {name: tree for name, tree in variables.get("frozen", {}).items() if name != KEY}
        return self.module.apply({**variables, "params": effective(variables), "frozen": frozen}, *args, **kwargs)


def make_asymmetric(module: Any, spec: AsymmetrySpec) -> Any:
    """The asymmetric version of a module: something with `init` and `apply`, called as before.

    'standard' is the module itself, 'sigma' the module with FiGLU activations; the other kinds are wrapped and work
    on any module. W- and sigma-asymmetry combine: make_asymmetric(make_asymmetric(module, sigma), w).

    Args:
        module: a Linen module; with 'sigma' one of `sbjax.models` that has `accepts_gate` (MLP, CNN, ResNet).
        spec: how.

    Raises:
        ValueError: 'sigma' and a module whose activation cannot be replaced.

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


def _authors_law(params: PyTree, made: PyTree, key: jax.Array) -> PyTree:
    """Kernels and biases of the masked layers from U(+-1/sqrt(fan-in)), fan-in of the full row."""
    masked = {name.rpartition("/")[0]: leaf.shape for name, leaf in trees.flatten(made["trainable"]).items()}

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layer = name.rpartition("/")[0]
        if layer not in masked:
            return leaf
        bound = draws.fan_in(masked[layer]) ** -0.5
        return jax.random.uniform(rng.stream(key, name), leaf.shape, leaf.dtype, -bound, bound)

    return jax.tree_util.tree_map_with_path(draw, params)
