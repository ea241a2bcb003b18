"""Heat maps, tables and the report of several functions against planted ratios."""

import json

import numpy as np
import pytest

from sbjax.experiments.functions import report as lib
from sbjax.experiments.functions.suite_report import suite_report
from sbjax.report.results import load_results, save_arms

ARMS = ("raw", "size3_middle_pi", "size5_middle_pi", "size5_first_0_5", "matched_bias", "widened")
LABELS = {
    "size3_middle_pi": {"size": 3, "place": "middle", "constant": "pi"},
    "size5_middle_pi": {"size": 5, "place": "middle", "constant": "pi"},
    "size5_first_0_5": {"size": 5, "place": "first", "constant": "0.5"},
}
ABOUT = {arm: {"labels": labels} for arm, labels in LABELS.items()} | {
    arm: {"role": f"control of {what}", "labels": {"treatment": "size5_middle_pi"}}
    for arm, what in (("matched_bias", "bias"), ("widened", "size"))
}
SEEDS = 6
FACTORS = {"raw": 1.0, "size3_middle_pi": 2.0, "size5_middle_pi": 0.25, "size5_first_0_5": 1.0, "matched_bias": 0.25,
           "widened": 1.0}  # fmt: skip


def numbers(arm, scale):
    """Errors of raw times a factor up to noise; iterations in proportion; two seeds of raw miss the finest level."""
    noise = np.exp(0.02 * np.random.default_rng(ARMS.index(arm)).normal(size=SEEDS))
    level = 10.0 ** np.arange(SEEDS)
    found = {"test/mse": scale * 1e-8 * level * FACTORS[arm] * noise, "train/loss": 1e-9 * level}
    for name, reached in (("loss_0.001", SEEDS), ("loss_1e-05", 4), ("loss_1e-06", 2)):
        found[f"iterations/{name}"] = 100.0 * FACTORS[arm] * noise
        found[f"reached/{name}"] = (np.arange(SEEDS) < reached).astype(float)
    return found


@pytest.fixture
def write(tmp_path):
    def write(name, scale=1.0, arms=ARMS):
        folder = tmp_path / name
        lines = []
        for arm in arms:
            for step, kept in ((0, ("train/loss",)), (50, None)):
                listed = {k: v.tolist() for k, v in numbers(arm, scale).items() if kept is None or k in kept}
                lines.append({"arm": arm, "step": step, "flops": 1.0 * step, **listed})
        save_arms(
            folder, arms=arms, reference="raw", primary="test/mse", goal="min", parameters=dict.fromkeys(arms, 1),
            flops_per_step=dict.fromkeys(arms, 1.0), steps=dict.fromkeys(arms, 50), failures=[],
            about={arm: about for arm, about in ABOUT.items() if arm in arms},
        )  # fmt: skip
        config = {"config": {"task": {"kind": "regression", "function": name}}, "environment": {}, "overrides": []}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


def test_the_level_is_the_smallest_that_most_of_raw_reach(write):
    assert lib.chosen_level(load_results(write("sine"))) == "loss_1e-05"


def test_maps_hold_the_planted_ratios(write):
    figure = lib.expansion_maps(load_results(write("sine")))
    panels = {panel.get_title(): panel for panel in figure.axes if panel.get_title()}
    assert list(panels) == [f"{what}, data {place}" for what in ("iterations to loss 1e-05", "final test MSE")
                            for place in ("middle", "first")]  # fmt: skip
    panel = panels["final test MSE, data middle"]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["1", "3", "5"]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["0.5", "pi"]
    np.testing.assert_allclose(10 ** panel.images[0].get_array()[:, 1].astype(float), [1, 2, 0.25], rtol=0.05)
    assert panel.images[0].get_array().mask[1:, 0].all()  # nothing there: no such arm
    with pytest.raises(ValueError, match="no arm has the labels size"):
        lib.expansion_maps(load_results(write("none", arms=("raw", "matched_bias"))))


def test_the_report_of_a_function(write):
    folder = write("sine")
    section, fits = lib.report(load_results(folder), folder)
    assert (folder / "figures" / "expansion_maps.png").read_bytes() == section.figures[0].png
    said = " ".join(section.texts)
    assert "test MSE: size5_middle_pi / raw 0.2" in said
    assert said.count("It does not survive matched_bias") == 2
    assert said.count("It survives widened") == 2
    (table,) = section.tables
    assert [row[0] for row in table.rows] == list(ARMS[1:])
    assert "(4 of 6 of raw)" in table.notes[0]
    assert not fits.parts


@pytest.mark.extended
def test_functions_together(write):
    names = ("sine", "cubic", "runge", "gauss", "sign")
    for i, name in enumerate(names):
        write(name, scale=10.0**i)
    table, page, summary = suite_report(write("sine").parent, names)
    found = summary["arms"]["size5_middle_pi"]["error"]
    expected = np.exp(np.median(np.log(numbers("size5_middle_pi", 1.0)["test/mse"] / numbers("raw", 1.0)["test/mse"])))
    assert found["median"] == pytest.approx(expected, rel=1e-9)
    assert found["mean_cut"] == pytest.approx(1 - expected, rel=1e-9)
    assert (found["smaller"], summary["arms"]["size3_middle_pi"]["error"]["smaller"]) == (5, 0)
    # What is too wide for the terminal stands in a second block.
    assert any(line.startswith("published") and line.endswith("66.3%") for line in table.splitlines())
    for text in (table.replace("\n", " "), page.read_text()):
        assert "test MSE: size5_middle_pi / raw 0.2" in text
        assert "It does not survive matched_bias" in text
    assert (page.parent / "figures" / "expansion_maps.png").exists()
    # Without the arm that the controls are for, nothing is said of them.
    write("sine", arms=("raw", "size3_middle_pi"))
    assert "surviv" not in suite_report(page.parent, ["sine"])[0]
