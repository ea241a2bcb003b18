"""The Ising analogy as an experiment: replicas quenched with and without a field, and three readings of the landscape.

Arms differ in the field, the temperature or the size of the lattice. Replicas start at infinite temperature and relax
by Metropolis sweeps, as networks start from random weights and relax by training steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int8

from sbjax import rng
from sbjax.files import write_atomically
from sbjax.frame import config as config_lib
from sbjax.frame.workdir import Workdir
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.replica import unmatched_distance
from sbjax.physics.ising import exact, mean_field, metropolis, statistics
from sbjax.training.timeline import boundaries

DISTANCE = "replica_distance/unmatched"
LANDSCAPES = "landscapes.json"


def check(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The section `task` of each arm.

    Raises:
        ConfigError: a size, a temperature, a number of replicas or of sweeps that cannot be.
    """
    sections = {}
    for name in settings["arms"]:
        own = config_lib.arm_settings(settings, name)["task"]
        if not own["temperature"] > 0 or not own["mean_field_temperature"] > 0:
            raise config_lib.ConfigError(
                f"arm {name!r}: task.temperature={own['temperature']} and task.mean_field_temperature="
                f"{own['mean_field_temperature']} must be > 0"
            )
        try:
            jax.eval_shape(lambda s=own["size"]: metropolis.make_lattices(jax.random.key(0), s, settings["replicas"]))
        except ValueError as error:
            raise config_lib.ConfigError(f"arm {name!r}: task.{error}") from error
        sections[name] = own
    if not settings["train_steps"]:
        raise config_lib.ConfigError("train_epochs: a lattice has no epochs; give train_steps, the sweeps")
    return sections


def replica_distance(spins: Int8[np.ndarray, "replicas L L"]) -> Estimate:
    """Root mean square difference of a spin, over the pairs of replicas: `unmatched_distance` of the lattices.

    0 where all have settled in one state, 2 between the two opposite ones, sqrt(2) between random ones.

    >>> replica_distance(np.concatenate([np.ones((4, 2, 2)), -np.ones((4, 2, 2))])).value == 2 * 16 / 28
    True
    """
    return unmatched_distance({"spins": np.asarray(spins, np.float32)}).raw.total.distance


def landscapes(section: dict[str, Any]) -> dict[str, Any]:
    """The energy landscape of a field in two exact senses: mean field, and a 4 x 4 lattice by its magnetisation.

    >>> found = landscapes({'field': 0.45, 'temperature': 1.5, 'mean_field_temperature': 2.0})
    >>> [minimum['stable'] for minimum in found['mean_field']['minima']]
    [False, True]
    """
    field, temperature = section["field"], section["mean_field_temperature"]
    m = np.linspace(-1, 1, 201)
    small = exact.enumerate_states(4, 4)
    total, ground, free = exact.landscape(small, section["temperature"], field)
    return {
        "mean_field": {
            "temperature": temperature,
            "magnetisation": m,
            "free_energy": np.asarray(mean_field.free_energy(m, temperature, field), float),
            "minima": [minimum._asdict() for minimum in mean_field.minima(temperature, field)],
            "spinodal_field": mean_field.spinodal_field(temperature),
        },
        "four_by_four": {
            "temperature": section["temperature"],
            "magnetisation": total / small.spins,
            "ground_energy": ground / small.spins,
            "free_energy": free / small.spins,
        },
    }


def run(folder: Workdir, settings: dict[str, Any], *, stop: Callable[[], bool]) -> bool:
    """Quench all arms and write `metrics.jsonl`, `arms.json` and `landscapes.json`; whether it came to its end."""
    from sbjax.report.results import save_arms, to_json

    sections = check(settings)
    replicas, sweeps = settings["replicas"], settings["train_steps"]
    key = rng.stream(jax.random.key(settings["seed"]), "quench")
    written, measures = {}, {}
    for name, section in sections.items():
        folder.resume_metrics(name, [])
        # All arms start from the same lattices.
        lattices, done = metropolis.make_lattices(key, section["size"], replicas), 0
        for sweep in [0, *boundaries(sweeps, settings["reports"])]:
            if stop():
                return False
            if sweep > done:
                lattices = metropolis.metropolis(
                    lattices, section["temperature"], section["field"], sweeps=sweep - done
                )
            done = sweep
            found = metropolis.measure(lattices)
            magnetisation = np.asarray(found.magnetisation, float)
            measures[name] = {DISTANCE: replica_distance(metropolis.unpack(lattices))._asdict()}
            numbers = {"energy": np.asarray(found.energy, float), "magnetisation": magnetisation}
            listed = {key: values.tolist() for key, values in numbers.items()}
            folder.report({"arm": name, "step": sweep, "flops": 0.0, **listed, **measures[name]})
        shares = {
            "up": statistics.share(magnetisation > 0)._asdict(),
            "down": statistics.share(magnetisation < 0)._asdict(),
        }
        written[name] = {
            "field": section["field"],
            **landscapes(section),
            "quench": {"temperature": section["temperature"], "magnetisation": magnetisation, "shares": shares},
        }
        measures[name] |= {f"share {sign}": share for sign, share in shares.items()}
    write_atomically(folder.path / LANDSCAPES, to_json(written))
    save_arms(
        folder.path,
        arms=list(sections),
        reference=settings["reference"],
        primary="energy",
        goal="min",
        parameters={name: section["size"] ** 2 for name, section in sections.items()},
        flops_per_step=dict.fromkeys(sections, 0.0),
        steps=dict.fromkeys(sections, sweeps),
        metrics=measures,
    )
    return True
