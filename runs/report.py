"""Tables, figures and one HTML file from the workdir of a run.

    python runs/report.py --workdir=/tmp/quickstart
    python runs/report.py --workdir=/tmp/pdes --classical

A finished run has them already; made again from the same files they are the same, byte for byte. `--classical` adds to
an equation, or a suite of them, how long a classical solver takes to the same errors; it measures that on this machine,
in seconds to minutes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from sbjax.runner import cli as cli_lib
from sbjax.runner import suite

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that a training run has written to.", required=True)
_CLASSICAL = flags.DEFINE_bool("classical", False, "Of equations: measure a classical solver first.")


def main(argv: Sequence[str]) -> Path:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; everything is given by --workdir")
    try:
        if (Path(_WORKDIR.value) / suite.LISTED).exists():
            return suite.report(_WORKDIR.value, classical=_CLASSICAL.value)[1]
        return suite.report_of_one(_WORKDIR.value, classical=_CLASSICAL.value)
    except FileNotFoundError as error:
        raise app.UsageError(f"--workdir={_WORKDIR.value}: {error}") from error


def cli(argv: Sequence[str]) -> None:
    """`main`, and its path on the terminal: absl hands what this returns to sys.exit."""
    sys.stdout.write(f"report: {cli_lib.guard(main, argv)}\n")


if __name__ == "__main__":
    app.run(cli)
