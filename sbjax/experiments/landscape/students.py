"""Many students of one shape trained at once: Adam on all data, then polished to critical points.

Students lie on the devices of one mesh, and each CPU device takes its own one after another: the activations of one at
1681 points fill the vector units and stay in the cache, so that several at once are no faster, and one that has
converged does not wait for the others. Adam takes the same number of steps for all, so an accelerator trains them at
once; what ends at its own time stays on the CPU, see `sbjax.common.devices.cores`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.common import devices
from sbjax.landscape.teacher_student import ACTIVATIONS, deep_tanh
from sbjax.metrics.hessian import mlp_hessian
from sbjax.optimizers.polish import Polished, polish

LONGEST = 1000  # steps in one dispatch, so that a run can be stopped


class Problem(NamedTuple):
    """The mean squared error of one student as functions of its parameters, L = sum r^2.

    Attributes:
        residuals: params -> r [m].
        jacobian: params -> dr/dw [n, m], in the order of `ravel_pytree`.
        hessian: params -> d^2 L / dw^2 [n, n].
    """

    residuals: Callable[[PyTree], Float[Array, " m"]]
    jacobian: Callable[[PyTree], Float[Array, "n m"]]
    hessian: Callable[[PyTree], Float[Array, "n n"]]


class Trained(NamedTuple):
    """What Adam leaves.

    Attributes:
        params: stacked students at the end.
        steps: when the students were recorded, from 0 to the last step.
        losses: [step, seed].
        recorded: the students then, leaves [step, seed, ..].
    """

    params: PyTree
    steps: tuple[int, ...]
    losses: Float[np.ndarray, "step seed"]
    recorded: PyTree


def least_bytes(count: int, parameters: int, points: int) -> dict[str, int]:
    """What so many students and the Jacobian of one of them take, in double precision with moments of Adam.

    >>> least_bytes(10, 12, 1681)
    {'students and their moments': 2880, 'the Jacobian of one': 161376}
    """
    return {"students and their moments": 3 * 8 * count * parameters, "the Jacobian of one": 8 * points * parameters}


def two_layer_problem(inputs: Float[Array, "n d"], targets: Float[Array, " n"], activation: str) -> Problem:
    """Students {'w': [m, d], 'a': [m, 1]} without biases, f(x) = sum_i a_i s(w_i . x).

    Derivatives are written out: J has the rows s(w_i . x) and a_i s'(w_i . x) x, and beside 2 J J^T the Hessian has
    only blocks of one neuron, sum_x c(x) s'(w_i . x) x and sum_x c(x) a_i s''(w_i . x) x x^T with c = 2 (f - y) / n.

    >>> x = np.linspace(-1, 1, 5)[:, None]
    >>> problem = two_layer_problem(x, x[:, 0], 'tanh')
    >>> problem.hessian({'w': jnp.ones((2, 1)), 'a': jnp.ones((2, 1))}).shape
    (4, 4)
    """
    s = ACTIVATIONS[activation]
    x, y = jnp.asarray(inputs).T, jnp.asarray(targets)  # points last: that axis is long
    d, root = len(x), np.sqrt(len(y)).item()

    def slope(z):
        return jax.jvp(s, (z,), (jnp.ones_like(z),))

    def residuals(params):
        return (params["a"][:, 0] @ s(params["w"] @ x) - y) / root

    def rows(params, h, dh):
        by_w = (params["a"] * dh)[:, None] * x
        return jnp.concatenate([h, by_w.reshape(-1, len(y))]) / root

    def jacobian(params):
        return rows(params, *slope(params["w"] @ x))

    def hessian(params):
        z = params["w"] @ x
        (h, dh), (_, ddh) = jax.jvp(slope, (z,), (jnp.ones_like(z),))
        j = rows(params, h, dh)
        m, c = len(h), 2 * (params["a"][:, 0] @ h - y) / len(y)
        unit, weight = jnp.arange(m), m + jnp.arange(m * d).reshape(m, d)
        mixed = (c * dh) @ x.T
        square = ((params["a"] * c * ddh) @ (x[:, None] * x).reshape(d * d, -1).T).reshape(m, d, d)
        matrix = 2 * j @ j.T
        matrix = matrix.at[unit[:, None], weight].add(mixed).at[weight, unit[:, None]].add(mixed)
        return matrix.at[weight[:, :, None], weight[:, None]].add(square)

    return Problem(residuals, jacobian, hessian)


def deep_problem(inputs: Float[Array, "n d"], targets: Float[Array, " n"]) -> Problem:
    """Students [(kernel, bias), ..] with tanh units and one output, as `teacher_student.deep_tanh`.

    >>> x = np.linspace(-1, 1, 5)[:, None]
    >>> problem = deep_problem(x, x[:, 0])
    >>> problem.jacobian([(jnp.ones((1, 2)), jnp.zeros(2)), (jnp.ones((2, 1)), jnp.zeros(1))]).shape
    (7, 5)
    """
    x, y = jnp.asarray(inputs), jnp.asarray(targets)
    root = np.sqrt(len(y)).item()

    def residuals(layers):
        h = x.T  # points last: that axis is long
        for kernel, bias in layers[:-1]:
            h = jnp.tanh(kernel.T @ h + bias[:, None])
        kernel, bias = layers[-1]
        return ((kernel.T @ h + bias[:, None])[0] - y) / root

    def jacobian(layers):
        slopes = jax.vmap(jax.grad(lambda layers, point: deep_tanh(layers, point[None])[0, 0]), (None, 0), -1)(
            layers, x
        )
        return jnp.concatenate([leaf.reshape(-1, len(y)) for leaf in jax.tree.leaves(slopes)]) / root

    def hessian(layers):
        return mlp_hessian(layers, x, lambda f, y: (f[0] - y) ** 2, y)

    return Problem(residuals, jacobian, hessian)


def record_steps(steps: int, count: int = 60) -> tuple[int, ...]:
    """0, 1 and further steps at even logarithms up to the last one.

    >>> record_steps(100, 3)
    (0, 1, 10, 100)
    """
    return (0, *np.unique(np.rint(np.geomspace(1, steps, count)).astype(int)).tolist())


def train_adam(
    problem: Problem,
    starts: PyTree,
    *,
    steps: int,
    learning_rate: float = 1e-3,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], Any] = lambda text: None,
) -> Trained | None:
    """Adam (0.9, 0.999) on all data for a number of steps; None if it was stopped.

    Not through `sbjax.training.fit`, which draws each replica from a key of its own, so that given students cannot
    start there, and which records numbers but not the students themselves.

    Args:
        problem: as above.
        starts: stacked students.
        steps: of each.
        learning_rate: constant.
        stop: looked at every some steps.
        log: told of progress.
    """
    adam = optax.adam(learning_rate)
    loss = lambda params: jnp.sum(problem.residuals(params) ** 2)  # noqa: E731

    def advance(count, students):
        def one(student):
            def step(_, carry):
                params, state = carry
                updates, state = adam.update(jax.grad(loss)(params), state)
                return optax.apply_updates(params, updates), state

            params, state = jax.lax.fori_loop(0, count, step, student)
            return (params, state), loss(params)

        return jax.lax.map(one, students) if jax.default_backend() == "cpu" else jax.vmap(one)(students)

    seeds = len(jax.tree.leaves(starts)[0])
    mesh = devices.mesh_for(seeds)
    advance = jax.jit(devices.per_device(advance, mesh, mapped=1))
    students = devices.place((starts, jax.vmap(adam.init)(starts)), mesh)
    recorded, losses, done, records = [], [], 0, record_steps(steps)
    for record in records:
        while True:
            if stop():
                return None
            count = min(record - done, LONGEST)
            students, found = advance(jnp.asarray(count, jnp.int32), students)
            done += count
            if done == record:
                break
        recorded.append(devices.collect(students[0], seeds))
        losses.append(devices.collect(found, seeds))
        if record in records[-20::5]:
            log(f"Adam, step {record} of {steps}, median loss {np.median(losses[-1]):.1e}")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *recorded)
    return Trained(jax.tree.map(jnp.asarray, recorded[-1]), records, np.stack(losses), stacked)


def polish_students(
    problem: Problem,
    starts: PyTree,
    *,
    steps: int = 1000,
    newton_steps: int = 300,
    chunk: int = 5,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], Any] = lambda text: None,
) -> Polished | None:
    """`sbjax.optimizers.polish.polish` of stacked students, one after another on each device; None if stopped.

    Args:
        problem: as above.
        starts: stacked students.
        steps, newton_steps: of each at most.
        chunk: students of a device in one dispatch.
        stop: looked at between these.
        log: told of progress.

    Returns:
        `Polished` with leaves [seed, ..] of numpy.
    """

    def run(_, students):
        return jax.lax.map(
            lambda params: polish(
                problem.residuals,
                params,
                jacobian_fn=problem.jacobian,
                hessian_fn=problem.hessian,
                steps=steps,
                newton_steps=newton_steps,
            ),
            students,
        )

    seeds = len(jax.tree.leaves(starts)[0])
    # Chunks of one size, or the last one would be compiled anew.
    size = min(chunk * len(devices.cores(seeds)), seeds)
    mesh = devices.mesh_of_cores(size)
    run, parts = jax.jit(devices.per_device(run, mesh, mapped=1)), []
    for first in range(0, seeds, size):
        if stop():
            return None
        index = np.minimum(np.arange(first, first + size), seeds - 1)
        found = run(0, devices.place(trees.take(starts, index), mesh))
        parts.append(devices.collect(found, min(size, seeds - first)))
        log(f"polished {min(first + size, seeds)} of {seeds}")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
