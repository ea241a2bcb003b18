"""The public names and their signatures, as they were last agreed on.

A change that is meant: `python tests/api_test.py > tests/api.txt`, and a line in CHANGELOG.md.
"""

import importlib
import inspect
import pathlib
import sys

import sbjax

# What a user imports by its own path, beside the names of `sbjax` itself.
MODULES = (
    *("config", "common.options", "trees", "asymmetry", "models"),
    *("expansion.kinds", "expansion.transform", "expansion.folding"),
    *("metrics.wasserstein", "metrics.replica", "metrics.matched", "metrics.connectivity", "metrics.hessian"),
    *("symmetry.spec", "symmetry.permutation", "symmetry.matching", "symmetry.rescaling"),
    *("landscape.counting", "landscape.manifold", "landscape.splitting", "landscape.critical_points"),
    *("physics.equation", "physics.building", "physics.pdes", "physics.finite_density"),
    *("tasks.task", "training.fit", "optimizers.section", "runner.run", "runner.load", "runner.export"),
)


def public(module):
    """Names that a module says or defines."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(name for name in getattr(module, "__all__", own) if not name.startswith("_"))


def describe(name, value):
    if inspect.isclass(value):
        fields = [] if issubclass(value, BaseException) else inspect.signature(value).parameters
        return f"class {name}({', '.join(fields)})"
    if not callable(value):
        return name
    parts = []
    for parameter in inspect.signature(value).parameters.values():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else "=.."
        mark = "!" if parameter.kind is parameter.KEYWORD_ONLY else ""  # keyword-only
        parts.append(f"{star}{mark}{parameter.name}{default}")
    return f"{name}({', '.join(parts)})"


def lines():
    found = [describe(f"sbjax.{name}", getattr(sbjax, name)) for name in sorted(sbjax.__all__)]
    for path in MODULES:
        module = importlib.import_module(f"sbjax.{path}")
        found += [describe(f"sbjax.{path}.{name}", getattr(module, name)) for name in public(module)]
    return found


def test_the_public_names_are_those_agreed_on():
    agreed = (pathlib.Path(__file__).parent / "api.txt").read_text().splitlines()
    found = lines()
    assert (sorted(set(agreed) - set(found)), sorted(set(found) - set(agreed))) == ([], []), __doc__


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
