"""Every fault that was found has tests, and they are there."""

import ast
import functools
import pathlib

import pytest

from tests.faults.rows import ROWS

ROOT = pathlib.Path(__file__).parents[2]


@functools.cache
def functions(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_its_tests_are_there(row):
    what, ids = ROWS[row]
    assert what
    assert ids
    for one in ids:
        file, _, name = one.partition("::")
        assert name in functions(file), one
