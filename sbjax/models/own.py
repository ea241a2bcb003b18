"""Networks of the user's own: Linen modules that know nothing of this package, with the interface that tasks use."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from sbjax.expansion.transform import Expansion, expand
from sbjax.models.layers import param_dtype

# How a module may call the argument that tells training from evaluation.
_TRAIN: dict[str, Callable[[bool], bool]] = {
    "train": bool,
    "training": bool,
    "is_training": bool,
    "deterministic": lambda train: not train,
}
_STATE_FREE = ("params", "frozen")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class OwnModel:
    """A classifier of the user's own: `init` and `apply` are called as those of the models of this package.

    The module's `__call__` takes a batch and, if it behaves differently in training, one of the arguments `train`,
    `training`, `is_training` or `deterministic`. `init` tries it out on shapes, in training and in evaluation.

    Attributes:
        module: a Linen module.
        classes: how many logits it has to give.
    """

    module: nn.Module
    classes: int

    def init(self, rngs: PyTree, x: Float[Array, "batch ..."], train: bool = False) -> dict[str, PyTree]:
        """Variables.

        Raises:
            ValueError: the module fails, gives something other than [batch, classes], changes state without telling
                training from evaluation, or gives its state another shape than it had.
        """
        logits, variables = _tried(
            lambda: self.module.init_with_output(rngs, x, **self._mode(train)), self.module, x.shape
        )
        self._check(x, logits)
        variables = dict(variables)
        jax.eval_shape(lambda variables, x: self.apply(variables, x), variables, x)
        state = {name: tree for name, tree in variables.items() if name not in _STATE_FREE}
        if state and not self._mode(True):
            raise ValueError(
                f"{_name(self.module)} has state in {', '.join(map(repr, state))}, but its __call__ no argument "
                "`train`: what it says of an image in evaluation would depend on the others; add `train: bool = False`"
            )

        def step(variables, x):
            return self.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)}, mutable=list(state))[1]

        before, after = (_shapes(tree) for tree in (state, jax.eval_shape(step, variables, x)))
        if dict(before) != dict(after):
            raise ValueError(f"{_name(self.module)} changes the shape of its state from {before} to {after} in a step")
        return variables

    def apply(
        self, variables: Mapping[str, PyTree], x: Float[Array, "batch ..."], train: bool = False, **kwargs: Any
    ) -> Any:
        """Logits [batch, classes] in float32 or wider; with `mutable`, a pair of them and the new state.

        Raises:
            ValueError: as `init`.
        """
        found = _tried(lambda: self.module.apply(variables, x, **self._mode(train), **kwargs), self.module, x.shape)
        # Linen gives a pair for any `mutable` but False, an empty list included.
        pair = kwargs.get("mutable", False) is not False
        logits, state = found if pair else (found, None)
        self._check(x, logits)
        logits = logits.astype(param_dtype(logits.dtype))
        return (logits, state) if pair else logits

    def _mode(self, train: bool) -> dict[str, bool]:
        parameters = inspect.signature(type(self.module).__call__).parameters
        return {name: told(train) for name, told in _TRAIN.items() if name in parameters}

    def _check(self, x: Array, logits: Any) -> None:
        _check_output(self.module, x.shape, logits, (len(x), self.classes), "[batch, classes]")


@dataclasses.dataclass(frozen=True)
class OwnField:
    """A field of the user's own, with the interface of `sbjax.models.Field` that tasks use.

    The module's `__call__` takes points [n, d] and gives [n, unknowns]; an expansion is applied to the points before.
    It has parameters, and constants in the collection 'frozen', and no other state.

    Attributes:
        module: a Linen module.
        unknowns: outputs.
        lower, upper: bounds of the coordinates.
        expansion: constants around the coordinates; None = raw.
        dtype: of points and parameters.
    """

    module: nn.Module
    unknowns: int
    lower: Sequence[float]
    upper: Sequence[float]
    expansion: Expansion | None = None
    dtype: str = "float32"

    def init(self, key: PyTree, x: Float[Array, "*batch d"]) -> dict[str, PyTree]:
        """Variables.

        Raises:
            ValueError: the module fails, gives something other than [n, unknowns], or has state.
        """
        points = self._points(x)
        found, variables = _tried(lambda: self.module.init_with_output(key, points), self.module, points.shape)
        self._check(points, found)
        if others := [name for name in variables if name not in _STATE_FREE]:
            raise ValueError(
                f"{_name(self.module)} has variables in {others[0]!r}: a field has 'params', and 'frozen' "
                "constants; leave normalisation over batches and other state out"
            )
        return dict(variables)

    def apply(self, variables: Mapping[str, PyTree], x: Float[Array, "*batch d"]) -> Float[Array, "*batch unknowns"]:
        """The unknowns at the points.

        Raises:
            ValueError: as `init`.
        """
        points = self._points(x)
        variables = {name: tree for name, tree in variables.items() if name in _STATE_FREE}
        found = _tried(lambda: self.module.apply(variables, points), self.module, points.shape)
        self._check(points, found)
        return found.reshape(*jnp.shape(x)[:-1], self.unknowns)

    def clone(self, *, expansion: Expansion | None) -> "OwnField":
        """Where an expansion is folded: only perceptrons of this package are known to be affine in their input.

        Raises:
            ValueError: always, where there is an expansion.
        """
        if self.expansion == expansion:
            return self
        raise ValueError(
            f"fold=True: the expansion cannot be folded into {_name(self.module)}, whose first layer is not known; set "
            "it to False, or use a network of this package"
        )

    def _points(self, x: Array) -> Array:
        x = expand(self.expansion, jnp.asarray(x, self.dtype))
        return x.reshape(-1, x.shape[-1])

    def _check(self, points: Array, found: Any) -> None:
        _check_output(self.module, points.shape, found, (len(points), self.unknowns), "[n, unknowns]")


@dataclasses.dataclass(frozen=True)
class OwnMasses(OwnField):
    """Masses of quasi-partons by a network of the user's own: temperatures T [..] in GeV -> [.., 3] in GeV.

    The module is given [n, 1] (or that expanded) and gives [n, 3], masses of ud, s and gluon, which it has to keep > 0.
    """

    def init(self, key: PyTree, T: Float[Array, "*batch"]) -> dict[str, PyTree]:
        """As `OwnField.init`."""
        return super().init(key, jnp.asarray(T)[..., None])

    def apply(self, variables: Mapping[str, PyTree], T: Float[Array, "*batch"]) -> Float[Array, "*batch 3"]:
        """As `OwnField.apply`."""
        return super().apply(variables, jnp.asarray(T)[..., None])


def own_dtype(module: nn.Module, *, x64: bool) -> str:
    """The dtype that a module computes in: its attribute `dtype`, float32 where there is none.

    Raises:
        ValueError: double precision that jax is not in.
    """
    given = getattr(module, "dtype", None)
    name = "float32" if given is None else jnp.dtype(given).name
    if name not in ("float32", "float64") or (name == "float64" and not x64):
        raise ValueError(f"dtype={name!r} must be 'float32', or 'float64' with x64=True")
    return name


def _tried(call: Callable[[], _T], module: nn.Module, shape: tuple[int, ...]) -> _T:
    """What the user's code returns, its errors as ones that say where they come from."""
    try:
        return call()
    except Exception as error:
        raise ValueError(
            f"{_name(module)} fails on an input of shape {shape}: {type(error).__name__}: {error}"
        ) from error


def _check_output(module: nn.Module, given: tuple[int, ...], found: Any, shape: tuple[int, ...], what: str) -> None:
    if not hasattr(found, "shape"):
        raise ValueError(f"{_name(module)} gives a {type(found).__name__} where one array {what} is needed")
    if found.shape != shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{_name(module)} gives {found.dtype}{list(found.shape)} for an input of shape {given}, where floating "
            f"{what} = {list(shape)} is needed"
        )


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)
