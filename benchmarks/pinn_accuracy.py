"""How accurate a physics-informed network gets in a given time, in float64, with the config `pdes.py:<name>,accurate`.

    python benchmarks/pinn_accuracy.py                         # all bars below: hours
    python benchmarks/pinn_accuracy.py --only=poisson,wave     # some of them

All seeds train in one program; the time is the wall time of all of them together, compilation included, and training is
cut off there. The figure is the median over seeds of the relative L2 error at the last report in time, against the
equation's reference; points of the test were not trained on.
"""

import argparse
import pathlib
import runpy
import time

import jax
import numpy as np
from common import figure

ROOT = pathlib.Path(__file__).parents[1]
# Minutes, and the error to be reached.
BARS = {
    "poisson": (5, 1e-6),
    "poisson_robin": (5, 1e-6),
    "poisson_multiscale": (5, 1e-6),
    "euler_beam": (5, 1e-6),
    "helmholtz": (5, 1e-6),
    "burgers": (10, 1e-5),
    "wave": (15, 1e-3),
    "allen_cahn": (30, 1e-4),
    "kdv": (30, 1e-3),
}


def measure(name, minutes, seeds):
    """(median error, all errors, step, seconds) at the last report within `minutes`."""
    from sbjax import arms, build
    from sbjax import config as config_lib
    from sbjax.training.fit import Hooks, fit

    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"](f"{name},accurate")
    config.replicas = seeds
    config.reports = 40
    settings = config_lib.check(config)
    began, reports = time.perf_counter(), []

    def spent():
        return time.perf_counter() - began

    with arms.precision(settings["precision"]):
        (arm,) = arms.build_arms(settings)
        fit(
            arm.task,
            arm.phases[0].optimizer,
            steps=arm.phases[0].steps,
            finish=arm.phases[1],
            replicas=seeds,
            key=jax.random.key(settings["seed"]),
            reports=settings["reports"],
            mapping=build.build_mapping(settings["mapping"]),
            hooks=Hooks(
                stop=lambda: spent() > 60 * minutes,
                on_report=lambda record: reports.append((spent(), record)),
            ),
        )
    seconds, record = [entry for entry in reports if entry[0] <= 60 * minutes][-1]
    errors = [np.inf if error is None else error for error in record["test/l2"]]
    return float(np.median(errors)), errors, record["step"], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BARS), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0, help="another limit than that of the bar")
    parser.add_argument("--cpu_devices", type=int, default=2, help="emulated devices that seeds are spread over")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(BARS):
        parser.error(f"--only: unknown {sorted(unknown)}; known: {', '.join(BARS)}")
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    for name in options.only.split(","):
        minutes, bar = BARS[name]
        median, errors, step, seconds = measure(name, options.minutes or minutes, options.seeds)
        spread = ", ".join(f"{error:.1e}" for error in sorted(errors))
        print(f"{name}: step {step}, {seconds:.0f} s for {options.seeds} seeds: {spread}", flush=True)
        figure(f"pinn_accuracy/{name}", median, unit="relative L2", bar=bar, seconds=seconds, step=step)


if __name__ == "__main__":
    main()
