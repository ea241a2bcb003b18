"""What the entry scripts share: flags with messages instead of tracebacks, devices, exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import absl.logging
import jax
from absl import flags
from ml_collections import config_flags

from sbjax.frame.errors import ConfigError
from sbjax.runner.signals import Interrupted
from sbjax.training.checkpoint import CheckpointError


def define_cpu_devices() -> flags.FlagHolder[int]:
    """The flag --cpu_devices."""
    return flags.DEFINE_integer(
        "cpu_devices",
        min(os.cpu_count() or 1, 8),
        "Emulated devices where there is no accelerator; replicas are spread over them.",
        lower_bound=1,
    )


def read_config(flag: Any, cpu_devices: int) -> dict[str, Any]:
    """Arguments of `experiment.run` from the flag --config, whose file must exist; also sets the devices up.

    Raises:
        ConfigError: there is no such file.
    """
    jax.config.update("jax_num_cpu_devices", cpu_devices)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    if not os.path.exists(file.split(":")[0]):
        raise ConfigError(f"--config={file}: there is no such file; see configs/")
    overrides = [f"{name}={value}" for name, value in config_flags.get_override_values(flags.FLAGS["config"]).items()]
    return {"config": flag.value, "overrides": overrides, "config_file": file}


def parse(argv: list[str]) -> list[str]:
    """The flags, with a message instead of a traceback where one is wrong."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        # What a config file raises, ml_collections reports with the whole traceback.
        _, raised, said = str(error).rpartition("ConfigError: ")
        said = said.replace("invalid literal for int() with base 10:", "give a whole number, not")
        said = said.replace("could not convert string to float:", "give a number, not")
        sys.exit(f"error: {'--config: ' if raised else ''}{said.strip()}\n--help lists the flags")
    except (AttributeError, KeyError) as error:
        name, *hint = str(error).replace("\\n", " ").replace("\\'", "").replace("'", "").replace('"', "").split()
        flag = next((word for word in argv if word.split("=")[0].endswith(f".{name}")), f"--config.{name}")
        sys.exit(f"error: {flag}: the config has no such field. {' '.join(hint)}".rstrip())
    if len(rest) > 1:
        sys.exit(f"error: unexpected argument {rest[1]!r}: everything is a flag, such as --workdir=DIR")
    return rest


def guard(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
    """`main(argv)` with the package's messages on the terminal, and exits with a message where it fails."""
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
