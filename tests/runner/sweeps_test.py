"""Cells of a sweep: what names them, who works on them, and that merged they are the run of one process."""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from absl import flags

from sbjax import config as config_lib
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as run_lib
from sbjax.runner import suite
from sbjax.runner.commands import sweep as sweep_command
from sbjax.runner.signals import Interrupted
from sbjax.runner.sweeps import cells, drive, engines, folder, lease, merge, plan, status, work

ROOT = pathlib.Path(__file__).parents[2]
TABLES = ("metrics.jsonl", "arms.json", "summary.json", "results.csv")


def images(words="digits,mlp,smoke", **changes):
    config = runpy.run_path(str(ROOT / "configs/images.py"))["get_config"](words)
    config.arms = {arm: config.arms[arm] for arm in ("raw", "expanded")}
    config.model.widths = (8,)
    config.update_from_flattened_dict(changes)
    return config


def ids(config, **options):
    return {(use, cell.start): cell.id for cell in cells.make_cells({"": config_lib.read(config)}, **options)
            for use in cell.uses}  # fmt: skip


def test_an_id_depends_on_what_decides_numbers_and_on_nothing_else():
    before = ids(images())
    assert ids(images(**{"placement.replicas": "map", "checkpoint.keep": 5, "task.cache_dir": "/tmp/x"})) == before
    for path, value in {"seed": 3, "train_steps": 5, "model.widths": (9,), "task.train_share": 0.06}.items():
        assert not set(ids(images(**{path: value})).values()) & set(before.values()), path
    config = images()
    config.arms = {"raw": config.arms.raw.to_dict(), "renamed": config.arms.expanded.to_dict()}
    assert sorted(ids(config).values()) == sorted(before.values())
    # Another arm beside it changes nothing of an arm; an arm that differs is another cell.
    config.arms["nearest"] = {"expansion": {"kind": "image", "factor": 2, "fill": "nearest"}}
    assert set(before.values()) < set(ids(config).values())
    assert ids(images(), data={}) == before
    assert not set(ids(images(replicas=4), block=2).values()) & set(ids(images(replicas=4)).values())


def test_a_reference_that_runs_share_is_one_cell():
    config = images()
    config.suite = {"a": {}, "b": {"arms": {"raw": {}, "wide": {"model": {"widths": (16,)}}}}}
    from sbjax.runner import suite

    made = cells.make_cells(suite.members(config))
    assert sorted(cell.label for cell in made) == ["a/expanded 0:2", "a/raw 0:2", "b/wide 0:2"]
    assert [cell.uses for cell in made if cell.uses[0] == ("a", "raw")] == [(("a", "raw"), ("b", "raw"))]


def test_data_and_own_code_are_part_of_an_id(tmp_path):
    config = images()
    source = cells.source_of(config_lib.read(config), config_lib.read(config).arms[0])
    one, other = (ids(config, data={("images", source): digest}) for digest in "ab")
    assert not set(one.values()) & set(other.values())
    own = tmp_path / "own.py"
    found = []
    for text in ("x = 1\n", "x = 2\n"):
        own.write_text(text)
        found.append(cells.code_digests([f"model.name={own}:Net"]))
    assert list(found[0]) == [f"{own}:Net"]
    assert found[0] != found[1]


