"""Measured cost of a gradient step by derivative mode, written by `benchmarks/derivative_modes.py --record`.

Milliseconds on one x86-64 core, jax 0.10.1, float32; 2000 interior + 200 boundary + 200 initial points for 3 layers of
32 units, 8192 + 2048 + 2048 for 5 layers of 100. Modes were timed in turn; each entry is the minimum of 16 rounds (6
for the large networks).
"""

import math
from typing import NamedTuple

from sbjax.models.field import Field

PLAIN = ("tanh", "sin")


class Net(NamedTuple):
    """Key of the record. `kind` is 'perceptron' (tanh or sin, supported by mode 'mlp'), 'features' (random features)
    or 'other'."""

    kind: str
    layers: int
    width: int


def net_of(field: Field) -> Net:
    """Kind, number of hidden layers and mean width of a field.

    >>> net_of(Field(unknowns=1, widths=(32, 32, 32), lower=(0.0,), upper=(1.0,)))
    Net(kind='perceptron', layers=3, width=32)
    """
    kind = "features" if field.features else "perceptron" if field.activation in PLAIN else "other"
    return Net(kind, len(field.widths), round(sum(field.widths) / max(len(field.widths), 1)))


def recorded(equation: str, field: Field) -> dict[str, float]:
    """{mode: milliseconds} for an equation, from the recorded network of the same kind whose number of weights is
    closest to the field's; {} if the equation was not measured with that kind, or
    for a network of the user's own."""
    if not isinstance(field, Field):
        return {}
    net = net_of(field)
    rows = {known: row[equation] for known, row in MS.items() if known.kind == net.kind and equation in row}
    return rows[min(rows, key=lambda known: abs(_size(known) - _size(net)))] if rows else {}


def _size(net: Net) -> float:
    """Logarithm of the approximate number of weights."""
    return math.log(max(net.layers, 1) * max(net.width, 1) ** 2)


MS: dict[Net, dict[str, dict[str, float]]] = {
    Net("perceptron", 3, 32): {
        "poisson": {"mlp": 0.62, "nested": 1.61, "forward_over_reverse": 1.3, "forward": 1.08, "taylor": 1.08},
        "poisson_robin": {"mlp": 0.68, "nested": 1.83, "forward_over_reverse": 1.52, "forward": 1.18, "taylor": 1.47},
        "poisson_multiscale": {
            "mlp": 0.64,
            "nested": 1.64,
            "forward_over_reverse": 1.33,
            "forward": 1.13,
            "taylor": 1.09,
        },
        "euler_beam": {"mlp": 1.44, "nested": 15.5, "forward_over_reverse": 4.93, "forward": 3.47, "taylor": 3.38},
        "helmholtz": {"mlp": 0.98, "nested": 3.44, "forward_over_reverse": 2.66, "forward": 2.09, "taylor": 1.92},
        "heat": {"mlp": 0.86, "nested": 2.21, "forward_over_reverse": 1.54, "forward": 1.66, "taylor": 1.6},
        "heat_source": {"mlp": 0.92, "nested": 2.27, "forward_over_reverse": 1.57, "forward": 1.69, "taylor": 1.64},
        "heat_multimode": {"mlp": 1.02, "nested": 2.35, "forward_over_reverse": 1.66, "forward": 1.76, "taylor": 1.69},
        "wave": {"mlp": 1.51, "nested": 4.02, "forward_over_reverse": 3.2, "forward": 2.64, "taylor": 2.58},
        "advection": {"mlp": 0.71, "nested": 1.19, "forward_over_reverse": 0.79, "forward": 1.26, "taylor": 1.31},
        "burgers": {"mlp": 1.04, "nested": 3.09, "forward_over_reverse": 1.76, "forward": 1.87, "taylor": 1.84},
        "allen_cahn": {"mlp": 0.95, "nested": 2.57, "forward_over_reverse": 1.66, "forward": 1.76, "taylor": 1.71},
        "klein_gordon": {"mlp": 1.31, "nested": 3.76, "forward_over_reverse": 2.9, "forward": 2.35, "taylor": 2.24},
        "kovasznay": {"mlp": 1.32, "nested": 32.86, "forward_over_reverse": 7.21, "forward": 2.87, "taylor": 2.69},
        "kdv": {"mlp": 1.31, "nested": 6.31, "forward_over_reverse": 2.92, "forward": 2.53, "taylor": 2.25},
        "poisson_nd": {"mlp": 2.27, "nested": 9.3, "forward_over_reverse": 7.18, "forward": 5.17, "taylor": 4.66},
        "fisher": {"mlp": 0.83, "nested": 2.27, "forward_over_reverse": 1.49, "forward": 1.58, "taylor": 1.56},
        "sine_gordon": {"mlp": 1.69, "nested": 3.59, "forward_over_reverse": 2.76, "forward": 2.36, "taylor": 2.26},
    },
    Net("other", 3, 32): {
        "advection": {"nested": 1.68, "forward_over_reverse": 1.09, "forward": 1.31, "taylor": 1.48},
        "heat": {"nested": 3.27, "forward_over_reverse": 2.24, "forward": 1.93, "taylor": 1.98},
        "burgers": {"nested": 3.97, "forward_over_reverse": 2.16, "forward": 1.91, "taylor": 1.96},
        "kovasznay": {"nested": 40.32, "forward_over_reverse": 8.42, "forward": 3.18, "taylor": 2.88},
        "kdv": {"nested": 8.62, "forward_over_reverse": 4.14, "forward": 2.91, "taylor": 2.65},
        "euler_beam": {"nested": 25.04, "forward_over_reverse": 6.7, "forward": 3.67, "taylor": 2.58},
        "poisson_nd": {"nested": 12.33, "forward_over_reverse": 9.86, "forward": 5.94, "taylor": 5.44},
    },
    Net("features", 3, 32): {
        "advection": {"nested": 1.52, "forward_over_reverse": 0.97, "forward": 1.5, "taylor": 1.58},
        "heat": {"nested": 3.21, "forward_over_reverse": 2.11, "forward": 2.16, "taylor": 2.07},
    },
    Net("perceptron", 5, 100): {
        "burgers": {"mlp": 95.85, "nested": 216.8, "forward_over_reverse": 129.5, "forward": 136.9, "taylor": 156.9},
        "kdv": {"mlp": 125.7, "nested": 432.3, "forward_over_reverse": 241.3, "forward": 206.2, "taylor": 220.8},
    },
}
