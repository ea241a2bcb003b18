"""From config to report, in one process; and what is refused before anything is written."""

import csv
import json
import os
import pathlib
import resource
import runpy
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.claims import recording
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as experiment

ROOT = pathlib.Path(__file__).parents[2]


def load_config(name, words=""):
    return runpy.run_path(str(ROOT / "configs" / name))["get_config"](words)


def smoke(**changes):
    config = load_config("images.py", "digits,mlp,smoke")
    for path, value in changes.items():
        with config.unlocked():
            *sections, field = path.split("__")
            node = config
            for section in sections:
                node = node[section]
            node[field] = value
    return config


def read_rows(workdir):
    return list(csv.DictReader((workdir / "results.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "smoke"
    config = smoke(replicas=5, train_steps=20, monitor__kinds="marginal, function", monitor__at="start,25%,end")
    return workdir, experiment.run(config, workdir)


def test_files_of_a_run(finished):
    workdir, outcome = finished
    assert outcome.status == "done"
    assert outcome.report == workdir / "report.html"
    for name in (
        "config.json",
        "status.json",
        "metrics.jsonl",
        "timings.jsonl",
        "results.csv",
        "summary.json",
        "arms.json",
    ):
        assert (workdir / name).stat().st_size > 0, name
    assert len(list((workdir / "figures").glob("*.png"))) >= 3
    arms = ["raw", "bilinear", "expanded", "nearest", "zero"]
    for folder in ("tensorboard", "checkpoints"):
        assert sorted(path.name for path in (workdir / folder).iterdir()) == sorted(arms)
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["config"]["replicas"] == 5
    assert saved["environment"]["versions"]["jax"] == jax.__version__
    assert saved["environment"]["precision"] == {"matmul": "default", "x64": False}
    assert saved["environment"]["products"] == "float32"
    rows = read_rows(workdir)
    assert len(rows) == 5 * 5
    assert {row["arm"] for row in rows} == set(arms)


def test_the_number_in_the_table_is_the_accuracy_of_the_saved_parameters(finished):
    """Test accuracy recomputed from the checkpoint with numpy alone."""
    import orbax.checkpoint as ocp

    from sbjax.data import images

    workdir, _ = finished
    params = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / "raw" / "20" / "params")
    settings = json.loads((workdir / "config.json").read_text())["config"]
    data = images.load("digits", train_share=settings["task"]["train_share"])
    count = max(1, round(settings["task"]["eval_share"] * len(data.test_labels)))
    x = (data.test_images[:count] / 255.0 - np.array(data.mean)) / np.array(data.std)
    rows = [row for row in read_rows(workdir) if row["arm"] == "raw"]
    for replica, row in enumerate(rows):
        h = x.reshape(count, -1)
        for layer in sorted(params):
            h = h @ np.asarray(params[layer]["kernel"][replica]) + np.asarray(params[layer]["bias"][replica])
            h = np.maximum(h, 0) if layer != sorted(params)[-1] else h
        np.testing.assert_allclose(
            np.mean(h.argmax(-1) == data.test_labels[:count]), float(row["test/accuracy"]), atol=1e-6
        )


def test_replica_distances_are_reported_where_they_were_asked_for(finished):
    workdir, _ = finished
    measured = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        names = [name for name, value in record.items() if isinstance(value, dict)]
        if names:
            measured.setdefault(record["arm"], []).append(record["step"])
            assert [name.split("/")[1].split("_")[0] for name in names] == ["marginal"] * 6 + ["function"] * 6
            assert all(record[name]["low"] <= record[name]["value"] <= record[name]["high"] for name in names)
            assert len(record["test/accuracy"]) == 5
    assert measured == {arm: [0, 5, 20] for arm in ("raw", "bilinear", "expanded", "nearest", "zero")}


def test_time_of_measuring(finished):
    workdir, _ = finished
    lines = [json.loads(line) for line in (workdir / "timings.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for line in lines:
        assert line["measure_seconds"] > 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("arms", [1, pytest.param(2, marks=pytest.mark.extended)])
def test_numbers_of_each_network_in_metrics_curves_and_a_table(tmp_path, arms):
    """Of two arms also beside a distance, D3."""
    kinds = "sharpness,breaking" if arms == 1 else "matched,sharpness,breaking"
    config = smoke(replicas=3, monitor__kinds=kinds, monitor__at="start,end", monitor__products=4)
    config.arms = {arm: config.arms[arm] for arm in ("raw", "expanded")[:arms]}
    outcome = experiment.run(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = ["train/sharpness", "symmetry/permutation", "symmetry/permutation_share", "symmetry/pair", "symmetry/unit"]
    for line in lines:
        measured = line["step"] in (0, 4)
        assert ("replica_distance/matched" in line) == (measured and arms > 1)
        for name in names:
            assert (len(line[name]) == 3 and min(line[name]) > 0) if measured else name not in line
    page = outcome.report.read_text()
    assert "Along training" in page
    assert "nearest two units" in page
    for name in ("sharpness_curves", "breaking_curves"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").exists()
    table = recording.record_of(tmp_path / "run", title="x", table="along")
    assert len(table["rows"]) == arms * len(names)
    assert {"number": "sharpness", "arm": "raw"}.items() <= table["rows"][0]["cells"].items()


def test_nothing_is_measured_without_kinds():
    for arm in experiment.prepare(config_lib.read(smoke(monitor__kinds=" , "))).built.arms:
        assert arm.monitor is None
        assert arm.monitor_steps == ()


@pytest.mark.extended
def test_outputs_are_logits_of_the_first_validation_images():
    from sbjax.data import images

    config = smoke(monitor__kinds="function", monitor__probe_size=6)
    raw = experiment.prepare(config_lib.read(config)).built.arms[0]
    data = images.load("digits", train_share=config.task.train_share)
    variables = raw.task.init(jax.random.key(0))
    h = ((data.validation_images[:6] / 255.0 - np.array(data.mean)) / np.array(data.std)).reshape(6, -1)
    for i, layer in enumerate(params := [variables["params"][name] for name in sorted(variables["params"])]):
        h = h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        h = np.maximum(h, 0) if i + 1 < len(params) else h
    np.testing.assert_allclose(raw.task.outputs(raw.task.data, variables), h, rtol=1e-4, atol=1e-5)


def test_arms_are_paired(finished):
    """With the same seed, arms of the same shapes start alike and see the same batches."""
    arms = {arm.name: arm for arm in experiment.prepare(config_lib.read(smoke())).built.arms}
    key = jax.random.key(3)
    first, second = (arms[name].task for name in ("expanded", "nearest"))
    for a, b in zip(jax.tree.leaves(first.init(key)), jax.tree.leaves(second.init(key)), strict=True):
        np.testing.assert_array_equal(a, b)
    for task in (first, second):
        batch = task.sample(task.data, key, jnp.int32(5))
        raw = arms["raw"].task.sample(arms["raw"].task.data, key, jnp.int32(5))
        np.testing.assert_array_equal(batch["labels"], raw["labels"])
        np.testing.assert_array_equal(batch["images"], raw["images"])
    kernel = first.init(key)["params"]["dense_0"]["kernel"]
    assert kernel.shape[0] == 4 * arms["raw"].task.init(key)["params"]["dense_0"]["kernel"].shape[0]


def test_flops_of_an_mlp():
    """Forward 2 n per weight and example, backward twice that but for the first layer's input gradient."""
    raw = experiment.prepare(config_lib.read(smoke())).built.arms[0]
    layers = [64 * 128, 128 * 128, 128 * 10]
    expected = 2 * 8 * (3 * sum(layers) - layers[0])
    assert expected <= raw.flops_per_step < 1.3 * expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": 0}, "replicas=0 must be >= 1"),
        ({"replcas": 3}, "replcas=3 is unknown, did you mean 'replicas'"),
        ({"arms__expanded__expansion__factor": 0}, "factor.*0"),
        ({"arms__expanded__expansion__fill": "meen"}, "fill='meen'"),
        ({"arms__expanded__expansion__kind": "imag"}, "expansion.kind='imag' is unknown, did you mean 'image'"),
        ({"task__batch_size": 100_000}, "batch_size=100000 must lie between 1 and"),
        ({"task__dataset": "digit"}, "task.dataset='digit'.*did you mean 'digits'"),
        ({"model__name": "mpl"}, "mpl.*mlp"),
        ({"model__norm": "bacth"}, "bacth.*batch"),
        ({"optimizer__name": "sdg"}, "optimizer.name='sdg'.*'sgd'"),
        ({"placement__replicas": "vmp"}, "placement.replicas='vmp'.*'vmap'"),
        ({"precision__matmul": "hihg"}, "precision.matmul='hihg'.*'high"),
        ({"reference": "rwa"}, "reference='rwa' is not an arm, did you mean 'raw'"),
        ({"monitor__kinds": "marginl"}, "monitor.kinds='marginl' is unknown, did you mean 'marginal'.*unmatched"),
        ({"monitor__kinds": "marginal,marginal"}, "monitor.kinds=marginal, marginal must name.*none twice"),
        ({"monitor__at": "start,edn"}, "monitor.at='start,edn': 'edn' is no step, did you mean 'end'.*10%.*reports"),
        ({"monitor__at": "inf%"}, "monitor.at='inf%': 'inf%' is no step.*10%"),
        ({"monitor__at": "50%,5000"}, "monitor.at='50%,5000': '5000' lies outside the training of 4 steps"),
        ({"monitor__at": "-1"}, "monitor.at='-1': '-1' lies outside the training of 4 steps"),
        (
            {"monitor__kinds": "neuron_cloud", "monitor__solver": "slicd"},
            "monitor.solver='slicd' is unknown, did you mean 'sliced'.*assignment",
        ),
        ({"monitor__probe_size": 0}, "monitor.probe_size=0 must be >= 1"),
        ({"monitor__products": 20}, "monitor.products=20 has no effect with monitor.kinds='marginal'"),
        ({"monitor__kinds": "sharpness", "monitor__products": 1}, "monitor.products=1 must be >= 2"),
        ({"monitor__kinds": "sharpnes"}, "monitor.kinds='sharpnes' is unknown, did you mean 'sharpness'"),
        ({"monitor__solver": "assignment"}, "monitor.solver='assignment' has no effect with monitor.kinds='marginal'"),
    ],
)
def test_bad_input_is_refused_fast_and_leaves_nothing(tmp_path, changes, words):
    began = time.process_time()
    with pytest.raises(ConfigError, match=words):
        experiment.run(smoke(**changes), tmp_path / "run")
    assert time.process_time() - began < 5
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file" / "run", pathlib.Path("/proc/sbjax/run")):
        with pytest.raises(ConfigError, match=r"--workdir=.*(is a file; name|cannot be written)"):
            experiment.run(smoke(), workdir)


def test_another_configuration_in_the_workdir(finished):
    workdir, _ = finished
    with pytest.raises(ConfigError, match="replicas: 2 now, 5 in the workdir"):
        experiment.run(smoke(train_steps=20), workdir)


@pytest.mark.extended
def test_diverged_arm_is_reported_and_the_others_go_on(tmp_path):
    config = smoke(replicas=2, train_steps=10)
    config.arms = {
        "raw": {},
        "hot": {"optimizer": {"learning_rate": 1e30, "schedule": "constant", "warmup_share": 0.0}},
    }
    outcome = experiment.run(config, tmp_path / "run")
    assert outcome.status == "diverged"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["arms"]) == ("diverged", ["hot"])
    rows = read_rows(tmp_path / "run")
    assert {(row["arm"], row["status"]) for row in rows} == {("raw", "done"), ("hot", "diverged")}
    evidence = list((tmp_path / "run" / "evidence").glob("hot-replica*-step*.npz"))
    assert len(evidence) == 2
    with np.load(evidence[0]) as saved:
        assert "batch/images" in saved
        assert np.isfinite(saved["variables/params/dense_0/kernel"]).all()


def command(*flags, cpu_devices=1):
    start = [sys.executable, "runs/train.py", f"--cpu_devices={cpu_devices}", *flags]
    return subprocess.run(start, cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config=configs/quickstart.py:smok"], "'smok' is unknown, did you mean 'smoke'"),
        (["--config=configs/quickstart.py", "--config.replcas=3"], "replicas"),
        (["--config=configs/quickstart.py", "--config.replicas=ten"], "ten"),
        (["--config=configs/quickstart.py", "--config.replicas=0"], "replicas=0 must be >= 1"),
        (["--config=configs/quickstart.py", "--noconfig.task.flip=true"], "--noconfig.task.flip=true does not take an"),
        (["--config=configs/none.py"], "none.py"),
        ([], "config"),
    ],
)
def test_bad_flags(tmp_path, flags, words):
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # a busy machine is not slow to answer
    run = command(*flags, f"--workdir={tmp_path / 'run'}")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 15
    assert run.returncode == 1
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()


def test_an_interrupt_while_a_config_file_is_run(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
    run = command(f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}")
    assert run.returncode == 130
    assert run.stderr.endswith("stopped before any training; nothing is lost\n")
    assert "Traceback" not in run.stderr


def test_help():
    """In under a second of the processor."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run = command("--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 1
    for flag in ("--config", "--workdir", "--cpu_devices"):
        assert flag in run.stdout
