"""Train all arms of an experiment and write its report.

    python runs/train.py --config=configs/quickstart.py --workdir=/tmp/quickstart
    python runs/train.py --config=configs/images.py:cifar10,cnn --config.replicas=5 --workdir=/tmp/cifar10
    python runs/train.py --config=configs/pdes.py:all,quick --workdir=/tmp/pdes
    python runs/train.py --config=configs/quickstart.py --fields

Started again with the same flags it goes on where it stopped. `--fields` lists the fields that a config reads, with
values, bounds and help; each is a flag, such as --config.optimizer.learning_rate=0.01.
"""

import sys

from absl import app, flags

from sbjax.runner import cli as cli_lib

CONFIG = cli_lib.define_config("Experiment, such as configs/quickstart.py or configs/images.py:mnist,cnn.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
EXTEND = flags.DEFINE_integer("extend", 0, "Train a finished run so many steps longer than its config says.")
FIELDS = flags.DEFINE_bool("fields", False, "List the fields that the config reads, and do nothing else.")
CPU_DEVICES = cli_lib.define_cpu_devices()
flags.declare_key_flag("cpu_devices")
flags.declare_key_flag("config")


def main(argv: list[str]):
    """Run the experiment of the flags and return its outcome; with --fields, the list of fields."""
    cli_lib.require(CONFIG, "the experiment, such as configs/quickstart.py")
    if not FIELDS.value:
        cli_lib.require(WORKDIR, "the folder of the run")
    from sbjax.runner import fields, suite

    settings = cli_lib.read_config(CONFIG, CPU_DEVICES.value)
    if FIELDS.value:
        return fields.fields_text(suite.first_plan(settings["config"]))
    return suite.run(workdir=WORKDIR.value, extend=EXTEND.value, **settings)


def cli(argv: list[str]) -> None:
    """`main`, its table on the terminal, and exit codes."""
    outcome = cli_lib.guard(main, argv)
    if isinstance(outcome, str):
        sys.stdout.write(outcome + "\n")
        return
    sys.stdout.write(f"{outcome.table}\n\nreport: {outcome.report}\n")
    if outcome.status == "diverged":
        sys.exit(3)


if __name__ == "__main__":
    app.run(cli, flags_parser=cli_lib.parse)
