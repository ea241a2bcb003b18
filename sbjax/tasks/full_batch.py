"""Tasks whose step sees a whole set of points: no epochs, no batch to split over devices, a loss to be made small."""

from typing import Any

from sbjax.tasks.task import Task


def full_batch_task(**fields: Any) -> Task:
    """A `Task` from its other fields, with `parts=1`, `batch_size=1`, `epoch_steps=None` and `goal='min'`.

    A batch of size 1 stands for all points together: devices share replicas and never the points of one.

    Raises:
        TypeError: a field that is fixed here, or one that `Task` does not know or lacks.

    >>> import jax.numpy as jnp
    >>> from sbjax.tasks.task import Aux, Average
    >>> task = full_batch_task(
    ...     data={'x': jnp.ones(3)},
    ...     init=lambda key: {'params': jnp.zeros(())},
    ...     sample=lambda data, key, step: data,
    ...     loss=lambda variables, batch, key: (jnp.mean((variables['params'] - batch['x']) ** 2), Aux({}, {})),
    ...     evaluate=lambda data, variables, part: {'test/error': Average(variables['params'] - 1, jnp.ones(()))},
    ...     primary='test/error',
    ...     selection='test/error',
    ... )
    >>> task.batch_size, task.epoch_steps, task.goal
    (1, None, 'min')
    """
    return Task(**fields, parts=1, batch_size=1, epoch_steps=None, goal="min")
