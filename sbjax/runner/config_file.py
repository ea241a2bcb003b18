"""The flag --config: the file of a user is run, and its flags are looked up in it, with errors that name file and line.

Nothing heavy is imported here; what a config file needs, it imports itself.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sbjax.common.elsewhere import hint
from sbjax.common.names import expanded, near

OPEN = ("model", "expansion", "optimizer", "second_phase")
"""Sections whose fields depend on what they name."""

SECTIONS = ("task", *OPEN)
"""Sections in which an arm may differ."""

TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0")


class ConfigFileError(Exception):
    """A config file, or a flag of one of its fields, that cannot be used; no ValueError, which absl would reword."""


def load(given: str, argv: Sequence[str]) -> Any:
    """The configuration of `file.py:words`, with every flag `--config.FIELD=..` of `argv` looked up in it.

    Raises:
        ConfigFileError: the file cannot be run, gives no configuration, or has no such field.
    """
    file, words = split(given)
    if not os.path.isfile(file):
        raise ConfigFileError(f"--config={given}: there is no such file; see configs/")
    with _told(file):
        module = _run(file)
        if not callable(getattr(module, "get_config", None)):
            raise ConfigFileError(
                f"{file} has no function get_config(argument=None) that returns a config; see docs/config.md"
            )
        config = module.get_config(*([words] if words else []))
    if not isinstance(config, Mapping) and not hasattr(config, "lock"):
        raise ConfigFileError(
            f"{file}: get_config() returned {_short(config)} and no config; end it with `return config`, where config "
            "is from sbjax.config.base_config(), see docs/config.md"
        )
    for flag, path, value in overrides(argv):
        _check_flag(flag, path, value, config, file)
    _drop_options_of_another(config, argv)
    if hasattr(config, "lock"):
        config.lock()
    return config


def split(given: str) -> tuple[str, str]:
    """The file, with `~` and variables replaced, and the words of 'file.py:words'.

    Raises:
        ConfigFileError: a variable that is not set, or a path that no system can have.
    """
    file, _, words = given.partition(":")
    try:
        expanded(file)
    except ValueError as error:
        raise ConfigFileError(f"--config: {error}") from error
    return os.path.expandvars(os.path.expanduser(file)), words


def overrides(argv: Sequence[str]) -> Iterator[tuple[str, list[str], str | None]]:
    """(flag, path, value) of every flag --config.FIELD; the value is None where it is the next word."""
    for word in argv:
        flag, equals, value = word.partition("=")
        match = re.fullmatch(r"--?(no)?config\.(.*)", flag)
        if match:
            yield flag, match.group(2).split("."), value if equals else None


def check_second_phase(given: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a flag of a second phase that no arm or run of the config has, also one that gives the default.

    Args:
        given: values of flags by path, {'second_phase.name': 'lbfgs'}.
        config: as the flags left it.

    Raises:
        ConfigError: naming the flag.
    """
    from sbjax.frame.differences import flat
    from sbjax.frame.errors import ConfigError

    tree = flat(config.to_dict() if hasattr(config, "to_dict") else config)
    if any(value for path, value in tree.items() if f".{path}".endswith(".second_phase.steps")):
        return
    for path, value in given.items():
        *section, field = path.split(".")
        # In an arm, the unit of a matched bias is for both phases, whether there is a second one or not.
        matched = field == "first_bias_scale" and len(section) > 1
        if section[-1:] == ["second_phase"] and field != "steps" and not matched:
            raise ConfigError(
                f"--config.{path}={value} has no effect with second_phase.steps=0: there is no second phase; give "
                "--config.second_phase.steps, or leave it out"
            )


