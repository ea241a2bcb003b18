"""What the entry scripts share: flags with messages instead of tracebacks, devices, exit codes.

Nothing heavy is imported here: a wrong flag is told, and the first line written, before JAX is loaded.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs")
"""The config files that come with the package; a link to `configs/` where it is installed from a clone."""
_HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}


def define_config(help: str) -> None:
    """The flag --config."""
    config_flags.DEFINE_config_file("config", None, help)


def define_cpu_devices() -> None:
    """The flag --cpu_devices."""
    flags.DEFINE_integer(
        "cpu_devices",
        min(os.cpu_count() or 1, 8),
        "Emulated devices where there is no accelerator; replicas are spread over them.",
        lower_bound=1,
    )


def require(flag: str, what: str) -> None:
    """Refuse a flag that was not given.

    Raises:
        ConfigError: naming the flag and what it is.
    """
    from sbjax.frame.errors import ConfigError

    if flags.FLAGS[flag].value is None:
        raise ConfigError(f"--{flag} is missing: {what}")


def read_config(cpu_devices: int) -> dict[str, Any]:
    """Arguments of `runner.run.run` from the flag --config; also sets the devices up.

    Raises:
        ConfigError: the flag was not given.
    """
    import jax

    require("config", "the experiment, such as configs/quickstart.py")
    jax.config.update("jax_num_cpu_devices", cpu_devices)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    overrides = [f"{name}={value}" for name, value in config_flags.get_override_values(flags.FLAGS["config"]).items()]
    return {"config": flags.FLAGS.config, "overrides": overrides, "config_file": _as_given(file)}


def parse(argv: list[str]) -> list[str]:
    """The flags, with a message instead of a traceback where one is wrong."""
    argv = [_with_own_config(word) for word in argv]
    _first_line(argv)
    if _HELP & set(argv):
        _help_with_fields()
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        # What a config file raises, ml_collections reports with the whole traceback.
        _, raised, said = str(error).rpartition("ConfigError: ")
        if raised:
            sys.exit(f"error: {said.strip()}")
        said = said.replace("invalid literal for int() with base 10:", "give a whole number, not")
        said = said.replace("could not convert string to float:", "give a number, not")
        sys.exit(f"error: {said.strip()}\n--help lists the flags")
    except Exception as error:  # the user's config file may raise anything
        sys.exit(f"error: {_about_config(error, argv)}")
    if len(rest) > 1:
        sys.exit(f"error: unexpected argument {rest[1]!r}: everything is a flag, such as --workdir=DIR")
    return rest


def _about_config(error: Exception, argv: list[str]) -> str:
    """What went wrong while the config file was read: in the file itself, with its line, or in a flag of a field."""
    if type(error).__name__ == "ConfigError":
        return str(error)
    file = _config_file(argv)
    if isinstance(error, SyntaxError):
        return f"{error.filename or file} line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if file and os.path.abspath(frame.filename) == os.path.abspath(file)]
    if inside:
        return f"{file} line {inside[-1].lineno}: {type(error).__name__}: {error}"
    if not isinstance(error, AttributeError | KeyError):
        raise error
    if "get_config" in str(error):
        return f"{file} has no function get_config(argument=None) that returns a config; see docs/config.md"
    name, *hint = str(error).replace("\\n", " ").replace("\\'", "").replace("'", "").replace('"', "").split()
    flag = next((word for word in argv if f".{name}" in word.split("=")[0]), f"--config.{name}")
    open_section = flag.removeprefix("--").startswith(("config.model.", "config.expansion.", "config.optimizer."))
    more = " Options that the file does not set yet go into the file: config.model = {..}." if open_section else ""
    return f"{flag}: the config has no such field. {' '.join(hint)}".rstrip() + more


def _config_file(argv: list[str]) -> str | None:
    """The file of the flag --config."""
    given = [word.split("=", 1)[1] for word in argv if word.startswith(("--config=", "-config="))]
    return given[-1].split(":")[0] if given else None


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
    if given and not os.path.exists(given[-1].split(":")[0]):
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


def guard(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
    """`main(argv)` with the package's messages on the terminal, and exits with a message where it fails."""
    import absl.logging

    from sbjax.frame.errors import ConfigError
    from sbjax.runner.signals import Interrupted
    from sbjax.training.checkpoint import CheckpointError

    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells of every step of every save
    logger = logging.getLogger("sbjax")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl would write each line once more, with its prefix
    try:
        return main(argv)
    except (ConfigError, CheckpointError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What was saved is untouched: put it right, then start the same command again")
    except KeyboardInterrupt:
        sys.stderr.write("stopped before any training; nothing is lost\n")
        sys.exit(128 + signal.SIGINT)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.exit_code)
