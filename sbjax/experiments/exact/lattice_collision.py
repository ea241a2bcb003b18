"""Networks for the collision of a lattice gas: plain, augmented, averaged over the lattice's symmetries, equivariant.

The target is the relaxation of Bhatnagar, Gross and Krook on D2Q9, known in closed form, seen at few random states. All
networks are one hidden layer beside a linear map, read f_i / (w_i rho) - 1 and give the update in the same units: all
scale with the density. An equivariant layer ties the 81 entries between two fields of nine populations to 15.
Trained networks then drive a decaying Taylor-Green vortex, whose solution is known.

Source of the task: arXiv 2405.13850 and 2212.06124; sizes are ours.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import rng, trees
from sbjax.common.options import option
from sbjax.experiments.exact.experiment import ExactExperiment, counted, measured, over, result
from sbjax.experiments.exact.training import train
from sbjax.frame.errors import ConfigError
from sbjax.physics import lattice_boltzmann as lb

METHODS = ("plain", "augmented", "averaged", "equivariant")
TESTED, FLOW_STEPS, DIVERGED = 2000, 200, 1.0
W = lb.WEIGHTS


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("lattice_collision", "which experiment with closed forms")
    method: str = option("plain", "how the symmetry of the lattice is used", choices=METHODS)
    conserving: bool = option(False, "project the update, so that mass and momentum are conserved")
    points: int = option(100, "states for training", least=1, most=10**6)
    batch_size: int = option(100, "states in a step, drawn from them", least=1, most=10**5)
    fields: int = option(4, "hidden fields of nine populations", least=1, most=100)
    learning_rate: float = option(3e-3, "of Adam, falling to zero", above=0, most=1)
    tau: float = option(0.8, "relaxation time of the target in steps", above=0.5, most=10)
    speed: float = option(0.1, "largest velocity of training states", above=0, below=0.5)
    spread: float = option(0.02, "of training states beyond equilibrium, relative", above=0, below=0.5)
    nodes: int = option(32, "of the vortex, a side", least=4, most=1000)
    flow_speed: float = option(0.05, "largest velocity of the vortex", above=0, below=0.3)


def check(plan, arm):
    """Refuse single precision.

    Raises:
        ConfigError: single precision.
    """
    if not plan.precision.x64:
        raise ConfigError("precision.x64=False: conservation to rounding needs double precision; set it to True")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task, seeds = arm.task, plan.replicas
    return {"states of all seeds": 8 * 9 * seeds * task.points, "vortices": 8 * 9 * seeds * task.nodes**2}


def run_arm(plan, arm, key, log, stop):
    """Train `replicas` networks, each on its own states, then let each of them drive the vortex."""
    task, seeds = arm.task, plan.replicas
    streams = [[rng.replica_stream(key, name, seed) for seed in range(seeds)] for name in ("states", "tests", "start")]
    drawn, tested, keys = (jnp.stack(found) for found in streams)
    data = jax.vmap(lambda one: _states(one, task, task.points))(drawn)
    tests = jax.vmap(lambda one: _states(one, task, TESTED))(tested)
    if task.method == "augmented":
        data = jax.vmap(_copies)(data)
    params = trees.stack([init_network(one, task.fields, equivariant=task.method == "equivariant") for one in keys])

    def loss(params, states, key):
        batch = states[jax.random.randint(key, (min(task.batch_size, task.points),), 0, len(states))]
        wrong = network(params, task)(batch) - lb.relaxation(batch, task.tau)
        return jnp.mean((wrong / (W * task.spread)) ** 2)

    params = train(loss, params, data, keys, steps=plan.train_steps, rate=task.learning_rate, stop=stop)
    if params is None:
        return None
    found = jax.jit(jax.vmap(lambda params, f: _measures(network(params, task), f, task)))(params, tests)
    found = {name: np.asarray(values) for name, values in found.items()}
    settled = np.isfinite(found["flow/error"]) & (found["flow/error"] < DIVERGED)
    found["flow/error"] = np.where(settled, found["flow/error"], DIVERGED)
    floor = _floor(task.nodes, task.flow_speed, task.tau)
    log(f"relative error {np.median(found['test/error']):.3g}, after the flow {np.median(found['flow/error']):.3g}")
    cells = {
        "method": task.method,
        "conserving": "yes" if task.conserving else "no",
        "points": task.points,
        "parameters": trees.size(trees.take(params, 0)),
        "products": products(task),
        "error": measured(found["test/error"]),
        "violation": measured(found["test/violation"]),
        "drift": measured(found["test/drift"]),
        "stable": counted(settled),
        "flow": measured(found["flow/error"]),
        "floor": float(floor["flow/error"]),
        "rate": measured(found["flow/rate"][settled]) if settled.any() else None,
        "exact_rate": float(floor["flow/rate"]),
    }
    return result(found, cells, cells["parameters"])


def init_network(key, fields, *, equivariant):
    """Weights of a linear map beside a hidden layer of 9 `fields` units, Glorot-normal as dense layers.

    >>> sum(leaf.size for leaf in jax.tree.leaves(init_network(jax.random.key(0), 4, equivariant=True)))
    150
    """
    keys, q = jax.random.split(key, 3), lb.Q
    shapes = {"skip": (1, 1), "hidden": (fields, 1), "out": (1, fields)}
    tree = {}
    for one, (name, (outputs, inputs)) in zip(keys, shapes.items()):
        scale = np.sqrt(2 / (q * (inputs + outputs)))
        shape = (outputs, inputs, 15) if equivariant else (q * inputs, q * outputs)
        tree[name] = {"kernel": scale * rng.normal(one, shape)}  # shapes share programs
        if name != "skip":
            tree[name]["bias"] = jnp.zeros((outputs, 3) if equivariant else q * outputs)
    return tree


def network(params, task):
    """The collision of a network: populations [.., 9] -> their update."""
    dense = params
    if task.method == "equivariant":
        dense = {
            name: {
                part: (lb.equivariant_kernel if part == "kernel" else lb.equivariant_bias)(leaf)
                for part, leaf in layer.items()
            }
            for name, layer in params.items()
        }

    def collision(f):
        rho = f.sum(-1, keepdims=True)
        x = (f / (W * rho) - 1) / (3 * task.speed)
        hidden = jax.nn.gelu(x @ dense["hidden"]["kernel"] + dense["hidden"]["bias"], approximate=False)
        y = x @ dense["skip"]["kernel"] + hidden @ dense["out"]["kernel"] + dense["out"]["bias"]
        return W * rho * task.spread * y

    found = lb.averaged(collision) if task.method == "averaged" else collision
    return (lambda f: lb.conserving(found(f))) if task.conserving else found


def products(task):
    """Multiplications by weights in one collision at one node.

    >>> import types
    >>> [products(types.SimpleNamespace(method=name, fields=4)) for name in ("plain", "averaged")]
    [729, 5832]
    """
    once = lb.Q**2 * (1 + 2 * task.fields)
    return once * (len(lb.PERMUTATIONS) if task.method == "averaged" else 1)


def _states(key, task, count):
    """Random states [count, 9]: a density near 1, a velocity in a disc, a part beyond equilibrium without either."""
    densities, lengths, angles, beyond = jax.random.split(key, 4)
    rho = jax.random.uniform(densities, (count,), minval=0.95, maxval=1.05)
    length = task.speed * jnp.sqrt(jax.random.uniform(lengths, (count,)))
    angle = jax.random.uniform(angles, (count,), maxval=2 * jnp.pi)
    u = length[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    rest = lb.conserving(W * task.spread * jax.random.normal(beyond, (count, lb.Q)))
    return lb.equilibrium(rho, u) + rho[:, None] * rest


def _copies(f):
    """The states, turned and mirrored in all eight ways."""
    return jnp.concatenate([lb.moved(f, g) for g in range(len(lb.PERMUTATIONS))])


def _measures(collision, f, task):
    """Errors at test states, and of the vortex that the collision drives."""
    exact, found = lb.relaxation(f, task.tau), collision(f)
    turned, moved = (jnp.stack([lb.moved(x, g) for g in range(len(lb.PERMUTATIONS))]) for x in (f, found))
    drift = jnp.concatenate([found.sum(-1, keepdims=True), found @ lb.VELOCITIES], -1)
    return {
        "test/error": _size((found - exact) / W) / _size(exact / W),
        "test/violation": _size((moved - collision(turned)) / W) / _size(exact / W),
        "test/drift": _size(drift) / _size(exact),
        **_flow(collision, task.nodes, task.flow_speed, task.tau),
    }


def _flow(collision, nodes, speed, tau):
    start = lb.taylor_green(nodes, speed, tau)
    end = lb.simulate(start, collision, FLOW_STEPS)
    before, after = lb.moments(start)[1], lb.moments(end)[1]
    expected = 2 * lb.viscosity(tau) * (2 * jnp.pi / nodes) ** 2
    aim = before * jnp.exp(-expected * FLOW_STEPS)
    return {
        "flow/error": _size(after - aim) / _size(aim),
        "flow/rate": jnp.log(_size(before) / _size(after)) / FLOW_STEPS / expected,
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _floor(nodes, speed, tau):
    """What the exact collision leaves of the vortex's error: one for all arms."""
    return _flow(lambda f: lb.relaxation(f, tau), nodes, speed, tau)