def _run(file: str) -> Any:
    loader = importlib.machinery.SourceFileLoader("sbjax_config_file", file)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sbjax_config_file", loader))
    sys.modules[module.__name__] = module  # dataclasses look themselves up there
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told(file: str) -> Iterator[None]:
    """Whatever a config file raises, in one sentence with its line."""
    try:
        yield
    except ConfigFileError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:  # a config that only lists something
            raise
        if type(error).__name__ == "ConfigError":
            raise ConfigFileError(str(error)) from error
        if isinstance(error, SyntaxError):
            where = error.filename or file
            line = f" line {error.lineno}" if error.lineno else ""  # none of a file with null bytes
            raise ConfigFileError(f"{where}{line}: {type(error).__name__}: {error.msg}") from error
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(file)]
        line = f" line {inside[-1].lineno}" if inside else ""
        said = " ".join(str(error).split())
        raise ConfigFileError(f"{file}{line}: {type(error).__name__}: {said}".rstrip(": ")) from error


def _check_flag(flag: str, path: list[str], value: str | None, config: Any, file: str) -> None:
    """Refuse a flag of a field that the config does not have, or of a switch that is neither on nor off."""
    node = config
    for depth, part in enumerate(path):
        name = part.split("[")[0]
        if not isinstance(node, Mapping) and not hasattr(node, "items"):
            raise ConfigFileError(f"{flag}: {'.'.join(path[:depth])}={_short(node)} is no section and has no fields")
        if name not in node:
            raise ConfigFileError(f"{flag}: {_no_such_field(path, depth, node, config, file)}")
        node = node[name]
    if hasattr(node, "items"):
        such = next((f", such as {flag}.{name}=.." for name in node), "")
        raise ConfigFileError(
            f"{flag} is a section and no field: give its fields one by one{such}, or write it in {file}"
        )
    if isinstance(node, bool) and value is not None and value.lower() not in (*TRUE, *FALSE):
        raise ConfigFileError(f"{flag}={value}: give true or false")


def _drop_options_of_another(config: Any, argv: Sequence[str]) -> None:
    """A flag that names another model or expansion leaves its options at their defaults: those of the file were meant
    for the one that the file names. Options that have a flag of their own stay."""
    given = {".".join(path): value for _, path, value in overrides(argv)}
    for section, selector in (("model", "name"), ("expansion", "kind")):
        other = given.get(f"{section}.{selector}")
        node = config.get(section) if hasattr(config, "get") else None
        if other is None or node is None or selector not in node or node[selector] in (other, other.strip("'\"")):
            continue
        with config.unlocked() if hasattr(config, "unlocked") else contextlib.nullcontext():
            for name in [name for name in node if name != selector and f"{section}.{name}" not in given]:
                del node[name]


def _no_such_field(path: list[str], depth: int, node: Any, config: Any, file: str) -> str:
    here, name = ".".join(path[:depth]), path[depth]
    if path[0] == "arms":
        arm, field = path[1] if depth > 1 else name, ".".join(path[2:])
        if depth == 1:
            return f"{file} has no arm {arm!r}{near(arm, node)}; its arms: {', '.join(node)}. An arm goes into the file"
        missing = ".".join(path[2 : depth + 1])
        if depth == 2 and (told := near(name, [*node, *SECTIONS])) and name not in SECTIONS:
            return f"arm {arm!r} of {file} has no {missing}{told}"
        return (
            f"arm {arm!r} of {file} has no {missing}. A flag "
            f"sets fields that the arm has in the file: write it there, config.arms.{arm}.{path[2]} = {{..}}, or set "
            f"{field} for all arms: --config.{field}"
        )
    every = [f"{section}.{own}" for section, fields in config.items() if hasattr(fields, "items") for own in fields]
    own = near(name, node) if here else ""  # a near one of this section is more likely than a word of other programs
    told = own or hint(name, [*node, *config, *every])
    if here in OPEN:
        selector = next((f"{own!r}: {node[own]!r}, " for own in ("name", "kind") if own in node), "")
        told = told.partition("; ")[0]  # where an option goes is said below
        told += (
            ". A flag sets fields that the file has; an option that it does not set yet goes into the file: "
            f"config.{here} = {{{selector}{name!r}: ..}}, and is a flag from then on"
        )
    return f"{'the config' if not here else f'its section {here!r}'} has no field {name!r}{told}; --fields lists them"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
