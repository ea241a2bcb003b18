"""From settings (plain dicts, checked by `config.check`) to expansions, data and tasks."""

import contextlib
import importlib
import re
from collections.abc import Iterator
from typing import Any

import jax

from sbjax.asymmetry.options import build_asymmetric
from sbjax.data import images as images_lib
from sbjax.expansion.kinds import Expansion
from sbjax.expansion.registry import make_expansion
from sbjax.frame.config import ConfigError
from sbjax.models import make_field, make_model, make_quasi_partons
from sbjax.physics import lattice
from sbjax.physics.equation import Equation, check_conditions
from sbjax.physics.pdes import make_equation
from sbjax.tasks.equation_of_state import make_equation_of_state_task
from sbjax.tasks.images import make_image_task
from sbjax.tasks.pinn import Points, make_pinn_task
from sbjax.tasks.regression import LOWER, UPPER, make_regression_task, make_target
from sbjax.tasks.task import Task


def build_expansion(section: dict[str, Any]) -> Expansion | None:
    """The expansion of a config section, see `make_expansion`.

    Raises:
        ConfigError: unknown kind, field or value.
    """
    with _told_as("expansion"):
        return make_expansion(section)


@contextlib.contextmanager
def _told_as(section: str) -> Iterator[None]:
    """Turn errors of library functions, whose lines begin with a field where it is one's, into those of a section."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(
            "\n".join(
                f"{section}{'.' if re.match(r'[a-z_][^ ]*=', line) else ': '}{line}" for line in str(error).split("\n")
            )
        ) from error


def build_data(section: dict[str, Any]) -> images_lib.ImageData | Equation | str:
    """What a task section is about: images, an equation, or the name of an equation of state.

    Raises:
        ConfigError: it does not exist, cannot be read, or its numbers are impossible.
    """
    if section["kind"] == "pinn":
        return _build_equation(section["equation"], section["numbers"])
    if section["kind"] == "equation_of_state":
        return _check_parametrisation(section["parametrisation"])
    if section["kind"] == "regression":
        return _check_function(section["function"])
    try:
        return images_lib.load(
            section["dataset"],
            data_dir=section["data_dir"] or None,
            cache_dir=section["cache_dir"] or None,
            image_size=section["image_size"] or None,
            train_share=section["train_share"],
            quarter_turns=section["quarter_turns"],
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise ConfigError(f"task.dataset={section['dataset']!r}: {error}") from error


def build_task(settings: dict[str, Any], data: images_lib.ImageData | Equation | str) -> Task:
    """The task of one arm (`config.arm_settings`).

    Raises:
        ConfigError: the model does not exist, or does not fit the expanded input.
    """
    make = _MAKERS[settings["task"]["kind"]]
    expansion = build_expansion(settings["expansion"])
    try:
        task = make(settings, data, expansion)
        jax.eval_shape(task.init, jax.random.key(0))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(str(error)) from error
    return task


def _image_task(settings, data, expansion):
    section, model = settings["task"], dict(settings["model"])
    asymmetry = model.pop("asymmetry", None)
    with _told_as("model"):
        module = build_asymmetric(make_model(model.pop("name"), classes=data.classes, **model), asymmetry)
    return make_image_task(
        data,
        module,
        expansion=expansion,
        batch_size=section["batch_size"],
        crop_padding=section["crop_padding"],
        flip=section["flip"],
        label_smoothing=section["label_smoothing"],
        eval_batch_size=section["eval_batch_size"],
        eval_share=section["eval_share"],
        probe_size=settings["monitor"]["probe_size"],
        line_examples=settings["lines"]["examples"],
    )


def _pinn_task(settings, equation, expansion):
    section, model = settings["task"], dict(settings["model"])
    # A deterministic method of the second phase needs the objective to stay as it is.
    deterministic = settings["finish"]["steps"] and settings["finish"]["name"] == "lbfgs"
    last = settings["train_steps"] if deterministic else None
    with _told_as("model"):
        field = make_field(
            model.pop("name"),
            unknowns=len(equation.unknowns),
            lower=equation.lower,
            upper=equation.upper,
            expansion=expansion,
            x64=bool(jax.config.jax_enable_x64),
            **model,
        )
    points = Points(
        interior=section["points"],
        boundary=section["boundary_points"],
        initial=section["initial_points"],
        sampler=section["sampler"],
        every=section["resample_every"],
        steps=last,
    )
    if section["fold"] and expansion is None:
        raise ConfigError("task.fold=True: there is no expansion to fold; set expansion.kind='vector'")
    return make_pinn_task(
        equation,
        field,
        points=points,
        weights=_parse_numbers("task.weights", section["weights"]),
        balance=section["balance"],
        balance_every=section["balance_every"],
        balance_steps=settings["train_steps"] if settings["finish"]["steps"] else None,
        derivatives=section["derivatives"],
        hard=section["hard"],
        fold=section["fold"],
        test_points=section["test_points"],
    )


def _equation_of_state_task(settings, parametrisation, expansion):
    model = dict(settings["model"])
    x64 = bool(jax.config.jax_enable_x64)
    with _told_as("model"):
        network = make_quasi_partons(model.pop("name"), expansion=expansion, x64=x64, **model)
    section = {name: value for name, value in settings["task"].items() if name not in ("kind", "parametrisation")}
    return make_equation_of_state_task(parametrisation, network, **section)


def _regression_task(settings, function, expansion):
    section, model = settings["task"], dict(settings["model"])
    if section["fold"] and expansion is None:
        raise ConfigError("task.fold=True: there is no expansion to fold; set expansion.kind='vector'")
    with _told_as("model"):
        field = make_field(
            model.pop("name"),
            unknowns=1,
            lower=(LOWER,),
            upper=(UPPER,),
            expansion=expansion,
            x64=bool(jax.config.jax_enable_x64),
            **model,
        )
    numbers = {name: section[name] for name in ("points", "test_points", "fold")}
    return make_regression_task(make_target(function), field, **numbers)


def _check_function(name: str) -> str:
    try:
        make_target(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return name


_MAKERS = {
    "images": _image_task,
    "pinn": _pinn_task,
    "equation_of_state": _equation_of_state_task,
    "regression": _regression_task,
}


def _check_parametrisation(name: str) -> str:
    try:
        lattice.check_name(name)
    except ValueError as error:
        raise ConfigError(f"task.parametrisation: {error}") from error
    return name


def _build_equation(name: str, numbers: str) -> Equation:
    """By name, or from `module:function` that returns an `Equation`."""
    given = _parse_numbers("task.numbers", numbers)
    module, colon, function = name.partition(":")
    try:
        if colon:
            equation = getattr(importlib.import_module(module), function)(**given)
        else:
            equation = make_equation(name, **given)
        check_conditions(equation)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise ConfigError(f"task.equation={name!r}: {error}") from error
    return equation


def _parse_numbers(field: str, text: str) -> dict[str, float]:
    """'nu=0.01, beta=30' -> a dict."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise ConfigError(f"{field}={text!r}: {part!r} must be name=number, such as 'nu=0.01'") from None
    return found
