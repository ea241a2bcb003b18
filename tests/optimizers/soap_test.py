"""SOAP against the algorithm in plain numpy, rotations, Adam, and replicas one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.optimizers.soap import scale_by_soap, soap

pytestmark = pytest.mark.usefixtures("x64")

SHAPES = {"kernel": (4, 3), "filter": (2, 3, 4), "bias": (3,), "gain": (), "row": (1, 4)}


def gradients(steps, shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(steps)]


@functools.cache
def jitted(optimizer):
    return jax.jit(optimizer.update)


def run(optimizer, grads, params, state=None):
    """The update of every step, and the last state."""
    state = optimizer.init(params) if state is None else state
    updates = []
    for grad in grads:
        update, state = jitted(optimizer)(grad, state, params)
        updates.append(update)
    return updates, state


def numpy_matrix_soap(grads, b1, b2, every, eps=1e-8, left=True, right=True):
    """Algorithm 3 of the paper for one matrix, with the first step as in the published code."""
    d, e = grads[0].shape
    mean, square = np.zeros((d, e)), np.zeros((d, e))
    c_left, c_right = np.zeros((d, d)), np.zeros((e, e))
    out = []
    for t, g in enumerate(grads):
        if t:
            mean = b1 * mean + (1 - b1) * g
            square = b2 * square + (1 - b2) * (q_left.T @ g @ q_right) ** 2
            hat_mean, hat_square = mean / (1 - b1**t), square / (1 - b2**t)
            step = q_left.T @ hat_mean @ q_right / (np.sqrt(hat_square) + eps / np.sqrt(1 - b2**t))
            out.append(q_left @ step @ q_right.T)
        else:
            out.append(np.zeros((d, e)))
        c_left, c_right = b2 * c_left + (1 - b2) * g @ g.T, b2 * c_right + (1 - b2) * g.T @ g
        if t == 0:
            q_left = np.linalg.eigh(c_left)[1][:, ::-1] if left else np.eye(d)
            q_right = np.linalg.eigh(c_right)[1][:, ::-1] if right else np.eye(e)
        elif t % every == 0:
            if left:
                order = np.argsort(-np.diag(q_left.T @ c_left @ q_left))
                q_left, square = np.linalg.qr(c_left @ q_left[:, order])[0], square[order]
            if right:
                order = np.argsort(-np.diag(q_right.T @ c_right @ q_right))
                q_right, square = np.linalg.qr(c_right @ q_right[:, order])[0], square[:, order]
    return out


@pytest.mark.parametrize(
    ("every", "longest", "sides"), [(1, 9, (1, 1)), (3, 9, (1, 1)), (2, 4, (1, 0)), (2, 3, (0, 0))]
)
def test_matrix_follows_the_paper(every, longest, sides):
    """4 x 5; the longest axis to be turned leaves out none, one or both sides."""
    grads = [g["w"] for g in gradients(9, {"w": (4, 5)})]
    ours, _ = run(scale_by_soap(0.9, 0.8, every, longest), grads, jnp.zeros((4, 5)))
    theirs = numpy_matrix_soap(grads, 0.9, 0.8, every, left=sides[0], right=sides[1])
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=f"step {t}")


def test_vectors_and_scalars_get_adam_one_step_late():
    shapes = {"bias": (3,), "gain": (), "row": (1, 4)}
    grads = gradients(6, shapes)
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    ours, _ = run(soap(0.1, 0.9, 0.8), grads, params)
    theirs, _ = run(optax.adam(0.1, 0.9, 0.8), grads[1:], params)
    for name in ("bias", "gain"):
        assert not np.any(ours[0][name])
        for a, b in zip(ours[1:], theirs, strict=True):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-6)  # eps is inside the bias correction here


def test_a_turned_gradient_gives_turned_updates():
    """G -> U G V^T for square G, whose bases are unique from the first step on; entrywise Adam has no such symmetry."""
    grads = [g["w"] for g in gradients(12, {"w": (4, 4)})]
    u, v = (np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0] for seed in (1, 2))
    turned = [u @ g @ v.T for g in grads]
    for optimizer, same in ((scale_by_soap(0.9, 0.9, 3, eps=1e-12), True), (optax.scale_by_adam(0.9, 0.9), False)):
        plain, _ = run(optimizer, grads, jnp.zeros((4, 4)))
        other, _ = run(optimizer, turned, jnp.zeros((4, 4)))
        assert np.allclose(other[-1], u @ plain[-1] @ v.T, atol=1e-7) is same


def test_bases_converge_to_the_eigenvectors():
    """Gradients of one covariance: after many refreshes L^T C L is diagonal, falling."""
    rng = np.random.default_rng(3)
    root = np.linalg.qr(rng.normal(size=(4, 4)))[0] * np.array([8.0, 4.0, 2.0, 1.0])
    grads = [root @ rng.normal(size=(4, 400)) for _ in range(60)]
    _, state = run(scale_by_soap(0.9, 0.9, 1, 10), grads, jnp.zeros((4, 400)))
    assert list(state.bases) == ["0"]  # the axis of 400 is too long
    q = state.bases["0"]
    diagonal = q.T @ state.covariances["0"] @ q
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=0.02 * float(diagonal[0, 0]))
    assert np.all(np.diff(np.diag(diagonal)) < 0)


def test_ill_conditioned_problem_faster_than_adam():
    """|A (W - W*) B|^2 with condition numbers 100 each, not along the axes; best of four learning rates each."""
    rng = np.random.default_rng(4)

    def ill(n):
        u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
        return jnp.asarray(u * np.logspace(0, -2, n) @ v.T)

    a, b, target = ill(6), ill(5), jnp.asarray(rng.normal(size=(6, 5)))

    def value_fn(w):
        return jnp.sum((a @ (w - target) @ b) ** 2)

    def final(make, rate):
        optimizer = make(optax.cosine_decay_schedule(rate, 300))

        def body(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(value_fn)(w), state, w)
            return (w + updates, state), None

        start = jnp.zeros((6, 5))
        (w, _), _ = jax.lax.scan(body, (start, optimizer.init(start)), None, length=300)
        return value_fn(w)

    best = {
        name: min(float(jax.jit(final, static_argnums=0)(make, rate)) for rate in (0.01, 0.03, 0.1, 0.3))
        for name, make in (("soap", lambda r: soap(r)), ("adam", lambda r: optax.adam(r, 0.95, 0.95)))
    }
    assert best["soap"] < 0.1 * best["adam"], best


def test_the_first_step_only_sets_the_bases():
    params = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    updates, _ = run(soap(0.1, weight_decay=0.5), gradients(2, {"w": (3, 3), "b": (3,)}), params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates[0]))
    plain, _ = run(soap(0.1), gradients(2, {"w": (3, 3), "b": (3,)}), params)
    for name in params:
        np.testing.assert_allclose(updates[1][name], plain[1][name] - 0.1 * 0.5 * params[name], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_equal_and_dtypes_are_kept(dtype):
    grads = [{n: jnp.asarray(g, dtype) for n, g in grad.items()} for grad in gradients(9, SHAPES)]
    params = {name: jnp.zeros(shape, dtype) for name, shape in SHAPES.items()}
    optimizer = soap(0.1, precondition_every=2)
    straight, _ = run(optimizer, grads, params)
    _, state = run(optimizer, grads[:5], params)
    saved = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
    resumed, state = run(optimizer, grads[5:], params, saved)
    jax.tree.map(np.testing.assert_array_equal, straight[-1], resumed[-1])
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((resumed, state))} == {dtype, "int32"}
    assert jitted(optimizer)._cache_size() == 1


def batched(optimizer, grads, params):
    """Updates of three replicas, the last of which has done two steps less and is due at other times."""
    states = [run(optimizer, grads[:k], params)[1] for k in (2, 2, 0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    mapped = jax.vmap(optimizer.update, in_axes=(None, 0, None))
    return mapped, stacked, states


@pytest.mark.extended
def test_replicas_under_vmap_are_as_one_by_one_also_out_of_step():
    grads, params = gradients(8, SHAPES), {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    optimizer = scale_by_soap(precondition_every=3)
    mapped, stacked, states = batched(optimizer, grads, params)
    mapped = jax.jit(mapped)
    for grad in grads[2:]:
        together, stacked = mapped(grad, stacked, params)
        for i in range(3):
            (alone,), states[i] = run(optimizer, [grad], params, states[i])
            jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-9), together, alone)


@pytest.mark.extended
def test_vmap_and_shard_map_keep_the_branch():
    """Factorisations stay inside `cond`: none at the top level of the program."""
    grads, params = gradients(3, SHAPES), {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    mapped, stacked, _ = batched(scale_by_soap(), grads, params)
    jaxpr = jax.make_jaxpr(mapped)(grads[2], stacked, params)
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert names.count("cond") == 2
    assert not {"eigh", "qr", "householder_product"} & set(names)

    two = jax.tree.map(lambda leaf: leaf[1:], stacked)
    mesh = jax.make_mesh((2,), ("replica",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("replica")
    sharded = jax.shard_map(lambda s: mapped(grads[2], s, params), mesh=mesh, in_specs=spec, out_specs=spec)
    got, want = jax.jit(sharded)(two), jax.jit(mapped)(grads[2], two, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), got, want)


def test_refusal():
    with pytest.raises(ValueError, match="precondition_every=0 must be >= 1"):
        soap(0.1, precondition_every=0)
