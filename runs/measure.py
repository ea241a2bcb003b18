"""Rank designs by how much symmetry they break, or measure parameters that were trained elsewhere.

    python runs/measure.py --config=configs/designs.py:digits,brief --workdir=/tmp/brief
    python runs/measure.py --config=configs/designs.py:digits,brief --workdir=/tmp/brief --against=/tmp/full
    python runs/measure.py --params=a.safetensors,b.safetensors,c.npz
    python runs/measure.py --params=/tmp/quickstart/checkpoints/raw

With --config, the arms are designs: each is trained (briefly, as the config says; a finished or interrupted run is gone
on with), ranked by a replica distance with intervals, and, with --against, the rank correlation with test accuracy in
that other run is printed. With --params, every file is a replica (or one file holds all, stacked): orbax folders, .npz
and .safetensors.
"""

import sys

from absl import app, flags

from sbjax.runner import cli as cli_lib

CONFIG = cli_lib.define_config("Designs as arms, such as configs/designs.py:digits,brief.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; with --params, where to write results (optional).")
AGAINST = flags.DEFINE_string("against", None, "Workdir of full runs of the same designs.")
BY = flags.DEFINE_string("by", "marginal", "Measure to rank by, such as marginal or neuron_cloud_scale_free.")
PARAMS = flags.DEFINE_list("params", None, "Parameters on disk, one file or orbax folder a replica.")
WHERE = flags.DEFINE_list("where", None, "Globs of the leaves to measure, such as '*/kernel'; default all.")
NEURON_AXIS = flags.DEFINE_integer("neuron_axis", -1, "Axis of a kernel that counts neurons: -1 in Flax, 0 in PyTorch.")
CPU_DEVICES = cli_lib.define_cpu_devices()
flags.declare_key_flag("cpu_devices")
flags.declare_key_flag("config")


def main(argv: list[str]):
    """What the flags ask for, as `sbjax.runner.ranking.Measurement`."""
    from sbjax.frame.errors import ConfigError

    if (PARAMS.value is None) == (flags.FLAGS["config"].value is None):
        raise ConfigError("give either --config with --workdir, or --params")
    if PARAMS.value is None:
        cli_lib.require(WORKDIR, "the folder in which the designs are trained")
    from sbjax.runner import ranking

    if PARAMS.value is not None:
        return ranking.measure_params(
            PARAMS.value, where=WHERE.value, neuron_axis=NEURON_AXIS.value, workdir=WORKDIR.value
        )
    settings = cli_lib.read_config(CONFIG, CPU_DEVICES.value)
    return ranking.rank_designs(workdir=WORKDIR.value, against=AGAINST.value, by=BY.value, **settings)


def cli(argv: list[str]) -> None:
    """`main` and its tables on the terminal."""
    measured = cli_lib.guard(main, argv)
    sys.stdout.write(measured.table + "\n")
    for path in measured.files:
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    app.run(cli, flags_parser=cli_lib.parse)
