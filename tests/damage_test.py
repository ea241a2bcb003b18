"""Every file of a finished run damaged in turn: a sentence, or the numbers that were there; never a traceback."""

import json
import logging
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.common.files import FileError
from sbjax.frame.errors import ConfigError
from sbjax.report import statistics
from sbjax.report.results import load_results
from sbjax.report.whole import digests_of_inputs
from sbjax.runner import run as runner
from sbjax.runner import suite
from sbjax.runner.export import export
from sbjax.runner.load import load
from sbjax.training.errors import CheckpointError

WARNED = "Changed since the run finished"
SENTENCES = (ConfigError, CheckpointError, FileError, OSError)


def make_config():
    config = config_lib.shrink(config_lib.base_config())
    config.train_steps, config.replicas, config.monitor.kinds = 4, 2, ""
    config.optimizer.update(schedule="constant", warmup_share=0.0)
    config.model = {"name": "mlp", "widths": (4,)}
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and what is read off it."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    outcome = runner.run(make_config(), folder)
    return folder, outcome.summary, load(folder, arm="raw").variables


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def content(text):
    def write(path):
        path.write_bytes(text)

    write.__name__ = repr(text[:8])
    return write


def noise(path):
    path.write_bytes(random.Random(path.name).randbytes(200))


def lost(path):
    path.unlink()


def wrong_type(place):
    """The value of one field of a JSON file (of its last line) in another type."""

    def write(path):
        try:
            *before, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            tree = json.loads(last)
        except ValueError:
            return half(path)
        leaves = list(paths_of(tree))
        *parents, name = leaves[int(place * len(leaves))]
        node = tree
        for parent in parents:
            node = node[parent]
        node[name] = 7 if isinstance(node[name], str) else "seven"
        return path.write_text("\n".join([*before, json.dumps(tree)]) + "\n")

    write.__name__ = f"wrong_type_{place}"
    return write


def paths_of(tree, prefix=()):
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*prefix, name)
        if isinstance(value, dict | list) and value:
            yield from paths_of(value, (*prefix, name))


DAMAGES = [half, noise, lost, *map(content, (b"", b"{}", b"[]", b"null", b'{"arm": 1}\n')),
           *map(wrong_type, (0.0, 0.3, 0.6, 0.9))]  # fmt: skip
FILES = ["config.json", "status.json", "arms.json", "metrics.jsonl", "timings.jsonl", "results.csv", "summary.json",
         "report.html", "figures/seeds.png", "checkpoints/raw/4.sha256", "checkpoints/raw/4/meta/metadata",
         "checkpoints/raw/4/params/_METADATA"]  # fmt: skip


def read_all(folder, original, caplog):
    """Report, load, export and comparison of a damaged folder: right, or with a word of what is wrong."""
    run, summary, variables = original

    def told(act, right):
        caplog.clear()
        try:
            found = act()
        except SENTENCES:
            return
        assert right(found) or WARNED in caplog.text

    def same(found):
        return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(variables)))

    def table_is_right(found):
        return found.table == right_table or WARNED in found.table

    told(
        lambda: load(folder, arm="raw"),
        lambda net: (same(net.variables) and net.step == 4) or "is not used" in caplog.text,
    )
    told(lambda: suite.report(folder)[2], lambda found: found == summary)
    right_table = suite.compare(run, run).table
    told(lambda: suite.compare(run, folder), table_is_right)
    told(lambda: suite.compare(folder, run), table_is_right)
    told(
        lambda: export(folder, folder.parent / f"{folder.name}.safetensors", arm="raw"),
        lambda found: found.card.exists(),
    )


def go_on(folder, original, caplog, **options):
    """The command started again: a sentence, or the run made whole."""
    caplog.clear()
    try:
        outcome = runner.run(make_config(), folder, **options)
    except SENTENCES:
        return None
    if not options:
        assert outcome.summary == original[1]
        for name in ("results.csv", "summary.json", "metrics.jsonl", "arms.json"):
            assert (folder / name).read_bytes() == (original[0] / name).read_bytes(), name
        assert suite.report(folder)[2] == original[1]
    return outcome


def damaged(whole, tmp_path, name, damage):
    folder = tmp_path / f"{name.replace('/', '-')}-{damage.__name__}".replace("'", "")[:80].replace('"', "")
    shutil.copytree(whole[0], folder)
    damage(folder / name)
    return folder


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.WARNING, logger="sbjax")


SAMPLE = [(name, damage) for name in ("config.json", "arms.json", "metrics.jsonl", "status.json") for damage in DAMAGES]


@pytest.mark.sampled(24)
@pytest.mark.parametrize(("name", "damage"), SAMPLE)
def test_a_damaged_file_is_told(write_run, caplog, name, damage):
    """Of a planted run: its report and its comparison with itself before the damage."""
    run, other = write_run(replicas=5, reports=2), write_run(name="other", replicas=5, reports=2)
    status = {"status": "done", "inputs": digests_of_inputs(run)}
    (run / "status.json").write_text(json.dumps(status))
    right, table = statistics.summarise(load_results(run)), suite.compare(run, other).table
    damage(run / name)
    for act, expected in (
        (lambda: statistics.summarise(load_results(run)), right),
        (lambda: suite.compare(run, other).table, table),
        (lambda: suite.report(run)[2], right),
    ):
        caplog.clear()
        try:
            found = act()
        except SENTENCES:
            continue
        assert found == expected or WARNED in str(found) or WARNED in caplog.text or load_results(run).changed


@pytest.mark.slow
def test_a_finished_run_is_made_whole_again(whole, tmp_path, caplog):
    """Numbers from the checkpoints, tables and page from the numbers."""
    folder = damaged(whole, tmp_path, "results.csv", half)
    half(folder / "report.html")
    (folder / "figures" / "seeds.png").unlink(missing_ok=True)
    go_on(folder, whole, caplog)
    assert caplog.text == ""  # no number was touched
    folder = damaged(whole, tmp_path, "metrics.jsonl", half)
    assert f"{WARNED}: metrics.jsonl (SHA-256 differs)" in suite.report(folder)[1].read_text()
    lost(folder / "arms.json")
    go_on(folder, whole, caplog)
    assert "changed or lost since the run finished: arms.json, metrics.jsonl. They are made again" in caplog.text
    assert (folder / "damaged" / "metrics.jsonl").exists()


@pytest.mark.extended
@pytest.mark.parametrize("name", FILES)
def test_every_file_and_every_damage(whole, tmp_path, caplog, name):
    assert pathlib.Path(whole[0] / name).exists() or name.startswith("figures")
    for damage in DAMAGES:
        if not (whole[0] / name).exists():
            continue
        read_all(damaged(whole, tmp_path, name, damage), whole, caplog)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        folder = damaged(whole, tmp_path, name, damage)
        go_on(folder, whole, caplog)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


@pytest.mark.extended
@pytest.mark.parametrize("name", FILES[:5] + FILES[-3:])
def test_a_damaged_run_is_extended_or_says_why_not(whole, tmp_path, caplog, name):
    for damage in (half, lost, DAMAGES[-2]):
        go_on(damaged(whole, tmp_path, name, damage), whole, caplog, extend=2)
