"""Published claims beside our numbers; records of results, and the pages made from them.

    python runs/claims.py                                                       # the table of claims
    python runs/claims.py --check=expansion-ising --scale=smoke --workdir=/tmp/claim
    python runs/claims.py --record=/tmp/quickstart --as=quickstart/quickstart --title='The quickstart'
    python runs/claims.py --write                                               # all pages of docs/ that are generated

`--check` runs the command of a claim again, at smoke or quick scale, and prints its numbers on record and now.
`--record` writes `results/EXPERIMENT/NAME.json` from the workdir of a finished run or suite; texts that an earlier
record of that name holds are kept unless they are given. `--write` makes the pages again, as `python -m
sbjax.claims.pages` does. Start it in the root of the repository.
"""

import sys
from typing import Any

from absl import flags

from sbjax.runner import cli as cli_lib


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_string("check", None, "Id of a claim to run again.")
    flags.DEFINE_enum("scale", "smoke", ["smoke", "quick"], "With --check: how small.")
    flags.DEFINE_string("workdir", None, "With --check: folder of the run.")
    flags.DEFINE_string("record", None, "Workdir of a finished run or suite, to make a record of.")
    flags.DEFINE_string("as", None, "With --record: EXPERIMENT/NAME of the record.")
    flags.DEFINE_string("title", None, "With --record: its title.")
    flags.DEFINE_string("about", None, "With --record: what was trained, in Markdown.")
    flags.DEFINE_string("notes", None, "With --record: what was found, in Markdown.")
    flags.DEFINE_string("hardware", None, "With --record: what it ran on; by default what config.json says.")
    flags.DEFINE_string(
        "table",
        "arms",
        "With --record: arms; of a suite of equations, shares; of folds of texts, pooled; of kind exact, cells; of "
        "lines between networks, lines; of a monitor's numbers of each network, along.",
    )
    flags.DEFINE_list("show", None, "With --record: metrics of arms that the table shows; default all.")
    flags.DEFINE_bool("write", False, "Make all generated pages again.")


def main(argv: list[str]) -> str:
    """Do what the flags ask for; return what is said on the terminal."""
    from sbjax.claims import pages, recording
    from sbjax.runner import rerun

    given: Any = flags.FLAGS
    if given.check is not None:
        cli_lib.require("workdir", "the folder of the run")
        return rerun.run_claim(given.check, scale=given.scale, workdir=given.workdir)
    if given.record is not None:
        cli_lib.require("as", "EXPERIMENT/NAME of the record, such as pdes/fifteen")
        texts: dict[str, Any] = {name: flags.FLAGS[name].value for name in ("title", "about", "notes", "hardware")}
        texts = {name: text for name, text in texts.items() if text is not None}
        return recording.record(given.record, given["as"].value, table=given.table, show=given.show, **texts)
    if given.write:
        return "\n".join(f"written: {path}" for path in pages.write()) or "all pages are what their records make"
    return pages.terminal(*pages.load()[:2])


def cli(argv: list[str]) -> None:
    """`main` with its text on the terminal, and a message where it fails."""
    from sbjax.claims.records import RecordError
    from sbjax.frame.errors import ConfigError

    try:
        said = main(argv)
    except (RecordError, ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(said + "\n")
