"""What an experiment is: its fields, the sections that it reads, and how it is prepared, run and reported.

A new kind is a class that inherits from `Experiment`, in a folder of `sbjax.experiments` or in a file of yours
(`task.kind=my_file.py:EXPERIMENT`). One that the training loop trains inherits from
`sbjax.frame.training.TrainingExperiment` and gives a task.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from ml_collections import ConfigDict

from sbjax.frame.plan import Plan
from sbjax.frame.workdir import Workdir
from sbjax.report.results import Results
from sbjax.report.sections import Section
from sbjax.report.suite import SuiteReport, suite_report

# Fields outside of sections, see `sections.General`.
GENERAL = ("seed", "replicas", "train_epochs", "train_steps", "reports", "reference", "callbacks")


@runtime_checkable
class Experiment(Protocol):
    """A kind of experiment.

    Attributes:
        name: of its folder, and of `task.kind`.
        fields: a dataclass of its own fields, those of the section `task`, made with `sbjax.common.options.option`.
        fixed: fields of `task` in which arms may not differ.
        sections: which shared sections it reads: of 'model', 'expansion', 'optimizer', 'second_phase', 'population',
            'monitor', 'interpolation', 'calibration', 'checkpoint', 'placement', 'precision'. Any other one is refused
            by name.
        general: which fields outside of sections it reads.
        model: the default of the section `model`.
        smoke: what the word `smoke` changes, by path: {'task.points': 64}.
        kept: for a user who stopped a run: what is kept of it.
        extendable: whether a finished run can be trained longer.
        by_arm: whether each arm, and each block of its replicas, can be trained in a process of its own; if not, a
            whole run is the smallest piece.
        join: of an experiment with `by_arm` that the training loop does not train: `(workdir, arm, pieces)` puts what
            pieces of an arm left into the workdir of the whole, each of them (folder, name of the arm there).
    """

    name: ClassVar[str]
    fields: ClassVar[type]
    fixed: ClassVar[tuple[str, ...]] = ()
    sections: ClassVar[tuple[str, ...]] = ("precision",)
    general: ClassVar[tuple[str, ...]] = GENERAL
    model: ClassVar[Mapping[str, Any]] = {"name": "mlp"}
    smoke: ClassVar[Mapping[str, Any]] = {}
    kept: ClassVar[str] = "Nothing of it is kept"
    extendable: ClassVar[bool] = False
    by_arm: ClassVar[bool] = False
    join: ClassVar[Callable[[Path, str, Sequence[tuple[Path, str]]], None] | None] = None

    def select(self, task: Mapping[str, Any]) -> "Experiment":
        """The experiment itself, or the one of several variants that the (unchecked) fields of `task` name."""
        return self

    def shrink(self, config: ConfigDict) -> None:
        """What the word `smoke` does beside two replicas and four steps: `self.smoke`, in place."""
        for path, value in self.smoke.items():
            config.update_from_flattened_dict({path: value})

    def check(self, plan: Plan) -> list[str]:
        """What is wrong with a plan beyond types and bounds, as sentences; cheap, before any data is read."""
        return []

    def prepare(self, plan: Plan) -> Any:
        """All that `run` uses, built once; whatever can be refused is refused here, as `ConfigError`."""
        ...

    def disk(self, prepared: Any) -> int:
        """Bytes that a run writes at least, beside a few numbers."""
        return 0

    def check_time(self, prepared: Any) -> None:
        """Refuse, as `ConfigError`, what cannot end in time here; asked on the machine that trains, before it does."""

    def run(self, prepared: Any, folder: Workdir, *, stop: Callable[[], bool]) -> bool:
        """Do it, and leave in the folder what `sbjax.report.results` reads; False if `stop()` ended it."""
        ...

    def report(self, results: Results, workdir: Path) -> Sequence[Section]:
        """What the report shows beside the comparison of arms that every run has."""
        return ()

    def table(self, workdir: Path) -> str:
        """What the terminal shows below the comparison of arms; '' = nothing."""
        return ""

    def suite_report(self, folder: Path, names: Sequence[str]) -> SuiteReport:
        """The one report of several runs in `folder/<name>`."""
        return suite_report(folder, names)
