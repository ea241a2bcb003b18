"""Classification of critical points found by training, from units that coincide or cancel."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Array, Float

from sbjax.landscape import critical_points, layered, splitting
from sbjax.landscape.layered import Activation, Network
from sbjax.landscape.manifold import Piece, Signature, Units
from sbjax.landscape.splitting import Inertia

GLOBAL_MINIMA = "global minima"
STRICT_SADDLE = "symmetry-induced strict saddle"
STABLE_PLATEAU = "stable plateau"
MINIMUM = "minimum"
SADDLE = "saddle"
CHANNEL = "channel to infinity"
NOT_CONVERGED = "not converged"


class Tolerances(NamedTuple):
    """Thresholds of the classification.

    Attributes:
        loss: a loss below it is zero. Keep it at most 1e-14: minima of positive loss can be as low as 1e-7.
        gradient: largest absolute entry of a converged gradient.
        distance: incoming vectors closer than this are equal.
        cancel: outgoing vectors of equal units cancel if their sum is smaller than this.
        parallel: largest angle in radians between outgoing vectors of copies at positive loss.
        norm: parameters diverge if sum theta^2 / (2 P) exceeds it, P the number of parameters.
        cosine: largest cosine distance between two units that form a channel.
        outgoing: smallest (|a_i| + |a_j|) / max(1, |a_i + a_j|) of two units that form a channel.
        rtol: eigenvalues of at most this fraction of the largest count as zero.
    """

    loss: float = 1e-20
    gradient: float = 1e-8
    distance: float = 1e-2
    cancel: float = 1e-5
    parallel: float = 1e-3
    norm: float = 1e3
    cosine: float = 1e-3
    outgoing: float = 100.0
    rtol: float = 1e-11


class Classification(NamedTuple):
    """Kind of a critical point and the evidence for it.

    Attributes:
        kind: one of 'global minima', 'symmetry-induced strict saddle', 'stable plateau', 'minimum', 'saddle',
            'channel to infinity', 'not converged'.
        reason: explanation in words.
        loss, gradient: loss and largest absolute entry of the gradient.
        width: effective width: number of units after merging copies and dropping cancelling units.
        signature: numbers of copies and sizes of the cancelling groups.
        piece: the units in these groups.
        coefficients: mu of the copies of each unit.
        curvatures: at positive loss, eigenvalues of the inner matrix S of each unit of the merged network.
        merged_loss, merged_gradient: loss and gradient of the merged network, NaN if there is none.
        predicted, measured: inertia predicted by theory, and that of the Hessian after making units that coincide
            within the tolerance exactly equal; None if not available.
        teacher: for each unit, the teacher's unit with the same incoming vector, or -1.
    """

    kind: str
    reason: str
    loss: float
    gradient: float
    width: int
    signature: Signature
    piece: Piece
    coefficients: tuple[tuple[float, ...], ...]
    curvatures: tuple[tuple[float, ...], ...]
    merged_loss: float
    merged_gradient: float
    predicted: Inertia | None
    measured: Inertia | None
    teacher: tuple[int, ...]


def classify(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    teacher: Units | None = None,
    previous: Network | None = None,
    tolerances: Tolerances = Tolerances(),  # noqa: B008, a named tuple
) -> Classification:
    """Classify a critical point of {'w': [m, din], 'a': [m, dout]} under the mean squared error.

    Units with equal incoming vectors (up to sign if the activation is odd or even) form a group. A group whose outgoing
    vectors sum to zero cancels; any other group consists of copies of one unit. The number of the latter is the
    effective width r.

    - Zero loss: 'global minima', on the piece of the zero-loss manifold with that signature.
    - Diverging parameters, or two nearly equal units with large opposite outgoing weights: 'channel to infinity'
      (arXiv 2506.14951).
    - A gradient that is not small, or cancelling units at positive loss (impossible at a critical point): 'not
      converged'.
    - r < m: induced by a critical point of width r. 'symmetry-induced strict saddle' if the Hessian has a negative
      eigenvalue, otherwise 'stable plateau'.
    - r = m: 'minimum' or 'saddle'.

    Polish the point first (Levenberg-Marquardt, Newton): a gradient above 1e-8 gives 'not converged'.

    Args:
        params: the point, in double precision.
        x, y: all training data.
        activation: a symmetry other than odd or even gives a warning about what is not recognised.
        teacher: units to identify, {'w': [r, din], 'a': [r, dout]}.
        previous: an earlier point of the same run. If given, a channel is recognised by outgoing weights that have
            grown since, instead of by their size.
        tolerances: thresholds.

    Raises:
        ValueError: a network of another form; as `critical_points.derivatives`.

    >>> import jax, jax.numpy as jnp
    >>> x = np.linspace(-2, 2, 9)[:, None]
    >>> with jax.enable_x64(True):
    ...     net = {'w': np.array([[1.0], [1.0], [0.3]]), 'a': np.array([[0.5], [1.5], [0.0]])}
    ...     found = classify(net, x, 2 * np.exp(x), jnp.exp)
    >>> found.kind, found.width, tuple(found.signature)
    ('global minima', 1, ((2,), (1,)))
    """
    if set(params) != {"w", "a"}:
        raise ValueError(f"params has the entries {sorted(params)}: classify {{'w': [m, din], 'a': [m, dout]}}")
    symmetry = layered.warn_of_symmetry(
        activation,
        "equivalent units are treated as different, and there are zero-loss points outside the manifold",
        known=("odd", "even"),
    )
    params = {key: np.asarray(params[key], np.float64) for key in ("a", "w")}
    w, a = _folded(params, symmetry, tolerances)
    here = critical_points.derivatives(params, x, y, activation)
    gradient = float(np.abs(here.gradient).max())
    if not np.isfinite(here.loss) or not np.isfinite(gradient):
        w, a = np.zeros_like(w), np.zeros_like(a)
    piece, merged = _merge(w, a, tolerances)
    found = Classification(
        kind=NOT_CONVERGED,
        reason="",
        loss=here.loss,
        gradient=gradient,
        width=len(piece.copies),
        signature=Signature(tuple(map(len, piece.copies)), tuple(sorted(map(len, piece.zeros)))),
        piece=piece,
        coefficients=_coefficients(a, piece, merged),
        curvatures=(),
        merged_loss=np.nan,
        merged_gradient=np.nan,
        predicted=None,
        measured=None,
        teacher=_teacher_units(w, piece, merged, teacher, symmetry, tolerances),
    )
    if not np.isfinite(here.loss) or not np.isfinite(gradient):
        return found._replace(reason=f"loss {here.loss}, gradient {gradient}")
    if here.loss < tolerances.loss:
        return _at_zero_loss(found, params, x, y, activation, symmetry, tolerances)
    if reason := _channel(params, previous, tolerances):
        return found._replace(kind=CHANNEL, reason=reason)
    if gradient > tolerances.gradient:
        return found._replace(reason=f"the gradient is {gradient:.1e}, above {tolerances.gradient:.0e}: polish further")
    if piece.zeros or not piece.copies:
        return found._replace(reason=f"units {piece.zeros} cancel, which a critical point of positive loss excludes")
    return _at_positive_loss(found, w, a, merged, x, y, activation, tolerances)


def _at_zero_loss(found, params, x, y, activation, symmetry, tolerances):
    reason = f"loss {found.loss:.1e}; {found.width} units needed of {len(params['w'])}"
    predicted = None
    if symmetry is None:
        nullity = critical_points.zero_loss_nullity(params, tolerance=tolerances.distance / np.abs(params["w"]).max())
        predicted = Inertia(0, nullity, sum(leaf.size for leaf in params.values()) - nullity)
    here = critical_points.certify(params, x, y, activation, rtol=tolerances.rtol)
    return found._replace(kind=GLOBAL_MINIMA, reason=reason, predicted=predicted, measured=here.measured)


def _at_positive_loss(found, w, a, merged, x, y, activation, tolerances):
    narrow = critical_points.derivatives(merged, x, y, activation)
    inner = splitting.inner_matrices(merged, x, y, activation)
    found = found._replace(
        merged_loss=narrow.loss,
        merged_gradient=float(np.abs(narrow.gradient).max()),
        curvatures=tuple(tuple(np.linalg.eigvalsh(s).tolist()) for s in inner.curvature),
    )
    close = abs(narrow.loss - found.loss) <= 1e-6 * found.loss
    if found.merged_gradient > 100 * tolerances.gradient or not close:
        return found._replace(
            reason=f"merged to {found.width} units the loss is {narrow.loss:.6g} instead of {found.loss:.6g} and the "
            f"gradient {found.merged_gradient:.1e}: units are near each other, but no copies; polish further"
        )
    source = np.zeros(len(w), int)
    for t, group in enumerate(found.piece.copies):
        source[list(group)] = t
    exact = {"w": merged["w"][source], "a": a}
    here = critical_points.certify(exact, x, y, activation, rtol=tolerances.rtol)
    parallel = all(
        np.linalg.norm(a[unit] - mu * merged["a"][t]) <= tolerances.parallel * np.linalg.norm(a[unit])
        for t, (group, mus) in enumerate(zip(found.piece.copies, found.coefficients))
        for unit, mu in zip(group, mus)
    )
    predicted = None
    if parallel:
        predicted = splitting.predicted_inertia(narrow.hessian, inner, found.coefficients, rtol=tolerances.rtol)
    negative = here.measured.negative
    if found.width < len(w):
        kind = STRICT_SADDLE if negative else STABLE_PLATEAU
        reason = f"a critical point of width {found.width} with copies {found.signature.copies}"
    else:
        kind, reason = (SADDLE if negative else MINIMUM), "all units are needed"
    reason += f"; {negative} negative eigenvalues"
    return found._replace(kind=kind, reason=reason, predicted=predicted, measured=here.measured)


def _distances(w, symmetry):
    apart = np.linalg.norm(w[:, None] - w[None], axis=-1)
    if symmetry in ("odd", "even"):
        apart = np.minimum(apart, np.linalg.norm(w[:, None] + w[None], axis=-1))
    return apart


def _folded(params, symmetry, tolerances):
    """Incoming and outgoing vectors, with consistent signs within each group if the activation is odd or even."""
    w, a = params["w"].copy(), params["a"].copy()
    if symmetry in ("odd", "even"):
        for group in _groups(w, symmetry, tolerances.distance):
            for unit in group[1:]:
                if w[unit] @ w[group[0]] < 0:
                    w[unit] *= -1
                    a[unit] *= -1 if symmetry == "odd" else 1
    return w, a


def _groups(w, symmetry, distance):
    """Connected components of units within `distance` of one another, ordered by their first units."""
    near = scipy.sparse.coo_matrix(_distances(w, symmetry) <= distance)
    number, label = scipy.sparse.csgraph.connected_components(near, directed=False)
    return sorted(np.flatnonzero(label == group).tolist() for group in range(number))


def _merge(w, a, tolerances):
    """Groups of units, and the merged network with one unit for each group that does not cancel."""
    copies, zeros, incoming, outgoing = [], [], [], []
    for group in _groups(w, None, tolerances.distance):
        total = a[group].sum(0)
        if np.linalg.norm(total) <= tolerances.cancel:
            zeros.append(tuple(group))
            continue
        copies.append(tuple(group))
        # This weighted mean changes the function in second order only.
        mu = a[group] @ total / (total @ total)
        incoming.append(mu @ w[group])
        outgoing.append(total)
    merged = {"w": np.reshape(incoming, (-1, w.shape[1])), "a": np.reshape(outgoing, (-1, a.shape[1]))}
    return Piece(tuple(copies), tuple(zeros)), merged


def _coefficients(a, piece, merged):
    return tuple(
        tuple((a[list(group)] @ total / (total @ total)).tolist()) for group, total in zip(piece.copies, merged["a"])
    )


def _teacher_units(w, piece, merged, teacher, symmetry, tolerances):
    units = np.full(len(w), -1)
    if teacher is not None and len(merged["w"]):
        known = np.asarray(teacher["w"], np.float64)
        apart = _distances(np.concatenate([merged["w"], known]), symmetry)[: len(merged["w"]), len(merged["w"]) :]
        for t, group in enumerate(piece.copies):
            if apart[t].min() <= tolerances.distance:
                units[list(group)] = apart[t].argmin()
    return tuple(units.tolist())


def _channel(params, previous, tolerances) -> str:
    """Reason why the point lies in a channel to infinity; '' if it does not."""
    w, a = params["w"], params["a"]
    norm = sum(np.sum(leaf**2) for leaf in params.values()) / (2 * (w.size + a.size))
    if norm > tolerances.norm:
        return f"sum theta^2 / (2 P) is {norm:.3g}, above {tolerances.norm:.3g}"
    # Units without incoming weights get a cosine distance of 1 from all others.
    directions = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), np.finfo(float).tiny)
    cosine = 1 - directions @ directions.T
    size = np.linalg.norm(a, axis=1)
    for i, j in zip(*np.triu_indices(len(w), 1)):
        both, total = size[i] + size[j], np.linalg.norm(a[i] + a[j])
        if cosine[i, j] >= tolerances.cosine or both < 2 * total:
            continue
        what = f"units {i} and {j} are at a cosine distance of {max(cosine[i, j], 0):.1e}, |a_i| + |a_j| = {both:.3g}"
        if previous is not None:
            before = np.linalg.norm(np.asarray(previous["a"])[[i, j]], axis=1).sum()
            if both > 1.01 * before:
                return f"{what}, grown from {before:.3g}"
        elif both > tolerances.outgoing * max(1.0, total):
            return what
    return ""
