"""Names that a user gives: near ones for errors, and parts of a program named by import path."""

import difflib
import hashlib
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

# What users of other programs call a field.
SYNONYMS = {
    **dict.fromkeys(("seeds", "n_seeds", "num_seeds", "repeats", "runs", "n_runs", "trials"), "replicas"),
    **dict.fromkeys(("lr", "eta", "step_size", "rate", "base_lr"), "learning_rate"),
    **dict.fromkeys(
        (
            "batch",
            "bs",
            "batchsize",
            "minibatch",
            "minibatch_size",
            "train_batch_size",
            "per_device_train_batch_size",
        ),
        "batch_size",
    ),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epochs", "num_train_epochs"), "train_epochs"),
    **dict.fromkeys(("steps", "n_steps", "num_steps", "max_steps", "iterations", "iters"), "train_steps"),
    **dict.fromkeys(("wd", "l2", "decay"), "weight_decay"),
    **dict.fromkeys(
        ("hidden", "layers", "hidden_layers", "units", "neurons", "hidden_sizes", "features", "num_layers"), "widths"
    ),
    **dict.fromkeys(("optim", "optimiser", "opt"), "optimizer"),
    **dict.fromkeys(("data", "data_set", "dataset_name"), "dataset"),
    **dict.fromkeys(("net", "network", "architecture", "arch"), "model"),
    **dict.fromkeys(("scheduler", "lr_schedule"), "schedule"),
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_ratio"), "warmup_share"),
    **dict.fromkeys(
        ("grad_clip", "clip", "max_norm", "gradient_clipping", "gradient_clip_val", "max_grad_norm", "clipnorm"),
        "clip_norm",
    ),
    **dict.fromkeys(("act", "nonlinearity"), "activation"),
    **dict.fromkeys(("random_seed", "rng", "rng_seed"), "seed"),
    **dict.fromkeys(
        ("eval_every", "log_every", "evals", "val_check_interval", "eval_steps", "logging_steps"), "reports"
    ),
    **dict.fromkeys(("validation_split", "val_split", "val_size", "test_size"), "eval_share"),
    **dict.fromkeys(("pde", "problem"), "equation"),
    **dict.fromkeys(("collocation_points", "n_points", "num_points"), "points"),
    **dict.fromkeys(("params", "constants", "numbers"), "coefficients"),
    **dict.fromkeys(("double", "float64", "fp64"), "x64"),
    **dict.fromkeys(("dtype", "mixed_precision"), "matmul"),
    **dict.fromkeys(("gpu", "gpus", "n_devices", "num_devices", "device"), "devices"),
    **dict.fromkeys(("distances", "metrics"), "kinds"),
}

_UNSET = re.compile(r"\$(\w+|\{\w+\})|^~[^/]*")


def near(name: object, known: Iterable[str]) -> str:
    """', did you mean ..?' or nothing: the same name elsewhere, what others call it, then near spellings.

    Args:
        known: names, or paths such as 'task.batch_size', of which the last part counts.

    >>> near('exanded', ['raw', 'expanded']), near('lr', ['seed', 'optimizer.learning_rate'])
    (", did you mean 'expanded'?", ", did you mean 'optimizer.learning_rate'?")
    """
    known = list(dict.fromkeys(map(str, known)))
    close = likely(name, known) or difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def shown(value: object, most: int = 120) -> str:
    """A value as errors show it, in at most so many characters.

    >>> shown('a' * 500, 12)
    "'aaaaaaaa..."
    """
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def likely(name: object, known: Iterable[str]) -> list[str]:
    """Those of the known names, or paths, that end in this name or in what it is called here: at most three.

    >>> likely('seeds', ['seed', 'replicas']), likely('batch_size', ['task.batch_size']), likely('x', ['y'])
    (['replicas'], ['task.batch_size'], [])
    """
    text = str(name).lower().replace("-", "_")
    meant = {text, SYNONYMS.get(text, text)}
    return [path for path in known if path != name and path.rsplit(".", 1)[-1] in meant][:3]


def writable(text: object) -> bool:
    """Whether it is no text, or text that files can hold: without the halves of a character that stand for bytes of a
    name that is no UTF-8.

    >>> writable('ünï'), writable('a\\udcff')
    (True, False)
    """
    return not isinstance(text, str) or not any("\ud800" <= letter <= "\udfff" for letter in text)


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """An absolute path, with `~` and variables replaced: shells do not do it after `--workdir=`.

    Raises:
        ValueError: a variable that is not set, a name that this system's locale cannot write, one that is empty, holds
            a line break or another control character, or begins with '-' as flags do: '-' itself is no standard input
            here, and `rm -r -x` removes no folder '-x'.

    >>> expanded('-x')
    Traceback (most recent call last):
    ValueError: the path '-x' begins with '-', as flags do; write './-x' if it is called so
    """
    given = os.fspath(path)
    if not isinstance(given, str):
        given = os.fsdecode(given)
    if not given.strip():
        raise ValueError(f"the path {given!r} is empty; name a file or folder")
    if given.startswith("-"):
        raise ValueError(f"the path {given!r} begins with '-', as flags do; write {f'./{given}'!r} if it is called so")
    text = os.path.expandvars(os.path.expanduser(given))
    if "\0" in text:
        raise ValueError(f"the path {text!r} holds a NUL character, which no file system can")
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ValueError(f"the path {text!r} holds a line break or another control character; rename it")
    if (left := _UNSET.search(text)) and not os.path.exists(text):
        raise ValueError(
            f"the path {text!r} holds {left.group()}, which is not set here; set it, or write the path out"
        )
    try:
        os.fsencode(text)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the path {text!a} cannot be written in this system's encoding ({sys.getfilesystemencoding()}); set "
            "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or use a name of ASCII letters"
        ) from None
    return pathlib.Path(text).absolute()


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
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
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
    file = expanded(path)
    name = f"sbjax_user_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
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
