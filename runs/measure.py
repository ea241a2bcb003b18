"""Rank designs, or measure parameters that were trained elsewhere. Flags: `--help`. The same as `sbjax measure`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("measure")
