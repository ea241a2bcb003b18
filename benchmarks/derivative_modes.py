"""Ways to differentiate a residual, timed in gradient steps of every equation, and whether `choose_mode` is right.

    pip install -e '.[benchmarks]' && python benchmarks/derivative_modes.py [equation ..]
    python benchmarks/derivative_modes.py --record     # ends with the table of sbjax/tasks/derivative_record.py

A table in ms a step, in float32: 3 x 32 tanh on 2000 + 200 + 200 points for every equation, for a few 5 x 100 on
8192 + 2048 + 2048, and silu and random features, which 'mlp' cannot do. It is processor time on one core: how a step is
split over cores disturbs it more than the mode does. The modes take turns and the least of the turns counts, since what
disturbs a turn only lengthens it. A figure is the time of the mode that 'auto' chooses over that of the fastest. A mode
that cannot do an equation is left out.
"""

import argparse
import os
import sys
import time

import jax
from common import figure

from sbjax.models import make_field
from sbjax.physics.pdes import EQUATIONS, make_equation
from sbjax.tasks.derivative_record import net_of
from sbjax.tasks.field_partials import FIELD_MODES, choose_mode
from sbjax.tasks.pinn import Points, make_pinn_task

MODES = FIELD_MODES[1:]
STEPS = 2
TANH, SILU = {"activation": "tanh"}, {"activation": "silu"}
OTHERS = ("advection", "heat", "burgers", "kovasznay", "kdv", "euler_beam", "poisson_nd")
SIZES = [
    # (model, points, turns, equations)
    ({"widths": (32,) * 3, **TANH}, Points(2000, 200, 200), 15, tuple(EQUATIONS)),
    ({"widths": (32,) * 3, **SILU}, Points(2000, 200, 200), 15, OTHERS),
    ({"widths": (32,) * 3, **TANH, "features": 16}, Points(2000, 200, 200), 15, ("advection", "heat")),
    ({"widths": (100,) * 5, **TANH}, Points(8192, 2048, 2048), 5, ("burgers", "kdv")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("equations", nargs="*", help="only these")
    parser.add_argument("--record", action="store_true", help="print what 'auto' reads")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before jax starts and counts the cores
    only, rows = options.equations, {}
    sys.stdout.write(f"{'':44s}{''.join(f'{mode:>22s}' for mode in MODES)}\n")
    for model, points, turns, names in SIZES:
        for name in names:
            if not only or name in only:
                net, ms = compare(name, model, points, turns)
                rows.setdefault(net, {})[name] = ms
    if options.record:
        lines = [f"    {net!r}: {{\n" + "".join(f"        {name!r}: {ms},\n" for name, ms in row.items()) + "    },\n"
                 for net, row in rows.items()]  # fmt: skip
        sys.stdout.write("MS = {\n" + "".join(lines) + "}\n")


def compare(name, model, points, turns):
    """The row's net, and ms a step by mode."""
    equation = make_equation(name)
    box = {"lower": equation.lower, "upper": equation.upper}
    field = make_field("field", unknowns=len(equation.unknowns), dtype="float32", x64=False, **box, **model)
    runs = {}
    for mode in MODES:
        try:
            runs[mode] = gradient_steps(make_pinn_task(equation, field, points=points, derivatives=mode))
        except (ValueError, NotImplementedError):
            continue
    seconds = dict.fromkeys(runs, float("inf"))
    for mode in (*runs, *list(runs) * turns):
        began = time.process_time()
        runs[mode]()
        seconds[mode] = min(seconds[mode], (time.process_time() - began) / STEPS)
    net = net_of(field)
    label = f"{net.layers} x {net.width} {net.kind}"
    cells = [f"{1e3 * seconds[mode]:.2f}" if mode in seconds else "-" for mode in MODES]
    sys.stdout.write(f"{name:20s}{label:24s}{''.join(f'{cell:>22s}' for cell in cells)}\n")
    chosen = seconds[choose_mode("auto", equation, field)]
    figure(f"{name}, {label}: chosen mode over the fastest", chosen / min(seconds.values()), unit="ratio", bar=1.1)
    return net, {mode: float(f"{1e3 * value:.4g}") for mode, value in seconds.items()}


def gradient_steps(task):
    """A function that takes `STEPS` steps of gradient descent in one program."""
    key = jax.random.key(0)
    variables, batch = task.init(key), task.sample(task.data, key, 0)

    @jax.jit
    def descend(params):
        def step(_, params):
            slope = jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(params)
            return jax.tree.map(lambda p, s: p - 1e-4 * s, params, slope)

        return jax.lax.fori_loop(0, STEPS, step, params)

    descend = descend.lower(variables["params"]).compile()  # says here what a mode cannot do
    return lambda: jax.block_until_ready(descend(variables["params"]))


if __name__ == "__main__":
    main()
