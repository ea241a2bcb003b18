"""Time of the equation of state of QCD, 20 seeds in one program, and how accurate its pressure gets: `configs/qcd.py`.

    python benchmarks/qcd.py                     # both; the time of 2 arms x 5000 steps extrapolated from 100 steps
    python benchmarks/qcd.py --whole             # both arms from the first step to the last, compilation included
    python benchmarks/qcd.py --only=accuracy     # trains the raw arm whole
    python benchmarks/qcd.py --only=accuracy --parametrisation=hotqcd_points   # fits the points of lattice QCD

The accuracy is the largest relative error of P over temperatures from 0.155 to 0.4 GeV, of the median seed, against the
points of lattice QCD, 5 MeV apart, which the parametrisation itself misses by up to 0.72 %: at the last step, and at
each seed's best report by temperatures of validation, as the authors of the network keep the best of all epochs.
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
    """(reports, seconds of the whole training, median seconds of a step once compiled)."""
    from sbjax import config as config_lib
    from sbjax.frame.arms import precision
    from sbjax.runner.run import prepare
    from sbjax.training.fit import Hooks, fit

    config = runpy.run_path(str(ROOT / "configs" / "qcd.py"))["get_config"](options.parametrisation)
    config.replicas, config.train_steps = options.seeds, steps
    config.arms = {name: config.arms[name]}
    config.reference = name
    plan = config_lib.read(config)
    began, pulses, at = time.perf_counter(), [], [0]

    def pulse(step, seconds, compiled):
        if not compiled:
            pulses.append(seconds / (step - at[0]))
        at[0] = step

    with precision(plan.precision):
        built = prepare(plan).built
        (arm,) = built.arms
        fitted = fit(
            arm.task,
            arm.phases[0].optimizer,
            steps=steps,
            replicas=options.seeds,
            key=jax.random.key(plan.seed),
            reports=plan.reports,
            placement=built.placement,
            hooks=Hooks(on_pulse=pulse),
        )
    return fitted.history, time.perf_counter() - began, float(np.median(pulses))


def lattice_errors(history):
    """Largest relative error of P at the points of the lattice, by seed: at the last step, and at the best report."""
    chosen_on, errors = (
        np.array([record[name] for record in history if record["step"]], float)
        for name in ("validation/mae_pressure", "lattice/worst_pressure")
    )
    best = np.argmin(np.nan_to_num(chosen_on, nan=np.inf), 0)
    return {"last step": errors[-1], "best report": errors[best, np.arange(errors.shape[1])]}


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
            _, seconds, step = done or train(name, steps, options)
            minutes += (seconds + (STEPS - steps) * step) / 60
        figure("qcd/time", minutes, unit="minutes", bar=MINUTES, measured_steps=steps, seeds=options.seeds)
    if options.only != "time":
        for name, (history, seconds, _) in whole.items():
            for when, errors in lattice_errors(history).items():
                figure(
                    f"qcd/{name}/lattice, {when}",
                    float(np.nanmedian(errors)),
                    unit="relative",
                    bar=0.01,
                    least=np.nanmin(errors),
                    largest=np.nanmax(errors),
                    seconds=seconds,
                )


if __name__ == "__main__":
    main()
