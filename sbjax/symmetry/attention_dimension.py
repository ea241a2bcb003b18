"""How many continuous symmetries: the Lie algebra of an invariance, counted by null spaces and in closed form.

A map of parameters near the identity leaves a function as it is if the derivative along it vanishes for all inputs.
`null_dimension` counts such directions for any function: entries minus the rank of the Jacobian at many inputs. The
closed counts say what they should be for attention and whole transformers.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.common.names import check_choice
from sbjax.symmetry.attention_layout import Attention, Layout, check_layout

SAME = 1e-9  # of frequencies


class NullSpace(NamedTuple):
    """Singular values below a threshold.

    Attributes:
        dimension: how many directions change nothing.
        kept: the least singular value above the threshold, over the largest.
        dropped: the largest below it, over the largest; 0 where there is none.
    """

    dimension: int
    kept: float
    dropped: float


def null_space(matrix: Float[np.ndarray, "rows columns"], *, rtol: float = 1e-9) -> NullSpace:
    """Directions of the columns that a matrix sends to zero.

    Raises:
        ValueError: fewer rows than columns, so that directions are lost for lack of equations; no matrix, entries that
            are not finite, an rtol that is not between 0 and 1.

    >>> null_space(np.diag([1.0, 1.0, 0.0])).dimension
    1
    """
    if np.ndim(matrix) != 2 or not 0 <= rtol < 1:
        raise ValueError(
            f"a matrix of shape {np.shape(matrix)} and rtol={rtol}: give [rows, columns], and rtol below 1"
        )
    rows, columns = np.shape(matrix)
    if rows < columns:
        raise ValueError(f"a matrix of {rows} equations for {columns} unknowns: give more inputs")
    if not columns or not np.isfinite(matrix).all():
        raise ValueError("a matrix without unknowns, or with entries that are not finite: look at the network")
    values = np.linalg.svd(matrix, compute_uv=False)
    values = values / max(values[0], np.finfo(float).tiny)
    rank = int((values > rtol).sum())
    return NullSpace(columns - rank, float(values[rank - 1]), float(values[rank]) if rank < columns else 0.0)


def null_dimension(
    function: Callable[[PyTree, Any], Float[Array, "..."]], params: PyTree, inputs: Any, *, rtol: float = 1e-9
) -> NullSpace:
    """Directions of parameters along which a function does not change, to first order, at any of the inputs.

    Args:
        function: `(params, inputs) -> outputs`.
        params: in double precision.
        inputs: so many that outputs outnumber the parameters.
        rtol: singular values of the Jacobian below rtol times the largest count as zero; look at the gap.

    Raises:
        ValueError: single precision, or fewer outputs than parameters.

    >>> from sbjax.common import devices
    >>> with devices.double():  # a product of two numbers: one can be traded for the other
    ...     ones = jnp.ones(())
    ...     null_dimension(lambda p, x: p['a'] * p['b'] * x, {'a': ones, 'b': 2 * ones}, jnp.arange(3.0)).dimension
    1
    """
    params = jax.tree.map(jnp.asarray, params)
    if not jax.tree.leaves(params):
        raise ValueError("params have no arrays: give those whose directions are counted")
    for name, leaf in trees.flatten(params).items():
        if leaf.dtype != jnp.float64:
            raise ValueError(
                f"params have {name or 'an array'!r} of {leaf.dtype}: ranks need float64; set jax_enable_x64"
            )
    columns = [
        np.asarray(block).reshape(-1, leaf.size)
        for block, leaf in zip(
            jax.tree.leaves(_jacobian(function, params, inputs)), jax.tree.leaves(params), strict=True
        )
    ]
    return null_space(np.concatenate(columns, 1), rtol=rtol)


@functools.partial(jax.jit, static_argnums=0)
def _jacobian(function, params, inputs):
    """Compiled once for a function, so give the same one for several parameters."""
    return jax.jacfwd(lambda params: jnp.ravel(function(params, inputs)))(params)


def commutant(matrices: Sequence[Float[np.ndarray, "n n"]]) -> NullSpace:
    """The matrices X with X R = R X for every R.

    >>> commutant([np.diag([1.0, 1.0, 2.0])]).dimension
    5
    """
    if not len(matrices):
        raise ValueError("no matrices are given: everything commutes with none of them")
    if len(shapes := {np.shape(matrix) for matrix in matrices}) > 1 or len(set(*shapes)) != 1 or len(*shapes) != 2:
        raise ValueError(f"matrices have shapes {sorted(shapes)}: give square ones of one size")
    n = len(matrices[0])
    eye = np.eye(n)
    return null_space(np.concatenate([np.kron(eye, r.T) - np.kron(r, eye) for r in matrices]))


def rope_dimension(frequencies: Sequence[float], *, unrotated: int = 0) -> int:
    """Dimension of the matrices U that commute with all rotations of RoPE, for whole distances.

    2 m^2 for every class of m planes with one frequency (modulo 2 pi, and up to the sign), the matrices of GL(m, C);
    n^2 for the n entries that distances leave as they are (`unrotated`, and planes of frequency 0), and n^2 for those
    that change sign (frequency pi). Without RoPE all k entries of a head are unrotated: k^2. With k/2 different
    frequencies: k, which is (C*)^(k/2), as in arXiv 2606.17830.

    >>> rope_dimension([1.0, 0.1]), rope_dimension([1.0, 1.0]), rope_dimension([], unrotated=4)
    (4, 8, 16)
    """
    if unrotated < 0 or unrotated != int(unrotated) or not np.isfinite(np.asarray(frequencies, float)).all():
        raise ValueError(f"frequencies={frequencies} must be finite and unrotated={unrotated} whole and >= 0")
    classes: Counter[float] = Counter()
    for frequency in frequencies:
        turned = abs((frequency + np.pi) % (2 * np.pi) - np.pi)  # in [0, pi]
        classes[next((known for known in classes if abs(known - turned) < SAME), turned)] += 1
    total, fixed = 0, unrotated
    for frequency, planes in classes.items():
        if frequency < SAME:
            fixed += 2 * planes
        elif np.pi - frequency < SAME:
            total += (2 * planes) ** 2
        else:
            total += 2 * planes**2
    return total + fixed**2


def rotations(frequencies: Sequence[float], distances: Sequence[int]) -> list[Float[np.ndarray, "k k"]]:
    """The matrices R_m that RoPE puts between queries and keys at distance m.

    >>> rotations([np.pi / 2], [1])[0].round(6).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    if not np.isfinite(np.asarray(frequencies, float)).all():
        raise ValueError(f"frequencies={frequencies} must be finite")
    found = []
    for distance in distances:
        matrix = np.zeros((2 * len(frequencies), 2 * len(frequencies)))
        for plane, frequency in enumerate(frequencies):
            cos, sin = np.cos(distance * frequency), np.sin(distance * frequency)
            matrix[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = [[cos, -sin], [sin, cos]]
        found.append(matrix)
    return found


def factor_dimension(rows: int, columns: int, inner: int) -> int:
    """Directions of two factors A [rows, inner], B [inner, columns] that leave A B as it is, at factors of full rank.

    inner^2 where the inner size is the smallest one.

    >>> factor_dimension(8, 8, 3), factor_dimension(4, 4, 6)
    (9, 32)
    """
    if min(rows, columns, inner) < 1 or any(size != int(size) for size in (rows, columns, inner)):
        raise ValueError(f"rows={rows}, columns={columns} and inner={inner} must be >= 1, and whole")
    rank = min(rows, columns, inner)
    return inner * (rows + columns) - rank * (rows + columns - rank)


def stream_dimension(norm: str, d: int, *, eps: float = 0.0) -> int:
    """Dimension of what acts on the stream and passes a norm whose gain is folded.

    That of O(d) for 'rms', and for 'layer' of the O(d-1) of the directions of mean zero; one more, a scale, if eps = 0.

    >>> stream_dimension('rms', 4), stream_dimension('layer', 4, eps=1e-6)
    (7, 3)
    """
    check_choice(norm, ("rms", "layer"), what="norm")
    n = d if norm == "rms" else d - 1
    if n < 1:
        raise ValueError(f"d={d} leaves nothing after a norm of kind {norm!r}")
    if not eps >= 0:
        raise ValueError(f"eps={eps} must be >= 0")
    return n * (n - 1) // 2 + (eps == 0)


def norm_null_space(norm: str, d: int, *, points: int = 0, eps: float = 0.0) -> NullSpace:
    """Matrices A with a B such that N(x + t x A) = N(x) + t N(x) B + O(t^2) at all x, N the norm without its gain.

    These may act on the stream. A is counted as it acts on the part that the norm sees.

    >>> norm_null_space('rms', 3).dimension, norm_null_space('layer', 3, eps=0.1).dimension
    (4, 1)
    """
    stream_dimension(norm, d, eps=eps)  # what cannot be
    random = np.random.default_rng(0)
    x = random.normal(size=(points or 4 * d, d))
    basis = np.eye(d) if norm == "rms" else np.linalg.svd(np.eye(d) - 1 / d)[0][:, : d - 1]
    seen = x @ basis  # what is left once the mean is gone, in coordinates
    n = seen.shape[1]
    square = (seen**2).sum(1) / d + eps
    value = seen / np.sqrt(square)[:, None]
    rows = []
    for at, out, size in zip(seen, value, square, strict=True):
        jacobian = (np.eye(n) - np.outer(at, at) / (d * size)) / np.sqrt(size)
        # d/dt N(x + t x A) = (x A) J, minus N(x) B.
        rows.append(np.concatenate([np.einsum("i,jk->kij", at, jacobian).reshape(n, -1), -np.kron(out, np.eye(n))], 1))
    return null_space(np.concatenate(rows))


def transformer_dimensions(layout: Layout, params: PyTree, *, eps: float = 0.0) -> dict[str, int]:
    """Continuous symmetries of a whole transformer by kind, at generic parameters and long enough sequences.

    - 'queries and keys', 'values and output': of all heads.
    - 'stream': see `stream_dimension`.
    - 'gains': d for every norm, which what reads from it can take up; biases of norms likewise.
    - 'means': with a layer norm, of each kernel that reads from one the direction of the mean (one for each output),
      and of whatever writes into the stream the mean (one for each row).
    - 'unseen': of kernels that read in the first layer, what embeddings and positions do not span.
    - 'biases': of keys (without RoPE) and of values.
    - 'scales': one for every relu unit.

    >>> from sbjax.models.transformer import Transformer
    >>> from sbjax.symmetry.attention_layout import layout_of
    >>> net = Transformer(classes=2, width=6, depth=1, heads=2, hidden=5)
    >>> params = net.init(jax.random.key(0), jnp.ones((1, 3, 2)))['params']
    >>> layout = layout_of(params, norm='rms', activation='relu')
    >>> transformer_dimensions(layout, params, eps=1e-6)  # doctest: +NORMALIZE_WHITESPACE
    {'queries and keys': 18, 'values and output': 18, 'stream': 15, 'gains': 18, 'means': 0, 'unseen': 18, 'biases': 0,
     'scales': 5}
    """
    check_layout(layout, params)
    shapes = {name: jnp.shape(leaf) for name, leaf in trees.flatten(params).items()}
    (d,) = shapes[f"{layout.head_norm}/scale"]
    kinds = ("queries and keys", "values and output", "stream", "gains", "means", "unseen", "biases", "scales")
    found = dict.fromkeys(kinds, 0)
    # Of the stream a norm sees d entries or, with a mean of zero, d - 1; the first layer what is written before it.
    whole = d - (layout.norm == "layer")
    first = min(whole, sum(int(np.prod(shapes[name][:-1])) for name in layout.written))
    found["stream"] = stream_dimension(layout.norm, d, eps=eps)

    def norm(name):
        found["gains"] += d * sum(f"{name}/{part}" in shapes for part in ("scale", "bias"))

    def read(name, rows):
        outputs = int(np.prod(shapes[f"{name}/kernel"][1:]))
        found["means"] += outputs * (layout.norm == "layer")
        found["unseen"] += outputs * (whole - rows)

    def write(name):
        found["means"] += int(np.prod(shapes.get(name, (0,))[:-1])) * (name in shapes and layout.norm == "layer")

    for name in layout.written:
        write(name)
    norm(layout.head_norm)
    read(layout.head, whole if layout.layers else first)
    for number, layer in enumerate(layout.layers):
        norm(layer.norm)
        rows = whole if number else first
        if isinstance(layer, Attention):
            _, heads, size = shapes[f"{layer.path}/query/kernel"]
            inner = shapes[f"{layer.path}/value/kernel"][-1]
            query = rows + (f"{layer.path}/query/bias" in shapes)
            free = rope_dimension(layout.rope) if layout.rope else factor_dimension(query, rows, size)
            found["queries and keys"] += heads * free
            found["values and output"] += heads * factor_dimension(rows, whole, inner)
            if f"{layer.path}/key/bias" in shapes and not layout.rope:
                found["biases"] += heads * size
            if f"{layer.path}/value/bias" in shapes:
                found["biases"] += heads * inner
            for name in ("query", "key", "value"):
                read(f"{layer.path}/{name}", rows)
            write(f"{layer.path}/out/kernel")
            write(f"{layer.path}/out/bias")
        else:
            read(layer.into, rows)
            write(f"{layer.out}/kernel")
            write(f"{layer.out}/bias")
            found["scales"] += shapes[f"{layer.into}/kernel"][1] * (layout.activation == "relu")
    return found
