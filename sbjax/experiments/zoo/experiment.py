"""Zoos: thousands of small networks, each with its own hyper-parameters, trained in one program and kept as arrays.

An arm is a kind of network; network i draws the same hyper-parameters, start and batches in every arm. Networks are
written in blocks, `zoo/ARM/block-START-STOP.safetensors`: a run that was stopped goes on with those that are missing,
and leaves the same bytes. `sbjax.data.zoo.read` reads a finished folder.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from sbjax.common.files import plain
from sbjax.common.names import near
from sbjax.common.options import option
from sbjax.data import images as images_lib
from sbjax.data import zoo as zoo_lib
from sbjax.experiments.zoo import blocks, laws, program
from sbjax.experiments.zoo import report as report_lib
from sbjax.experiments.zoo.arm import Arm, make_arm
from sbjax.frame.errors import ConfigError, named_arm, told_of_files
from sbjax.frame.plan import Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.workdir import Workdir
from sbjax.models.layers import ACTIVATIONS
from sbjax.report.results import Results, save_arms

logger = logging.getLogger(__name__)

PRIMARY = "test/accuracy"
_DATA = ("dataset", "data_dir", "cache_dir", "image_size", "train_share", "grey", "test_examples")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`. Ranges are (least, most); a range of one number fixes it for all networks."""

    dataset: str = option("digits", "'digits', 'fashion_mnist', any set of TFDS, 'folder:PATH', or 'module:function'")
    data_dir: str = option("", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True)
    cache_dir: str = option("", "decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax", free=True)
    image_size: int = option(0, "resize to this size; 0 = as stored", least=0, most=10**4)
    grey: bool = option(False, "the mean of the channels instead of each")
    train_share: float = option(1.0, "share of the training split", above=0, most=1)
    test_examples: int = option(0, "of the test split that accuracies are of; 0 = all", least=0)
    batch_size: int = option(64, "examples in a step", least=1)
    block: int = option(100, "networks in a file, the piece that a stopped run goes on with", least=1, most=10**5)
    epochs_share: float = option(0.25, "networks are trained for this share of train_epochs at least", above=0, most=1)
    peak_epochs: float = option(2.0, "the learning rate rises so long, then falls to 0; 0 = it is constant", least=0)
    learning_rate: tuple = option((5e-4, 5e-2), "range of it, log-uniform", above=0)
    weight_decay: tuple = option((1e-5, 1e-1), "range of it, log-uniform; (0, 0) = none", least=0)
    init_scale: tuple = option((0.1, 2.0), "range, log-uniform, of a factor of all kernels at the start", above=0)
    label_smoothing: tuple = option((0.0, 0.2), "range of it, uniform", least=0, below=1)
    dropout: tuple = option((0.0, 0.5), "range of its rate, uniform, where the network has dropout", least=0, below=1)
    activations: tuple = option(("relu", "tanh"), "each network has one of them")
    optimizers: tuple = option(("adam", "rmsprop"), "each network has one of them: adam, rmsprop, sgd (momentum 0.9)")


class Prepared(NamedTuple):
    """What `run` uses."""

    plan: Plan
    arms: tuple[Arm, ...]


class Trained(NamedTuple):
    """How far an arm has come: 0 or all of its steps. Networks that diverge are part of a zoo."""

    step: int
    failures: tuple = ()


