"""Train all arms of an experiment and write its report.

    python runs/train.py --config=configs/quickstart.py --workdir=/tmp/quickstart
    python runs/train.py --config=configs/images.py:cifar10,cnn --config.replicas=5 --workdir=/tmp/cifar10

Started again with the same flags it goes on where it stopped.
"""

import logging
import os
import sys

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags

from sbjax import config as config_lib
from sbjax import experiment
from sbjax.training.checkpoint import CheckpointError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, such as configs/quickstart.py or configs/images.py:mnist,cnn."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices",
    min(os.cpu_count() or 1, 8),
    "Emulated devices where there is no accelerator; replicas are spread over them.",
    lower_bound=1,
)


def main(argv: list[str]) -> experiment.Outcome:
    """Run the experiment of the flags and return its outcome."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: everything is a flag, such as --workdir=DIR")
    jax.config.update("jax_num_cpu_devices", CPU_DEVICES.value)
    flag = flags.FLAGS["config"]
    file = config_flags.get_config_filename(flag)
    if not os.path.exists(file.split(":")[0]):
        raise config_lib.ConfigError(f"--config={file}: there is no such file; see configs/")
    overrides = [f"{name}={value}" for name, value in config_flags.get_override_values(flag).items()]
    return experiment.run(CONFIG.value, WORKDIR.value, overrides=overrides, config_file=file)


def parse(argv: list[str]) -> list[str]:
    """The flags, with a message instead of a traceback where one is wrong."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # What a config file raises, ml_collections reports with the whole traceback.
        _, raised, said = str(error).rpartition("ConfigError: ")
        sys.exit(f"error: {'--config: ' if raised else ''}{said.strip()}\n--help lists the flags")
    except (AttributeError, KeyError) as error:
        said = str(error).replace("\\n", " ").replace("\\'", "").strip("'")
        sys.exit(f"error: a --config.FIELD flag names a field that the config does not have: {said}")


def cli(argv: list[str]) -> None:
    """`main` with messages instead of tracebacks, and exit codes."""
    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells of every step of every save
    logger = logging.getLogger("sbjax")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl would write each line once more, with its prefix
    try:
        outcome = main(argv)
    except (config_lib.ConfigError, CheckpointError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What was saved is untouched: put it right, then start the same command again")
    except experiment.Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.exit_code)
    sys.stdout.write(f"{outcome.table}\n\nreport: {outcome.report}\n")
    if outcome.status == "diverged":
        sys.exit(3)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(cli, flags_parser=parse)
