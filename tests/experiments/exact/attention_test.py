"""The parts of the experiment on attention, small."""

import pathlib
import runpy

import numpy as np
import pytest

from sbjax.claims import recording
from sbjax.experiments.exact import attention_barriers
from sbjax.runner import run as runner

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def rows(words, arms, tmp_path, replicas=2, **task):
    get_config = runpy.run_path(str(CONFIGS / "attention.py"))["get_config"]
    config, full = get_config(words), get_config(words.removesuffix(",smoke"))
    config.arms = {arm: full.arms[arm] for arm in arms}
    config.reference, config.replicas = arms[0], replicas
    config.task.update(task)
    runner.run(config, tmp_path / "run")
    return [row["cells"] for row in recording.record_of(tmp_path / "run", title="x", table="cells")["rows"]]


def test_planted_gauges_are_found_again(tmp_path):
    (row,) = rows("planted,smoke", ["layer"], tmp_path)
    assert (row["all"]["count"], row["all"]["of"]) == (2, 2)
    assert row["worst"] < 1e-5
    assert row["change"] < 1e-9


EXACT = ["rms", "rms_tanh", "rope", "layer", "layer_gelu", "layer_rope"]
NOISY = ["rms_noise", "layer_noise"]


@pytest.mark.extended
@pytest.mark.parametrize("arm", [*EXACT, *NOISY])
def test_all_planted_gauges_of_an_arm_are_found_again(arm, tmp_path):
    """100 of 100: permutations, signs and scales exactly, matrices to 1e-5; with noise on the copy the first."""
    (row,) = rows("planted", [arm], tmp_path, replicas=100)
    assert (row["discrete"]["count"], row["discrete"]["of"]) == (100, 100)
    if arm in EXACT:
        assert (row["all"]["count"], row["worst"] < 1e-5, row["off"] < 1e-6) == (100, True, True)
    assert row["change"] < 1e-8


@pytest.mark.extended
def test_flows_of_a_form(tmp_path):
    relu, tanh = rows("flows", ["form_relu", "form_tanh"], tmp_path)
    assert (relu["algebra"], tanh["algebra"]) == (4, 0)
    assert relu["form_scales"]["value"] < 1e-12 < 1e-3 < relu["form_signs"]["value"]
    assert tanh["form_signs"]["value"] < 1e-12 < 1e-3 < tanh["form_scales"]["value"]
    assert min(relu["form_orthogonal"]["value"], tanh["form_orthogonal"]["value"]) > 1e-3


@pytest.mark.extended
def test_changed_flows(tmp_path):
    linear, time = rows("flows", ["linear", "time"], tmp_path)
    assert linear["euler_32"]["value"] < 1e-12
    assert 1.5 < time["euler_32"]["value"] / time["euler_64"]["value"] < 2.5
    assert time["tolerance_2"]["value"] < 1e-8 < time["tolerance_0"]["value"]


@pytest.mark.extended
@pytest.mark.parametrize("arm", ["layer", "rope"])
def test_barriers_of_trained_networks(arm, tmp_path):
    """Matched to a moved copy of itself a network has no barrier, and matching brings networks nearer."""
    (row,) = rows("barriers,smoke", [arm], tmp_path)
    assert row["copy_matched"]["value"] < 1e-4
    assert row["apart_full"]["value"] < row["apart"]["value"]


def test_dimensions_are_those_of_the_closed_count(tmp_path):
    (row,) = rows("dimensions,smoke", ["rms"], tmp_path)
    assert row["counted"] == row["closed"]
    assert row["all"]["count"] == 2


def test_patches():
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    found = attention_barriers.patches(images)
    np.testing.assert_allclose(
        found[0, 1], (4 + 8 * np.arange(4)[:, None] + np.arange(4)).ravel() / 127.5 - 1, rtol=1e-6
    )
