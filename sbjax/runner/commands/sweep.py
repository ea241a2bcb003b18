"""Train an experiment in cells: many processes, a cluster, or any scheduler, with the report of one run.

    sbjax sweep plan --config=configs/pdes.py:all,quick --workdir=/tmp/sweep
    sbjax sweep run --workdir=/tmp/sweep --jobs=2
    sbjax sweep run --workdir=/tmp/sweep --engine=submitit --jobs=100 --minutes=240
    sbjax sweep run --workdir=/tmp/sweep --cell=0123456789abcdef
    sbjax sweep status --workdir=/tmp/sweep
    sbjax sweep merge --workdir=/tmp/sweep

`plan` cuts the arms of a config, or of all runs of its suite, into cells and writes sweep.json. `run` trains the cells
that are not done; started again, also on several hosts at once, it goes on. With --cell it trains one cell in this
process: the command for any other scheduler. `merge` makes the runs and their report from the cells that are done.
"""

import math
import sys
from typing import Any

from absl import flags

from sbjax.runner import cli as cli_lib

ENGINES_OF = {
    "cluster": ["submitit"],
    "partition": ["submitit"],
    "memory_gb": ["submitit"],
    "gpus": ["submitit", "ray"],
}
OF_MANY = ("jobs", "engine", "minutes", "cores", "again", "keep_going", *ENGINES_OF)
ACTIONS = ("plan", "run", "status", "merge")
OWN_FLAGS = {
    "plan": ("config", "workdir", "block"),
    "run": (
        *("workdir", "jobs", "engine", "cluster", "minutes", "cores", "gpus", "partition", "memory_gb"),
        *("cell", "again", "keep_going", "cpu_devices", "trust"),
    ),
    "status": ("workdir", "every"),
    "merge": ("workdir", "out", "trust", "cpu_devices"),
}


def define_flags(action: str = "plan") -> None:
    """The flags of this command."""
    own = OWN_FLAGS[action]
    if "config" in own:
        cli_lib.define_config("Experiment, such as configs/quickstart.py or configs/pdes.py:all.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; made if missing.")
    if "cpu_devices" in own:
        cli_lib.define_cpu_devices()
    for name, default, help in (
        ("block", 0, "Replicas of a cell at most; 0 = all of an arm."),
        ("jobs", 1, "Cells at a time."),
        ("cores", 0, "Cores of a cell; 0 = those of this machine, shared between the jobs."),
        ("gpus", 0, "GPUs of a cell, for submitit and ray."),
    ):
        if name in own:
            flags.DEFINE_integer(name, default, help, lower_bound=1 if name == "jobs" else 0)
    for name, share, help in (
        ("minutes", 0.0, "An attempt at a cell takes at most so long; 0 = no limit (submitit: a day)."),
        ("memory_gb", 0.0, "Memory of a job of Slurm; 0 = its default."),
    ):
        if name in own:
            flags.DEFINE_float(name, share, help, lower_bound=0)
    if "engine" in own:
        flags.DEFINE_enum("engine", "local", ["local", "submitit", "ray"], "What runs the cells.")
        flags.DEFINE_string("cluster", "", "Of submitit: 'slurm' or 'local'; '' = Slurm where it is found.")
        flags.DEFINE_string("partition", "", "Of Slurm; '' = its default.")
        flags.DEFINE_string("cell", None, "Train this cell, by its id, in this process.")
        flags.DEFINE_string("again", "", "Ids of cells, or 'failed': forget how they ended, then run.")
        flags.DEFINE_bool("keep_going", False, "Go on where two cells failed alike at once.")
    if "every" in own:
        flags.DEFINE_bool("every", False, "A line for each cell, also for those that are done or wait.")
    if "out" in own:
        flags.DEFINE_string("out", None, "Folder of the merged runs; by default WORKDIR/merged.")
    if "trust" in own:
        flags.DEFINE_bool("trust", False, "Import code of yours that the folder names by import path.")


def check_flags() -> None:
    """Refuse a workdir that is missing, before the config file is run."""
    cli_lib.require("workdir", "the folder of the sweep")


def check_effect(given: Any) -> None:
    """Refuse flags of `run` that would have no effect.

    Raises:
        ConfigError: naming the flag, and what it is for.
    """
    from sbjax.frame.errors import ConfigError

    flag = {name: given[name] for name in OF_MANY}
    for name in OF_MANY if given.cell is not None else ():
        if flag[name].present:
            raise ConfigError(
                f"--{name}={flag[name].value} has no effect with --cell, which trains one cell in this process: leave "
                "either out"
            )
    for name, engines in ENGINES_OF.items():
        if flag[name].present and flag[name].value and given.engine not in engines:
            raise ConfigError(
                f"--{name}={flag[name].value} has no effect with --engine={given.engine}: it is for "
                f"--engine={' and '.join(engines)}"
            )
    for name in ("minutes", "memory_gb"):
        if not math.isfinite(given[name].value):
            raise ConfigError(f"--{name}={given[name].value} must be a number >= 0")
    if given.cluster not in ("", "slurm", "local"):
        raise ConfigError(f"--cluster={given.cluster} is unknown; 'slurm' or 'local', '' = Slurm where it is found")


