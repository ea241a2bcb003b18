"""Constant-filled input dimension expansion (arXiv 2409.06402, 2602.17952).

The input of a network gets entries that hold no information: pixels between the pixels, constants beside a
coordinate, features or tokens between those of a sequence. A frozen dataclass says how; `expand` applies it
to any pytree of arrays, `contract` takes the data out again, `sbjax.expansion.folding.fold` moves the constants of a
trained MLP into its bias.

An expansion is affine, e(x) = A x + c. The function class of an MLP therefore stays as it is; what changes
is how its parameters are drawn and how fast they move (under SGD the effective bias moves by 1 + sum c_i^2
times the step of a plain bias). For images it also multiplies the resolution; the fills 'nearest' and
'bilinear' are the controls for that.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float, Float32, PyTree, UInt8

from sbjax.expansion.kinds import Expansion, ImageExpansion, SequenceExpansion, VectorExpansion

__all__ = [
    "Expansion",
    "ImageExpansion",
    "SequenceExpansion",
    "VectorExpansion",
    "check_expansion",
    "contract",
    "expand",
    "expanded_shape",
    "prepare",
    "resolve",
    "standardise",
    "with_expansion",
]


def expand(expansion: PyTree[Expansion | None], tree: PyTree) -> PyTree:
    """Every array x of `tree` -> A x + c, as its expansion says.

    Arrays are single examples or batches with any number of leading axes; works under jit, vmap and grad.

    Args:
      expansion: one expansion for all arrays, or a prefix tree of expansions (as `in_axes` of `jax.vmap`);
        None leaves what is below it alone.
      tree: jax or numpy arrays. The dtype is kept, in jax's canonical form: float64 needs `jax.enable_x64`.

    Returns:
      The same tree, of jax arrays where an expansion applies.

    Raises:
      TypeError: something in the prefix is neither an expansion nor None.
      ValueError: the prefix does not fit the tree, an array does not suit its expansion, or a fill is 'mean'.

    >>> import jax.numpy as jnp
    >>> batch = {'x': jnp.ones((8, 1)), 'labels': jnp.arange(8)}
    >>> out = expand({'x': VectorExpansion(2, 2), 'labels': None}, batch)
    >>> out['x'].shape, out['labels'].shape
    ((8, 5), (8,))
    """
    return _map(lambda kind, x: kind.expand(x), expansion, tree)


def contract(expansion: PyTree[Expansion | None], tree: PyTree) -> PyTree:
    """The data sites: `contract(e, expand(e, x)) == x` bit for bit.

    Images and vectors may have any dtype here (a map of losses, a mask). Arguments and errors as in `expand`.

    >>> import jax.numpy as jnp
    >>> contract(VectorExpansion(2, 2), jnp.arange(5.0)).tolist()
    [2.0]
    """
    return _map(lambda kind, y: kind.contract(y), expansion, tree)


def expanded_shape(
    expansion: Expansion | None, shape: Sequence[int], *, dtype: DTypeLike = jnp.float32
) -> tuple[int, ...]:
    """The shape of an expanded array, without computing it.

    Args:
      expansion: one expansion, or None.
      shape: of the raw array, with or without leading axes.
      dtype: only matters to a `SequenceExpansion`, for which an integer dtype means token ids [..., L].

    Raises:
      ValueError: the shape does not suit the expansion.

    >>> expanded_shape(ImageExpansion(3), (32, 32, 3))
    (96, 96, 3)
    """
    # A fill to be resolved later has no say in the shape.
    concrete = resolve(expansion, mean=0.0, std=1.0)
    return jax.eval_shape(lambda x: expand(concrete, x), jax.ShapeDtypeStruct(shape, dtype)).shape


def check_expansion(
    expansion: Expansion | None, shape: Sequence[int], *, dtype: DTypeLike = jnp.float32
) -> tuple[int, ...]:
    """The expanded shape of one example, or why the expansion does not fit it; nothing is computed.

    What an expansion takes is found by tracing it, so that one of your own is checked as those of this package are.

    Args:
      expansion: one expansion, or None.
      shape: of one example.
      dtype: of the network's input.

    Raises:
      ValueError: it raises on such an input, changes the dtype, does not leave leading axes alone, or its `contract`
        does not give the shape back.

    >>> check_expansion(VectorExpansion(2, 2), (1,))
    (5,)
    >>> check_expansion(ImageExpansion(2), (1,))
    Traceback (most recent call last):
        ...
    ValueError: ImageExpansion does not fit an input of shape (1,): ImageExpansion takes floating or uint8 arrays ...
    """
    if expansion is None:
        return tuple(shape)
    name, concrete = type(expansion).__name__, resolve(expansion, mean=0.0, std=1.0)

    def trace(shape):
        x = jax.ShapeDtypeStruct(tuple(shape), dtype)
        try:
            y = jax.eval_shape(lambda x: expand(concrete, x), x)
            return y, jax.eval_shape(lambda y: contract(concrete, y), y)
        except Exception as error:  # an expansion of the user's own may raise anything
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{name} does not fit an input of shape {tuple(shape)}: {said}") from error

    (one, back), (batch, _) = trace(shape), trace((2, *shape))
    if not hasattr(one, "shape") or one.dtype != jnp.dtype(dtype):
        raise ValueError(
            f"{name} gives {one} for an input of shape {tuple(shape)} and dtype {jnp.dtype(dtype)}: `expand` must give "
            "one array of the same dtype"
        )
    if batch.shape != (2, *one.shape):
        raise ValueError(
            f"{name} gives shape {one.shape} for one input of shape {tuple(shape)} and {batch.shape} for a batch of 2: "
            "`expand` must leave leading axes alone; count axes from the back"
        )
    if getattr(back, "shape", None) != tuple(shape):
        raise ValueError(
            f"{name}: `contract` gives {back} for the expanded input of shape {one.shape}: it must give back the data "
            f"of shape {tuple(shape)}"
        )
    return one.shape


def resolve(
    expansion: PyTree[Expansion | None], *, mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]
) -> PyTree:
    """Makes the fill 'mean' concrete; everything else comes back as it is.

    The fill becomes `mean` where images are expanded before they are standardised, 0 where after: the same
    colour.

    Args:
      expansion: an expansion, or a tree of them and None.
      mean, std: of the training data with pixels in [0, 1]: concrete numbers, one or one a channel.

    Raises:
      ValueError: `mean` or `std` is not finite, they differ in length, or `std` is not positive.

    >>> resolve(ImageExpansion(2, fill='mean'), mean=(0.25, 0.5, 0.5), std=(0.2, 0.2, 0.2)).fill
    (0.25, 0.5, 0.5)
    """
    mean, _ = _moments(mean, std)

    def concrete(kind):
        if not isinstance(kind, ImageExpansion) or kind.fill != "mean":
            return kind
        fill = tuple(mean.tolist()) if mean.size > 1 else mean.item()
        return replace(kind, fill=fill if kind.order == "before" else 0.0)

    return jax.tree.map(concrete, expansion, is_leaf=lambda kind: isinstance(kind, Expansion))


def prepare(
    expansion: Expansion | None,
    images: UInt8[Array, "*batch h w c"],
    *,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
) -> Float32[Array, "*batch hk wk ck"]:
    """Stored images -> network input: scaled to [0, 1], standardised as (x - mean) / std, expanded.

    `expansion.order` says whether the expansion comes before or after the standardisation: with 'before' a
    fill is a brightness on the scale of [0, 1], with 'after' it is in units of the standardised data. Expansions
    without an `order` come after it.

    Args:
      expansion: None only standardises; the fill 'mean' is resolved with `mean`.
      images: [..., H, W, C].
      mean, std: of the training data with pixels in [0, 1]: concrete numbers, one or one a channel.

    Raises:
      TypeError: `images` is not uint8.
      ValueError: `mean` or `std` do not suit the channels, see `resolve`; channels are added before standardising.

    >>> import numpy as np
    >>> black = np.zeros((8, 8, 1), np.uint8)
    >>> prepare(ImageExpansion(2, fill=0.5), black, mean=0.5, std=0.25)[:2, :2, 0].tolist()
    [[-2.0, 0.0], [0.0, 0.0]]
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"images has dtype {images.dtype}: `prepare` takes stored uint8 pixels, 0 .. 255.")
    return standardise(expansion, images.astype(jnp.float32) / 255, mean=mean, std=std)


