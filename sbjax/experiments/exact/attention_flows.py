"""Neural differential equations in other coordinates and another time: a part of `attention`.

The field is that of a small network, dz/dt = V sigma(W z + c t + b); `diffrax` solves it by Euler steps and by an
adaptive method to several tolerances. Errors are relative to the output, the largest over points, the median over
seeds.
"""

import functools

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
    """One kind of change, each seed with its own field and its own map."""
    part = _form if task.change == "form" else _changed
    found = []
    for seed in range(plan.replicas):
        if stop():
            return None
        random = np.random.default_rng(np.asarray(jax.random.key_data(rng.replica_stream(key, "flow", seed))).tolist())
        found.append(part(task, random))
    cells = {name: measured([row[name] for row in found]) for name in found[0]}
    log(", ".join(f"{name} {cell['value']:.1e}" for name, cell in cells.items()))
    metrics = {name: [row[name] for row in found] for name in found[0]}
    if task.change == "form":
        cells["algebra"] = flows.activation_algebra(SIGMAS[task.sigma], D).dimension
    exact = "form_permutation" if task.change == "form" else f"tolerance_{len(TOLERANCES) - 1}"
    cells = {"change_of": task.change, "sigma": task.sigma, **cells}
    return result({"exact/error": metrics[exact], **{f"flow/{k}": v for k, v in metrics.items()}}, cells)


def _changed(task, random):
    flow, x = _flow(random, SIGMAS[task.sigma]), jnp.asarray(random.normal(size=(POINTS, D)))
    other = _CHANGED[task.change](flow, random)
    found = {}
    for steps in STEPS:
        found[f"euler_{steps}"] = _gap(*(solve(one, x, steps=steps) for one in (flow, other)))
    exact = solve(flow, x, tolerance=1e-13)
    for number, tolerance in enumerate(TOLERANCES):
        found[f"tolerance_{number}"] = _gap(exact, solve(other, x, tolerance=tolerance))
    return found


def _flow(random, sigma):
    w, v = (random.normal(size=shape) / np.sqrt(D) for shape in ((8, D), (D, 8)))
    b, c = random.normal(size=(2, 8))
    into, out = (random.normal(size=(D, D)) / np.sqrt(D) for _ in range(2))
    return flows.Flow(lambda t, z: v @ sigma(w @ z + c * t + b), lambda x: into @ x, lambda z: out @ z)


def _linear(flow, random):
    left, right = (scipy.linalg.expm(a - a.T) for a in random.normal(size=(2, D, D)))
    a = left * np.exp(random.uniform(-1, 1, D)) @ right
    inverse = np.linalg.inv(a)
    return flows.in_coordinates(flow, lambda z: a @ z, lambda z: inverse @ z)


def _coordinates(flow, random):
    """Two shears, z -> (u, v + tanh(M u)) and the same the other way round: a diffeomorphism with a closed inverse."""
    half = D // 2
    first, second = random.normal(size=(2, half, half))

    def phi(z):
        u, v = z[:half], z[half:]
        v = v + jnp.tanh(first @ u)
        return jnp.concatenate([u + jnp.tanh(second @ v), v])

    def inverse(z):
        u, v = z[:half], z[half:]
        u = u - jnp.tanh(second @ v)
        return jnp.concatenate([u, v - jnp.tanh(first @ u)])

    return flows.in_coordinates(flow, phi, inverse)


def _pace(flow, random):
    end = float(np.exp(random.uniform(0.5, 1)))
    return flows.in_time(flow, lambda s: s / end, 0.0, end)


def _time(flow, random):
    bend = random.uniform(0.3, 0.6)
    return flows.in_time(flow, lambda s: s + bend * jnp.sin(2 * jnp.pi * s) / (2 * jnp.pi), 0.0, 1.0)


_CHANGED = {"linear": _linear, "coordinates": _coordinates, "pace": _pace, "time": _time}


def solve(flow, x, *, steps=0, tolerance=0.0):
    """Outputs of a flow at points [n, d], by Euler steps of equal length or by an adaptive method of order 8."""
    import diffrax  # a second to import

    solver = diffrax.Euler() if steps else diffrax.Dopri8()
    controller = diffrax.ConstantStepSize() if steps else diffrax.PIDController(rtol=tolerance, atol=tolerance)
    first = (flow.end - flow.start) / steps if steps else None

    @jax.jit
    @jax.vmap
    def one(x):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, _: flow.field(t, z)),
            solver,
            flow.start,
            flow.end,
            first,
            flow.read_in(x),
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True),
            max_steps=2**14,
        )
        return flow.read_out(solution.ys[0])

    return one(x)


def _form(task, random):
    """Fields sigma(W z), in which A acts by W -> A W A^-1: the same function only if A commutes with sigma."""
    sigma, x = SIGMAS[task.sigma], jnp.asarray(random.normal(size=(POINTS, D)))
    w, into, out = (random.normal(size=(D, D)) / np.sqrt(D) for _ in range(3))
    permutation = np.eye(D)[random.permutation(D)]
    signs = random.permutation(np.array([-1.0, 1.0, -1.0, 1.0][:D]))
    maps = {
        "permutation": permutation,
        "signs": permutation * signs,
        "scales": permutation * np.exp(random.uniform(-1, 1, D)),
        "orthogonal": scipy.linalg.expm(3 * (w - w.T)) @ permutation,
    }
    solver = functools.partial(solve, x=x, steps=STEPS[0])
    base = solver(_of_form(sigma, w, into, out))
    found = {}
    for name, a in maps.items():
        back = np.linalg.inv(a)
        found[f"form_{name}"] = _gap(base, solver(_of_form(sigma, a @ w @ back, a @ into, out @ back)))
    return found


def _of_form(sigma, w, into, out):
    return flows.Flow(lambda t, z: sigma(w @ z), lambda x: into @ x, lambda z: out @ z)


def _gap(a, b):
    return float(jnp.abs(a - b).max() / jnp.abs(a).max())
