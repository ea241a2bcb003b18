"""The sections that experiments share, every field once: default, bounds or choices, one line of help.

A section that belongs to one kind of experiment (its `task`) stands in that experiment's folder; the options of an
optimiser, a model or an expansion stand with it.
"""

import dataclasses

from sbjax.common.options import Spec, describe, given, has, option


@dataclasses.dataclass(frozen=True)
class General:
    """Fields outside of any section."""

    seed: int = option(0, "of all random numbers; the same for all arms", least=0, most=2**32 - 1)
    replicas: int = option(10, "independently initialised and trained copies of each arm", least=1, most=10**6)
    train_epochs: float = option(0.0, "training length in epochs; 0 = given by train_steps", least=0, most=1e9)
    train_steps: int = option(0, "training length in steps; 0 = given by train_epochs", least=0)
    reports: int = option(10, "evaluations, evenly spaced, besides the one before the first step", least=1,
                         most=10**5)  # fmt: skip
    reference: str = option("raw", "the arm that the others are compared with")
    callbacks: str = option("", "functions of yours, 'module:function', called at each report; separated by commas")


@dataclasses.dataclass(frozen=True)
class Precision:
    """Numerical precision of the whole run."""

    matmul: str = option("default", "of matrix products", choices=("default", "high", "highest"))
    x64: bool = option(False, "double precision")


@dataclasses.dataclass(frozen=True)
class Placement:
    """How replicas and steps are laid on devices; changes no result beyond round-off."""

    replicas: str = option("auto", "replicas of an arm", choices=("auto", "vmap", "map", "sequential"))
    steps: str = option("auto", "steps between two reports", choices=("auto", "scan", "loop"))
    compile: str = option("jit", "what spreads replicas over devices", choices=("jit", "pmap"))
    devices: int = option(0, "devices used; 0 = all", least=0)


@dataclasses.dataclass(frozen=True)
class Monitor:
    """Replica distances along training, and numbers of each replica."""

    kinds: str = option(
        "marginal",
        "of unmatched, marginal, neuron_cloud, function, matched, sharpness, breaking, separated by commas, or "
        "'module:function'; '' = none",
        off="",
    )
    at: str = option(
        "end", "steps: numbers, shares (10%), 'start', 'end', 'reports', separated by commas", only={"kinds": given()}
    )
    solver: str = option("sliced", "of neuron_cloud", only={"kinds": has("neuron_cloud")})
    probe_size: int = option(
        256, "held-out examples on which 'function' compares outputs", least=1, only={"kinds": has("function")}
    )
    products: int = option(
        16, "products with the Hessian for the sharpness of a replica", least=2, most=10**4,
        only={"kinds": has("sharpness")},
    )  # fmt: skip
    batches: int = option(
        1, "batches of training data that sharpness is taken on", least=1, most=10**4, only={"kinds": has("sharpness")}
    )


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """Losses on straight lines between networks, after training."""

    between: str = option("", "pairs (of replicas), start (a replica's start and end); 'pairs,start'; '' = none")
    points: int = option(
        25, "points on a line; odd, so that one is the midpoint", least=3, most=10**5, only={"between": given()}
    )
    pairs: int = option(
        10, "at most so many pairs, disjoint ones first", least=1, most=10**5, only={"between": has("pairs")}
    )
    rebase: bool = option(
        False, "pairs once more with hidden units matched, where no constants are", only={"between": has("pairs")}
    )
    matching: str = option(
        "weights",
        "units for rebase: by 'weights', or by correlations ('pearson') or products ('dot') of activations",
        choices=("weights", "pearson", "dot"),
        only={"rebase": given()},
    )
    identifiability: bool = option(
        False,
        "which neurons of hidden dense layers can be told apart, beside the barriers",
        only={"between": has("pairs")},
    )
    examples: int = option(5000, "training examples that losses are taken on", least=1, only={"between": given()})
    published: dict = option({}, "(mean, standard deviation) of published barriers by arm", only={"between": given()})


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Whether probabilities of classes mean what they say, on the test split after training."""

    bins: int = option(0, "equal bins of confidence, 15 is usual; 0 = calibration is not measured", least=0, most=1000)
    unknown: str = option(
        "", "a set of none of these classes, named as task.dataset: can it be told from the test split?",
        only={"bins": given()},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Population:
    """Hyper-parameters drawn for each replica; 0 = the same for all."""

    learning_rate: float = option(0.0, "decades below optimizer.learning_rate", least=0, most=30)
    weight_decay: float = option(0.0, "decades below optimizer.weight_decay", least=0, most=30)
    label_smoothing: float = option(0.0, "largest label smoothing, drawn uniformly from 0", least=0, below=1)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is saved during training, and how often."""

    saves: int = option(4, "evenly spaced saves, moved to the next report; the end is always saved", least=0,
                       most=10**5)  # fmt: skip
    minutes: float = option(5.0, "and whenever so many minutes have passed since the last save; 0 = not", least=0,
                            free=True)  # fmt: skip
    keep: int = option(2, "of the latest ones", least=1, free=True)
    keep_best: int = option(0, "of the best ones on validation data, besides", least=0, free=True)


# Sections by name. `task`, `model`, `expansion`, `optimizer`, `second_phase`, `arms` and `suite` are read by
# `sbjax.frame.config`.
SHARED = {
    "precision": Precision,
    "placement": Placement,
    "monitor": Monitor,
    "interpolation": Interpolation,
    "calibration": Calibration,
    "population": Population,
    "checkpoint": Checkpoint,
}

PHASE_STEPS = Spec(0, "of a second phase of training, after the first; 0 = none", least=0)

# What fields and sections were called in earlier versions.
RENAMED = {
    "lines": "interpolation",
    "finish": "second_phase",
    "mapping": "placement",
    "task.numbers": "task.coefficients",
}
RENAMED_KINDS = {"equation_of_state": "qcd", "regression": "functions"}


def help_text() -> str:
    """The fields of all shared sections, a line each: flag, default, help.

    >>> help_text().splitlines()[0]
    '  --config.seed=0  of all random numbers; the same for all arms'
    """
    lines = []
    for section, part in {"": General, **SHARED}.items():
        for name, spec in describe(part).items():
            flag = f"--config.{section}.{name}" if section else f"--config.{name}"
            lines.append(f"  {flag}={spec.default!r}  {spec.help}")
    return "\n".join(lines)
