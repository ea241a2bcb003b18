"""Counts beside their tables; paths are checked in tests/symmetry/paths_test.py and tests/landscape/run_test.py."""

import itertools

import numpy as np
import pytest

from sbjax.experiments.landscape import counts
from sbjax.experiments.landscape import counts_report as report
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.landscape import counting


@pytest.mark.parametrize(("m", "ratio"), [(4, 2.12), (5, 0.503), (6, 0.162), (8, 0.0210), (10, 2.8e-3), (20, 2.8e-8)])
def test_ratios_of_the_table(m, ratio):
    minima, critical = counts.layer_counts((4,), [m])
    assert critical / minima == pytest.approx(ratio, rel=0.02)


def test_layers_by_enumeration():
    """All tuples of narrower widths but the full one."""
    r, m = (2, 3), [3, 4]
    tuples = [s for s in itertools.product((1, 2), (1, 2, 3)) if s != r]
    expected = sum(counting.G(s, 3) * counting.G(t, 4) for s, t in tuples)
    assert counts.layer_counts(r, m) == (counting.T(2, 3) * counting.T(3, 4), expected)


def test_networks_and_permutations():
    rng = np.random.default_rng(0)
    net = counts.random_network(rng, (3, 4))
    assert [layer["kernel"].shape for layer in net.values()] == [(2, 4), (4, 5), (5, 1)]
    assert not net["dense_1"]["kernel"][-1].any()
    assert not net["dense_2"]["kernel"][-1].any()
    assert np.abs(net["dense_0"]["kernel"]).min() > 0
    order, unit = counts.random_cycle(rng, 5), 0
    for length in range(1, 6):
        unit = order[unit]
        assert (unit == 0) == (length == 5)
    assert order[5] == 5


def test_counts_of_an_arm_and_ratios():
    extra = np.arange(4)
    minima, critical = np.log(np.array([counts.layer_counts((4,), [4 + h]) for h in extra], float)).T
    found = report.counts_of(ArmResult({}, {"widths": [4]}, {"extra": extra, "minima": minima, "critical": critical}))
    expected = counting.counts(4, 7)
    assert found.widths == expected.widths
    np.testing.assert_allclose([found.minima, found.critical], [expected.minima, expected.critical], rtol=1e-12)
    left, right = report.ratios_figure((4, 10), widest=30).axes
    np.testing.assert_allclose(10 ** left.lines[1].get_ydata()[[0, 3, 5]], [27.2, 0.939, 0.262], rtol=5e-3)
    np.testing.assert_allclose(10 ** right.lines[2].get_ydata()[:4], [91, 5.4, 0.71, 0.127], rtol=1e-2)
