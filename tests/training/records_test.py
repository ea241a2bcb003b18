"""What a monitor measures at a step, of replicas that run and of those that do not."""

import numpy as np

from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.monitor import Monitor
from sbjax.training.records import measure_variables

MONITOR = Monitor(
    init=lambda variables: 0,
    update=lambda state, step, variables: (step, len(variables["params"]["w"])),
    summarise=lambda state: {"replica_distance/of": Estimate(float(state[1]), np.nan, np.nan)},
    numbers=lambda variables: {"own/first": variables["params"]["w"][:, 0]},
)
VARIABLES = {"params": {"w": np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0], [5.0, 6.0]])}}


def test_stopped_and_non_finite_replicas_have_no_number():
    """The second one is not finite, the last one has failed."""
    state, record = measure_variables(7, VARIABLES, np.array([-1, -1, -1, 4]), MONITOR, 0)
    assert state == (7, 2)
    assert record == {
        "replica_distance/of": {"value": 2.0, "low": None, "high": None},
        "own/first": [1.0, None, 3.0, None],
    }


def test_one_replica_has_numbers_and_no_distance():
    state, record = measure_variables(7, VARIABLES, np.array([2, -1, -1, 4]), MONITOR, 0)
    assert state == 0
    assert record == {"own/first": [None, None, 3.0, None]}
    assert measure_variables(7, VARIABLES, np.array([2, -1, 2, 4]), MONITOR, 0) == (0, {})


def test_numbers_that_are_not_finite_are_none():
    monitor = MONITOR._replace(numbers=lambda variables: {"own/one": np.array([np.inf, 1.0])})
    _, record = measure_variables(7, VARIABLES, np.array([-1, -1, -1, 4]), monitor, 0)
    assert record["own/one"] == [None, None, 1.0, None]


def test_without_numbers():
    _, record = measure_variables(7, VARIABLES, np.array([-1] * 4), MONITOR._replace(numbers=None), 0)
    assert list(record) == ["replica_distance/of"]