class ZooExperiment(Experiment):
    """Networks by the thousand."""

    name: ClassVar[str] = "zoo"
    fields: ClassVar[type] = Fields
    fixed: ClassVar[tuple[str, ...]] = _DATA
    sections: ClassVar[tuple[str, ...]] = ("model", "precision")
    general: ClassVar[tuple[str, ...]] = ("seed", "replicas", "train_epochs", "reference", "callbacks")
    model: ClassVar[Mapping[str, Any]] = {"name": "cnn", "channels": (16, 16, 16), "norm": "none"}
    by_arm: ClassVar[bool] = True
    kept: ClassVar[str] = "Blocks of networks that were finished are kept in zoo/"

    def shrink(self, config):
        """Eight networks of one activation and one optimiser, two epochs of a tenth of the data."""
        config.train_steps, config.train_epochs, config.replicas = 0, 2.0, 8
        config.task.update(block=4, train_share=0.1, batch_size=16, epochs_share=0.5, peak_epochs=0.5)
        config.task.update(activations=config.task.activations[:1], optimizers=config.task.optimizers[:1])
        if config.task.dataset != "digits":
            config.task.update(train_share=0.05, test_examples=50)

    def check(self, plan: Plan) -> list[str]:
        """Ranges, words, and epochs."""
        found = [f"train_epochs={plan.train_epochs} must be a whole number, the most that a network is trained for"] * (
            plan.train_epochs < 1 or plan.train_epochs != int(plan.train_epochs)
        )
        for arm in plan.arms:
            ranges = {name: getattr(arm.task, name) for name in (*laws.LOGARITHMIC, *laws.UNIFORM)}
            found += laws.problems(ranges)
            known = {"activations": ACTIVATIONS, "optimizers": program.OPTIMIZERS}
            for field, words in known.items():
                given = getattr(arm.task, field)
                wrong = [word for word in given if word not in words]
                if wrong or not given or len(set(given)) < len(given):
                    said = f" holds {wrong[0]!r}{near(str(wrong[0]), words)}" if wrong else " must hold each word once"
                    found.append(f"task.{field}={given!r}{said}; known: {', '.join(words)}")
        return list(dict.fromkeys(found))

    def source(self, task: Fields) -> tuple:
        """Which data a section `task` reads."""
        return tuple(getattr(task, name) for name in _DATA)

    def prepare(self, plan: Plan, *, loaded: Mapping[tuple, images_lib.ImageData] | None = None) -> Prepared:
        """Data, and every arm's network tried on shapes; `loaded` are data that are read already."""
        task = plan.arms[0].task
        ends = [end for end in (plan.first_replica, plan.first_replica + plan.replicas) if end % task.block]
        if plan.is_block and any(end != plan.settings["replicas"] for end in ends):
            raise ConfigError(
                f"--block must be a multiple of task.block={task.block}, the networks of a file; change one"
            )
        data = (loaded or {}).get(self.source(task)) or self.load_data(task)
        standard = program.standardised(data, grey=task.grey, test_examples=task.test_examples)
        arms = []
        for arm in plan.arms:
            with named_arm(arm.name):
                arms.append(make_arm(plan, arm, data.classes, standard))
        return Prepared(plan, tuple(arms))

    def load_data(self, task: Fields) -> images_lib.ImageData:
        """The images."""
        try:
            return images_lib.load(
                task.dataset,
                data_dir=task.data_dir or None,
                cache_dir=task.cache_dir or None,
                image_size=task.image_size or None,
                train_share=task.train_share,
            )
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def disk(self, prepared: Prepared) -> int:
        """Parameters in single precision."""
        return sum(4 * arm.source.size * prepared.plan.replicas for arm in prepared.arms)

    def train(self, prepared: Prepared, arm: Arm, folder: Workdir, progress: Any, stop: Callable[[], bool]) -> Trained:
        """Train the blocks of an arm that are missing, in a process of its own or as a part of `run`."""
        began = time.perf_counter()
        with told_of_files():
            examples = blocks.make_zoo(folder.path / "zoo" / arm.name, arm, prepared.plan, stop=stop)
        if examples:
            seconds = time.perf_counter() - began
            folder.add_timing(arm=arm.name, steps=[0, arm.steps], train_seconds=round(seconds, 3),
                              examples_per_second=round(examples / seconds, 1))  # fmt: skip
            logger.info("%s: %d examples in %.1f s", arm.name, examples, seconds)
        return Trained(0 if examples is None else arm.steps)

    def run(self, prepared: Prepared, folder: Workdir, *, stop: Callable[[], bool]) -> bool:
        """Train the blocks that are missing."""
        plan, sizes = prepared.plan, {}
        for arm in prepared.arms:
            if self.train(prepared, arm, folder, None, stop).step < arm.steps:
                return False
            zoo = zoo_lib.read(folder.path / "zoo" / arm.name, finite=False)
            folder.resume_metrics(arm.name, [])
            last = {PRIMARY: zoo.accuracy[:, -1], "test/loss": zoo.loss[:, -1]}
            folder.report({"arm": arm.name, "step": arm.steps, "flops": 0.0, **plain(last)})
            sizes[arm.name] = zoo.trainable_size
        save_arms(
            folder.path,
            arms=list(sizes),
            reference=plan.reference,
            primary=PRIMARY,
            goal="max",
            parameters=sizes,
            flops_per_step=dict.fromkeys(sizes, 0.0),
            steps={arm.name: arm.steps for arm in prepared.arms},
            about=plan.about_arms(),
        )
        return True

    def join(self, workdir: Path, arm: str, pieces: Sequence[tuple[Path, str]]) -> None:
        """The blocks of an arm, from the folders of its pieces."""
        target = workdir / "zoo" / arm
        target.mkdir(parents=True, exist_ok=True)
        for folder, name in pieces:
            for block in sorted((folder / "zoo" / name).glob("block-*.safetensors")):
                shutil.copyfile(block, target / block.name)

    def report(self, results: Results, workdir: Path) -> Any:
        """The distribution of accuracies, and what they go with."""
        return report_lib.report(results, workdir)

    def cells(self, workdir: Path, arms: Any) -> dict[str, Any]:
        """Columns and rows of a record."""
        return report_lib.cells(workdir, arms)


EXPERIMENT = ZooExperiment()
