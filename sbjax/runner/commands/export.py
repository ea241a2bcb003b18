"""A trained network as a safetensors file and a model card.

    python runs/export.py --workdir=/tmp/quickstart --arm=expanded --replica=0 --out=/tmp/expanded.safetensors
    python runs/export.py --workdir=/tmp/quickstart --out=/tmp/raw.safetensors             # all replicas, stacked

Beside `expanded.safetensors` stands `expanded.md`: what was trained, on what, and how well. In Python:
`sbjax.load(workdir, arm=.., replica=.., step=..)`.
"""

import sys

from absl import flags

from sbjax.runner import cli as cli_lib


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder that a training run has written to.")
    flags.DEFINE_string("out", None, "File to write, ending in .safetensors.")
    flags.DEFINE_string("arm", None, "Which arm; default the reference.")
    flags.DEFINE_integer("replica", None, "Which replica; default all, stacked.")
    flags.DEFINE_integer("step", None, "Step of the checkpoint; default the newest.")
    flags.DEFINE_bool("trust", False, "Import code of yours that the folder names by import path.")


def main(argv: list[str]):
    """Write the files of the flags and return their paths."""
    given = flags.FLAGS
    cli_lib.require("workdir", "the folder of a run")
    cli_lib.require("out", "the file to write")
    from sbjax.runner.export import export

    return export(given.workdir, given.out, arm=given.arm, replica=given.replica, step=given.step, trust=given.trust)


def cli(argv: list[str]) -> None:
    """`main`, and the paths on the terminal."""
    for path in cli_lib.guard(main, argv):
        sys.stdout.write(f"{path}\n")