def test_lease_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", "import pathlib, sys, os, signal\nfrom sbjax.runner.sweeps import lease\n"
         f"assert lease.take(pathlib.Path({str(tmp_path)!r})) is not None\nos.kill(os.getpid(), signal.SIGKILL)"],
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    assert lease.read(tmp_path).gone()
    taken = lease.take(tmp_path)
    assert taken is not None
    assert lease.read(tmp_path) == taken.holder
    assert lease.take(tmp_path) is None  # this process lives
    taken.release()
    assert lease.read(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_lease_of_another_host_is_free_once_its_heartbeat_stands_still(tmp_path):
    elsewhere = lease.Holder("abc", "another-host", "another-boot", 1, 1)
    (tmp_path / lease.NAME).write_text(json.dumps(elsewhere._asdict()))
    beat, watch = tmp_path / "lease.abc.beat", lease.Watch(seconds=0.2)
    for count in range(4):
        beat.write_text(str(count))
        assert lease.take(tmp_path, watch) is None
        time.sleep(0.1)
    assert lease.take(tmp_path) is None  # without having watched nothing is known
    time.sleep(0.2)
    taken = lease.take(tmp_path, watch, beat_seconds=0.02)
    assert taken is not None
    (tmp_path / lease.NAME).write_text(json.dumps(elsewhere._asdict()))  # somebody takes it over in turn
    until = time.monotonic() + 10
    while not taken.lost and time.monotonic() < until:
        time.sleep(0.02)
    assert taken.lost
    taken.release()
    assert lease.read(tmp_path) == elsewhere


def test_a_process_of_another_container_of_this_host_is_not_known_to_be_gone(tmp_path):
    """It has numbers of processes of its own; the name of the host and its boot may be the same."""
    boot = lease.boot_id()
    here = lease.Holder("abc", socket.gethostname(), boot, 2**22 + 1, 5)
    assert here.gone()
    if boot:
        assert not here._replace(boot=f"{boot.split()[0]} pid:[1]").gone()


def test_a_new_lease_is_not_put_away_by_one_who_is_late(tmp_path):
    late = lease.Holder("old", "another-host", "b", 1, 1)
    (tmp_path / lease.NAME).write_text(json.dumps(late._replace(uuid="new")._asdict()))
    assert not lease._put_away(tmp_path, late)
    assert lease.read(tmp_path).uuid == "new"
    assert len(list(tmp_path.iterdir())) == 1


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")


WORKER = """
import pathlib, sys
from sbjax.runner.sweeps import lease
root, me = pathlib.Path(sys.argv[1]), sys.argv[2]
for i in range(1000):
    cell = root / f"{i:04}"
    if (cell / "DONE.json").exists():
        continue
    held = lease.take(cell, beat_seconds=60)
    if held is None:
        continue
    if not (cell / "DONE.json").exists():
        with open(cell / "worked", "a") as file:
            file.write(me)
        (cell / "DONE.json").write_text("{}")
    held.release()
"""


def test_eight_workers_do_each_of_a_thousand_cells_once(tmp_path):
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, str(i)]) for i in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
    worked = [(tmp_path / f"{i:04}" / "worked").read_text() for i in range(1000)]
    assert all(len(who) == 1 for who in worked)
    assert len(set(worked)) > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in one process, with what is measured over all replicas at several steps."""
    config = images(replicas=4, train_steps=8, **{"monitor.kinds": "marginal, function", "monitor.at": "start,50%,end"})
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run_lib.run(config, workdir)
    return config, workdir


@pytest.fixture(scope="module", params=[pytest.param(0, marks=pytest.mark.extended), 3])
def worked(request, whole, tmp_path_factory):
    """The same run as cells, all but the last of them done."""
    sweep = plan.plan(whole[0], tmp_path_factory.mktemp("sweep") / "sweep", block=request.param).sweep
    for cell in sweep.cells[:-1]:
        assert work.work(sweep, cell) == "done"
    return sweep


def test_merged_cells_are_the_run_of_one_process(whole, worked):
    if (worked.path / "merged").exists():
        pytest.fail("the order of the tests of this fixture changed")
    partial = merge.merge(worked)
    last = worked.cells[-1]
    assert partial.missing == (last,)
    summary = json.loads((partial.folder / "summary.json").read_text())
    if last.start:  # one replica of the last arm is missing
        assert "3 of 4 pairs" in partial.table
        assert summary["arms"]["expanded"]["missing"] == 1
        page = (partial.folder / "report.html").read_text()
        assert "Not trained yet" in page
        tables = page.split("Not trained yet")[0].count("<table")
        assert page.count("Not all trained yet: expanded 3 of 4 pairs.") == tables > 3
        assert "<td>3 of 4</td>" in page  # seeds finished
        [entry] = summary["comparisons"]["equal_steps"]
        assert (entry["comparison"]["n"], entry["comparison"]["planned"]) == (3, 4)
    else:
        assert (list(summary["arms"]), summary["lacking"]) == (["raw"], ["expanded"])
        assert "expanded: not trained yet, 0 of 4 pairs" in " ".join(partial.table.split())
        page = (partial.folder / "report.html").read_text()
        assert page.count("Not all trained yet: expanded 0 of 4 pairs.") >= page.count("<table") - 1 > 0
    lines = types.SimpleNamespace(table=lambda path: "barriers\n\ncalibration")
    said = f"not all trained yet: expanded {4 - last.stop + last.start} of 4 pairs"
    assert run_lib.in_text(lines, partial.folder).endswith(f"barriers\n{said}\n\ncalibration\n{said}")
    assert work.work(worked, last) == "done" == work.work(worked, last)
    merged = merge.merge(worked)
    assert not list(worked.path.glob(".merged*"))
    assert not merged.missing
    for name in TABLES:
        found, expected = ((folder / name).read_text() for folder in (merged.folder, whole[1]))
        if not last.start:  # arms as a whole
            assert found == expected, name
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), name
        # On some machines the last digits of a product depend on how many networks it is of.
        pairs = (np.array(NUMBER.findall(text), float) for text in (found, expected))
        np.testing.assert_allclose(*pairs, rtol=1e-4, atol=1e-6, err_msg=name)
    assert json.loads((merged.folder / "status.json").read_text())["status"] == "done"


@pytest.mark.extended
def test_a_damaged_cell_is_left_out_and_can_be_made_again(worked):
    last = worked.cells[-1]
    if status.state_of(worked.folder(last)).status == "waiting":
        work.work(worked, last)
    path = worked.folder(last) / "metrics.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-5])
    assert merge.merge(worked).missing == (last,)
    status.reopen(worked.folder(last))
    assert work.work(worked, last) == "done"
    assert path.read_bytes() == before
    assert not merge.merge(worked).missing


def test_a_plan_is_kept_and_another_one_refused(tmp_path):
    config = images()
    first = plan.plan(config, tmp_path / "sweep")
    assert first.new
    assert "checkpoints take" in first.said
    again = plan.plan(config, tmp_path / "sweep")
    assert not again.new
    assert folder.load(tmp_path / "sweep") == first.sweep
    with pytest.raises(ConfigError, match="holds another sweep"):
        plan.plan(images(seed=1), tmp_path / "sweep")
    with pytest.raises(ConfigError, match="none of the 2 cells is done"):
        merge.merge(first.sweep)
    with pytest.raises(ConfigError, match=r"--workdir: the path '\$NOT_SET_HERE/x' holds"):
        plan.plan(config, "$NOT_SET_HERE/x")
    with pytest.raises(ConfigError, match=r"--out: the path '\$NOT_SET_HERE/x' holds"):
        merge.merge(first.sweep, "$NOT_SET_HERE/x")
    with pytest.raises(ConfigError, match="--cell=zz: is not in"):
        first.sweep.cell("zz")
    with pytest.raises(ConfigError, match="holds a sweep, which `sbjax sweep run` trains"):
        suite.run(config, tmp_path / "sweep")


def test_a_thousand_cells_are_planned_and_listed_in_seconds(tmp_path):
    config = images()
    config.suite = {f"s{i}": {"optimizer": {"learning_rate": 1e-4 * (i + 1)}} for i in range(250)}
    began = time.perf_counter()
    sweep = plan.plan({**config.to_dict(), "replicas": 2}, tmp_path / "sweep", block=1).sweep
    assert len(sweep.cells) == 1000
    planned = time.perf_counter()
    sweep = folder.load(tmp_path / "sweep")
    assert "1000 waiting" in status.table(sweep, status.states(sweep))
    assert len(status.table(sweep, status.states(sweep), every=True).splitlines()) == 1001
    assert planned - began < 15
    assert time.perf_counter() - planned < 5


class Fake:
    """An engine that plays exit codes, and what a cell would have written."""

    def __init__(self, sweep, plays):
        self.sweep, self.plays, self.started = sweep, plays, []

    def start(self, command, log):
        cell = self.sweep.cell(next(word for word in command if word.startswith("--cell=")).partition("=")[2])
        self.started.append(cell.id)
        code, ending = self.plays[cell.id].pop(0)
        where = self.sweep.folder(cell)
        holder = lease.Holder(f"u{len(self.started)}", "", "", 0, 0)
        began = status.begin(where, holder)
        if ending in status.FINISHED:
            status.finish(where, ending, {}, 1.0)
        if ending:
            status.end(where, holder, ending, "because", began)
        return code

    def poll(self, job):
        return job

    def stop(self, job, *, kill=False):
        raise AssertionError("nothing is to be stopped")


@pytest.fixture
def planned(tmp_path):
    return plan.plan(images(replicas=3), tmp_path / "sweep", block=1, build_seconds=0).sweep


def test_what_is_started_again_and_what_is_not(planned):
    one, two, three, *rest = [cell.id for cell in planned.cells]
    killed = (engines.KILLED, "")
    plays = {cell: [(0, "done")] for cell in rest}
    plays[one] = [killed, (143, "interrupted"), killed, killed, killed]  # the fourth kill is one too many
    plays[two] = [(1, "failed")]
    plays[three] = [(12, "out of memory"), killed, (3, "diverged")]
    engine = Fake(planned, plays)
    swept = drive.drive(planned, engine, jobs=2)
    found = [swept.states[cell].status for cell in (one, two, three)]
    assert found == ["gave up", "failed", "diverged"]
    assert not any(plays.values())
    assert swept.exit_code == 4
    assert not swept.stopped
    assert drive.drive(planned, engine, jobs=2).states == swept.states  # nothing is left to start


def test_two_cells_that_fail_alike_at_once_stop_the_sweep(planned):
    engine = Fake(planned, {cell.id: [(1, "failed")] for cell in planned.cells})
    swept = drive.drive(planned, engine, jobs=1)
    assert "two cells failed alike" in swept.stopped
    assert "because" in swept.stopped
    assert len(engine.started) == 2
    going_on = drive.drive(planned, engine, jobs=1, keep_going=True)
    assert not going_on.stopped
    assert {state.status for state in going_on.states.values()} == {"failed"}


def test_after_memory_ran_out_fewer_replicas_are_trained_at_once(planned, monkeypatch):
    from sbjax.frame.training import TrainingExperiment

    cell, used = planned.cells[0], []

    def full(self, prepared, *args):
        used.append(prepared.placement.replicas)
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")

    monkeypatch.setattr(TrainingExperiment, "train", full)
    endings = [work.work(planned, cell) for _ in range(4)]
    assert endings == ["out of memory"] * 4
    assert used == ["auto", "map", "sequential", "sequential"]
    state = status.state_of(planned.folder(cell))
    assert (state.status, state.lost) == ("gave up", 4)
    assert "RESOURCE_EXHAUSTED" in state.why
    monkeypatch.setattr(TrainingExperiment, "train", lambda *args: 1 / 0)
    assert work.work(planned, planned.cells[1]) == "failed"
    assert "ZeroDivisionError" in status.state_of(planned.folder(planned.cells[1])).why


def test_a_process_that_cannot_begin_has_failed(planned):
    def broken(workdir, cell, *, words=()):
        return [sys.executable, "-c", "import sys; sys.exit('error: no such module')"]

    engine = engines.Local(engines.Limits(jobs=2))
    swept = drive.drive(planned, engine, jobs=2, command=broken)
    assert "no such module" in swept.stopped


def test_a_process_that_is_killed_before_it_begins_is_lost(planned):
    """As by a limit of time that is shorter than the start of Python: not started again for ever."""

    def killed(workdir, cell, *, words=()):
        return ["sh", "-c", "kill -9 $$"]

    swept = drive.drive(planned, engines.Local(engines.Limits(jobs=2)), jobs=2, command=killed)
    assert {(state.status, state.lost) for state in swept.states.values()} == {("gave up", 4)}
    assert swept.exit_code == 4


def test_a_lost_cell_that_cannot_begin_any_more_has_failed(planned):
    for cell in planned.cells:
        planned.folder(cell).mkdir(parents=True)
        status.begin(planned.folder(cell), lease.Holder("killed", "", "", 0, 0))

    def broken(workdir, cell, *, words=()):
        return [sys.executable, "-c", "import sys; sys.exit('error: no such module')"]

    swept = drive.drive(planned, engines.Local(engines.Limits(jobs=2)), jobs=2, command=broken)
    assert "no such module" in swept.stopped


def test_a_cell_that_is_stopped_before_it_gets_further_is_given_up(tmp_path):
    def stopped(step):
        holder = lease.Holder(f"u{len(list(status.read_attempts(tmp_path)))}", "", "", 0, 0)
        began = status.begin(tmp_path, holder)
        status.end(tmp_path, holder, "interrupted", f"stopped after step {step} of 100; all is saved", began)
        return status.state_of(tmp_path).status

    assert [stopped(step) for step in (*range(10), 9, 9, 9)] == ["interrupted"] * 13
    assert stopped(90) == "interrupted"  # it went on, by another limit
    assert stopped(90) == "gave up"


def test_settings_that_cannot_be_read_any_more_are_a_failure(planned):
    cell = planned.cells[0]
    changed = {run: {**settings, "renamed": 1} for run, settings in planned.runs.items()}
    assert work.work(dataclasses.replace(planned, runs=changed), cell) == "failed"
    state = status.state_of(planned.folder(cell))
    assert state.status == "failed"
    assert "renamed=1 is unknown" in state.why


def test_a_cell_that_another_process_finished_meanwhile_gets_no_further_line(planned, monkeypatch):
    cell = planned.cells[0]
    folder, take = planned.folder(cell), work._take

    def late(where, *args):
        status.finish(where, "done", {}, 1.0)
        return take(where, *args)

    folder.mkdir(parents=True)
    monkeypatch.setattr(work, "_take", late)
    assert work.work(planned, cell) == "done"
    assert sorted(path.name for path in folder.iterdir()) == ["DONE.json"]


def test_a_cell_that_is_stopped_while_it_starts_is_not_lost(planned, monkeypatch):
    load, cell = work._load_checked, planned.cells[0]

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGUSR1)
        return load(*args)

    monkeypatch.setattr(work, "_load_checked", stopped)
    with pytest.raises(Interrupted, match=r"stopped after step 0 of \d+; all is saved") as raised:
        work.work(planned, cell)
    assert raised.value.exit_code == 128 + signal.SIGUSR1
    assert status.state_of(planned.folder(cell)).status == "interrupted"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_folder_that_is_removed_while_its_cell_runs_is_begun_anew(planned):
    cell = planned.cells[0]
    state = drive._ended(planned, cell, 1, lease.Watch(), 2)
    assert state.status == "lost"
    assert drive._startable(state)


def test_nohup_is_heeded():
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom sbjax.runner.signals import listening\n"
    code += "with listening() as asked, listening() as same:\n"
    code += "    [signal.raise_signal(n) for n in (signal.SIGHUP, signal.SIGTERM)]\n    print(asked == same == [15])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_local_limits_an_attempt_and_ends_its_whole_group(tmp_path):
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '100']); print('up', flush=True); time.sleep(100)"
    engine = engines.Local(engines.Limits(jobs=1, minutes=0.01))
    job = engine.start([sys.executable, "-c", code], tmp_path / "log.txt")
    until = time.monotonic() + 30
    while (ended := engine.poll(job)) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert ended == -signal.SIGTERM
    living = subprocess.run(["pgrep", "-g", str(job)], capture_output=True, text=True).stdout.split()
    assert not [pid for pid in living if "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cluster=local"], "--cluster=local has no effect with --engine=local: it is for --engine=submitit"),
        (["--engine=ray", "--memory_gb=4"], "--memory_gb=4.0 has no effect with --engine=ray"),
        (["--gpus=1"], "--engine=submitit and ray"),
        (["--cell=abc", "--jobs=2"], "--jobs=2 has no effect with --cell"),
        (["--cell=abc", "--again=failed"], "--again=failed has no effect with --cell"),
        (["--engine=submitit", "--cluster=lokal"], "--cluster=lokal is unknown"),
        (["--engine=ray", "--gpus=1", "--minutes=5"], ""),
        (["--gpus=0"], ""),
        (["--minutes=nan"], "--minutes=nan must be a number"),
        (["--engine=submitit", "--memory_gb=inf"], "--memory_gb=inf must be a number"),
    ],
)
def test_flags_without_effect_are_refused(words, said):
    given = flags.FlagValues()
    for name in ("engine", "cluster", "partition", "cell", "again"):
        flags.DEFINE_string(name, {"cell": None, "engine": "local"}.get(name, ""), "", flag_values=given)
    for name in ("jobs", "cores", "gpus", "keep_going"):
        flags.DEFINE_integer(name, 0, "", flag_values=given)
    for name in ("minutes", "memory_gb"):
        flags.DEFINE_float(name, 0.0, "", flag_values=given)
    given(["sweep", *words])
    with pytest.raises(ConfigError, match=re.escape(said)) if said else contextlib.nullcontext():
        sweep_command.check_effect(given)


def test_a_running_cell_is_not_made_again(planned):
    cell = planned.cells[0]
    held = lease.take(planned.folder(cell))
    status.begin(planned.folder(cell), held.holder)
    try:
        with pytest.raises(ConfigError, match=f"process {held.holder.pid} on .* works on cell {cell.id}"):
            sweep_command._again(planned, cell.id[:6])
    finally:
        held.release()


SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: print("asked", flush=True))
print("up", flush=True)
until = time.monotonic() + 1.5
while time.monotonic() < until:
    time.sleep(0.05)
sys.exit(7)
"""


def test_a_limit_asks_once_so_that_a_cell_can_save(tmp_path):
    """A second signal would end it at once."""
    log = tmp_path / "log.txt"
    engine = engines.Local(engines.Limits(jobs=1, minutes=0.01))
    job = engine.start([sys.executable, "-c", SAVES], log)
    until = time.monotonic() + 30
    while (ended := engine.poll(job)) is None and time.monotonic() < until:
        time.sleep(0.02)
    assert ended == 7
    assert log.read_text().split() == ["up", "asked"]
    # The same of a job of an engine that has no limit of its own.
    log.unlink()
    job = f"engines.Command([sys.executable, '-c', {SAVES!r}], {str(log)!r}, seconds=0.6)()"
    code = f"import sys\nfrom sbjax.runner.sweeps import engines\nsys.exit({job})"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 7
    assert log.read_text().split() == ["up", "asked"]


def test_a_lease_on_a_full_disk_is_told_with_its_file_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*cell.*lease\.json"):
        lease.take(tmp_path / "cell")
    assert list((tmp_path / "cell").iterdir()) == []
