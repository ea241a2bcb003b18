"""Variational posterior of any network: its weights become Gaussians, with the interface of a Linen module."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng, trees
from sbjax.asymmetry import Asymmetric, StartedFrom, draws
from sbjax.asymmetry.weights import KEY as CONSTANTS
from sbjax.asymmetry.weights import effective
from sbjax.bayes import gaussian
from sbjax.bayes.noise import LayerNoise, interceptor, is_layer
from sbjax.bayes.spec import VariationalSpec, prior_variance, share

NOISE = "posterior"
"""The stream of keys of the noise, `rngs={'posterior': key}`."""


@dataclasses.dataclass(frozen=True)
class Variational:
    """Gaussian weights in every dense layer and convolution of a network; `init` and `apply` as of a Linen module.

    Parameters are `{'mean': the network's own, 'factors': V by layer}`, and with `learn_diagonal` 'log_variance'.
    Normalisations and other parameters have no noise. Of an asymmetric network (`sbjax.asymmetry`) neither have frozen
    entries: they are constants, in the mean and in the covariance.

    `apply` computes with the means where it is given no key of noise; with `rngs={'posterior': key}`, or in training
    with `rngs={'dropout': key}`, with weights that are drawn for each example, see `sbjax.bayes.noise`.

    Attributes:
        module: a Linen module, or an object with the same `init` and `apply`, such as an asymmetric network.
        spec: rank, variances and prior.

    >>> from sbjax.models import make_model
    >>> net = Variational(make_model('mlp', classes=3, widths=(8,)), VariationalSpec(rank=2))
    >>> x = jnp.ones((4, 6))
    >>> variables = net.init(jax.random.key(0), x)
    >>> variables['params']['factors']['dense_0']['kernel'].shape
    (2, 6, 8)
    >>> mean = net.apply(variables, x)
    >>> drawn = net.apply(variables, x, rngs={'posterior': jax.random.key(1)})
    >>> bool((mean[0] == mean[1]).all()), bool((drawn[0] == drawn[1]).any())
    (True, False)
    """

    module: Any
    spec: VariationalSpec

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables; means start as the network does.

        Raises:
            ValueError: a network without a dense layer or convolution; a kernel that is in neither.
        """
        variables = dict(self.module.init(rngs, *args, **kwargs))
        leaves = trees.flatten(variables["params"])
        layers = self._layers(leaves, rngs, args, kwargs)
        base = self.module
        while isinstance(base, Asymmetric | StartedFrom):
            base = base.module  # what an asymmetric network is made of starts from the same key
        start = trees.flatten(base.init(rngs, *args, **kwargs)["params"])
        key = rngs["params"] if isinstance(rngs, Mapping) else rngs
        factors = {}
        for layer in layers:
            for name in _leaves(leaves, layer):
                scale = self._factor_scale(name, start[name])
                shape = (self.spec.rank, *leaves[name].shape)
                noise = jax.random.normal(rng.stream(key, f"{name}/factors"), shape, leaves[name].dtype)
                factors[name] = scale * noise
        params = {"mean": variables["params"], "factors": trees.nest(factors)}
        if self.spec.learn_diagonal:
            params["log_variance"] = trees.nest(
                {name: jnp.full_like(leaves[name], self.spec.log_variance) for name in factors}
            )
        made = variables.get("frozen", {}).get(CONSTANTS, {})
        moved = {part: {"mean": tree} for part, tree in made.items()}
        if mask := trees.flatten(made.get("trainable", {})):
            # Entries of V without effect are frozen at zero as those of W are.
            copies = {n: jnp.broadcast_to(mask[n], leaf.shape) for n, leaf in factors.items() if n in mask}
            moved["trainable"]["factors"] = trees.nest(copies)
            kept = {n: leaf * copies[n].astype(leaf.dtype) if n in copies else leaf for n, leaf in factors.items()}
            params["factors"] = trees.nest(kept)
        frozen = {**variables.get("frozen", {}), **({CONSTANTS: moved} if moved else {})}
        return {**variables, "params": params, **({"frozen": frozen} if frozen else {})}

    def apply(self, variables: Mapping[str, PyTree], *args: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """`module.apply` with the means, or with drawn weights where there is a key."""
        rngs = {} if rngs is None else dict(rngs) if isinstance(rngs, Mapping) else {NOISE: rngs}
        key = rngs.pop(NOISE, rng.stream(rngs["dropout"], NOISE) if kwargs.get("train") and "dropout" in rngs else None)
        inner = self.network_variables(variables)
        if key is None:
            return self.module.apply(inner, *args, rngs=rngs, **kwargs)
        noises, keys = self._noises(variables), lambda name: rng.stream(key, name)
        with nn.intercept_methods(interceptor(noises, keys, group=self.spec.group)):
            return self.module.apply(inner, *args, rngs=rngs, **kwargs)

    def kl(self, variables: Mapping[str, PyTree]) -> Float[Array, ""]:
        """Divergence of the posterior from the prior, the sum over layers; see `sbjax.bayes.gaussian.kl`.

        Frozen entries are left out: they add a constant in the published program.
        """
        means = trees.flatten(effective(variables)["mean"])
        total = jnp.float32(0.0)
        for layer, parts in self._gaussians(variables).items():
            names = _leaves(means, layer)
            tree = {name: means[name] for name in names}
            variance, factors, mask = ({name: part[name] for name in names} for part in parts)
            kernel = means[_kernel(layer)]
            total += gaussian.kl(tree, variance, factors, mask=mask, prior_variance=prior_variance(self.spec, kernel))
        return total

    def sample(self, variables: Mapping[str, PyTree], *, key: Key[Array, ""]) -> dict[str, PyTree]:
        """Variables of `module` with weights drawn once, the same for all examples."""
        inner = self.network_variables(variables)
        leaves = trees.flatten(inner["params"])
        for layer, parts in self._gaussians(variables).items():
            names = _leaves(leaves, layer)
            tree = {name: leaves[name] for name in names}
            variance, factors, mask = ({name: part[name] for name in names} for part in parts)
            drawn = gaussian.draw(variance, factors, like=tree, mask=mask, key=rng.stream(key, layer))
            leaves |= {name: leaves[name] + drawn[name] for name in names}
        return {**inner, "params": trees.nest(leaves)}

    def network_variables(self, variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """Variables of `module` with the means as weights."""
        found = {**variables, "params": variables["params"]["mean"]}
        if CONSTANTS in variables.get("frozen", {}):
            made = {part: tree["mean"] for part, tree in variables["frozen"][CONSTANTS].items()}
            found["frozen"] = {**variables["frozen"], CONSTANTS: made}
        return found

    def _gaussians(self, variables) -> dict[str, tuple[dict, dict, dict]]:
        """Variance, factors and mask of the leaves of each layer."""
        params = variables["params"]
        factors = trees.flatten(params["factors"])
        learnt = trees.flatten(params.get("log_variance", {}))
        made = variables.get("frozen", {}).get(CONSTANTS, {})
        masks = trees.flatten(made.get("trainable", {}).get("mean", {}))
        variance = {}
        for name in factors:
            part = share(self.spec.noise_shares, name, trees.selects)
            variance[name] = part * (jnp.exp(learnt[name]) if learnt else math.exp(self.spec.log_variance))
            factors[name] = factors[name] * math.sqrt(part)
        layers = dict.fromkeys(name.rpartition("/")[0] for name in factors)
        found = {}
        for layer in layers:
            names = _leaves(factors, layer)
            found[layer] = (
                {name: variance[name] for name in names},
                {name: factors[name] for name in names},
                {name: masks.get(name) for name in names},
            )
        return found

    def _noises(self, variables) -> dict[str, LayerNoise]:
        means = trees.flatten(effective(variables)["mean"])
        found = {}
        for layer, (variance, factors, masks) in self._gaussians(variables).items():
            last = {name: name.rpartition("/")[2] for name in factors}
            kept = {n: None if m is None else m.astype(factors[n].dtype) for n, m in masks.items()}
            found[layer] = LayerNoise(
                {last[name]: value if kept[name] is None else value * kept[name] for name, value in variance.items()},
                {last[name]: v if kept[name] is None else v * kept[name][None] for name, v in factors.items()},
                {last[name]: means[name] for name in factors},
            )
        return found

    def _layers(self, leaves, rngs, args, kwargs) -> list[str]:
        """Names of the dense layers and convolutions, in the order of their calls."""
        seen: dict[str, None] = {}

        def note(call, call_args, call_kwargs, context):
            if is_layer(context.module) and context.method_name == "__call__":
                seen["/".join(context.module.path)] = None
            return call(*call_args, **call_kwargs)

        with nn.intercept_methods(note):
            jax.eval_shape(lambda: self.module.init(rngs, *args, **kwargs))
        layers = [name for name in seen if _kernel(name) in leaves]
        others = [name for name in leaves if name.endswith("kernel") and name.rpartition("/")[0] not in layers]
        if others or not layers:
            raise ValueError(
                f"the kernel {others[0]!r} belongs to no dense layer or convolution, and would have no noise; use a "
                "network of nn.Dense, nn.Conv and sbjax.models.layers.Conv"
                if others
                else "the network has no dense layer or convolution: there is nothing to be random"
            )
        return layers

    def _factor_scale(self, name, start) -> Float[Array, ""] | float:
        """Deviation of the entries of V at the start."""
        spec, rank = self.spec, max(1, self.spec.rank)
        is_dense = start.ndim == 2
        if start.ndim == 1:  # a bias; that of a convolution starts without noise as its kernel does
            return spec.bias_factor
        scale = spec.factor_scale if is_dense else spec.conv_factor_scale
        return scale * jnp.std(start) / math.sqrt(rank)


@dataclasses.dataclass(frozen=True)
class Started:
    """A network whose kernels and biases start from another law; `init` and `apply` as of the module.

    Attributes:
        module: any module.
        law: 'uniform': kernels and biases on +-1 / sqrt(fan-in), as PyTorch's layers start; 'normal': kernels with
            variance 2 / fan-in (arXiv 1502.01852), biases as before.

    >>> from sbjax.models import make_model
    >>> net = Started(make_model('mlp', classes=3, widths=(8,)), 'uniform')
    >>> kernel = net.init(jax.random.key(0), jnp.ones((1, 100)))['params']['dense_0']['kernel']
    >>> 0.09 < float(jnp.abs(kernel).max()) <= 0.1
    True
    """

    module: Any
    law: str

    def __post_init__(self):
        if self.law not in ("uniform", "normal"):
            raise ValueError(f"law={self.law!r} must be 'uniform' or 'normal'")

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables with kernels, and biases beside them, drawn anew from the same key."""
        variables = dict(self.module.init(rngs, *args, **kwargs))
        leaves = trees.flatten(variables["params"])
        key = rngs["params"] if isinstance(rngs, Mapping) else rngs
        for name, leaf in leaves.items():
            layer, _, last = name.rpartition("/")
            if last not in ("kernel", "bias") or _kernel(layer) not in leaves:
                continue
            fan_in, one = draws.fan_in(leaves[_kernel(layer)].shape), rng.stream(key, f"{name}/start")
            if self.law == "normal" and last == "kernel":
                leaves[name] = np.sqrt(2 / fan_in).astype(leaf.dtype) * jax.random.normal(one, leaf.shape, leaf.dtype)
            else:
                bound = fan_in**-0.5
                leaves[name] = jax.random.uniform(one, leaf.shape, leaf.dtype, -bound, bound)
        return {**variables, "params": trees.nest(leaves)}

    def apply(self, variables: PyTree, *args: Any, **kwargs: Any) -> Any:
        """As `module.apply`."""
        return self.module.apply(variables, *args, **kwargs)


def _kernel(layer: str) -> str:
    return f"{layer}/kernel" if layer else "kernel"


def _leaves(names: Mapping[str, Any], layer: str) -> list[str]:
    """Kernel and bias of a layer, as far as there are any among the names."""
    both = (_kernel(layer), f"{layer}/bias" if layer else "bias")
    return [name for name in both if name in names]
