"""Train all arms of an experiment and write its report.

    python runs/train.py --config=configs/quickstart.py --workdir=/tmp/quickstart
    python runs/train.py --config=configs/images.py:cifar10,cnn --config.replicas=5 --workdir=/tmp/cifar10
    python runs/train.py --config=configs/pdes.py:all,quick --workdir=/tmp/pdes
    python runs/train.py --config=configs/quickstart.py --fields

Started again with the same flags it goes on where it stopped. `--fields` lists the fields that a config reads, with
values, bounds and help; each is a flag, such as --config.optimizer.learning_rate=0.01.
"""

import sys

from absl import flags

from sbjax.runner import cli as cli_lib


def define_flags() -> None:
    """The flags of this command."""
    cli_lib.define_config("Experiment, such as configs/quickstart.py or configs/images.py:mnist,cnn.")
    flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
    flags.DEFINE_integer("extend", 0, "Train a finished run so many steps longer than its config says.")
    flags.DEFINE_bool("fields", False, "List the fields that the config reads, and do nothing else.")
    cli_lib.define_cpu_devices()
    cli_lib.define_distributed()


def check_flags() -> None:
    """Refuse a workdir that is missing, before the config file is run."""
    if not flags.FLAGS.fields and flags.FLAGS.workdir != "-":  # a config of yours may list something
        cli_lib.require("workdir", "the folder of the run")


def main(argv: list[str]):
    """Run the experiment of the flags and return its outcome; with --fields, the list of fields."""
    given = flags.FLAGS
    cli_lib.require("config", "the experiment, such as configs/quickstart.py")
    if not given.fields:
        cli_lib.require("workdir", "the folder of the run")
    from sbjax.runner import fields, suite  # what is missing is told before JAX is imported

    settings = cli_lib.read_config(given.cpu_devices, given.distributed)
    if given.fields:
        return fields.fields_text(suite.first_plan(settings["config"]))
    return suite.run(workdir=given.workdir, extend=given.extend, **settings)


def cli(argv: list[str]) -> None:
    """`main`, its table on the terminal, and exit codes."""
    try:
        outcome = cli_lib.guard(main, argv)
    except SystemExit:  # told to all, see `hosts.from_first`
        _part()
        raise
    speaks = _part()
    if isinstance(outcome, str):
        sys.stdout.write(outcome + "\n")
        return
    if speaks:
        sys.stdout.write(f"{outcome.table}\n\nreport: {outcome.report}\n")
    if outcome.status == "diverged":
        sys.exit(3)


def _part() -> bool:
    """Part from the other processes, if there are any; whether this one speaks for all."""
    if flags.FLAGS.distributed is None:
        return True
    from sbjax.common import hosts

    speaks = hosts.first()
    hosts.stop()
    return speaks
