"""Sweeps: two jobs on two cores against two cells started by hand, and what planning and listing many cells costs.

By hand: each cell's own command, two at a time, one core each, the next one at once when one ends. Both sides train
the same cells (Burgers, width 32, one core each) with programs that are compiled already.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

from common import figure

from sbjax import config as config_lib
from sbjax.runner.sweeps import drive, engines, folder, plan, status

SEEDS, STEPS = 6, 20_000


def main() -> None:
    """Print a JSON line a figure."""
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        _cost_of_many(root)
        by_hand = min(_seconds(root / f"hand{i}", _by_hand) for i in range(3))
        swept = min(_seconds(root / f"sweep{i}", _swept) for i in range(3))
    figure("time of cells started by hand over that of `sweep run --jobs=2`, from 1", 1 - by_hand / swept, unit="share",
           bar=0.1, by_hand_s=by_hand, sweep_s=swept)  # fmt: skip
    figure("overhead of a sweep, a cell", (swept - by_hand) / SEEDS, unit="s", bar=2.0, cells=SEEDS)


def _config():
    config = config_lib.base_config("pinn")
    config.train_steps, config.replicas, config.reports = STEPS, SEEDS, 2
    config.task.equation = "burgers"
    config.task.points = 500
    config.model.widths = (32, 32, 32)
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.checkpoint.saves = 1
    config.arms = {"raw": {}}
    return config


def _seconds(path, run):
    sweep = plan.plan(_config(), path, block=1, build_seconds=0).sweep
    began = time.perf_counter()
    run(sweep)
    seconds = time.perf_counter() - began
    assert {state.status for state in status.states(sweep).values()} == {"done"}
    return seconds


def _swept(sweep):
    command = [sys.executable, "-m", "sbjax", "sweep", "run", f"--workdir={sweep.path}", "--jobs=2", "--cpu_devices=1"]
    subprocess.run(command, check=True, capture_output=True)


def _by_hand(sweep):
    waiting, running = list(sweep.cells), {}
    cores = engines.cores_here()
    while waiting or running:
        for core in cores[:2]:
            if core not in running and waiting:
                command = engines.cell_command(sweep.path, waiting.pop(0).id, words=["--cpu_devices=1"])
                running[core] = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.DEVNULL)  # fmt: skip
        for core, process in list(running.items()):
            if process.poll() is not None:
                del running[core]
        time.sleep(0.01)


class _Nothing:
    """An engine that does nothing, so that what is left is the driver."""

    def start(self, command, log):
        where = log.parent
        status.finish(where, "done", {}, 0.0)

    def poll(self, job):
        return 0

    def stop(self, job, *, kill=False):
        pass


def _cost_of_many(root):
    seconds = {}
    for cells in (250, 1000):
        config = _config()
        config.replicas = cells
        began = time.perf_counter()
        sweep = plan.plan(config, root / f"many{cells}", block=1).sweep
        planned = time.perf_counter()
        status.table(folder.load(sweep.path), status.states(sweep))
        listed = time.perf_counter()
        drive.drive(sweep, _Nothing(), jobs=8)
        seconds[cells] = (planned - began, listed - planned, time.perf_counter() - listed)
    for name, i, bar in (("plan", 0, 5.0), ("status", 1, 5.0)):
        figure(f"{name} of 1000 cells", seconds[1000][i], unit="s", bar=bar)
    figure("driving 1000 cells of nothing over 4 times 250", seconds[1000][2] / (4 * seconds[250][2]), unit="ratio",
           bar=1.5, a_cell_ms=seconds[1000][2])  # fmt: skip


if __name__ == "__main__":
    main()
