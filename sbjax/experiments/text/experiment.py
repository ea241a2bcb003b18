"""Sentiment and other classification of texts: raw against expanded embeddings, any set of texts."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from sbjax.common.files import read_json, write_json
from sbjax.common.options import option
from sbjax.data import texts as texts_lib
from sbjax.expansion.kinds import Expansion, ImageExpansion
from sbjax.experiments.calibration import measure as calibration
from sbjax.experiments.calibration import report as calibration_report
from sbjax.experiments.text import report as report_lib
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_text_model
from sbjax.report.results import CONFIG
from sbjax.tasks.classification import TEST
from sbjax.tasks.task import Task
from sbjax.tasks.texts import make_text_task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    dataset: str = option(
        "rotten_tomatoes",
        "'rotten_tomatoes', 'imdb', a set of TFDS ('imdb_reviews', 'glue/sst2'), 'folder:PATH' or 'module:function'",
    )
    data_dir: str = option("", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True)
    test_fold: int = option(0, "which of five folds is the test split, of a set without splits", least=0,
                            most=texts_lib.FOLDS - 1)  # fmt: skip
    length: int = option(64, "words of a text at most", least=1, most=10**5)
    vocabulary: int = option(10_000, "known words at most, taken from the training texts", least=3, most=10**7)
    train_share: float = option(1.0, "share of the training texts; a smaller share is part of a larger one", above=0,
                                most=1)  # fmt: skip
    batch_size: int = option(64, "texts in a step", least=1)
    eval_batch_size: int = option(1000, "texts in an evaluation call; bounds memory only", least=1)
    shuffle_labels: bool = option(False, "a control: training labels in a random order")
    fold: bool = option(False, "start as the expanded network would, folded into the head: the matched-bias control")


class Text(TrainingExperiment):
    """Networks that classify texts."""

    name: ClassVar[str] = "text"
    fields: ClassVar[type] = Fields
    sections: ClassVar[tuple[str, ...]] = (*TrainingExperiment.sections, "calibration")
    model: ClassVar[Mapping[str, Any]] = {"name": "bag"}
    smoke: ClassVar[Mapping[str, Any]] = {
        "task.train_share": 0.05, "task.vocabulary": 500, "task.length": 12, "task.batch_size": 16,
    }  # fmt: skip
    data_fields: ClassVar[tuple[str, ...]] = (
        *("dataset", "data_dir", "test_fold", "length", "vocabulary", "train_share", "shuffle_labels"),
    )

    def check(self, plan: Plan) -> list[str]:
        """Texts of another set have other words."""
        unknown = plan.calibration.unknown if plan.calibration.bins else ""
        said = f"calibration.unknown={unknown!r} is for images: the words of another set are not in the vocabulary"
        return [f"{said}; leave it out"] if unknown else []

    def load_data(self, task: Fields) -> texts_lib.TextData:
        """The texts of one source."""
        try:
            return texts_lib.load(
                task.dataset,
                data_dir=task.data_dir or None,
                fold=task.test_fold,
                length=task.length,
                vocabulary=task.vocabulary,
                train_share=task.train_share,
                shuffle_labels=task.shuffle_labels,
            )
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def make_task(self, plan: Plan, arm: ArmPlan, data: texts_lib.TextData, expansion: Expansion | None) -> Task:
        """Classification of these texts by this arm's network."""
        if isinstance(expansion, ImageExpansion):
            raise ConfigError("expansion.kind='image' is for images; texts take 'sequence' and 'vector'")
        model = dict(arm.model)
        with told_as("model"):
            module = make_text_model(
                model.pop("name", None), classes=len(data.classes), vocabulary=len(data.vocabulary),
                expansion=expansion, **model,
            )  # fmt: skip
        return make_text_task(
            data,
            module,
            batch_size=arm.task.batch_size,
            eval_batch_size=arm.task.eval_batch_size,
            fold_expansion_in=arm.task.fold,
            probe_size=plan.monitor.probe_size,
        )

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Which test texts each network classifies rightly, calibration, and the vocabulary."""
        calibration.measure_arm(plan, arm, fitted, folder, progress)
        model, data = arm.task.model, arm.task.data
        is_test = np.asarray(data["eval_split"]) == TEST
        tokens, labels = data["eval_inputs"][is_test], np.asarray(data["eval_labels"])[is_test]

        def logits(variables):
            return model.apply(variables, tokens, train=False)

        found = np.asarray(jax.jit(lambda stacked: jax.lax.map(logits, stacked))(fitted.variables))
        stopped = [failure.replica for failure in fitted.failures]
        report_lib.save_predictions(folder.path, arm.name, found.argmax(-1) == labels, stopped)
        if not (path := folder.path / "vocabulary.json").exists():
            texts = self.load_data(plan.task)
            write_json(path, {"classes": texts.classes, "words": texts.vocabulary})

    def report(self, results, workdir: Path) -> Any:
        """Paired over documents; calibration, if it was measured."""
        return [*report_lib.report(results, workdir), *calibration_report.report(results, workdir)]

    def table(self, workdir: Path) -> str:
        """Calibration, if it was measured."""
        return calibration_report.table(workdir, list(read_json(workdir / "config.json", CONFIG)["config"]["arms"]))

    def suite_report(self, folder: Path, names):
        """Of several folds also all together."""
        return report_lib.suite_report(folder, names)


EXPERIMENT = Text()
