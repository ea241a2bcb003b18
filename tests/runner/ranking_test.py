"""The measuring script as a user runs it: designs, correlations, files from elsewhere."""

import contextlib
import json
import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

from sbjax.frame.errors import ConfigError
from sbjax.metrics.replica import marginal_distance, unmatched_distance
from sbjax.runner import ranking as measure
from sbjax.training.params_files import load_params

ROOT = pathlib.Path(__file__).parents[2]
ARMS = ("plain", "dropout_20", "dropout_40", "half_width", "p4")


def designs(words="digits,smoke", arms=ARMS, kinds="unmatched,marginal"):
    config = runpy.run_path(str(ROOT / "configs" / "designs.py"))["get_config"](words)
    config.arms = {arm: config.arms[arm] for arm in arms}
    config.monitor.kinds = kinds
    # Two small layers, which compile sooner than three.
    config.model.channels = (8, 16)
    for arm in set(arms) & {"half_width", "p4"}:
        config.arms[arm].model.channels = (4, 8)
    return config


@pytest.mark.extended
@pytest.mark.slow
def test_designs_are_ranked_and_correlated(tmp_path):
    measured = measure.rank_designs(designs(), tmp_path / "brief")
    again = measure.rank_designs(designs(), tmp_path / "brief", against=tmp_path / "brief", by="marginal_excess")
    values = [row["distance"]["value"] for row in measured.numbers["ranking"]]
    assert values == sorted(values)
    assert {row["arm"] for row in measured.numbers["ranking"]} == set(ARMS)
    assert again.numbers["by"] == "marginal_excess"
    assert {"replica_distance/marginal", "validation/accuracy", "parameters"} <= {
        row["measure"] for row in again.numbers["correlations"]
    }
    for file in again.files:
        assert file.stat().st_size > 100
    # The number in the table is that of the parameters on disk.
    params = load_params(tmp_path / "brief" / "checkpoints" / "p4")
    row = next(row for row in measured.numbers["ranking"] if row["arm"] == "p4")
    np.testing.assert_allclose(marginal_distance(params).raw.total.distance.value, row["distance"]["value"], rtol=1e-5)


def test_bad_input_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="--by='margnal' is not measured, did you mean 'marginal'"):
        measure.rank_designs(designs(), tmp_path / "run", by="margnal")
    with pytest.raises(ConfigError, match=r"--against=.*is not a directory"):
        measure.rank_designs(designs(), tmp_path / "run", against=tmp_path / "none")
    assert not (tmp_path / "run").exists()


def write_replicas(folder, seeds, shape=(4, 3)):
    paths = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        paths.append(folder / f"{seed}.npz")
        np.savez(paths[-1], **{"a/kernel": rng.normal(size=shape), "a/bias": rng.normal(size=shape[1])})
    return paths


def test_params_from_disk(tmp_path):
    paths = write_replicas(tmp_path, range(5))
    measured = measure.measure_params(paths, workdir=tmp_path / "out")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(np.load(path)) for path in paths]
        stacked = {name: np.stack([file[name] for file in files]) for name in ("a/kernel", "a/bias")}
    expected = unmatched_distance(stacked).raw.layers["a/kernel"].distance.value
    assert measured.numbers["unmatched"]["raw"]["layers"]["a/kernel"]["distance"]["value"] == pytest.approx(expected)
    written = json.loads((tmp_path / "out" / "measures.json").read_text())
    assert written["marginal"]["raw"]["total"].keys() == {"distance", "null", "excess"}
    assert (tmp_path / "out" / "figures" / "pairs.png").stat().st_size > 1000
    only = measure.measure_params(paths, where="*/bias").numbers
    assert list(only["marginal"]["raw"]["layers"]) == ["a/bias"]


def test_params_that_do_not_fit_together(tmp_path):
    paths = [*write_replicas(tmp_path, [0]), *write_replicas(tmp_path, [1], shape=(5, 3))]
    with pytest.raises(ConfigError, match=r"'a/kernel' has shape \(5, 3\)"):
        measure.measure_params(paths)
    np.savez(tmp_path / "other.npz", b=np.ones(3))
    with pytest.raises(ConfigError, match="differ: only one has"):
        measure.measure_params([paths[0], tmp_path / "other.npz"])
    np.savez(tmp_path / "nan.npz", b=np.full(3, np.nan))
    np.savez(tmp_path / "integers.npz", b=np.arange(3))
    with pytest.raises(ConfigError, match=r"integers.npz.* leaf 'b' holds int64"):
        measure.measure_params([tmp_path / "other.npz", tmp_path / "integers.npz"])
    with pytest.raises(ConfigError, match=r"nan.npz: leaf 'b' has .* entries that are NaN or infinite"):
        measure.measure_params([tmp_path / "other.npz", tmp_path / "nan.npz"])


