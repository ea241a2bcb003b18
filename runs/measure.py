"""Rank designs, or measure parameters that were trained elsewhere. Flags: `--help`. The same as `sbjax measure`."""

from sbjax.commands import start

if __name__ == "__main__":
    start("measure")
