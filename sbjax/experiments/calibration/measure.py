"""Calibration of the trained networks of an arm, each by itself and all of them averaged: a deep ensemble."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sbjax import trees
from sbjax.common.files import plain, write_json
from sbjax.frame.arms import Arm
from sbjax.frame.plan import Plan
from sbjax.frame.workdir import Workdir
from sbjax.metrics import calibration as lib
from sbjax.tasks.classification import TEST, VALIDATION
from sbjax.tasks.task import Task, Variables
from sbjax.training.fit import Fitted
from sbjax.training.progress import Progress

FOLDER = "calibration"


class Predictions(NamedTuple):
    """Log-probabilities of one predictor, by split; `unknown` None without such images."""

    validation: Float[np.ndarray, "n classes"]
    test: Float[np.ndarray, "m classes"]
    unknown: Float[np.ndarray, "k classes"] | None


def measure_arm(plan: Plan, arm: Arm, fitted: Fitted, folder: Workdir, progress: Progress) -> None:
    """Measure an arm that is trained, over the replicas that did not stop, and write `calibration/<arm>.json`.

    Nothing is done where the section `calibration` asks for nothing.
    """
    if not plan.calibration.bins:
        return
    progress.show(f"{arm.name}: calibration")
    began = time.perf_counter()
    stopped = {failure.replica for failure in fitted.failures}
    running = [replica for replica in range(plan.replicas) if replica not in stopped]
    found = measure(arm.task, fitted.variables, running=running, bins=plan.calibration.bins)
    save(folder.path, arm.name, found)
    folder.add_timing(arm=arm.name, calibration_seconds=round(time.perf_counter() - began, 3))


def measure(task: Task, variables: Variables, *, running: list[int], bins: int = lib.BINS) -> dict[str, Any]:
    """Numbers of calibration on the test split, as plain numbers for JSON.

    Args:
        task: with `log_probabilities`; where its data have `unknown` inputs, their detection is measured.
        variables: of all replicas, stacked.
        running: replicas that did not stop.
        bins: of confidence.

    Returns:
        `{'bins', 'examples', 'replicas': [{'accuracy', 'loss', 'brier', 'error', 'floor', 'floor_high', 'temperature',
        'tempered_loss', 'detection' (or None)}], 'ensemble': the same of the averaged probabilities, or None with one
        replica, 'reliability': counts, confidence and accuracy by bin, of all replicas together}`.
    """
    labels, split = (np.asarray(task.data[name]) for name in ("eval_labels", "eval_split"))
    labels = Predictions(labels[split == VALIDATION], labels[split == TEST], None)
    numbers, every, kept = [], [], []
    for replica, found in zip(running, predictions(task, variables, running)):
        if any(np.isnan(side).any() for side in found if side is not None):
            continue  # on its way to divergence: finite weights, outputs that overflow
        numbers.append(_numbers(found, labels, bins))
        every.append(found)
        kept.append(replica)
    one = None
    if len(every) > 1:
        mean = Predictions(*(None if side[0] is None else lib.averaged(np.stack(side)) for side in zip(*every)))
        one = _numbers(mean, labels, bins)
    together = None
    if every:
        whole = np.concatenate([found.test for found in every])
        together = lib.reliability(whole, np.tile(labels.test, len(every)), bins=bins)._asdict()
    return plain({
        "bins": bins,
        "examples": len(labels.test),
        "running": kept,
        "replicas": numbers,
        "ensemble": one,
        "reliability": together,
    })  # fmt: skip


def predictions(task: Task, variables: Variables, replicas: list[int]) -> Iterator[Predictions]:
    """Log-probabilities of one replica after another."""
    call = jax.jit(task.log_probabilities)
    split = np.asarray(task.data["eval_split"])
    whole, unknown = len(split), task.data.get("unknown")

    def over(inputs: Array, one: Variables) -> Float[np.ndarray, "n classes"]:
        # In pieces as long as the held-out examples: one program serves both.
        found = []
        for start in range(0, len(inputs), whole):
            rows = inputs[start : start + whole]
            padding = jnp.zeros((whole - len(rows), *rows.shape[1:]), rows.dtype)
            data = {**task.data, "eval_inputs": jnp.concatenate([rows, padding])}
            parts = -(-len(rows) * task.parts // whole)
            found += [np.asarray(call(data, one, jnp.int32(part))) for part in range(parts)]
        return np.concatenate(found)[: len(inputs)]

    for replica in replicas:
        one = trees.take(variables, replica)
        found = over(task.data["eval_inputs"], one)
        strange = None if unknown is None else over(unknown, one)
        yield Predictions(found[split == VALIDATION], found[split == TEST], strange)


def save(workdir: Path, arm: str, found: dict[str, Any]) -> None:
    """Write `calibration/<arm>.json`."""
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_json(workdir / FOLDER / f"{arm}.json", found)


def _numbers(found: Predictions, labels: Predictions, bins: int) -> dict[str, float | None]:
    test: Int[np.ndarray, " m"] = labels.test
    floor = lib.floor(found.test, bins=bins)
    tempered = lib.tempered(found.test, test, fit=(found.validation, labels.validation))
    known = lib.confidence(found.test)
    return {
        "accuracy": float((found.test.argmax(-1) == test).mean()),
        "loss": lib.log_loss(found.test, test),
        "brier": lib.brier(found.test, test),
        "error": lib.calibration_error(found.test, test, bins=bins),
        "floor": floor.mean,
        "floor_high": floor.high,
        "temperature": tempered.temperature,
        "tempered_loss": tempered.loss,
        "detection": None if found.unknown is None else lib.detection(known, lib.confidence(found.unknown)),
    }
