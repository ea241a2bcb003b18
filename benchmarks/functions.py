"""Time of the grid of fits of functions, `configs/functions.py:all`: 10 functions x 39 arms x 10 seeds by L-BFGS.

    python benchmarks/functions.py               # extrapolated from one seed of every arm of two functions
    python benchmarks/functions.py --whole       # everything, compilation included

The fits that the time is extrapolated from run to their end: seconds depend on how soon a fit reaches its tolerance.
"""

import argparse
import pathlib
import runpy
import time

import jax
from common import figure

ROOT = pathlib.Path(__file__).parents[1]
MINUTES = 60
SAMPLED = ("gauss", "square")  # one that may end early, one that does not


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="all functions and seeds instead of extrapolating")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each arm that the time is extrapolated from")
    parser.add_argument("--cpu_devices", type=int, default=2, help="emulated devices that fits are spread over")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")

    from sbjax import config as config_lib
    from sbjax.experiments.functions.grid import run_grid
    from sbjax.runner.run import prepare
    from sbjax.tasks import regression

    plan = config_lib.read(runpy.run_path(str(ROOT / "configs" / "functions.py"))["get_config"]("sine"))
    _, arms, shared = prepare(plan).built
    names = list(regression.TARGETS) if options.whole else SAMPLED
    seeds = plan.replicas if options.whole else options.seeds
    minutes, compiled = 0.0, 0.0
    for name in names:
        points = regression.make_points(regression.make_target(name), plan.task.points, plan.task.test_points)
        began, first = time.perf_counter(), []
        run_grid(
            points, arms, replicas=seeds, key=jax.random.key(plan.seed),
            widths=shared.widths, steps=plan.train_steps,
            tolerance=plan.task.tolerance, records=plan.reports,
            on_done=lambda arm, replica, seconds, first=first: first.append(seconds),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        # Later functions find the program compiled; the first one's first fit is compilation for the most part.
        share = plan.replicas * len(regression.TARGETS) / (seeds * len(names))
        compiled = compiled or first[0]
        minutes += (seconds - (first[0] if name == names[0] else 0)) * share / 60
    minutes += compiled / 60
    fits = len(arms) * plan.replicas * len(regression.TARGETS)
    figure(
        "functions/time", minutes, unit="minutes", bar=MINUTES, fits=fits, measured_fits=len(arms) * seeds * len(names)
    )


if __name__ == "__main__":
    main()
