"""What the entry scripts share: flags with messages instead of tracebacks, devices, exit codes.

Nothing heavy is imported here: a wrong flag is told, and the first line written, before JAX is loaded.
"""

import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from sbjax.runner import config_file

CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs")
"""The config files that come with the package; a link to `configs/` where it is installed from a clone."""
_HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}


def define_config(help: str) -> None:
    """The flag --config."""
    config_flags.DEFINE_config_file("config", None, help)
    # Ours says file and line where ml_collections shows a traceback, or takes an error of the file for a wrong flag.
    flags.FLAGS["config"].parser.parse = lambda given: config_file.load(given, sys.argv[1:])


def define_cpu_devices() -> None:
    """The flag --cpu_devices."""
    flags.DEFINE_integer(
        "cpu_devices",
        min(_cores(), 8),
        "Emulated devices where there is no accelerator; replicas are spread over them.",
        lower_bound=1,
    )


def define_distributed() -> None:
    """The flag --distributed."""
    flags.DEFINE_string(
        "distributed",
        None,
        "Several processes of one run: 'auto' under Slurm, Open MPI or on a TPU pod, else HOST:PORT,PROCESS,COUNT.",
    )


def _cores() -> int:
    """Those that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require(flag: str, what: str) -> None:
    """Refuse a flag that was not given.

    Raises:
        ConfigError: naming the flag and what it is.
    """
    from sbjax.frame.errors import ConfigError

    given = flags.FLAGS[flag].value
    if given is None:
        raise ConfigError(f"--{flag} is missing: {what}")
    if given == "None":  # what a script writes that was given no folder
        raise ConfigError(f"--{flag}=None is no name but a value that is missing: {what} (./None, if it is called so)")
    if flag == "workdir" and given == "-":
        raise ConfigError("--workdir=- stands for no folder and is for configs that list something; name a folder")


def read_config(cpu_devices: int, distributed: str | None = None) -> dict[str, Any]:
    """Arguments of `runner.run.run` from the flag --config; also sets the devices up.

    Raises:
        ConfigError: the flag was not given, or one of its fields has no effect.
    """
    require("config", "the experiment, such as configs/quickstart.py")
    import jax

    jax.config.update("jax_num_cpu_devices", cpu_devices)
    if distributed is not None:
        from sbjax.common import hosts

        hosts.start(distributed)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    given = config_flags.get_override_values(flags.FLAGS["config"])
    config_file.check_second_phase(given, flags.FLAGS.config)
    overrides = [f"{name}={value}" for name, value in given.items()]
    return {"config": flags.FLAGS.config, "overrides": overrides, "config_file": _as_given(file)}


def parse(argv: list[str], check: Callable[[], None] | None = None) -> list[str]:
    """The flags, with a message instead of a traceback where one is wrong.

    Args:
        check: refuses flags besides --config with a `ConfigError`, before a config file is run; not of a config with
            the word `list`, which needs no other flag.
    """
    _show_anything()
    argv = [_with_own_config(word) for word in argv]
    _first_line(argv)
    if _HELP & set(argv):
        _help_with_fields()
    try:
        _parse_plain(argv)  # before a config file is run, which takes seconds
        if check is not None and any(re.match(r"--?config(=(?!.*[:,]list\b)|$)", word) for word in argv):
            _check_plain(check)
        if any(re.match(r"--?config(=|$)", word) for word in argv):
            _check_limit()
        rest = flags.FLAGS(argv)
    except config_file.ConfigFileError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # while a config file is run
        sys.stderr.write("stopped before any training; nothing is lost\n")
        sys.exit(128 + signal.SIGINT)
    except (flags.Error, ValueError) as error:  # the latter of --noflag=value
        said = str(error).replace("invalid literal for int() with base 10:", "give a whole number, not")
        said = said.replace("could not convert string to float:", "give a number, not")
        said = re.sub(r"\('Non-boolean argument to boolean flag', (.*)\)", r"give true or false, not \1", said)
        sys.exit(f"error: {said.strip()}\n--help lists the flags")
    if len(rest) > 1:
        sys.exit(f"error: unexpected argument {rest[1]!r}: everything is a flag, such as --workdir=DIR")
    return rest


def _check_plain(check: Callable[[], None]) -> None:
    from sbjax.frame.errors import ConfigError

    try:
        check()
    except ConfigError as error:
        sys.exit(f"error: {error}")


def _parse_plain(argv: list[str]) -> None:
    """Parse all flags but --config and those of its fields, which need the config file."""
    plain, skip = [], False
    for word in argv:
        own = re.match(r"--?(no)?config(\.|=|$)", word)
        if not skip and not own:
            plain.append(word)
        skip = bool(own) and "=" not in word and not word.startswith(("--no", "-no"))
    flags.FLAGS(plain)


def _show_anything() -> None:
    """Write what a terminal of few letters cannot show as escapes, instead of dying of it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _with_own_config(word: str) -> str:
    """A flag --config that names a file of ours (`quickstart:smoke`, `configs/quickstart.py`) with the path of it.

    A file that is there from the current folder goes first.
    """
    flag, _, given = word.partition("=")
    file, colon, words = given.partition(":")
    if flag not in ("--config", "-config") or not file or os.path.exists(file):
        return word
    own = os.path.join(CONFIGS, os.path.basename(file).removesuffix(".py") + ".py")
    ours = file == os.path.basename(file).removesuffix(".py") or os.path.dirname(file) == "configs"
    return f"{flag}={own}{colon}{words}" if ours and os.path.exists(own) else word


