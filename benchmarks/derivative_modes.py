"""Ways to differentiate a residual, timed in gradient steps of every equation, and whether `choose_mode` is right.

    pip install -e '.[benchmarks]' && python benchmarks/derivative_modes.py [equation ..]

A table in ms a step, in float32: 3 x 32 tanh on 2000 + 200 + 200 points for every equation, for a few 5 x 100 on
8192 + 2048 + 2048, and silu, which 'mlp' cannot do. The modes take turns; the least of the turns counts, since what
disturbs a turn only lengthens it. A figure is the time of the mode that 'auto' chooses over that of the fastest. A mode
that cannot do an equation is left out.
"""

import argparse
import sys

import jax
from common import figure, least

from sbjax.models import make_field
from sbjax.physics.pdes import EQUATIONS, make_equation
from sbjax.tasks.field_partials import FIELD_MODES, choose_mode
from sbjax.tasks.pinn import Points, make_pinn_task

MODES = FIELD_MODES[1:]
SIZES = {
    # name: (widths, activation, points, steps in a turn, equations)
    "3 x 32": ((32,) * 3, "tanh", Points(2000, 200, 200), 10, tuple(EQUATIONS)),
    "5 x 100": ((100,) * 5, "tanh", Points(8192, 2048, 2048), 2, ("burgers", "kovasznay", "kdv", "euler_beam")),
    "3 x 32 silu": ((32,) * 3, "silu", Points(2000, 200, 200), 10, ("advection", "heat", "kovasznay", "kdv")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("equations", nargs="*", help="only these")
    only = parser.parse_args().equations
    sys.stdout.write(f"{'':32s}{''.join(f'{mode:>22s}' for mode in MODES)}\n")
    for size, (widths, activation, points, steps, names) in SIZES.items():
        for name in names:
            if not only or name in only:
                compare(name, size, {"widths": widths, "activation": activation}, points, steps)


def compare(name, size, model, points, steps) -> None:
    equation = make_equation(name)
    box = {"lower": equation.lower, "upper": equation.upper}
    field = make_field("field", unknowns=len(equation.unknowns), dtype="float32", x64=False, **box, **model)
    runs = {}
    for mode in MODES:
        try:
            runs[mode] = gradient_steps(make_pinn_task(equation, field, points=points, derivatives=mode), steps)
        except (ValueError, NotImplementedError):
            continue
    seconds = {mode: value / steps for mode, value in least(runs, rounds=5).items()}
    cells = [f"{1e3 * seconds[mode]:.2f}" if mode in seconds else "-" for mode in MODES]
    sys.stdout.write(f"{name:20s}{size:12s}{''.join(f'{cell:>22s}' for cell in cells)}\n")
    chosen = seconds[choose_mode("auto", equation, field)]
    figure(f"{name}, {size}: chosen mode over the fastest", chosen / min(seconds.values()), unit="ratio", bar=1.1)


def gradient_steps(task, steps):
    """A function that takes so many steps of gradient descent in one program."""
    key = jax.random.key(0)
    variables, batch = task.init(key), task.sample(task.data, key, 0)

    @jax.jit
    def descend(params):
        def step(_, params):
            slope = jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(params)
            return jax.tree.map(lambda p, s: p - 1e-4 * s, params, slope)

        return jax.lax.fori_loop(0, steps, step, params)

    descend = descend.lower(variables["params"]).compile()  # says here what a mode cannot do
    return lambda: jax.block_until_ready(descend(variables["params"]))


if __name__ == "__main__":
    main()
