"""The experiment of everything that the training loop trains: arm after arm, all replicas of an arm in one program."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from sbjax import rng, trees
from sbjax.asymmetry import trainable_size
from sbjax.common import hosts, options
from sbjax.expansion.kinds import Expansion
from sbjax.expansion.registry import make_expansion
from sbjax.expansion.transform import VectorExpansion
from sbjax.frame.arm_training import ArmTraining
from sbjax.frame.arms import Arm, Cost, parse_steps, step_cost
from sbjax.frame.errors import ConfigError, named_arm, told_as
from sbjax.frame.estimate import check_memory, check_time, tree_bytes
from sbjax.frame.own_parts import data_digests
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.sections import Interpolation
from sbjax.frame.workdir import Workdir
from sbjax.metrics.monitor import Loss, Monitor, make_replica_monitor
from sbjax.metrics.sharpness import check_twice_differentiable
from sbjax.models import FAMILIES, model_specs
from sbjax.optimizers.population import Population, with_population
from sbjax.report.results import save_arms
from sbjax.tasks.task import Task
from sbjax.training import fit as fit_lib
from sbjax.training import placement_table
from sbjax.training.placement import Placement
from sbjax.training.progress import Progress

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """What `TrainingExperiment.run` needs."""

    plan: Plan
    placement: Placement
    arms: tuple[Arm, ...]
    own_data: dict[str, str]


class TrainingExperiment(Experiment):
    """A kind of experiment that gives a `Task` for each arm, and gets arms, replicas, checkpoints and the monitor.

    Attributes:
        data_fields: fields of `task` that say which data are loaded; arms that agree in them share the data.
    """

    sections: ClassVar[tuple[str, ...]] = (
        *("precision", "model", "expansion", "optimizer", "second_phase"),
        *("population", "monitor", "checkpoint", "placement"),
    )
    data_fields: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[str] = "All is saved"
    extendable: ClassVar[bool] = True
    by_arm: ClassVar[bool] = True

    def load_data(self, task: Any) -> Any:
        """The data of a section `task`: images, an equation, a name."""
        return None

    def make_task(self, plan: Plan, arm: ArmPlan, data: Any, expansion: Expansion | None) -> Task:
        """The task of one arm. `told_as` makes the errors of library functions those of a section."""
        raise NotImplementedError

    def check_task(self, task: Task, interpolation: Interpolation) -> None:
        """Refuses a task in which what is to be measured afterwards cannot be."""

    def after_arm(self, plan: Plan, arm: Arm, fitted: fit_lib.Fitted, folder: Workdir, progress: Progress) -> None:
        """What is measured once an arm is trained; of several processes, by the first one on its own devices."""

    def source(self, task: Any) -> tuple:
        """Which data a section `task` reads: arms with equal sources share them."""
        return tuple(getattr(task, name) for name in self.data_fields)

    def prepare(self, plan: Plan, *, loaded: dict[tuple, Any] | None = None) -> Prepared:
        """Everything built that `run` uses; `loaded` are data by source that are read already."""
        with told_as("placement"):
            placement = Placement(**options.values_of(plan.placement))
            if placement.replicas == "auto" and jax.default_backend() != "cpu":
                placement_table.load()  # one that cannot be read is told now
        if placement.devices > jax.device_count():
            raise ConfigError(
                f"placement.devices={placement.devices}: this process has {jax.device_count()}; lower it, or on CPU "
                f"start with --cpu_devices={placement.devices}"
            )
        expansions = {}
        for arm in plan.arms:  # before any data is read
            with named_arm(arm.name), told_as("expansion"):
                expansions[arm.name] = make_expansion(arm.expansion)
        loaded, arms = dict(loaded or {}), []
        logger.info("building %d arms: %s", len(plan.arms), ", ".join(arm.name for arm in plan.arms))
        for arm in plan.arms:
            source = self.source(arm.task)
            if source not in loaded:
                loaded[source] = self.load_data(arm.task)
            with named_arm(arm.name):
                arms.append(self.build_arm(plan, arm, loaded[source], expansions[arm.name]))
        return Prepared(plan, placement, tuple(arms), data_digests(loaded))

    def task_of(self, plan: Plan, name: str) -> Task:
        """The task of one arm by name, with its data."""
        arm = next(arm for arm in plan.arms if arm.name == name)
        with named_arm(name), told_as("expansion"):
            expansion = make_expansion(arm.expansion)
        return self.build_task(plan, arm, self.load_data(arm.task), expansion)

    def build_task(self, plan: Plan, arm: ArmPlan, data: Any, expansion: Expansion | None) -> Task:
        """The task of one arm with the drawn hyper-parameters of its replicas, tried out on shapes alone."""
        fields = {
            "task": options.describe(type(arm.task)),
            "model": _model_fields(arm.model.get("name")),
            "expansion": arm.expansion,
        }
        with told_as("task", FlaxError, fields=fields):
            task = self.make_task(plan, arm, data, expansion)
            jax.eval_shape(task.init, jax.random.key(0))
        drawn = options.values_of(plan.population)
        with told_as("population"):
            task = with_population(task, Population(**drawn))
        rates = [name for name in ("learning_rate", "weight_decay") if drawn[name]]
        if rates and not arm.optimizer.options.reads_population:
            raise ConfigError(
                f"population.{rates[0]}={drawn[rates[0]]}: optimizer.name={arm.optimizer.name!r} does not read drawn "
                "hyper-parameters; use 'adamw'"
            )
        if drawn["label_smoothing"] and not hasattr(arm.task, "label_smoothing"):
            raise ConfigError(
                f"population.label_smoothing={drawn['label_smoothing']} has no effect with task.kind={self.name!r}, "
                "whose loss has no labels; leave it out"
            )
        self.check_task(task, plan.interpolation)
        return task

    def build_arm(self, plan: Plan, arm: ArmPlan, data: Any, expansion: Expansion | None) -> Arm:
        """One arm, ready to train."""
        task = self.build_task(plan, arm, data, expansion)
        if not plan.train_steps and task.epoch_steps is None:
            raise ConfigError(f"train_epochs={plan.train_epochs}: this task has no epochs; give train_steps")
        steps = plan.steps(task.epoch_steps)
        if steps > options.LARGEST:
            raise ConfigError(f"train_epochs={plan.train_epochs} are {steps} steps, and {options.LARGEST} are the most")
        folded = expansion if getattr(arm.task, "fold", False) and isinstance(expansion, VectorExpansion) else None
        constants = None if folded is None else folded.constants
        phases, second = [], arm.second_phase
        for name, choice, count in (
            ("optimizer", arm.optimizer, steps),
            ("second_phase", second and second.optimizer, second and second.steps),
        ):
            if choice and choice.options.needs_residuals and task.residuals is None:
                raise ConfigError(
                    f"{name}.name={choice.name!r} needs a loss that is a sum of squares, which task.kind={self.name!r} "
                    "has not; use 'adam', or 'lbfgs' on a full batch"
                )
            with told_as(name):
                made = choice and fit_lib.Phase(choice.build(count, folded_constants=constants), count)
                phases.append(made)
        total = steps + (phases[1].steps if phases[1] else 0)
        monitor, monitor_steps = self._monitor(plan, task, total)
        variables = jax.eval_shape(task.init, jax.random.key(0))
        with told_as("optimizer"):  # such as a bias scale of a model without that bias
            states = [jax.eval_shape(phase.optimizer.init, variables["params"]) for phase in phases if phase]
        saved, cost = self._check_memory(plan, arm, task, variables, states)
        parameters = trees.size(variables["params"])
        if "asymmetry" in variables.get("frozen", {}):  # part of the parameters is never trained
            parameters = trainable_size(jax.jit(task.init)(jax.random.key(0)))
        return Arm(
            arm.name, task, tuple(phases), total, parameters, cost.flops, saved, monitor, monitor_steps, cost.counted
        )

    def _check_memory(self, plan, arm, task, variables, states) -> tuple[int, Cost]:
        """Bytes of a checkpoint, and the cost of a step; refuses what cannot fit into memory, before it is computed."""
        count = plan.replicas
        numbers = {"replicas": count, "task": options.values_of(arm.task), "model": arm.model}
        numbers |= {"expansion": arm.expansion}
        saved = count * (tree_bytes(variables) + max(map(tree_bytes, states)))
        batch = jax.eval_shape(task.sample, task.data, jax.random.key(0), jnp.int32(0))
        parts = {
            f"parameters and optimiser state of {count} replicas": saved,
            "gradients": count * tree_bytes(variables["params"]),
            "data": tree_bytes(task.data),
            "a batch": tree_bytes(batch),
        }
        check_memory(parts, numbers)
        cost = step_cost(task)
        at_once = count if plan.placement.replicas == "vmap" else 1
        check_memory({**parts, "the largest array of a step": at_once * cost.largest}, numbers)
        return saved, cost

    def disk(self, prepared: Prepared) -> int:
        """Bytes of the checkpoints of all arms, with the one that is being written."""
        kept = prepared.plan.checkpoint.keep + prepared.plan.checkpoint.keep_best
        every = [arm.checkpoint_bytes for arm in prepared.arms]
        return min(kept, prepared.plan.checkpoint.saves + 1) * sum(every) + max(every)

    def check_time(self, prepared: Prepared) -> None:
        """Refuses steps that take years even at the peak of this machine."""
        plan = prepared.plan
        flops = plan.replicas * sum((arm.steps + plan.extend_steps) * arm.flops_per_step for arm in prepared.arms)
        given = "train_steps" if plan.train_steps else "train_epochs"
        numbers = {name: plan.settings[name] for name in ("replicas", "model") if name in plan.settings}
        check_time(flops, f"{given}={getattr(plan, given)}", numbers)

    def _monitor(self, plan: Plan, task: Task, steps: int) -> tuple[Monitor | None, tuple[int, ...]]:
        """What is measured over all replicas together, and at which steps."""
        section, kinds = plan.monitor, options.words(plan.monitor.kinds)
        if not kinds:
            return None, ()
        if "function" in kinds and task.outputs is None:
            raise ConfigError("monitor.kinds: 'function' compares outputs, which this task has none of; leave it out")
        outputs_fn = None if task.outputs is None else lambda variables: task.outputs(task.data, variables)
        key = rng.stream(jax.random.key(plan.seed), "null")
        shapes, loss = jax.eval_shape(task.init, key), None
        with told_as("monitor"):
            if "sharpness" in kinds:
                loss = _training_loss(task, shapes, section)
            monitor = make_replica_monitor(
                kinds,
                key=key,
                outputs_fn=outputs_fn,
                solver=section.solver,
                shapes=shapes,
                loss=loss,
                **_applied(task),
            )
        return monitor, parse_steps(section.at, steps=steps, reports=plan.reports)

    def train(self, prepared: Prepared, arm: Arm, folder: Workdir, progress: Progress, stop) -> fit_lib.Fitted:
        """Train one arm from where it was left."""
        folder.set_status("running", arm=arm.name)
        progress.show(f"{arm.name}: compiling")
        try:
            return ArmTraining(prepared.plan, arm, prepared.placement, folder, progress, stop).fit()
        finally:
            if arm.task.stream is not None:
                arm.task.stream.close()

    def run(self, prepared: Prepared, folder: Workdir, *, stop) -> bool:
        """Train the arms, each from where it was left."""
        plan, arms = prepared.plan, prepared.arms
        work = sum((arm.steps + plan.extend_steps) * arm.flops_per_step for arm in arms)
        progress = Progress(work, programs=sum(len(arm.phase_ends(plan.extend_steps)) for arm in arms))
        metrics, failures = {}, []
        for arm in arms:
            fitted = self.train(prepared, arm, folder, progress, stop)
            if fitted.step < arm.steps + plan.extend_steps:
                progress.end()
                folder.set_status("interrupted", arm=arm.name, step=fitted.step, of=arm.steps + plan.extend_steps)
                return False
            metrics[arm.name] = _last_measures(fitted.history, arm.monitor_steps)
            if arm.task.grid is not None:
                hosts.from_first(lambda arm=arm, fitted=fitted: _save_grid(folder, arm, fitted))
            hosts.from_first(lambda arm=arm, fitted=fitted: self.after_arm(plan, arm, fitted, folder, progress))
            failures += [{"arm": arm.name, **failure._asdict()} for failure in fitted.failures]
            progress.show(f"{arm.name} done")
        progress.end()
        hosts.by_first(save_arms)(
            folder.path,
            arms=[arm.name for arm in arms],
            reference=plan.reference,
            primary=arms[0].task.primary,
            goal=arms[0].task.goal,
            parameters={arm.name: arm.parameters for arm in arms},
            flops_per_step={arm.name: arm.flops_per_step for arm in arms},
            steps={arm.name: arm.steps + plan.extend_steps for arm in arms},
            failures=failures,
            metrics=metrics,
            about=plan.about_arms(),
        )
        return True


def _model_fields(name):
    """Names of the options of a network of this package, whichever table it is in."""
    return {
        field
        for family, known in FAMILIES.items()
        if isinstance(name, str) and name in known
        for field in model_specs(name, family)
    }


def _save_grid(folder, arm, fitted):
    predicted = np.array(jax.jit(jax.vmap(arm.task.grid.predict))(fitted.variables))
    predicted[[failure.replica for failure in fitted.failures if failure.step < 0]] = np.nan  # not trained
    folder.save_grid(arm.name, predicted, arm.task.grid)


def _applied(task: Task) -> dict[str, Any]:
    """A function of parameters in which hidden units can be followed, and its inputs; for 'matched'."""
    if task.lines is not None:
        return {"apply_fn": task.lines.apply, "inputs": task.lines.inputs(task.data)}
    if task.outputs is not None:
        return {"apply_fn": lambda variables, data: task.outputs(data, variables), "inputs": task.data}
    return {}


def _training_loss(task: Task, shapes: Any, section: Any) -> Loss:
    """The loss of a task on its first batches, with one key for all replicas, arms and steps; for 'sharpness'."""
    key = rng.stream(jax.random.key(0), "sharpness")

    def loss(variables, batch):
        return task.loss(variables, batch, key)[0]

    batch = jax.eval_shape(task.sample, task.data, key, jnp.int32(0))
    try:
        check_twice_differentiable(loss, shapes, batch)
    except ValueError as error:
        raise ValueError(f"kinds='sharpness': {error}; leave it out") from error
    sample = jax.jit(task.sample)
    return Loss(loss, lambda: [sample(task.data, key, jnp.int32(i)) for i in range(section.batches)], section.products)


def _last_measures(history: list[fit_lib.Record], steps: Sequence[int]) -> dict[str, dict[str, float]]:
    """What the monitor reported at the last of its steps; nothing where too few replicas were left by then."""
    last = next((record for record in history if record["step"] == max(steps, default=None)), {})
    return {name: x for name, x in last.items() if isinstance(x, dict)}
