"""Colourisation: a network says the colours of a grey image; raw against expanded input, any set of images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from sbjax.common.files import write_json
from sbjax.common.names import is_import_path
from sbjax.common.options import one_of, option
from sbjax.data import images as images_lib
from sbjax.data.colours import ColourData, with_statistics
from sbjax.expansion.kinds import Expansion
from sbjax.expansion.transform import check_expansion
from sbjax.experiments.colour import report as report_lib
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_map_model
from sbjax.tasks import colour as colour_lib
from sbjax.tasks.classification import TEST
from sbjax.tasks.colour_losses import LOSSES, make_colour_loss
from sbjax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    dataset: str = option("cifar10", "a set of TFDS, 'folder:PATH' of pictures, or 'module:function' of yours; RGB")
    data_dir: str = option("", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True)
    cache_dir: str = option("", "decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax", free=True)
    image_size: int = option(0, "resize to this size; 0 = as stored", least=0, most=10**4)
    eval_share: float = option(1.0, "share of validation and test split that is evaluated", above=0, most=1)
    train_share: float = option(1.0, "share of the training split; a smaller share is part of a larger one", above=0,
                                most=1)  # fmt: skip
    batch_size: int = option(32, "images in a step", least=1)
    flip: bool = option(True, "mirror images at random")
    eval_batch_size: int = option(100, "images in an evaluation call; bounds memory only", least=1)
    loss: str = option("l2", "squared or absolute error of a and b, or classes of colour ('bins')", choices=LOSSES)
    mixture: float = option(
        0.5, "of 'bins': how far weights of rare colours go; 1 = all weigh alike", above=0, most=1,
        only={"loss": one_of("bins")},
    )  # fmt: skip
    temperature: float = option(
        0.38, "of 'bins': of the mean over classes that is the prediction", above=0, most=100,
        only={"loss": one_of("bins")},
    )  # fmt: skip


class Colour(TrainingExperiment):
    """Networks that colour images."""

    name: ClassVar[str] = "colour"
    fields: ClassVar[type] = Fields
    model: ClassVar[Mapping[str, Any]] = {"name": "unet"}
    data_fields: ClassVar[tuple[str, ...]] = ("dataset", "data_dir", "cache_dir", "image_size", "train_share")

    def shrink(self, config):
        """Little data, small pictures and a small network."""
        config.task.update(batch_size=4, eval_batch_size=20)
        if not (config.task.dataset.startswith("folder:") or is_import_path(config.task.dataset)):
            config.task.update(train_share=0.01, eval_share=0.005, image_size=16)
        if config.model.get("name") == "unet":
            with config.model.unlocked():
                config.model.update(width=4, depth=2)
            for arm in config.arms.values():
                if "width" in arm.get("model", {}):
                    arm.model.width = 8

    def load_data(self, task: Fields) -> ColourData:
        """The images of one source and their statistics."""
        try:
            return with_statistics(
                images_lib.load(
                    task.dataset,
                    data_dir=task.data_dir or None,
                    cache_dir=task.cache_dir or None,
                    image_size=task.image_size or None,
                    train_share=task.train_share,
                )
            )
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def make_task(self, plan: Plan, arm: ArmPlan, data: ColourData, expansion: Expansion | None) -> Task:
        """Colourisation of these images by this arm's network."""
        model, task = dict(arm.model), arm.task
        colour_loss = _loss(task, data)
        height, width = data.images.train_images.shape[1:3]
        with told_as("expansion"):
            grows = check_expansion(expansion, (height, width, 1))[:2] != (height, width)
        with told_as("model"):
            module = make_map_model(
                model.pop("name", None), outputs=colour_loss.outputs, sites=expansion if grows else None, **model
            )
        return colour_lib.make_colour_task(
            data,
            module,
            colour_loss,
            expansion=expansion,
            batch_size=task.batch_size,
            flip=task.flip,
            eval_batch_size=task.eval_batch_size,
            eval_share=task.eval_share,
            probe_size=plan.monitor.probe_size,
        )

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Pictures by the first replica, and the predictions without a network."""
        arrays = arm.task.data
        is_test = np.asarray(arrays["eval_split"]) == TEST
        images = arrays["eval_inputs"][np.flatnonzero(is_test)[: report_lib.PICTURES]]
        first = jax.tree.map(lambda leaf: leaf[0], fitted.variables)

        @jax.jit
        def predicted(variables, images):
            ab = arm.task.outputs({"probe": images}, variables)
            return colour_lib.coloured(ab, colour_lib.to_lab(images))

        report_lib.save_pictures(folder.path, arm.name, images, predicted(first, images))
        if not (folder.path / report_lib.BASELINES).exists():
            found = colour_lib.baselines(self.load_data(plan.task), share=plan.task.eval_share)
            write_json(folder.path / report_lib.BASELINES, found)

    def report(self, results, workdir: Path) -> Any:
        """Beside predictions without a network, and pictures."""
        return report_lib.report(results, workdir)


def _loss(task: Fields, data: ColourData):
    return make_colour_loss(task.loss, data.statistics, mixture=task.mixture, temperature=task.temperature)


EXPERIMENT = Colour()
