"""Train all arms of an experiment and write its report. Flags: `--help`. The same as `sbjax train`."""

from sbjax.commands import start

if __name__ == "__main__":
    start("train")