def _size(x):
    return jnp.sqrt(jnp.mean(x**2))


def compare(found):
    """Each arm against the plain one with as many states, and against that on copies: ratios of errors by seed."""
    plain, copies = {"method": "plain", "conserving": "no"}, {"method": "augmented"}
    return over(
        found,
        ["points"],
        {"gain": (plain, "test/error"), "flow_gain": (plain, "flow/error"), "over_copies": (copies, "test/error")},
    )


EXPERIMENT = ExactExperiment(
    Fields,
    title="Networks for the collision of a lattice gas",
    columns={
        "method": "method",
        "conserving": "conserving",
        "points": "states",
        "parameters": "parameters",
        "products": "products a node",
        "error": "relative test error",
        "gain": "over plain",
        "over_copies": "over augmented",
        "violation": "violation of the symmetry",
        "drift": "mass and momentum made",
        "stable": "vortices that stay",
        "flow": "error of the vortex",
        "flow_gain": "over plain, vortex",
        "floor": "of the exact collision",
        "rate": "rate of decay over the analytic one",
        "exact_rate": "of the exact collision, rate",
    },
    note="Medians and quartiles over seeds; over plain: median of the ratio, seed by seed, with its 95 % interval. The "
    f"vortex after {FLOW_STEPS} steps, against the analytic one; an error of 100 % and more, or none, counts as 100 %.",
    digits=3,
    primary="test/error",
    smoke={"nodes": 8},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
    compare=compare,
)
