"""Image classification: raw against expanded input, any network, any set of images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sbjax.asymmetry.options import build_asymmetric
from sbjax.common.files import read_json
from sbjax.common.names import is_import_path
from sbjax.common.options import given, option
from sbjax.data import images as images_lib
from sbjax.data.streaming import ImageStream, fits_memory, open_stream
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.calibration import measure as calibration
from sbjax.experiments.calibration import report as calibration_report
from sbjax.experiments.connectivity.experiment import ConnectivityExperiment
from sbjax.experiments.images import report as report_lib
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.models import make_model
from sbjax.report.results import CONFIG
from sbjax.tasks.images import make_image_task
from sbjax.tasks.task import Task

_LARGE = ("resnet", "densenet", "mobilenet", "efficientnet")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    dataset: str = option(
        "digits", "'digits', 'cifar10', 'pets', any set of TFDS, 'folder:PATH' of pictures, or 'module:function'"
    )
    classes: str = option("", "file that lists the classes to keep, one a line; '' = all", free=True)
    data_dir: str = option("", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True)
    cache_dir: str = option("", "decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax", free=True)
    stream: str = option("auto", "'always': images stay on disk; 'auto': those that do not fit into memory",
                         choices=("auto", "always", "never"))  # fmt: skip
    stream_workers: int = option(0, "processes that decode streamed images; 0 = one fewer than cores", least=0,
                                 most=256)  # fmt: skip
    image_size: int = option(0, "resize to this size; 0 = as stored", least=0, most=10**4)
    eval_share: float = option(1.0, "share of validation and test split that is evaluated", above=0, most=1)
    train_share: float = option(1.0, "share of the training split; a smaller share is part of a larger one",
                                above=0, most=1)  # fmt: skip
    batch_size: int = option(128, "examples in a step", least=1)
    crop_padding: int = option(0, "pixels around the image before a random crop; 0 = no crop", least=0, most=10**3)
    flip: bool = option(False, "mirror images at random")
    alternate_flips: bool = option(False, "to the other side in every epoch", only={"flip": given()})
    reflect: bool = option(False, "the crop's padding is the image's own border, not zeros",
                           only={"crop_padding": given()})  # fmt: skip
    views: str = option("one", "evaluated: 'mirror', with its mirror image; 'shift', both moved by a pixel as well",
                        choices=("one", "mirror", "shift"))  # fmt: skip
    label_smoothing: float = option(0.0, "of the targets", least=0, below=1)
    eval_batch_size: int = option(500, "examples in an evaluation call; bounds memory only", least=1)
    quarter_turns: bool = option(False, "turn every image by a fixed multiple of 90 degrees")


class Images(ConnectivityExperiment):
    """Networks that classify images."""

    name: ClassVar[str] = "images"
    fields: ClassVar[type] = Fields
    sections: ClassVar[tuple[str, ...]] = (*ConnectivityExperiment.sections, "calibration")
    data_fields: ClassVar[tuple[str, ...]] = (
        *("dataset", "classes", "data_dir", "cache_dir", "image_size", "train_share", "quarter_turns", "stream"),
    )

    def shrink(self, config):
        """Little data, and small pictures for large networks, which take minutes of a CPU at full size."""
        if config.interpolation.between:
            config.interpolation.update(points=5, examples=64)
        config.task.batch_size = 8
        config.task.eval_batch_size = 64
        if not (config.task.dataset.startswith("folder:") or is_import_path(config.task.dataset)):
            config.task.train_share = 0.05  # of one's own set, which may be small, all is taken
            config.task.eval_share = 0.05 if config.task.dataset == "digits" else 0.005
        if str(config.model.get("name", "resnet")).startswith(_LARGE):
            config.task.image_size = 16

    def load_data(self, task: Fields) -> images_lib.ImageData | ImageStream:
        """The images of one source, in memory or on disk."""
        try:
            where = {"data_dir": task.data_dir or None, "image_size": task.image_size or None, "classes": task.classes}
            streamed = task.stream == "always" or (task.stream == "auto" and not fits_memory(task.dataset, **where))
            return (open_stream if streamed else images_lib.load)(
                task.dataset,
                **where,
                cache_dir=task.cache_dir or None,
                train_share=task.train_share,
                quarter_turns=task.quarter_turns,
            )
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def make_task(
        self, plan: Plan, arm: ArmPlan, data: images_lib.ImageData | ImageStream, expansion: Expansion | None
    ) -> Task:
        """Classification of these images by this arm's network."""
        streamed = isinstance(data, ImageStream)
        task, examples = arm.task, len(data.train if streamed else data.train_images)
        if streamed and plan.interpolation.between:
            raise ConfigError(
                f"interpolation.between={plan.interpolation.between!r} reads training images in memory, and "
                f"task.dataset={task.dataset!r} is streamed; use task.stream='never' and a smaller task.image_size"
            )
        for section, choice in (("optimizer", arm.optimizer), ("second_phase", arm.second_phase)):
            choice = getattr(choice, "optimizer", choice)
            if choice is not None and choice.options.deterministic and (task.batch_size < examples or task.flip or
                                                                        task.crop_padding):  # fmt: skip
                raise ConfigError(
                    f"{section}.name={choice.name!r} needs the same loss at every step, and each step draws another "
                    f"batch; use task.batch_size={examples}, all of them, without crops and flips, or another optimiser"
                )
        with told_as("model"):
            module = self.make_module(arm, data)
        return make_image_task(
            data,
            module,
            expansion=expansion,
            batch_size=task.batch_size,
            crop_padding=task.crop_padding,
            flip=task.flip,
            alternate_flips=task.alternate_flips,
            reflect=task.reflect,
            views=task.views,
            label_smoothing=task.label_smoothing,
            eval_batch_size=task.eval_batch_size,
            eval_share=task.eval_share,
            probe_size=plan.monitor.probe_size,
            line_examples=plan.interpolation.examples,
            unknown=self.load_unknown(plan),
            seed=plan.seed,
            workers=task.stream_workers,
        )

    def make_module(self, arm: ArmPlan, data: images_lib.ImageData) -> Any:
        """The network of an arm."""
        return build_asymmetric(self.make_network(arm.model, data.classes), arm.model.get("asymmetry"))

    def make_network(self, model: Mapping[str, Any], classes: int) -> Any:
        """The network of a section `model`, without its asymmetry."""
        options = {name: value for name, value in model.items() if name not in ("name", "asymmetry")}
        return make_model(model.get("name"), classes=classes, **options)

    def load_unknown(self, plan: Plan) -> Any:
        """Test images of the set `calibration.unknown`, of the size of the others; None without one."""
        name = plan.calibration.unknown
        if not plan.calibration.bins or not name:
            return None
        with told_as("calibration"):
            try:
                images = self.load_data(
                    dataclasses.replace(plan.task, dataset=name, train_share=1.0, stream="never")
                ).test_images
            except ConfigError as error:
                raise ValueError(f"unknown={name!r}: {str(error).partition(': ')[2]}") from error
        return images[: max(1, round(plan.task.eval_share * len(images)))]

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Losses on straight lines between the networks, and calibration."""
        super().after_arm(plan, arm, fitted, folder, progress)
        calibration.measure_arm(plan, arm, fitted, folder, progress)

    def table(self, workdir: Path) -> str:
        """Barriers, interpolation and calibration, if they were measured."""
        arms = list(read_json(workdir / "config.json", CONFIG)["config"]["arms"])
        return "\n\n".join(filter(None, [super().table(workdir), calibration_report.table(workdir, arms)]))

    def suite_report(self, folder: Path, names: Any) -> Any:
        """Of several sets or networks, the grid of curves."""
        return report_lib.suite_report(folder, names)

    def report(self, results, workdir: Path) -> Any:
        """Barriers, interpolation and calibration, if they were measured."""
        return [*super().report(results, workdir), *calibration_report.report(results, workdir)]


EXPERIMENT = Images()
