"""The equivariant linear layer of any network whose permutations are known, and invariants of its parameters."""

import collections
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sbjax.metanets.blocks import Layout
from sbjax.metanets.maps import Slot, block_sizes, put, slots_in, slots_out, take

Blocks = tuple[Float[Array, "..."], ...]


class EquivariantLinear(nn.Module):
    """The most general linear layer from parameters to parameters that commutes with permutations of hidden units.

    For each tuple of permutations (p, q, ..), everything that can be carried over with these indices is laid side by
    side, [*batch, n_p, n_q, .., inputs], and multiplied by one matrix. Nothing as large as a dense matrix between
    parameters is made. Where a permutation has fewer units than axes of a pair of blocks, some of the maps are
    dependent; `sbjax.metanets.count_maps` counts independent ones.

    Attributes:
        layout: of the parameters, see `make_layout`.
        channels: of every entry of the output; of every block where `keep_features` is False.
        keep_features: whether entries that no permutation moves (kernel taps, inputs, outputs) stay apart in the
            output. Needed where the output is to be a change of parameters; costs a matrix between all of them.
        use_bias: add a constant to every entry, equal where a permutation carries one to the other.

    Call with blocks [*batch, n_1, .., n_k, f], with any f, such as those of `to_blocks`; returns blocks
    [*batch, n_1, .., n_k, features * channels], or [.., channels].

    >>> from sbjax.metanets import make_layout, to_blocks
    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': jnp.ones((5, 3)), 'b': jnp.ones((3, 2))}
    >>> layout = make_layout(spec_from_axes({'a': (None, 'p'), 'b': ('p', None)}, tree), tree)
    >>> nets = to_blocks(layout, jnp.ones((4, layout.size)))  # four networks
    >>> layer = EquivariantLinear(layout, channels=8, keep_features=False)
    >>> [out.shape for out in layer.init_with_output(jax.random.key(0), nets)[0]]
    [(4, 3, 8), (4, 3, 8)]

    Source: arXiv 2402.05232, theorem 3.1; for multilayer perceptrons with inputs and outputs fixed (HNP) or permuted
    (NP, see `open_ends`), arXiv 2302.14040, equation 3.
    """

    layout: Layout
    channels: int
    keep_features: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, blocks: Blocks) -> Blocks:
        """Apply the layer."""
        given = gather(self.layout, blocks)
        wanted = _wanted(self.layout, set(given))
        terms = collections.Counter(number for targets in wanted.values() for number, _ in targets)
        width = [self.channels * (block.features if self.keep_features else 1) for block in self.layout.blocks]
        outputs: list[Any] = [None] * len(blocks)
        for groups, targets in wanted.items():
            x = given[groups]
            scales = [(width[number], 1 / math.sqrt(terms[number])) for number, _ in targets]
            y = x @ self.param(
                f"kernel_{word(groups)}", _init(scales), (x.shape[-1], sum(w for w, _ in scales)), x.dtype
            )
            if not groups and self.use_bias:
                y = y + self.param("bias", nn.initializers.zeros, y.shape[-1:], x.dtype).reshape(
                    (1,) * (y.ndim - 1) + y.shape[-1:]
                )
            start = 0
            for number, slot in targets:
                end = start + width[number]
                term = put(y[..., start:end], block_sizes(self.layout, self.layout.blocks[number]), slot)
                outputs[number] = term if outputs[number] is None else outputs[number] + term
                start = end
        return tuple(
            jnp.broadcast_to(out, (*x.shape[:-1], out.shape[-1])) for x, out in zip(blocks, outputs, strict=True)
        )


def gather(layout: Layout, blocks: Blocks) -> dict[tuple[str, ...], Float[Array, "..."]]:
    """Everything that can be carried over from blocks, by the permutations whose indices it keeps."""
    found: dict[tuple[str, ...], list] = collections.defaultdict(list)
    for block, x in zip(layout.blocks, blocks, strict=True):
        for slot in slots_in(block.groups):
            found[slot.groups].append(take(x, len(block.groups), slot))
    return {groups: jnp.concatenate(values, axis=-1) for groups, values in found.items()}


def invariants(layout: Layout, blocks: Blocks) -> Float[Array, "*batch invariants"]:
    """All linear invariants of blocks: means over their entries, and over diagonals where a permutation meets itself.

    >>> from sbjax.metanets import make_layout, to_blocks
    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': jnp.ones((3, 3))}
    >>> layout = make_layout(spec_from_axes({'a': ('p', 'p')}, tree), tree)
    >>> invariants(layout, to_blocks(layout, jnp.arange(9.0))).tolist()
    [4.0, 4.0]
    """
    return jnp.concatenate(
        [
            take(x, len(block.groups), slot)
            for block, x in zip(layout.blocks, blocks, strict=True)
            for slot in slots_in(block.groups)
            if not slot.groups
        ],
        axis=-1,
    )


def word(groups: tuple[str, ...]) -> str:
    """A name of parameters for permutations."""
    return "+".join(groups).replace("/", ".") or "all"


def _wanted(layout: Layout, known: set) -> dict[tuple[str, ...], list[tuple[int, Slot]]]:
    """Number of the block and slot of all places where something can go, by the permutations whose indices it has."""
    found: dict[tuple[str, ...], list[tuple[int, Slot]]] = collections.defaultdict(list)
    for number, block in enumerate(layout.blocks):
        for slot in slots_out(block.groups):
            if slot.groups in known:
                found[slot.groups].append((number, slot))
    return found


def _init(scales):
    """Normal with variance scale^2 / inputs in each range of columns, so that all terms of an output weigh the same."""

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any) -> Array:
        columns = jnp.concatenate([jnp.full((1, width), scale, dtype) for width, scale in scales], axis=1)
        return jax.random.normal(key, shape, dtype) * columns / jnp.asarray(math.sqrt(shape[0]), dtype)

    return init
