"""The checker that jaxtyping wraps functions with where `--check-types` is given."""

import functools

import beartype

# An int passes for a float, as PEP 484 says.
check = functools.partial(beartype.beartype, conf=beartype.BeartypeConf(is_pep484_tower=True))
