"""Tables, figures and one HTML file from the workdir of a run, and the comparison of two runs.

    python runs/report.py --workdir=/tmp/quickstart
    python runs/report.py --workdir=/tmp/pdes --classical
    python runs/report.py --workdir=/tmp/longer --against=/tmp/quickstart

A finished run has them already; made again from the same files they are the same, byte for byte. `--classical` adds to
an equation, or a suite of them, how long a classical solver takes to the same errors; it measures that on this machine,
in seconds to minutes. `--against` compares arms of the same name in two runs, seed by seed.
"""

import sys
from pathlib import Path

from absl import flags

from sbjax.runner import cli as cli_lib


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder that a training run has written to.")
    flags.DEFINE_string("against", None, "Folder of another run, to compare with.")
    flags.DEFINE_bool("classical", False, "Of equations: measure a classical solver first.")
    flags.DEFINE_bool("trust", False, "Import an experiment of yours that the folder names by import path.")


def main(argv: list[str]) -> tuple[str, Path]:
    """Make what the flags ask for; return a table for the terminal and the path of the page."""
    given = flags.FLAGS
    cli_lib.require("workdir", "the folder of a run")
    from sbjax.runner import suite

    if given.against is not None:
        return suite.compare(given.workdir, given.against)
    return suite.report(given.workdir, classical=given.classical, trust=given.trust)[:2]


def cli(argv: list[str]) -> None:
    """`main`, with its table and path on the terminal."""
    table, path = cli_lib.guard(main, argv)
    sys.stdout.write(f"{table}\n\nreport: {path}\n" if table else f"report: {path}\n")
