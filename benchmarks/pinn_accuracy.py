"""How accurate a physics-informed network gets in a given time, in float64, with the config `pdes.py:<name>,accurate`.

    python benchmarks/pinn_accuracy.py                         # all bars below: hours
    python benchmarks/pinn_accuracy.py --only=poisson,wave     # some of them

All seeds train in one program; the time is the wall time of all of them together, compilation included. Training is
cut off when the time is up or the strictest bar is reached. The figure is the median over seeds of the relative L2
error at the last report in time, against the equation's reference; points of the test were not trained on.
"""

import argparse
import pathlib
import runpy
import time

import jax
import numpy as np
from common import figure

ROOT = pathlib.Path(__file__).parents[1]
# Minutes, and the error to be reached by then.
BARS = {
    "poisson": [(5, 1e-6)],
    "poisson_robin": [(5, 1e-6)],
    "poisson_multiscale": [(5, 1e-6)],
    "euler_beam": [(5, 1e-6)],
    "helmholtz": [(5, 1e-6)],
    "burgers": [(10, 1e-5), (60, 1e-7)],
    "wave": [(15, 1e-3)],
    "allen_cahn": [(30, 1e-4)],
    "kdv": [(30, 1e-3)],
}


def measure(name, bars, seeds):
    """[(seconds, step, errors of all seeds)] at every report, until the last bar is reached or its time is up."""
    from sbjax import config as config_lib
    from sbjax.frame.arms import precision
    from sbjax.runner.run import prepare
    from sbjax.training.fit import Hooks, fit

    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"](f"{name},accurate")
    config.replicas = seeds
    config.reports = 40
    plan = config_lib.read(config)
    began, reports = time.perf_counter(), []

    minutes, bar = bars[-1]

    def spent():
        return time.perf_counter() - began

    def report(record):
        errors = sorted(np.inf if error is None else error for error in record["test/l2"])
        reports.append((spent(), record["step"], errors))
        shown = ", ".join(f"{error:.1e}" for error in errors)
        print(f"{name}: step {record['step']}, {reports[-1][0]:.0f} s: {shown}", flush=True)

    with precision(plan.precision):
        built = prepare(plan).built
        (arm,) = built.arms
        fit(
            arm.task,
            arm.phases[0].optimizer,
            steps=arm.phases[0].steps,
            second_phase=arm.phases[1],
            replicas=seeds,
            key=jax.random.key(plan.seed),
            reports=plan.reports,
            placement=built.placement,
            hooks=Hooks(
                stop=lambda: spent() > 60 * minutes or np.median(reports[-1][2]) <= bar,
                on_report=report,
            ),
        )
    return reports


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BARS), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cpu_devices", type=int, default=2, help="emulated devices that seeds are spread over")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(BARS):
        parser.error(f"--only: unknown {sorted(unknown)}; known: {', '.join(BARS)}")
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    for name in options.only.split(","):
        reports = measure(name, BARS[name], options.seeds)
        for minutes, bar in BARS[name]:
            seconds, step, errors = [report for report in reports if report[0] <= 60 * minutes][-1]
            figure(
                f"pinn_accuracy/{name} in {minutes} min",
                float(np.median(errors)),
                unit="relative L2",
                bar=bar,
                seconds=seconds,
                step=step,
                seeds=options.seeds,
            )


if __name__ == "__main__":
    main()
