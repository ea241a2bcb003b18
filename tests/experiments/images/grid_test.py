"""The grid of sets and networks, in the report of a suite of images."""

import json

import numpy as np
import pytest

from sbjax.experiments.images import report
from sbjax.experiments.images.experiment import EXPERIMENT
from sbjax.report.results import load_results

CELLS = {"a": ("cifar10", "resnet18"), "b": ("cifar100", "resnet18"), "c": ("cifar10", "densenet121")}


@pytest.fixture
def suite(write_run, tmp_path):
    for name, (dataset, model) in CELLS.items():
        folder = write_run(name, stop=False)
        stored = json.loads((folder / "config.json").read_text())
        stored["config"]["task"] = {"kind": "images", "dataset": dataset, "image_size": 0, "train_share": 0.1}
        stored["config"]["model"] = {"name": model, "stem": "imagenet"}
        (folder / "config.json").write_text(json.dumps(stored))
    return tmp_path


def test_every_cell_has_its_curves_and_what_is_published(suite):
    cells = {cell: load_results(suite / name) for name, cell in CELLS.items()}
    panels = report.draw_grid(cells).axes
    assert [panel.get_title() for panel in panels] == [
        "cifar10, resnet18", "cifar10, densenet121", "cifar100, resnet18", "cifar100, densenet121",
    ]  # fmt: skip
    for panel, cell in zip(panels, [CELLS["a"], CELLS["c"], CELLS["b"]]):
        lines = {line.get_label(): line for line in panel.lines}
        assert set(lines) == {"raw", "expanded", "nearest"} | ({"published, expanded"} if cell == CELLS["a"] else set())
        values = [np.median(one.values["test/accuracy"]) for one in cells[cell].reports["expanded"]]
        np.testing.assert_allclose(lines["expanded"].get_ydata(), 100 * np.array(values))
    assert list(panels[0].lines[-1].get_ydata()) == [94.0, 94.0]
    assert panels[3].texts[0].get_text() == "not run"


def test_the_report_of_a_suite_shows_it_and_that_of_one_cell_does_not(suite):
    made = EXPERIMENT.suite_report(suite, list(CELLS))
    page = made.path.read_text()
    assert (suite / "figures" / "grid.png").is_file()
    for words in (
        "94 % (second hand)",
        "above raw, no number",
        "stem imagenet, stored size, 10 % of the set, 2 epochs",
    ):
        assert words in page
    (suite / "figures" / "grid.png").unlink()
    EXPERIMENT.suite_report(suite, ["a"])
    assert not (suite / "figures" / "grid.png").exists()
