"""Train all arms of an experiment and write its report.

    python runs/train.py --config=configs/quickstart.py --workdir=/tmp/quickstart
    python runs/train.py --config=configs/images.py:cifar10,cnn --config.replicas=5 --workdir=/tmp/cifar10
    python runs/train.py --config=configs/pdes.py:all,quick --workdir=/tmp/pdes

Started again with the same flags it goes on where it stopped.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from sbjax.runner import cli as cli_lib
from sbjax.runner import run as experiment
from sbjax.runner import suite

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, such as configs/quickstart.py or configs/images.py:mnist,cnn."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
CPU_DEVICES = cli_lib.define_cpu_devices()
flags.declare_key_flag("cpu_devices")


def main(argv: list[str]) -> experiment.Outcome:
    """Run the experiment of the flags and return its outcome."""
    return suite.run(workdir=WORKDIR.value, **cli_lib.read_config(CONFIG, CPU_DEVICES.value))


def cli(argv: list[str]) -> None:
    """`main`, its table on the terminal, and exit codes."""
    outcome = cli_lib.guard(main, argv)
    sys.stdout.write(f"{outcome.table}\n\nreport: {outcome.report}\n")
    if outcome.status == "diverged":
        sys.exit(3)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(cli, flags_parser=cli_lib.parse)