def _as_given(file: str) -> str:
    """A config file of ours as `configs/NAME.py`, wherever the package is installed."""
    return file.replace(f"{CONFIGS}{os.sep}", "configs/")


def _first_line(argv: list[str]) -> None:
    """Say that something happens, and refuse a config file that is not there, before anything is imported for it."""
    given = [word.split("=", 1)[1] for word in argv if word.startswith(("--config=", "-config="))]
    try:
        there = not given or os.path.exists(config_file.split(given[-1])[0])
    except config_file.ConfigFileError as error:
        sys.exit(f"error: {error}")
    if not there:
        sys.exit(f"error: --config={given[-1]}: there is no such file; see configs/")
    if given and not _HELP & set(argv):
        sys.stderr.write(f"reading {_as_given(given[-1])}\n")
        sys.stderr.flush()


def _help_with_fields() -> None:
    """`--help` shows the fields that every config has, where the script has a --config."""
    if "config" not in flags.FLAGS:
        return
    from sbjax.frame.sections import help_text

    script = sys.modules["__main__"]
    script.__doc__ = (
        f"{script.__doc__}\nFields of a config (--config=FILE --fields lists those that FILE reads):\n\n{help_text()}"
    )


def _of_a_thread(args: Any) -> None:
    """Errors of the threads of libraries; a disk that is full is told of once, by the main thread."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def _about_memory(error: Exception) -> str | None:
    """What to do where memory ran out; None of any other error."""
    said = str(error)
    if not isinstance(error, MemoryError) and not re.search(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|bad_alloc", said):
        return None
    return (
        f"memory ran out ({said.splitlines()[0][:120] if said else type(error).__name__}). What was saved is "
        "untouched. Lower replicas, the batch (task.batch_size, task.points) or the model, or start with "
        "--config.placement.replicas=sequential, one replica after another"
    )


def _about_files(error: OSError) -> str:
    """What an error of the disk says. Of a folder that was being copied, `shutil` has a list with an entry a file."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        first, *others = [str(each[-1]) for each in error.args[0]]
        return first + (f", and {len(others)} more files" if others else "")
    return str(error)


def _errors_of_hosts() -> tuple[type[Exception], ...]:
    """Looked up when something was raised: that module imports JAX, and a flag that is missing is told before."""
    hosts = sys.modules.get("sbjax.common.hosts")
    return () if hosts is None else (hosts.HostsError,)


LEAST_ADDRESSES = 1_600_000_000
"""Bytes of addresses without which JAX does not start: it reserves more than that, and dies without a word."""


def _check_limit() -> None:
    """Refuse a limit of addresses in which JAX cannot start, in words instead of a crash."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < LEAST_ADDRESSES:
        sys.exit(
            f"error: this process may use {limit / 1e9:.1f} GB of addresses (ulimit -v), and JAX reserves more than "
            f"{LEAST_ADDRESSES / 1e9:.1f} GB when it starts, most of which it never touches; raise the limit, or limit "
            "memory by a control group, as clusters do"
        )


def guard(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
    """`main(argv)` with the package's messages on the terminal, and exits with a message where it fails."""
    import absl.logging

    _check_limit()
    from sbjax.common.files import FileError
    from sbjax.frame.errors import ConfigError
    from sbjax.runner.signals import Interrupted
    from sbjax.training.errors import CheckpointError

    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells of every step of every save
    threading.excepthook = _of_a_thread
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of tasks of orbax whose errors are raised besides
    logger = logging.getLogger("sbjax")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl would write each line once more, with its prefix
    try:
        return main(argv)
    except (ConfigError, CheckpointError, FileError, *_errors_of_hosts()) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        said = _about_files(error)
        sys.exit(f"error: {said}. What was saved is untouched: put it right, then start the same command again")
    except (MemoryError, RuntimeError) as error:
        hosts = sys.modules.get("sbjax.common.hosts")
        if (said := _about_memory(error) or (hosts and hosts.about(error))) is None:
            raise
        sys.exit(f"error: {said}")
    except KeyboardInterrupt:
        sys.stderr.write("stopped before any training; nothing is lost\n")
        sys.exit(128 + signal.SIGINT)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.exit_code)
