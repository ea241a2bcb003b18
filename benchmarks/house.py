"""Measures the structure of the package: rooms, floors, arrows, circles, and how far a configuration travels.

    python benchmarks/house.py                  # from the imports alone, a second
    python benchmarks/house.py --walk           # and how a configuration travels, from a smoke run

A room is a folder of `sbjax/` (or a module directly in it); an arrow is an import of one room by another; a room stands
one floor above the highest one that it imports. The walk records every call of a function of the package that is
handed a configuration, from `runner.run.run` to the first training step: `ConfigDict`, resolved settings, `Plan` or
`ArmPlan`. A climb is such a call from a lower floor to a higher one.
"""

import argparse
import ast
import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "sbjax"


def main():
    """Print a line a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walk", action="store_true", help="run the smallest config and follow it")
    parser.add_argument("--config", default="configs/images.py:digits,mlp,smoke")
    given = parser.parse_args()
    found = measure(ROOT)
    for name, value in found.items():
        print(f"{name}: {json.dumps(value)}")
    if given.walk:
        for name, value in walk(given.config, floors(rooms(imports(ROOT)))).items():
            print(f"{name}: {json.dumps(value)}")


def measure(root):
    """All that the source alone tells, by name."""
    files = imports(root)
    graph = rooms(files)
    height = floors(graph)
    takers, ladders = readings(root)
    return {
        "rooms": len(graph),
        "floors": max(height.values()),
        "arrows": sum(map(len, graph.values())),
        "circles of files": [sorted(part) for part in circles(files)],
        "circles of rooms": [sorted(part) for part in circles(graph)],
        "functions outside frame/ that take settings": takers,
        "tests of the kind of a run outside the registry": ladders,
        "lines of README": (root / "README.md").read_text().count("\n"),
        "longest modules": sorted(((len(p.read_text().splitlines()), str(p.relative_to(root))) for p in sources(root)),
                                  reverse=True)[:3],
    }  # fmt: skip


def sources(root):
    """All modules of the package but `__main__`, a name for a command."""
    return sorted(path for path in (root / PACKAGE).rglob("*.py") if path.name != "__main__.py")


def module_name(root, path):
    """'sbjax.metrics.replica' of its file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root):
    """{module: modules of the package that it imports anywhere}."""
    names = {module_name(root, path): path for path in sources(root)}
    graph = {}
    for name, path in names.items():
        out = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                out |= {
                    f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in names else node.module for a in node.names
                }
            elif isinstance(node, ast.Import):
                out |= {a.name for a in node.names}
        graph[name] = {other for other in out if other in names} - {name}
    return graph


def room(module):
    """'sbjax.metrics' of 'sbjax.metrics.replica'."""
    return ".".join(module.split(".")[:2])


def rooms(files):
    """{room: rooms that it imports}; the package's face, `sbjax/__init__.py`, only hands names on."""
    graph = {room(module): set() for module in files if module != PACKAGE}
    for module, out in files.items():
        if module != PACKAGE:
            graph[room(module)] |= {room(other) for other in out if other != PACKAGE} - {room(module)}
    return graph


def circles(graph):
    """Sets of nodes that reach one another, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = set()
            while node not in part:
                part.add(stack.pop())
            if len(part) > 1:
                found.append(part)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def floors(graph):
    """{room: floor}, 1 = imports no other; rooms of a circle share theirs."""
    member = {node: number for number, part in enumerate(circles(graph)) for node in part}
    height = {}

    def floor(node, seen):
        if node not in height:
            same = {other for other in graph if other == node or member.get(other, node) == member.get(node, other)}
            below = {other for twin in same for other in graph[twin]} - same - seen
            height[node] = 1 + max((floor(other, seen | same) for other in below), default=0)
        return height[node]

    return {node: floor(node, set()) for node in graph}


def readings(root):
    """Functions outside `frame/` with a parameter `settings`, and tests of a run's kind outside the registry."""
    takers, ladders = [], []
    for path in sources(root):
        where = str(path.relative_to(root))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "/frame/" not in where:
                if any(a.arg == "settings" for a in (*node.args.args, *node.args.kwonlyargs)):
                    takers.append(f"{where}:{node.lineno}")
            elif isinstance(node, ast.If) and not where.endswith("registry.py"):
                text = ast.unparse(node.test).replace('"', "'")
                if "['kind'] ==" in text or (".kind ==" in text and "task" in text):
                    ladders.append(f"{where}:{node.lineno}")
    return takers, ladders


def walk(config_words, height):
    """How a configuration travels through a smoke run until the first training step."""
    import runpy

    from ml_collections import ConfigDict

    from sbjax.frame.plan import ArmPlan, Plan
    from sbjax.runner import run as run_lib

    file, _, words = config_words.partition(":")
    config = runpy.run_path(str(ROOT / file))["get_config"](words)
    visited, climbs, stops = [], [], 0
    prefix = str(ROOT / PACKAGE)

    def carries(value):
        if isinstance(value, ConfigDict | Plan | ArmPlan):
            return True
        return isinstance(value, dict) and "task" in value and "arms" in value

    def name_of(frame):
        path = pathlib.Path(frame.f_code.co_filename)
        return module_name(ROOT, path) if str(path).startswith(prefix) else None

    class FirstStep(Exception):
        pass

    def profile(frame, event, argument):
        nonlocal stops
        if event != "call" or not frame.f_code.co_filename.startswith(prefix):
            return
        if frame.f_code.co_name == "advance":
            sys.setprofile(None)
            raise FirstStep
        code = frame.f_code
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        # A method of a configuration is not handed one.
        if not any(carries(frame.f_locals.get(name)) for name in parameters if name != "self"):
            return
        here, caller = name_of(frame), frame.f_back
        while caller is not None and name_of(caller) is None:
            caller = caller.f_back
        stops += 1
        if here not in visited:
            visited.append(here)
        if caller is not None and height[room(here)] > height[room(name_of(caller))]:
            climbs.append(f"{name_of(caller)} -> {here}")

    with tempfile.TemporaryDirectory() as folder:
        sys.setprofile(profile)
        try:
            run_lib.run(config, pathlib.Path(folder) / "run")
        except FirstStep:
            pass
        finally:
            sys.setprofile(None)
    return {
        "modules that are handed a configuration": visited,
        "count": len(visited),
        "calls": stops,
        "climbs": sorted(set(climbs)),
    }


if __name__ == "__main__":
    main()