def standardise(
    expansion: Expansion | None,
    scaled: Float[Array, "*batch h w c"],
    *,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
) -> Float[Array, "*batch hk wk ck"]:
    """`prepare` of images that are on the scale of [0, 1] already, such as lightness.

    Args:
      expansion, mean, std: as in `prepare`.
      scaled: [..., H, W, C], floating.

    Raises:
      ValueError: as `prepare`.

    >>> import jax.numpy as jnp
    >>> standardise(None, jnp.full((1, 1, 1), 0.75), mean=0.5, std=0.25).tolist()
    [[[1.0]]]
    """
    scaled = jnp.asarray(scaled)
    centre, scale = (moment.astype(scaled.dtype) for moment in _moments(mean, std))
    if centre.size not in (1, *scaled.shape[-1:]):
        raise ValueError(
            f"mean has {centre.size} numbers, images has shape {scaled.shape}: give one, or one a channel."
        )
    # Full rank, for users who forbid rank promotion.
    centre, scale = (moment.reshape((1,) * (scaled.ndim - 1) + (-1,)) for moment in (centre, scale))
    expansion = resolve(expansion, mean=mean, std=std)
    if getattr(expansion, "order", "after") == "before":
        expanded = expand(expansion, scaled)
        if centre.size not in (1, expanded.shape[-1]):
            raise ValueError(
                f"order='before': {centre.size} channels become {expanded.shape[-1]}, of which only those of the "
                "data have a mean and a deviation: use order='after'."
            )
        return (expanded - centre) / scale
    return expand(expansion, (scaled - centre) / scale)


