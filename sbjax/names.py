"""Names that a user gives: near ones for errors, and parts of a program named by import path."""

import difflib
import hashlib
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Iterable
from typing import Any


def near(name: object, known: Iterable[str]) -> str:
    """', did you mean ..?' or nothing.

    >>> near('exanded', ['raw', 'expanded'])
    ", did you mean 'expanded'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=2, cutoff=0.5)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def check_choice(name: object, known: Iterable[str], *, what: str) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        ValueError: with near names and all known ones.

    >>> check_choice('sdg', ['sgd', 'adam'], what='name')
    Traceback (most recent call last):
        ...
    ValueError: name='sdg' is unknown, did you mean 'sgd'?; known: sgd, adam
    """
    known = list(known)
    if name not in known:
        raise ValueError(f"{what}={name!r} is unknown{near(name, known)}; known: {', '.join(map(str, known))}")


def is_import_path(name: object) -> bool:
    """Whether a name is `module:attribute` or `path/file.py:attribute`.

    `folder:PATH` never is, whatever the path holds.

    >>> is_import_path('my_models:Depthwise'), is_import_path('folder:/data'), is_import_path('mlp')
    (True, False, False)
    >>> is_import_path('folder:scans:new')
    False
    """
    module, colon, attribute = str(name).rpartition(":")
    return bool(colon and module) and module.partition(":")[0] != "folder" and attribute.isidentifier()


def import_path(name: str) -> Any:
    """What `module:attribute` or `path/file.py:attribute` names.

    A module is looked for on Python's path and in the current folder.

    Raises:
        ValueError: there is no such module or attribute, or importing it failed; the message says which.

    >>> import_path('math:sqrt')(4.0)
    2.0
    """
    module_name, _, attribute = name.rpartition(":")
    try:
        module = _file_module(module_name) if module_name.endswith(".py") else _module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name:
            raise ValueError(
                f"there is no module {module_name!r} on Python's path or in {pathlib.Path.cwd()}; start in its folder, "
                f"or give the file, such as path/{module_name}.py:{attribute}"
            ) from error
        raise ValueError(f"importing {module_name!r} failed: {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {module_name!r}; give its path from {pathlib.Path.cwd()}") from error
    except Exception as error:  # the user's own code may raise anything
        where = line_of(error, module_name)
        raise ValueError(f"importing {module_name!r} failed{where}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"{module_name!r} has no {attribute!r}{near(attribute, public)}")
    return getattr(module, attribute)


def _module(name: str) -> Any:
    """The module, also from the current folder, which is not on the path of `python runs/train.py`."""
    here = str(pathlib.Path.cwd())
    if here in sys.path or "" in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)
    try:
        importlib.invalidate_caches()  # the file may be younger than the folder's cached listing
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _file_module(path: str) -> Any:
    """The module of a file; the same file gives the same module, so that its classes are equal."""
    file = pathlib.Path(path).expanduser().absolute()
    name = f"sbjax_user_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def line_of(error: BaseException, module_name: str) -> str:
    """' at line n' of the user's file, from the traceback; '' if it was not there.

    >>> line_of(ValueError(), 'path/file.py:name')
    ''
    """
    module_name = module_name.partition(":")[0]
    stem, found = module_name.removesuffix(".py").split(".")[-1].split("/")[-1], None
    trace = error.__traceback__
    while trace is not None:
        if pathlib.Path(trace.tb_frame.f_code.co_filename).stem == stem:
            found = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno:
        found = error.lineno
    return f" at line {found}" if found else ""
