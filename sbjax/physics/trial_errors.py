"""What goes wrong in a function of a user's equation, in a sentence: the line, and what to write instead."""

import linecache
import pathlib
import re
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbjax.physics.equation import Equation

_LIBRARIES = ("numpy", "math", "cmath", "scipy")


def told(where: str, equation: Equation, error: Exception) -> str:
    """What went wrong in a function of the user, at which line, and what to write instead."""
    frame, code, line = users_line(error)
    coordinates = ", ".join(equation.coordinates)
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return (
            f"{where}{line} decides by the value of a coordinate or of u (`if`, `and`, `min`, a comparison): write "
            "jnp.where(condition, a, b), jnp.minimum or jnp.logical_and, with jax.numpy as jnp"
        )
    if isinstance(
        error,
        jax.errors.TracerArrayConversionError
        | jax.errors.ConcretizationTypeError
        | jax.errors.TracerIntegerConversionError,
    ) or ("ufunc" in str(error) and isinstance(error, TypeError)):
        used = _foreign(code, frame)
        if used is None:
            return (
                f"{where}{line} makes a plain number of a traced one (float(..), int(..), numpy or math): use "
                "jax.numpy there"
            )
        name, instead = used
        return f"{where}{line} uses {name}, which jax cannot differentiate: write {instead}"
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return f"{where}{line}: there is no {error.args[0]!r}; of a partial, list it among the partials, and read d[..]"
    told = f"{type(error).__name__}: " if not isinstance(error, ValueError) else ""
    told += (str(error).splitlines() or ["no message"])[0]
    if isinstance(error, IndexError) or "iteration over a 0-d" in str(error):
        told += f"; functions of the coordinates get them apart, as numbers: value({coordinates}), not a point p[0]"
    if told.startswith(where.partition(":")[0] + ":"):
        return told
    return f"{where}{line}: {told}"


def users_line(error: Exception) -> tuple[Any, str, str]:
    """The innermost frame outside of libraries and of this package's own machinery, its code, and ' (file, line n)'."""
    own = pathlib.Path(__file__).parent
    machinery = {
        str(own / f"{name}.py")
        for name in (
            "trial",
            "trial_errors",
            "purity",
            "building",
            "equation",
            "derivatives",
            "ansatz",
        )
    }
    found = None
    for (frame, number), summary in zip(
        traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__)
    ):
        file = summary.filename
        if file not in machinery and "site-packages" not in file and not file.startswith("<"):
            found = frame, number, summary
    if found is None:
        return None, "", ""
    frame, number, summary = found
    code = linecache.getline(summary.filename, number)
    if summary.colno is not None and summary.end_lineno == summary.lineno:
        code = code.encode()[summary.colno : summary.end_colno].decode(errors="replace")
    return frame, code, f" ({pathlib.Path(summary.filename).name}, line {number})"


def _foreign(code: str, frame: Any) -> tuple[str, str] | None:
    """The first function of numpy, math or scipy called in a piece of code, and what to write in its place."""
    names = {} if frame is None else frame.f_globals | frame.f_locals
    for called in re.findall(r"([A-Za-z_][\w.]*)\s*\(", code):
        thing: Any = names.get(called.split(".")[0])
        for part in called.split(".")[1:]:
            thing = getattr(thing, part, None)
        home = "numpy" if isinstance(thing, np.ufunc) else getattr(thing, "__module__", None) or ""
        if home.split(".")[0] not in _LIBRARIES:
            continue
        short = getattr(thing, "__name__", called.split(".")[-1])
        short = {"fabs": "abs", "pow": "power"}.get(short, short)
        if hasattr(jnp, short):
            return called, f"jnp.{short}, with jax.numpy as jnp"
        if hasattr(jax.scipy.special, short):
            return called, f"jax.scipy.special.{short}"
        return called, "it with functions of jax.numpy"
    return None