def with_expansion(apply_fn: Callable, expansion: PyTree[Expansion | None]) -> Callable:
    """`apply_fn(variables, x, ...)` as a function of raw x; also wraps `module.init(key, x, ...)`.

    The expansion happens inside, so derivatives with respect to x are with respect to the raw data.

    >>> apply = with_expansion(lambda variables, x: variables @ x, VectorExpansion(1, 1, 10.0))
    >>> import jax.numpy as jnp
    >>> float(apply(jnp.array([1.0, 2.0, 3.0]), jnp.array([5.0])))
    50.0
    """

    @functools.wraps(apply_fn)
    def expanded(variables, x, *args, **kwargs):
        return apply_fn(variables, expand(expansion, x), *args, **kwargs)

    return expanded


def _map(function: Callable, expansion: PyTree, tree: PyTree) -> PyTree:
    """`function(kind, array)` over `tree`, `expansion` being a prefix of it in which None is a leaf."""
    structure: Any
    kinds, structure = jax.tree.flatten(expansion, is_leaf=lambda kind: isinstance(kind, Expansion | None))
    for kind in kinds:
        if not isinstance(kind, Expansion | None):
            raise TypeError(f"expansion holds {kind!r}: give an expansion, None, or a prefix tree of these.")
    try:
        subtrees = structure.flatten_up_to(tree)
    except ValueError as error:
        raise ValueError(
            f"expansion={expansion!r} is no prefix of a tree {jax.tree.structure(tree)}: give one expansion, "
            f"or one (or None) for each entry. {error}"
        ) from error
    done = [
        subtree if kind is None else jax.tree.map(lambda x, k=kind: function(k, jnp.asarray(x)), subtree)
        for kind, subtree in zip(kinds, subtrees)
    ]
    return jax.tree.unflatten(structure, done)


def _moments(mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.asarray(moment, np.float64).ravel() for moment in (mean, std))
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"mean={mean}, std={std}: both must be finite and std positive; drop constant channels.")
    if mean.size == 0 or std.size not in (1, mean.size):
        raise ValueError(f"mean={mean} and std={std} differ in length: give one number, or one a channel.")
    return mean, std