def test_what_is_left_out_is_said(tmp_path):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        statistics = {"bn.running_mean": rng.normal(size=3), "bn.running_var": rng.normal(size=3), "n": np.arange(2)}
        np.savez(tmp_path / f"{seed}.npz", **{"fc.weight": rng.normal(size=(4, 3))}, **statistics)
    paths = [tmp_path / f"{seed}.npz" for seed in range(3)]
    plain, whole = measure.measure_params(paths), measure.measure_params(paths, buffers=True)
    assert "running statistics: bn/running_mean, bn/running_var" in plain.table
    assert "--buffers" in plain.table
    assert plain.numbers["left_out"]["bn/running_var"] == "running statistics"
    assert set(plain.numbers["marginal"]["raw"]["layers"]) == {"fc/weight"}
    with pytest.raises(ConfigError, match=r"selects no weight, only such as 'bn/running_mean' .*--buffers"):
        measure.measure_params(paths, where="*mean")
    assert set(whole.numbers["marginal"]["raw"]["layers"]) == {"fc/weight", "bn/running_mean", "bn/running_var"}


def test_the_axis_of_neurons_is_that_of_the_names(tmp_path):
    """[out, in] and [in, out] of one layer give one distance, whose tables say which axis was taken."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        w, b = rng.normal(size=(4, 3)), rng.normal(size=4)
        np.savez(tmp_path / f"torch{seed}.npz", **{"fc.weight": w, "fc.bias": b})
        np.savez(tmp_path / f"flax{seed}.npz", **{"fc/kernel": w.T, "fc/bias": b})
    found = {
        name: measure.measure_params([tmp_path / f"{name}{seed}.npz" for seed in range(3)])
        for name in ("torch", "flax")
    }
    cloud = {name: one.numbers["neuron_cloud"]["raw"]["total"] for name, one in found.items()}
    assert cloud["torch"]["distance"]["value"] == pytest.approx(cloud["flax"]["distance"]["value"], rel=0.05)
    assert "axis 0 of a kernel" in found["torch"].table
    assert "axis 0 of a kernel" not in found["flax"].table


def test_one_file_of_one_replica_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones((4, 3)), b=np.ones(3))
    with pytest.raises(ConfigError, match=r"a.npz: one file must hold all replicas.*with commas between"):
        measure.measure_params([tmp_path / "a.npz"])


@pytest.mark.parametrize("paths", [[], [""], ["", ""], ["a.npz", ""]])
def test_empty_paths_are_refused(paths):
    with pytest.raises(ConfigError, match=r"--params='.*' has an empty path"):
        measure.measure_params(paths)


@pytest.mark.extended
def test_command_line(tmp_path):
    paths = ",".join(map(str, write_replicas(tmp_path, range(3))))

    def command(*flags):
        return subprocess.run(
            [sys.executable, "runs/measure.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    run = command(f"--params={paths}")
    assert run.returncode == 0, run.stderr
    for word in ("marginal", "neuron_cloud", "unmatched", "a/kernel", "excess"):
        assert word in run.stdout
    for flags, words in (
        ([], "give either --config with --workdir, or --params"),
        (["--config=configs/designs.py:digits,smoke"], "--workdir is missing"),
        (
            ["--config=configs/designs.py:digts", f"--workdir={tmp_path / 'x'}"],
            "'digts' is unknown, did you mean 'digits'",
        ),
        ([f"--params={tmp_path / 'none.npz'}"], "does not exist"),
        (["--params=a.npz", "stray"], "unexpected argument 'stray'"),
    ):
        run = command(*flags)
        assert run.returncode == 1
        assert words in run.stderr
        assert "Traceback" not in run.stderr


def test_stacked_file(tmp_path):
    stacked = jax.random.normal(jax.random.key(0), (4, 3, 2))
    np.savez(tmp_path / "stacked.npz", w=np.asarray(stacked))
    measured = measure.measure_params([tmp_path / "stacked.npz"])
    assert "One file: the first axis of its arrays, of 4, is taken for replicas." in measured.table
    numbers = measured.numbers
    assert numbers["unmatched"]["raw"]["total"]["distance"]["value"] == pytest.approx(
        unmatched_distance({"w": stacked}).raw.total.distance.value
    )
