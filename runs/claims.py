"""Published claims beside our numbers, and the pages made from records. Flags: `--help`. The same as `sbjax claims`."""

from sbjax.runner.commands import start

if __name__ == "__main__":
    start("claims")
