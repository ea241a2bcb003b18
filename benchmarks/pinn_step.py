"""A training step of Burgers' equation against DeepXDE and PyTorch, and many seeds in one program.

    pip install -e '.[benchmarks]' && python benchmarks/pinn_step.py

One step is loss, gradient and Adam, in float32; the network is 5 x 100 tanh on 8192 points inside, 2048 on the boundary
and 2048 at t = 0. All contenders start from the same weights on the same points and must agree on the loss, then and
after `AGREE_STEPS` steps. Each lives in a process of its own, since their thread pools get in one another's way; they
take turns, and a ratio is the median over turns. They are

    sbjax       task and Program, as a user gets them; draws its points and checks for finite numbers as well
    deepxde     DeepXDE's JAX backend and its own compiled step, with the points as anchors and point sets. It takes the
                residual at the points of the conditions too and drops it; with its own samplers there are more of them
    autograd    PyTorch, torch.autograd.grad with create_graph
    by hand     PyTorch, value, u_x, u_xx and u_t carried through the layers

PyTorch has one thread or all, whichever is faster on the machine as it is.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from common import alternate, figure

NU = 0.01 / np.pi
WIDTHS, INTERIOR, FACES = (100,) * 5, 8192, 2048
RATE, AGREE_STEPS = 1e-3, 10
STEPS, ROUNDS = 5, 7
SEEDS, SEED_STEPS, RUN_STEPS = 20, 50, 2000
Run = Callable[[int], float]  # trains for so many steps; returns the loss where it then is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FILE"), help="one contender, as the child process")
    child = parser.parse_args().child
    if child:
        serve(*child)
        return
    against_others()
    for interior, faces in ((500, 50), (2000, 200)):
        many_seeds(interior, faces)


def against_others() -> None:
    with contextlib.ExitStack() as stack:
        file = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "start.npz")
        children = {name: stack.enter_context(_child(name, file)) for name in CONTENDERS}  # the first writes the file
        losses = {name: [_ask(c, 0)["loss"], _ask(c, AGREE_STEPS)["loss"]] for name, c in children.items()}
        turns = []
        for _ in range(ROUNDS):
            turns.append({name: _ask(c, STEPS)["seconds"] / STEPS for name, c in children.items()})

    ms = {f"{name.replace(' ', '_')}_ms": 1e3 * statistics.median(t[name] for t in turns) for name in CONTENDERS}
    name = "Burgers, 5 x 100, training step"
    ratio = statistics.median(turn["sbjax"] / turn["deepxde"] for turn in turns)
    figure(f"{name}, over DeepXDE on JAX", ratio, unit="ratio", bar=0.4, **ms)
    ratio = statistics.median(turn["sbjax"] / min(turn["autograd"], turn["by hand"]) for turn in turns)
    figure(f"{name}, over the faster PyTorch", ratio, unit="ratio", bar=1.0)
    for i, (when, bar) in enumerate([("at the start", 1e-4), (f"after {AGREE_STEPS} steps", 1e-3)]):
        ours = losses["sbjax"][i]
        worst = max(abs(loss[i] - ours) / ours for loss in losses.values())
        figure(f"{name}, largest relative difference of the loss {when}", worst, unit="ratio", bar=bar, loss=ours)


def many_seeds(interior: int, faces: int) -> None:
    """20 seeds as the replicas of one program against 20 runs of a program of one seed: the steps alone, and runs of
    `RUN_STEPS` steps that each compile their program, as 20 calls of `runs/train.py` do."""
    import jax

    programs = [program(widths=(32,) * 3, interior=interior, faces=faces, replicas=n, seed=n) for n in (1, SEEDS)]
    carries = [p.init() for p in programs]

    def run(i, times):
        for _ in range(times):
            carries[i] = programs[i].advance(carries[i], 0, SEED_STEPS)
        jax.block_until_ready(carries[i])

    compiling = []
    for i in range(2):
        began = time.perf_counter()
        run(i, 1)
        compiling.append(time.perf_counter() - began)
    contenders = {"one by one": lambda: run(0, SEEDS), "together": lambda: run(1, 1)}
    seconds = alternate(contenders, rounds=5)
    times = RUN_STEPS / SEED_STEPS
    one_by_one = times * seconds["one by one"] + SEEDS * compiling[0]
    together = times * seconds["together"] + compiling[1]
    name = f"{SEEDS} seeds of Burgers, 3 x 32, {interior} + {faces} + {faces} points, over one by one"
    figure(
        f"{name}, steps alone",
        seconds["together"] / seconds["one by one"],
        unit="ratio",
        bar=0.6,
        together_ms=1e3 * seconds["together"] / SEED_STEPS,
        one_by_one_ms=1e3 * seconds["one by one"] / SEED_STEPS,
    )
    figure(
        f"{name}, runs of {RUN_STEPS} steps with their compilation",
        together / one_by_one,
        unit="ratio",
        bar=0.6,
        together_s=together,
        one_by_one_s=one_by_one,
    )


# Contenders, each (file of the start) -> Run


def program(*, widths, interior, faces, replicas=1, seed=0):
    """Burgers as a user trains it, with the default placement."""
    import jax

    from sbjax.models import make_field
    from sbjax.optimizers import Adam
    from sbjax.physics.pdes import make_equation
    from sbjax.tasks.pinn import Points, make_pinn_task
    from sbjax.training.placement import Placement, Program

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    equation = make_equation("burgers")
    box = {"lower": equation.lower, "upper": equation.upper}
    field = make_field("field", unknowns=1, widths=widths, dtype="float32", x64=False, **box)
    task = make_pinn_task(equation, field, points=Points(interior, faces, faces))
    optimizer = Adam().make(RATE)
    return Program(task, optimizer, placement=Placement(), replicas=replicas, key=jax.random.key(seed))


def make_sbjax(file: str) -> Run:
    """Writes the file."""
    import jax

    from sbjax.training.step import draw

    ours = program(widths=WIDTHS, interior=INTERIOR, faces=FACES)
    carry, task = [ours.init()], ours._task
    params = jax.tree.map(lambda leaf: np.asarray(leaf[0]), carry[0][0].variables["params"])
    batch, noise = draw(task, task.data, ours._key, 0, 0)
    layers = {f"{k}_{i}": params[f"dense_{i}"][k] for i in range(len(params)) for k in ("kernel", "bias")}
    points = {name: np.asarray(batch[name]) for name in ("interior", "u_on_x", "initial_u")}
    np.savez(file, **layers, **points)
    loss = jax.jit(lambda variables: task.loss(variables, batch, noise)[0])

    def run(steps):
        carry[0] = ours.advance(carry[0], 0, steps) if steps else carry[0]
        return lambda: float(loss(jax.tree.map(lambda leaf: leaf[0], carry[0][0].variables)))

    return run


def make_deepxde(file: str) -> Run:
    os.environ["DDE_BACKEND"] = "jax"
    with contextlib.redirect_stdout(sys.stderr):
        import deepxde as dde
    import jax.numpy as jnp

    start = np.load(file)

    def pde(x, y):
        value, _ = y
        u_x, _ = dde.grad.jacobian(y, x, i=0, j=0)
        u_t, _ = dde.grad.jacobian(y, x, i=0, j=1)
        u_xx, _ = dde.grad.hessian(y, x, i=0, j=0)
        return u_t + value * u_x - NU * u_xx

    domain = dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, 1))
    conditions = [
        dde.icbc.PointSetBC(start["u_on_x"], np.zeros((FACES, 1))),
        dde.icbc.PointSetBC(start["initial_u"], -np.sin(np.pi * start["initial_u"][:, :1])),
    ]
    data = dde.data.TimePDE(domain, pde, conditions, anchors=start["interior"])
    model = dde.Model(data, dde.nn.FNN([2, *WIDTHS, 1], "tanh", "Glorot normal"))
    with contextlib.redirect_stdout(sys.stderr):
        model.compile("adam", lr=RATE, verbose=0)
    weights = {
        f"denses_{i}": {k: jnp.asarray(start[f"{k}_{i}"]) for k in ("kernel", "bias")} for i in range(len(WIDTHS) + 1)
    }
    state = [[{"params": weights}, []], model.opt_state]
    inputs, targets = data.train_x, data.train_y

    def run(steps):
        for _ in range(steps):
            state[:] = model.train_step(*state, inputs, targets)
        state[0][0]["params"]["denses_0"]["bias"].block_until_ready()
        return lambda: float(sum(model.outputs_losses_train(state[0], inputs, targets)[1]))

    return run


def make_torch(file: str, interior_partials) -> Run:
    import torch

    start = np.load(file)
    tensors = [
        tuple(torch.tensor(start[f"{k}_{i}"], requires_grad=True) for k in ("kernel", "bias"))
        for i in range(len(WIDTHS) + 1)
    ]
    inside, faces, initial = (torch.tensor(start[name]) for name in ("interior", "u_on_x", "initial_u"))
    first = -torch.sin(torch.pi * initial[:, :1])
    optimizer = torch.optim.Adam([tensor for layer in tensors for tensor in layer], RATE)

    def apply(x):
        for weight, bias in tensors[:-1]:
            x = torch.tanh(torch.addmm(bias, x, weight))
        return torch.addmm(tensors[-1][1], x, tensors[-1][0])

    def loss():
        u, u_x, u_xx, u_t = interior_partials(tensors, apply, inside)
        found = [u_t + u * u_x - NU * u_xx, apply(faces), apply(initial) - first]
        return sum((r**2).mean() for r in found)

    def run(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        return lambda: loss().item()

    def with_threads(threads):
        torch.set_num_threads(threads)
        loss().backward()

    seconds = alternate({n: lambda n=n: with_threads(n) for n in {1, os.cpu_count()}}, rounds=5)
    torch.set_num_threads(min(seconds, key=seconds.get))
    return run


def make_autograd(file: str) -> Run:
    import torch

    def partials(tensors, apply, points):
        x, t = (points[:, i : i + 1].clone().requires_grad_() for i in range(2))
        u = apply(torch.cat([x, t], 1))
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return u, u_x, u_xx, u_t

    return make_torch(file, partials)


def make_by_hand(file: str) -> Run:
    import torch

    def partials(tensors, apply, points):
        (weight, bias), *rest = tensors
        u, u_x, u_t = torch.addmm(bias, points, weight), weight[:1], weight[1:]
        u_xx = None
        for weight, bias in rest:
            u = torch.tanh(u)
            slope = 1 - u * u
            curve = -2 * u * slope
            u_xx = curve * u_x**2 if u_xx is None else curve * u_x**2 + slope * u_xx
            u_x, u_t = slope * u_x, slope * u_t
            u, (u_x, u_xx, u_t) = torch.addmm(bias, u, weight), (part @ weight for part in (u_x, u_xx, u_t))
        return u, u_x, u_xx, u_t

    return make_torch(file, partials)


CONTENDERS = {"sbjax": make_sbjax, "deepxde": make_deepxde, "autograd": make_autograd, "by hand": make_by_hand}


# Processes: a number of steps in, seconds and the loss out


def serve(name: str, file: str) -> None:
    run = CONTENDERS[name](file)
    for line in sys.stdin:
        began = time.perf_counter()
        loss = run(int(line))
        seconds = time.perf_counter() - began
        sys.stdout.write(json.dumps({"seconds": seconds, "loss": loss()}) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _child(name, file):
    command = [sys.executable, __file__, "--child", name, file]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        _ask(process, 0)
        yield process
        process.stdin.close()


def _ask(process, steps):
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a contender ended: {' '.join(process.args)}")
    return json.loads(line)


if __name__ == "__main__":
    main()
