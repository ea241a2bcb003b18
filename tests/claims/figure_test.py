"""The figure of the README."""

import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sbjax.claims import figure

ROOT = pathlib.Path(__file__).parents[2]


def test_dots_stand_where_their_numbers_are():
    """Heights of the dots of the committed figure are a straight line in the numbers of its record."""
    record = json.loads((ROOT / "results" / "quickstart" / "quickstart.json").read_text())
    tree = ElementTree.parse(ROOT / "docs" / "quickstart.svg")
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in tree.iter() if e.tag.endswith("circle")]
    numbers = np.array([seed for row in record["rows"] for seed in row["seeds"]])
    assert len(dots) == len(numbers) == 30
    slope, offset = np.polyfit(numbers, [y for _, y in dots], 1)
    assert slope < 0
    np.testing.assert_allclose(slope * numbers + offset, [y for _, y in dots], atol=0.11)
    lines = re.findall(r'class="seed" points="([^"]+)"', (ROOT / "docs" / "quickstart.svg").read_text())
    assert len(lines) == 10
    first = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert first == [dots[0], dots[10], dots[20]]
    assert (ROOT / "docs" / "quickstart.svg").stat().st_size < 10_000


@pytest.mark.parametrize("seeds", [[[1.0]], [[1.0, 2.0], [1.0]], [None, None]])
def test_rows_without_pairs_are_refused(seeds):
    rows = [{"cells": {"arm": "a"}, **({"seeds": own} if own else {})} for own in seeds]
    with pytest.raises(ValueError, match="rows need seeds"):
        figure.paired_dots({"columns": [{"key": "arm", "name": "arm"}], "rows": rows}, title="", axis="")


def test_equal_numbers_and_odd_names_draw():
    rows = [{"cells": {"arm": name}, "seeds": [1.0, 1.0]} for name in ("a < b", "c & d")]
    svg = figure.paired_dots({"columns": [{"key": "arm", "name": "arm"}], "rows": rows}, title="<t>", axis="&")
    ElementTree.fromstring(svg)
