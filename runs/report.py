"""Tables, figures and one HTML file from the workdir of a run.

    python runs/report.py --workdir=/tmp/quickstart
    python runs/report.py --workdir=/tmp/pdes --classical

A finished run has them already; made again from the same files they are the same, byte for byte. `--classical` adds to
a suite of equations how long a classical solver takes to the same errors; it measures that on this machine, in minutes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from sbjax import cli as cli_lib
from sbjax import suite
from sbjax.report import build_report

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that a training run has written to.", required=True)
_CLASSICAL = flags.DEFINE_bool("classical", False, "Of a suite of equations: measure a classical solver first.")


def main(argv: Sequence[str]) -> Path:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is given by --workdir")
    try:
        if (Path(_WORKDIR.value) / suite.LISTED).exists():
            return suite.report(_WORKDIR.value, classical=_CLASSICAL.value)[1]
        path = build_report(_WORKDIR.value)
    except FileNotFoundError as error:
        raise app.UsageError(f"--workdir={_WORKDIR.value}: {error}") from error
    return path


def cli(argv: Sequence[str]) -> None:
    """`main`, and its path on the terminal: absl hands what this returns to sys.exit."""
    sys.stdout.write(f"report: {cli_lib.guard(main, argv)}\n")


if __name__ == "__main__":
    app.run(cli)
