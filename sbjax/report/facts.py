"""What was done, for a reader who was not there: what was trained, on what, when, and what published work says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbjax.report import roles, tables
from sbjax.report.results import Results
from sbjax.report.sections import Facts, Note, Part, Section, Table
from sbjax.report.suite import load_seconds

WHAT = ("dataset", "equation", "function", "variant", "program", "batch_size", "train_share", "image_size")
"""Fields of `task` that are said, where a config has them."""


def section(results: Results, workdir: str | os.PathLike) -> Section:
    """Task, model, optimiser, length and seeds; the arms; date, hardware, precision, wall time, versions; claims.

    Args:
        results: of the run.
        workdir: its folder, for the seconds in `timings.jsonl`.
    """
    config, environment = results.config, results.environment
    rows = {
        "task": _task(config.get("task", {})),
        "model": _model(config.get("model", {}), results),
        "optimizer": _optimizer(config.get("optimizer", {})),
        "training": _length(config, results),
        "seeds": _seeds(config, results),
        "hardware": _hardware(environment),
        "precision": _precision(environment),
        "date": results.started or "",
        "wall time": _wall_time(Path(workdir)),
        "software": _software(environment),
    }
    facts = Facts([(name, text) for name, text in rows.items() if text])
    return Section("What was trained", [facts, *_arms(results), *_claims(results)])


def duration(seconds: float) -> str:
    """A time that people can imagine.

    >>> duration(0.04), duration(9.7), duration(42.3), duration(372), duration(9000)
    ('0.04 s', '10 s', '42 s', '6.2 min', '2.5 h')
    """
    if seconds < 9.5:  # above, one digit would be shown as 1e+01
        return f"{seconds if seconds >= 1e-3 else 0:.1g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _task(task: Mapping[str, Any]) -> str:
    said = [str(task.get("kind", ""))]
    for name in WHAT:
        value = task.get(name)
        if value not in (None, "", 0, 0.0, (), [], 1.0) and not isinstance(value, Mapping):
            said.append(str(value) if name in WHAT[:3] else f"{name.replace('_', ' ')} {value}")
    return ", ".join(filter(None, said))


def _model(model: Mapping[str, Any], results: Results) -> str:
    name = str(model.get("name", ""))
    shape = [f"{field} {_sizes(model[field])}" for field in ("widths", "channels", "width") if model.get(field)]
    counts = {arm: count for arm, count in results.parameters.items() if count}
    if len(set(counts.values())) == 1:
        shape.append(f"{tables.count(next(iter(counts.values())))} trained parameters in every arm")
    elif counts:
        low, high = min(counts.values()), max(counts.values())
        shape.append(f"{tables.count(low)} to {tables.count(high)} trained parameters")
    return ", ".join(filter(None, (name, *shape)))


def _sizes(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:g}"


def _optimizer(optimizer: Mapping[str, Any]) -> str:
    if not optimizer.get("name"):
        return ""
    rate, schedule = optimizer.get("learning_rate"), optimizer.get("schedule")
    said = [
        str(optimizer["name"]),
        f"learning rate {rate:g}" if rate else "",
        f"{schedule} schedule" if schedule else "",
    ]
    return ", ".join(filter(None, said))


def _length(config: Mapping[str, Any], results: Results) -> str:
    counts = sorted(set(results.steps.values()))
    steps = " to ".join(tables.count(x) for x in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    epochs = f" ({config['train_epochs']:g} epochs)" if config.get("train_epochs") else ""
    return f"{steps} steps{epochs}" if steps else ""


def _seeds(config: Mapping[str, Any], results: Results) -> str:
    start = f"{results.replicas} independently initialised replicas an arm, the same seeds for all arms"
    return f"{start}; seed {config['seed']}" if "seed" in config else start


def _hardware(environment: Mapping[str, Any]) -> str:
    device, devices = environment.get("device"), environment.get("devices")
    processor, cores = environment.get("processor"), environment.get("cores")
    said = []
    if processor or cores:
        said.append(f"{processor or 'CPU'}, {cores} cores" if cores else str(processor))
    if device:
        said.append(f"JAX on {devices} x {device}" if devices else f"JAX on {device}")
    return "; ".join(said)


def _precision(environment: Mapping[str, Any]) -> str:
    """What factors of matrix products were rounded to, where that is not float32."""
    products, asked = environment.get("products", "float32"), environment.get("precision", {})
    if products == "float32" or (isinstance(asked, Mapping) and asked.get("x64")):
        return ""
    matmul = f" (precision.matmul={asked['matmul']})" if isinstance(asked, Mapping) and "matmul" in asked else ""
    return f"factors of float32 matrix products were rounded to {products}{matmul}: other numbers than on a CPU"


def _wall_time(workdir: Path) -> str:
    """Of all arms, where training was timed."""
    spent = load_seconds(workdir).values()
    if not spent:
        return ""
    train, total = sum(one.train for one in spent), sum(one.total for one in spent)
    return f"{duration(total)}, of which training steps {duration(train)}"


def _software(environment: Mapping[str, Any]) -> str:
    versions = environment.get("versions", {})
    versions = versions if isinstance(versions, Mapping) else {}
    said = [f"{name} {versions[name]}" for name in ("sbjax", "jax", "flax") if versions.get(name)]
    commit = environment.get("commit")
    return ", ".join([*said, *([f"commit {commit[:10]}"] if isinstance(commit, str) else [])])


def _arms(results: Results) -> list[Part]:
    """Of few arms, what each one is; of many, those with a sentence about them."""
    arms = roles.shown(results)
    rows = [[arm, results.roles[arm], str(results.labels[arm].get("about", "")) or tables.NONE] for arm in arms]
    left = len(results.arms) - len(arms)
    notes = [f"{left} further arms are in the tables below."] if left else []
    return [Table(["arm", "role", "what it is"], rows, notes=notes)]


def _claims(results: Results) -> list[Part]:
    claims = {str(results.labels[arm]["claim"]): None for arm in results.arms if results.labels[arm].get("claim")}
    return [Note(f"Published: {claim}") for claim in claims]
