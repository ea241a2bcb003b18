"""Neural differential equations in other coordinates and another time: a part of `attention`.

The field is that of a small network, dz/dt = V sigma(W z + c t + b); `diffrax` solves it by Euler steps and by an
adaptive method to several tolerances. Errors are relative to the output, the largest over points, the median over
seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from sbjax import rng
from sbjax.experiments.exact.experiment import measured, result
from sbjax.symmetry import flows

CHANGES = ("linear", "coordinates", "pace", "time", "form")
SIGMAS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "none": lambda y: y}
STEPS = (32, 64)
TOLERANCES = (1e-4, 1e-7, 1e-10)
D, POINTS = 4, 16

COLUMNS = {
    "change_of": "changed",
    "sigma": "activation of the field",
    **{f"euler_{steps}": f"change of outputs, {steps} Euler steps" for steps in STEPS},
    **{f"tolerance_{number}": f"at tolerance {tolerance:g}" for number, tolerance in enumerate(TOLERANCES)},
    "algebra": "linear maps that commute with the activation, null space",
    "form_permutation": "change of outputs, W -> A W A^-1, A a permutation",
    "form_signs": "A a permutation with signs",
    "form_scales": "A a permutation with positive scales",
    "form_orthogonal": "A orthogonal",
}


def run(plan, task, key, log, stop):
    """One kind of change, each seed with its own field and its own map, all seeds in one program."""
    if stop():
        return None
    keys = [rng.replica_stream(key, "flow", seed) for seed in range(plan.replicas)]
    drawn = [_draw(np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())) for key in keys]
    params = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *drawn)
    found = (_form if task.change == "form" else _changed)(task.change, SIGMAS[task.sigma], params)
    found = {name: np.asarray(values).tolist() for name, values in found.items()}
    cells = {name: measured(values) for name, values in found.items()}
    log(", ".join(f"{name} {cell['value']:.1e}" for name, cell in cells.items()))
    if task.change == "form":
        cells["algebra"] = flows.activation_algebra(SIGMAS[task.sigma], D).dimension
    exact = "form_permutation" if task.change == "form" else f"tolerance_{len(TOLERANCES) - 1}"
    metrics = {f"flow/{name}": values for name, values in found.items()}
    return result({"exact/error": found[exact], **metrics}, {"change_of": task.change, "sigma": task.sigma, **cells})


def _draw(random):
    """Points, a field, and maps, of one seed."""
    normal = random.normal
    w, into, out = (normal(size=(D, D)) / np.sqrt(D) for _ in range(3))
    turns = [scipy.linalg.expm(a - a.T) for a in normal(size=(3, D, D))]
    permutation, sizes = np.eye(D)[random.permutation(D)], np.exp(random.uniform(-1, 1, (2, D)))
    return {
        "x": normal(size=(POINTS, D)),
        "field": {
            "w": normal(size=(8, D)) / np.sqrt(D),
            "v": normal(size=(D, 8)) / np.sqrt(D),
            "b": normal(size=8),
            "c": normal(size=8),
        },
        "square": w,
        "ends": (into, out),
        "linear": turns[0] * sizes[0] @ turns[1],
        "shears": normal(size=(2, D // 2, D // 2)),
        "forms": {
            "permutation": permutation,
            "signs": permutation * random.permutation([-1.0, 1.0, -1.0, 1.0]),
            "scales": permutation * sizes[1],
            "orthogonal": turns[2],
        },
    }


def _changed(change, sigma, params):
    def original(p):
        w, v, b, c = (p["field"][name] for name in "wvbc")
        into, out = p["ends"]
        return flows.Flow(lambda t, z: v @ sigma(w @ z + c * t + b), lambda x: into @ x, lambda z: out @ z)

    def other(p):
        return _CHANGED[change](original(p), p)

    exact = solve(original, params, tolerance=1e-13)
    found = {f"euler_{steps}": _gap(*(solve(one, params, steps=steps) for one in (original, other))) for steps in STEPS}
    for number, tolerance in enumerate(TOLERANCES):
        found[f"tolerance_{number}"] = _gap(exact, solve(other, params, tolerance=tolerance))
    return found


def _linear(flow, p):
    inverse = jnp.linalg.inv(p["linear"])
    return flows.in_coordinates(flow, lambda z: p["linear"] @ z, lambda z: inverse @ z)


def _coordinates(flow, p):
    """Two shears, z -> (u, v + tanh(M u)) and the same the other way round: a diffeomorphism with a closed inverse."""
    first, second = p["shears"]
    half = D // 2

    def phi(z):
        u, v = z[:half], z[half:]
        v = v + jnp.tanh(first @ u)
        return jnp.concatenate([u + jnp.tanh(second @ v), v])

    def inverse(z):
        u, v = z[:half], z[half:]
        u = u - jnp.tanh(second @ v)
        return jnp.concatenate([u, v - jnp.tanh(first @ u)])

    return flows.in_coordinates(flow, phi, inverse)


_CHANGED = {
    "linear": _linear,
    "coordinates": _coordinates,
    "pace": lambda flow, p: flows.in_time(flow, lambda s: s / 3, 0.0, 3.0),
    "time": lambda flow, p: flows.in_time(flow, lambda s: s + 0.5 * jnp.sin(2 * jnp.pi * s) / (2 * jnp.pi), 0.0, 1.0),
}


def solve(make_flow, params, *, steps=0, tolerance=0.0):
    """Outputs [seed, n, d] of the flows of all seeds, by Euler steps of equal length or an adaptive method of order 8.

    Args:
        make_flow: parameters of one seed -> its flow.
        params: with seeds on the leading axis; `x` [seed, n, d] are the points.
        steps: of Euler's method; 0 = adaptive.
        tolerance: relative and absolute, of the adaptive method.
    """
    import diffrax  # a second to import

    solver = diffrax.Euler() if steps else diffrax.Dopri8()
    controller = diffrax.ConstantStepSize() if steps else diffrax.PIDController(rtol=tolerance, atol=tolerance)

    def one(flow, x):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, _: flow.field(t, z)),
            solver,
            flow.start,
            flow.end,
            (flow.end - flow.start) / steps if steps else None,
            flow.read_in(x),
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True),
            max_steps=2**14,
        )
        return flow.read_out(solution.ys[0])

    def of_seed(p):
        flow = make_flow(p)
        return jax.vmap(lambda x: one(flow, x))(p["x"])

    return jax.jit(jax.vmap(of_seed))(params)


def _form(change, sigma, params):
    """Fields sigma(W z), in which A acts by W -> A W A^-1: the same function only if A commutes with sigma."""

    def of_form(p, a):
        (into, out), back = p["ends"], jnp.linalg.inv(a)
        w = a @ p["square"] @ back
        return flows.Flow(lambda t, z: sigma(w @ z), lambda x: a @ (into @ x), lambda z: out @ (back @ z))

    base = solve(lambda p: of_form(p, jnp.eye(D)), params, steps=STEPS[0])
    return {
        f"form_{name}": _gap(base, solve(lambda p, name=name: of_form(p, p["forms"][name]), params, steps=STEPS[0]))
        for name in params["forms"]
    }


def _gap(a, b):
    return jnp.abs(a - b).max((1, 2)) / jnp.abs(a).max((1, 2))
