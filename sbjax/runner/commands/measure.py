"""Rank designs by how much symmetry they break, or measure parameters that were trained elsewhere.

    python runs/measure.py --config=configs/designs.py:digits,brief --workdir=/tmp/brief
    python runs/measure.py --config=configs/designs.py:digits,brief --workdir=/tmp/brief --against=/tmp/full
    python runs/measure.py --params=a.safetensors,b.safetensors,c.npz
    python runs/measure.py --params=/tmp/quickstart/checkpoints/raw

With --config, the arms are designs: each is trained (briefly, as the config says; a finished or interrupted run is gone
on with), ranked by a replica distance with intervals, and, with --against, the rank correlation with test accuracy in
that other run is printed. With --params, every file is a replica (or one file holds all, stacked): orbax folders, .npz
and .safetensors. Running statistics, masks and other arrays that are no weights are left out, which the output says;
--buffers counts them.
"""

import sys

from absl import flags

from sbjax.runner import cli as cli_lib


def define_flags() -> None:
    """The flags of this command."""
    cli_lib.define_config("Designs as arms, such as configs/designs.py:digits,brief.")
    flags.DEFINE_string("workdir", None, "Folder of the run; with --params, where to write results (optional).")
    flags.DEFINE_string("against", None, "Workdir of full runs of the same designs.")
    flags.DEFINE_string("by", "marginal", "Measure to rank by, such as marginal or neuron_cloud_scale_free.")
    flags.DEFINE_list("params", None, "Parameters on disk, one file or orbax folder a replica.")
    flags.DEFINE_list("where", None, "Globs of the leaves to measure, such as '*/kernel'; default all.")
    flags.DEFINE_bool("buffers", False, "With --params: count running statistics, masks, averaged copies, too.")
    flags.DEFINE_integer(
        "neuron_axis", None, "Axis of a kernel that counts neurons: -1 in Flax, 0 in PyTorch; default by names."
    )
    cli_lib.define_cpu_devices()


def main(argv: list[str]):
    """What the flags ask for, as `sbjax.runner.ranking.Measurement`."""
    from sbjax.frame.errors import ConfigError

    given = flags.FLAGS
    if (given.params is None) == (given.config is None):
        raise ConfigError("give either --config with --workdir, or --params")
    if given.params is None:
        cli_lib.require("workdir", "the folder in which the designs are trained")
    elif given.workdir is not None:
        cli_lib.require("workdir", "where to write results; leave it out to print them alone")
    from sbjax.runner import ranking

    if given.params is not None:
        return ranking.measure_params(
            given.params,
            where=given.where,
            neuron_axis=given.neuron_axis,
            workdir=given.workdir,
            buffers=given.buffers,
        )
    settings = cli_lib.read_config(given.cpu_devices)
    return ranking.rank_designs(workdir=given.workdir, against=given.against, by=given.by, **settings)


def cli(argv: list[str]) -> None:
    """`main` and its tables on the terminal."""
    measured = cli_lib.guard(main, argv)
    sys.stdout.write(measured.table + "\n")
    for path in measured.files:
        sys.stdout.write(f"{path}\n")
    if measured.page is not None:
        sys.stdout.write(f"\nreport: {measured.page}\n")
