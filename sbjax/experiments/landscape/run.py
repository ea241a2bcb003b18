"""Runs an experiment of this package arm by arm and leaves in the folder what a report reads."""

import logging
import time
from collections.abc import Callable
from typing import Any

import jax

from sbjax.experiments.landscape.experiment import FOLDER, load_arm, load_experiment, save_arm
from sbjax.files import plain
from sbjax.frame import config as config_lib
from sbjax.frame.workdir import Workdir

logger = logging.getLogger(__name__)

KEPT = f"Arms that were finished are kept in {FOLDER}/"


def check(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each arm.

    Raises:
        ConfigError: an experiment that does not exist, or an arm that it cannot run.
    """
    module, found = load_experiment(settings["task"]["experiment"]), {}
    if not settings["train_steps"]:
        raise config_lib.ConfigError(
            f"train_epochs={settings['train_epochs']}: an experiment on the loss landscape has no epochs; give "
            "train_steps, the steps of its optimiser"
        )
    for name in settings["arms"]:
        own = config_lib.arm_settings(settings, name)
        for field, shared in (("experiment", settings["task"]["experiment"]), ("kind", settings["task"]["kind"])):
            if own["task"][field] != shared:
                raise config_lib.ConfigError(
                    f"arm {name!r}: task.{field}={own['task'][field]!r} must be {shared!r} as in the whole run"
                )
        try:
            module.check(own)
        except config_lib.ConfigError as error:
            raise config_lib.ConfigError(f"arm {name!r}: {error}") from error
        found[name] = own
    return found


def run(folder: Workdir, settings: dict[str, Any], *, stop: Callable[[], bool]) -> bool:
    """Run all arms that are not finished yet; whether it came to its end."""
    from sbjax.report.results import save_arms

    module, arms = load_experiment(settings["task"]["experiment"]), check(settings)
    key, steps = jax.random.key(settings["seed"]), settings["train_steps"]
    finished = {}
    for name, own in arms.items():
        found = load_arm(folder.path, name)
        if found is None:
            if stop():
                return False
            began = time.perf_counter()
            found = module.run_arm(settings, own, key, lambda text, arm=name: logger.info("%s: %s", arm, text), stop)
            if found is None:
                return False
            save_arm(folder.path, name, found)
            folder.add_timing(arm=name, steps=[0, steps], train_seconds=round(time.perf_counter() - began, 3))
        folder.resume_metrics(name, [])
        for step, metrics in [*sorted(found.history.items()), (steps, found.metrics)]:
            folder.report({"arm": name, "step": step, "flops": 0.0, **plain(metrics)})
        finished[name] = found
    save_arms(
        folder.path,
        arms=list(arms),
        reference=settings["reference"],
        primary=module.PRIMARY,
        goal=module.GOAL,
        parameters={name: found.parameters for name, found in finished.items()},
        flops_per_step=dict.fromkeys(arms, 0.0),
        steps=dict.fromkeys(arms, steps),
        about=config_lib.about_arms(settings),
    )
    return True
