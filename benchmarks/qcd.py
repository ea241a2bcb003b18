"""Time of the equation of state of QCD, 20 seeds in one program, and how accurate its pressure gets: `configs/qcd.py`.

    python benchmarks/qcd.py                     # both; the time of 2 arms x 5000 steps extrapolated from 100 steps
    python benchmarks/qcd.py --whole             # both arms from the first step to the last, compilation included
    python benchmarks/qcd.py --only=accuracy     # trains the raw arm whole
    python benchmarks/qcd.py --only=accuracy --parametrisation=hotqcd_points   # fits the points of lattice QCD

The accuracy is the largest relative error of P over temperatures from 0.155 to 0.4 GeV, of the median seed, against the
points of lattice QCD, 5 MeV apart, which the parametrisation itself misses by up to 0.72 %; and, beside the figure,
against the parametrisation at temperatures half-way between those of the training.
"""

import argparse
import pathlib
import runpy
import time

import jax
import numpy as np
from common import figure

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 5000
MINUTES = 30  # for 20 seeds x 2 arms x 5000 steps


def train(name, steps, options):
    """(fitted, arm, seconds of the whole training, median seconds of a step once compiled)."""
    from sbjax import arms, build
    from sbjax import config as config_lib
    from sbjax.training.fit import Hooks, fit

    config = runpy.run_path(str(ROOT / "configs" / "qcd.py"))["get_config"](options.parametrisation)
    config.replicas, config.train_steps, config.reports = options.seeds, steps, 2
    config.arms = {name: config.arms[name]}
    config.reference = name
    settings = config_lib.check(config)
    began, pulses, at = time.perf_counter(), [], [0]

    def pulse(step, seconds, compiled):
        if not compiled:
            pulses.append(seconds / (step - at[0]))
        at[0] = step

    with arms.precision(settings["precision"]):
        (arm,) = arms.build_arms(settings)
        fitted = fit(
            arm.task,
            arm.phases[0].optimizer,
            steps=steps,
            replicas=options.seeds,
            key=jax.random.key(settings["seed"]),
            reports=settings["reports"],
            mapping=build.build_mapping(settings["mapping"]),
            hooks=Hooks(on_pulse=pulse),
        )
    return fitted, arm, time.perf_counter() - began, float(np.median(pulses))


def lattice_error(fitted, arm):
    """Largest relative error of P against the rows of the lattice table, by seed."""
    from sbjax.physics.lattice import HOTQCD_ROWS

    T = arm.task.grid.points[:, 0]
    rows = HOTQCD_ROWS[HOTQCD_ROWS[:, 0] > T[0] - 1e-9]
    pressure = np.asarray(jax.jit(jax.vmap(arm.task.grid.predict))(fitted.variables))[..., 0]
    at = np.array([np.interp(rows[:, 0], T, p) for p in pressure])  # the rows lie on the grid
    return np.max(np.abs(at / rows[:, 2] - 1), -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("time", "accuracy"), help="one of the two")
    parser.add_argument("--whole", action="store_true", help="train both arms whole instead of extrapolating")
    parser.add_argument("--steps", type=int, default=100, help="steps that the time is extrapolated from")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--parametrisation", default="hotqcd_2014", help="or hotqcd_points: fit the lattice itself")
    parser.add_argument("--cpu_devices", type=int, default=2, help="emulated devices that seeds are spread over")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    wanted = ("raw", "expanded") if options.whole else ("raw",) if options.only != "time" else ()
    whole = {name: train(name, STEPS, options) for name in wanted}
    if options.only != "accuracy":
        minutes, steps = 0.0, STEPS if options.whole else options.steps
        for name in ("raw", "expanded"):
            done = whole.get(name) if options.whole else None
            _, _, seconds, step = done or train(name, steps, options)
            minutes += (seconds + (STEPS - steps) * step) / 60
        figure("qcd/time", minutes, unit="minutes", bar=MINUTES, measured_steps=steps, seeds=options.seeds)
    if options.only != "time":
        for name, (fitted, arm, seconds, _) in whole.items():
            errors = lattice_error(fitted, arm)
            details = {
                "least": np.nanmin(errors),
                "largest": np.nanmax(errors),
                "parametrisation": np.nanmedian(np.array(fitted.history[-1]["test/worst_pressure"], float)),
                "seconds": seconds,
            }
            figure(f"qcd/{name}/lattice", float(np.nanmedian(errors)), unit="relative", bar=0.01, **details)


if __name__ == "__main__":
    main()
