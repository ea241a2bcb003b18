"""The Ising analogy as an experiment: replicas quenched with and without a field, and three readings of the landscape.

Arms differ in the field, the temperature or the size of the lattice. Replicas start at infinite temperature and relax
by Metropolis sweeps, as networks start from random weights and relax by training steps.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Int8

from sbjax import rng
from sbjax.common import options
from sbjax.common.files import write_json
from sbjax.common.options import option
from sbjax.experiments.ising import report as report_lib
from sbjax.frame.errors import named_arm, told_as
from sbjax.frame.estimate import check_memory, tree_bytes
from sbjax.frame.plan import Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.workdir import Workdir
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.replica import unmatched_distance
from sbjax.metrics.shares import share
from sbjax.physics.ising import exact, mean_field, metropolis
from sbjax.report.results import save_arms
from sbjax.training.timeline import boundaries

DISTANCE = "replica_distance/unmatched"
LANDSCAPES = "landscapes.json"


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    size: int = option(32, "side of the periodic lattice; replicas are quenched for train_steps sweeps", least=2,
                      most=10**4)  # fmt: skip
    temperature: float = option(1.5, "in units of the coupling", above=0)
    field: float = option(0.0, "external field in units of the coupling")
    mean_field_temperature: float = option(2.0, "of the free energy in mean field, which is drawn beside", above=0)


def replica_distance(spins: Int8[np.ndarray, "replicas L L"]) -> Estimate:
    """Root mean square difference of a spin, over the pairs of replicas: `unmatched_distance` of the lattices.

    0 where all have settled in one state, 2 between the two opposite ones, sqrt(2) between random ones.

    >>> replica_distance(np.concatenate([np.ones((4, 2, 2)), -np.ones((4, 2, 2))])).value == 2 * 16 / 28
    True
    """
    return unmatched_distance({"spins": np.asarray(spins, np.float32)}).raw.total.distance


def landscapes(fields: Fields) -> dict[str, Any]:
    """The energy landscape of a field in two exact senses: mean field, and a 4 x 4 lattice by its magnetisation.

    >>> found = landscapes(Fields(field=0.45))
    >>> [minimum['stable'] for minimum in found['mean_field']['minima']]
    [False, True]
    """
    field, temperature = fields.field, fields.mean_field_temperature
    m = np.linspace(-1, 1, 201)
    small = exact.enumerate_states(4, 4)
    total, ground, free = exact.landscape(small, fields.temperature, field)
    return {
        "mean_field": {
            "temperature": temperature,
            "magnetisation": m,
            "free_energy": np.asarray(mean_field.free_energy(m, temperature, field), float),
            "minima": [minimum._asdict() for minimum in mean_field.minima(temperature, field)],
            "spinodal_field": mean_field.spinodal_field(temperature),
        },
        "four_by_four": {
            "temperature": fields.temperature,
            "magnetisation": total / small.spins,
            "ground_energy": ground / small.spins,
            "free_energy": free / small.spins,
        },
    }


def run(folder: Workdir, plan: Plan, *, stop: Callable[[], bool]) -> bool:
    """Quench all arms and write `metrics.jsonl`, `arms.json` and `landscapes.json`; whether it came to its end."""
    sections = {arm.name: arm.task for arm in plan.arms}
    replicas, sweeps = plan.replicas, plan.train_steps
    key = rng.stream(jax.random.key(plan.seed), "quench")
    written, measures = {}, {}
    for name, section in sections.items():
        folder.resume_metrics(name, [])
        # All arms start from the same lattices.
        lattices, done = metropolis.make_lattices(key, section.size, replicas), 0
        for sweep in [0, *boundaries(sweeps, plan.reports)]:
            if stop():
                return False
            if sweep > done:
                lattices = metropolis.metropolis(lattices, section.temperature, section.field, sweeps=sweep - done)
            done = sweep
            found = metropolis.measure(lattices)
            magnetisation = np.asarray(found.magnetisation, float)
            measures[name] = {DISTANCE: replica_distance(metropolis.unpack(lattices))._asdict()}
            numbers = {"lattice/energy": np.asarray(found.energy, float), "lattice/magnetisation": magnetisation}
            listed = {key: values.tolist() for key, values in numbers.items()}
            folder.report({"arm": name, "step": sweep, "flops": 0.0, **listed, **measures[name]})
        shares = {
            "up": share(magnetisation > 0)._asdict(),
            "down": share(magnetisation < 0)._asdict(),
        }
        written[name] = {
            "field": section.field,
            **landscapes(section),
            "quench": {"temperature": section.temperature, "magnetisation": magnetisation, "shares": shares},
        }
        measures[name] |= {f"share/{sign}": found for sign, found in shares.items()}
    write_json(folder.path / LANDSCAPES, written)
    save_arms(
        folder.path,
        arms=list(sections),
        reference=plan.reference,
        primary="lattice/energy",
        goal="min",
        parameters={name: section.size**2 for name, section in sections.items()},
        flops_per_step=dict.fromkeys(sections, 0.0),
        steps=dict.fromkeys(sections, sweeps),
        metrics=measures,
        about=plan.about_arms(),
    )
    return True


class Ising(Experiment):
    """Lattices of spins."""

    name: ClassVar[str] = "ising"
    fields: ClassVar[type] = Fields
    sections: ClassVar[tuple[str, ...]] = ()
    general: ClassVar[tuple[str, ...]] = ("seed", "replicas", "train_steps", "reports", "reference", "callbacks")
    smoke: ClassVar[Mapping[str, Any]] = {"task.size": 8, "replicas": 32}  # as many as share a word

    def prepare(self, plan: Plan) -> Plan:
        """The plan, with the lattices of every arm tried on shapes."""
        for arm in plan.arms:
            with named_arm(arm.name), told_as("task"):
                lattices = jax.eval_shape(
                    lambda size=arm.task.size: metropolis.make_lattices(jax.random.key(0), size, plan.replicas)
                )
                spins = {"the spins of all replicas, apart": 4 * plan.replicas * arm.task.size**2}
                numbers = {"replicas": plan.replicas, "task": options.values_of(arm.task)}
                metropolis.check_couplings(arm.task.temperature, arm.task.field, ())
                landscapes(arm.task)
                check_memory({"lattices": tree_bytes(lattices), **spins}, numbers)
        return plan

    def run(self, prepared: Plan, folder: Workdir, *, stop: Callable[[], bool]) -> bool:
        """Quench all arms."""
        return run(folder, prepared, stop=stop)

    def report(self, results, workdir: Path) -> Any:
        """Magnetisation, shares of the two states, and the landscapes."""
        return report_lib.report(results, workdir)


EXPERIMENT = Ising()
