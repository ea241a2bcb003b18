"""Types and bounds of options: entries of tuples, None as a default."""

import dataclasses

import pytest

from sbjax.common import options
from sbjax.common.options import option


@dataclasses.dataclass(frozen=True)
class Part:
    widths: tuple[int, ...] = option((4, 5), "hidden widths", least=1)
    rates: tuple[float, ...] = option((0.5,), "rates")
    names: tuple[str, ...] = option((), "any")
    scale: float | None = option(None, "None = by the shape", above=0, like=1.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"widths": [3]}, {"widths": (3,)}),
        ({"rates": [1, 2.5]}, {"rates": (1.0, 2.5)}),
        ({"rates": ()}, {"rates": ()}),
        ({"names": ["a", 1]}, {"names": ("a", 1)}),
        ({"scale": None}, {"scale": None}),
        ({"scale": 2}, {"scale": 2.0}),
    ],
)
def test_values(given, expected):
    made, problems = options.read(Part, given, where="part")
    assert problems == []
    for name, value in expected.items():
        assert getattr(made, name) == value
        assert repr(getattr(made, name)) == repr(value)  # of the right types, too


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"widths": 4}, "part.widths=4 must be of type tuple, such as (4, 5)"),
        ({"widths": ()}, "part.widths=() must hold at least one number, such as (4, 5)"),
        ({"widths": (3, 0)}, "part.widths=(3, 0) holds an entry that must be >= 1"),
        ({"widths": (3, 0.5)}, "part.widths=(3, 0.5) holds an entry that must be of type int, such as 4"),
        ({"widths": (3, True)}, "part.widths=(3, True) holds an entry that must be of type int, such as 4"),
        ({"rates": (float("inf"),)}, "part.rates=(inf,) holds an entry that must be a finite number"),
        ({"scale": 0.0}, "part.scale=0.0 must be > 0"),
        ({"scale": "1"}, "part.scale='1' must be of type float, such as 1.0"),
    ],
)
def test_refusals(given, problem):
    assert options.read(Part, given, where="part") == (None, [problem])
