"""How long a classical solver takes to the same errors."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from sbjax.physics.collocation import time_to_errors
from sbjax.physics.equation import Equation

ERRORS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
LIMIT = 12.0  # seconds a size

logger = logging.getLogger(__name__)


def measure_classical(
    tasks: Mapping[str | None, Mapping[str, Any]], make: Callable[[str, str], Equation]
) -> dict[str, dict[str, float | None]]:
    """Seconds of `sbjax.physics.collocation` to each of `ERRORS`, by name of a run (None: of its equation) and error.

    Equations of more than two coordinates are left out.

    Args:
        tasks: sections `task` of the runs.
        make: `(equation, coefficients) -> Equation`.
    """
    found = {}
    for name, task in tasks.items():
        equation = make(task["equation"], task.get("coefficients", ""))
        if len(equation.coordinates) <= 2:
            logger.info("%s: classical solver", task["equation"])
            seconds = time_to_errors(equation, ERRORS, limit=LIMIT)
            found[name or task["equation"]] = {f"{error:g}": seconds[error] for error in ERRORS}
    return found
