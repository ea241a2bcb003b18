"""What a gradient step costs by derivative mode, as `benchmarks/derivative_modes.py --record` measured it.

Milliseconds of one x86-64 core, jax 0.10.1, float32, 2000 + 200 + 200 points for 3 layers of 32. The modes took turns;
the least of 16 turns each.
"""

import math
from typing import NamedTuple

from sbjax.models.field import Field

PLAIN = ("tanh", "sin")


class Net(NamedTuple):
    """A kind of network: 'perceptron' (tanh or sin, which 'mlp' can do), 'features' or 'other'; layers and width."""

    kind: str
    layers: int
    width: int


def net_of(field: Field) -> Net:
    """The kind and size of a field; the width is that of a layer on average.

    >>> net_of(Field(unknowns=1, widths=(32, 32, 32), lower=(0.0,), upper=(1.0,)))
    Net(kind='perceptron', layers=3, width=32)
    """
    kind = "features" if field.features else "perceptron" if field.activation in PLAIN else "other"
    return Net(kind, len(field.widths), round(sum(field.widths) / max(len(field.widths), 1)))


def recorded(equation: str, field: Field) -> dict[str, float]:
    """{mode: milliseconds} of an equation, measured with the net of the field's kind that is nearest to it in its
    number of weights; empty if there is none."""
    net = net_of(field)
    rows = {known: row[equation] for known, row in MS.items() if known.kind == net.kind and equation in row}
    return rows[min(rows, key=lambda known: abs(_size(known) - _size(net)))] if rows else {}


def _size(net):
    return math.log(max(net.layers, 1) * max(net.width, 1) ** 2)


MS: dict[Net, dict[str, dict[str, float]]] = {
    Net("perceptron", 3, 32): {
        "euler_beam": {"mlp": 1.58, "nested": 16.07, "forward_over_reverse": 5.17, "forward": 3.48, "taylor": 3.56},
        "heat": {"mlp": 0.99, "nested": 2.43, "forward_over_reverse": 1.69, "forward": 1.8, "taylor": 1.71},
        "advection": {"mlp": 0.87, "nested": 1.37, "forward_over_reverse": 0.98, "forward": 1.42, "taylor": 1.43},
        "burgers": {"mlp": 1.1, "nested": 3.24, "forward_over_reverse": 1.82, "forward": 1.87, "taylor": 1.88},
        "kovasznay": {"mlp": 1.45, "nested": 34.29, "forward_over_reverse": 7.17, "forward": 3.15, "taylor": 2.88},
        "kdv": {"mlp": 1.5, "nested": 7.43, "forward_over_reverse": 3.76, "forward": 3.06, "taylor": 2.63},
        "poisson_nd": {"mlp": 2.14, "nested": 9.61, "forward_over_reverse": 7.87, "forward": 5.48, "taylor": 5.08},
    },
    Net("other", 3, 32): {
        "advection": {"nested": 1.81, "forward_over_reverse": 1.22, "forward": 1.47, "taylor": 1.67},
        "heat": {"nested": 3.83, "forward_over_reverse": 2.66, "forward": 2.35, "taylor": 2.33},
        "burgers": {"nested": 5.16, "forward_over_reverse": 2.78, "forward": 2.56, "taylor": 2.55},
    },
}