def main(argv: list[str]) -> tuple[str, int]:
    """What the flags ask for: a text for the terminal, and the exit code."""
    given = flags.FLAGS
    cli_lib.require("workdir", "the folder of the sweep")
    return {"plan": _plan, "run": _run, "status": _status, "merge": _merge}[given.sweep_action](given)


def _plan(given: Any) -> tuple[str, int]:
    cli_lib.require("config", "the experiment, such as configs/quickstart.py")
    from sbjax.runner.sweeps import plan

    settings = cli_lib.read_config(1)
    planned = plan.plan(workdir=given.workdir, block=given.block, **settings)
    first = "planned" if planned.new else "planned before, and the same"
    run = f"sbjax sweep run --workdir={given.workdir}"
    return f"{first}: {planned.said}\nto train them: {run}, on several hosts if they share the folder", 0


def _run(given: Any) -> tuple[str, int]:
    from sbjax.runner.sweeps import drive, engines, folder, status

    check_effect(given)
    sweep = folder.load(given.workdir)
    sweep.check_trusted(given.trust)
    if given.cell is not None:
        return _work(sweep, given)
    for cell in _again(sweep, given.again):
        status.reopen(sweep.folder(cell))
    words = ["--trust"] if given.trust else []
    if flags.FLAGS["cpu_devices"].present:
        words.append(f"--cpu_devices={given.cpu_devices}")
    limits = engines.Limits(given.jobs, given.minutes, given.cores, given.gpus, given.partition, given.memory_gb)
    engine = engines.make_engine(given.engine, limits, sweep.path, cluster=given.cluster)
    try:
        swept = drive.drive(sweep, engine, jobs=given.jobs, words=words, keep_going=given.keep_going)
    finally:
        engine.close()
    text = status.table(sweep, swept.states)
    if swept.stopped:
        return f"{text}\nerror: {swept.stopped}. Mend it, then run with --again=failed", 4
    return f"{text}\nfor the report: sbjax sweep merge --workdir={given.workdir}", swept.exit_code


def _again(sweep: Any, text: str) -> list[Any]:
    from sbjax.common.options import words
    from sbjax.frame.errors import ConfigError
    from sbjax.runner.sweeps import status

    if text == "failed":
        found = status.states(sweep)
        return [cell for cell in sweep.cells if found[cell.id].status in ("failed", "gave up", "damaged")]
    cells = [sweep.cell(name, flag="again") for name in words(text)]
    for cell in cells:
        if (state := status.state_of(sweep.folder(cell))).status == "running":
            raise ConfigError(f"--again={text}: {state.why} works on cell {cell.id}; stop it first, or leave it out")
    return cells


def _work(sweep: Any, given: Any) -> tuple[str, int]:
    import jax

    from sbjax.runner.sweeps import work

    cell = sweep.cell(given.cell)
    jax.config.update("jax_num_cpu_devices", given.cpu_devices)
    try:
        ending = work.work(sweep, cell)
    except work.Busy as error:
        return str(error), work.EXIT["busy"]
    return f"{cell.id} {cell.label}: {ending}", work.EXIT[ending]


def _status(given: Any) -> tuple[str, int]:
    from sbjax.runner.sweeps import folder, status

    sweep = folder.load(given.workdir)
    return status.table(sweep, status.states(sweep), every=given.every), 0


def _merge(given: Any) -> tuple[str, int]:
    import jax

    from sbjax.runner.sweeps import folder, merge, status

    sweep = folder.load(given.workdir)
    sweep.check_trusted(given.trust)
    jax.config.update("jax_num_cpu_devices", given.cpu_devices)
    merged = merge.merge(sweep, given.out)
    cells = "1 cell is" if len(merged.missing) == 1 else f"{len(merged.missing)} cells are"
    missing = f"\n{cells} missing: {status.ids(merged.missing)}" if merged.missing else ""
    return f"{merged.table}{missing}\n\nreport: {merged.page}", 4 if merged.missing else 0


def cli(argv: list[str]) -> None:
    """`main`, its text on the terminal, and its exit code."""
    text, code = cli_lib.guard(main, argv)
    sys.stdout.write(text + "\n")
    if code:
        sys.exit(code)
