"""Train all arms of an experiment and write its report. Flags: `--help`. The same as `sbjax train`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("train")
