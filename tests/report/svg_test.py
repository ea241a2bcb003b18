"""Panels of drawings as images of their own."""

import re

import numpy as np
import pytest

from sbjax.report import figures
from sbjax.report import svg as lib
from sbjax.report.results import load_results


@pytest.fixture
def drawn():
    """Two rows of two panels: lines on shared axes above, maps with one colour bar below; a legend."""
    with figures.styled():
        figure = figures.new_figure((6, 5))
        panels = figure.subplots(2, 2)
        for shift, panel in enumerate(panels[0]):
            panel.plot([0, 1, 2], [1 + shift, 10, 100], "--", color=lib.COLOURS[0], label="raw")
            panel.plot([0, 1, 2], [2 + shift, 3, 4], color="#000000", label="expanded")
            panel.set_yscale("log")
            panel.set_ylim(0.5, 1e7)
            panel.set_xlabel("step")
        panels[0, 0].set_ylabel("loss")
        for panel in panels[1]:
            image = panel.imshow(np.arange(4.0).reshape(2, 2), vmin=0, vmax=3)
            panel.set_title("map", fontsize=5)
        figure.colorbar(image, ax=list(panels[1]), label="height")
        figures.legend(figure, panels[0])
        return figure


def test_every_panel_is_an_image_with_its_labels(drawn):
    with figures.styled():
        panels, entries = lib.split(drawn, "name")
    assert [(one.label, one.colour, one.dash) for one in entries] == [
        ("raw", "#0072b2", "--"), ("expanded", "#000000", "-"),
    ]  # fmt: skip
    assert [panel.alt for panel in panels] == [
        "loss against step: raw from 1 to 100, expanded from 2 to 4; at the right end expanded is lowest, raw highest.",
        "loss against step: raw from 2 to 100, expanded from 3 to 4; at the right end expanded is lowest, raw highest.",
        "map: map, values from 0 to 3.",
        "map: map, values from 0 to 3.",
    ]
    for panel in panels[:2]:  # the label of the row, powers without small exponents, colours of the page
        assert ">loss</text>" in panel.svg
        assert ">1e6</text>" in panel.svg
        assert "var(--c0)" in panel.svg
        assert "currentColor" in panel.svg
    for panel in panels[2:]:
        assert ">height</text>" in panel.svg
        assert "<image" in panel.svg
    for panel in panels:
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:[a-z]+ )*([\d.]+)px", panel.svg)]
        assert sizes
        assert min(sizes) >= lib.LEAST
        for word in ("<metadata", "<style", "DOCTYPE", "#000000", "DejaVu"):
            assert word not in panel.svg


def test_the_same_drawing_gives_the_same_bytes(write_run):
    results = load_results(write_run())
    with figures.styled():
        one, two = (lib.split(figures.paired_dots(results), "dots") for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("high", "plain"), [(3.2, True), (40.0, False)])
def test_ticks_of_less_than_a_decade_do_not_overlap(high, plain):
    drawing = figures.new_figure((3, 2))
    panel = drawing.subplots()
    panel.loglog([2.9, high], [2.0, 2.6])
    figures.to_png(drawing)
    said = [label.get_text() for label in panel.get_xticklabels(which="both") if label.get_text()]
    assert all("\\" not in label for label in said) == plain  # powers of ten are formulas
    assert len(said) <= 6 or not plain
