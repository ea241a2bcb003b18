"""The checker that jaxtyping wraps functions with where `--check-types` is given."""

import functools
import typing

import beartype
import jax
import jaxtyping
import numpy as np

# Where the package says Array, numpy arrays are welcome; shapes and dtypes are what is checked.
jaxtyping.Array = typing.Union[jax.Array, np.ndarray]  # noqa: UP007
# An int passes for a float, as PEP 484 says.
check = functools.partial(beartype.beartype, conf=beartype.BeartypeConf(is_pep484_tower=True))
