"""Denoisers of parameters: what permuting units does to what comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metanets import make_reading, split_vector, vector
from sbjax.models import make_denoiser
from sbjax.symmetry import permute, random_permutations, spec_from_axes

TREE = {"a": np.ones((3, 5)), "b": np.ones(5), "c": np.ones((5, 2)), "d": np.ones(2)}
READING = make_reading(spec_from_axes({"a": (None, "p"), "b": ("p",), "c": ("p", None)}, TREE), TREE)
SMALL = {"flat_denoiser": {"width": 8, "depth": 1}, "equivariant_denoiser": {"channels": 4, "depth": 2}}


@pytest.mark.parametrize("name", SMALL)
def test_units_in_another_order(name):
    """The equivariant one gives the same in that order; the flat one something else."""
    module = make_denoiser(name, reading=READING, **SMALL[name])
    x = jax.random.normal(jax.random.key(0), (4, READING.layout.size))
    level, prompt = jnp.linspace(0.1, 0.9, 4), jnp.arange(4.0)
    variables = module.init(jax.random.key(1), x, level, prompt)
    order = random_permutations(jax.random.key(2), READING.spec)
    moved = jax.vmap(lambda row: vector(permute(READING.spec, split_vector(READING.layout, row), order)))
    one, other = module.apply(variables, moved(x), level, prompt), moved(module.apply(variables, x, level, prompt))
    gap = float(jnp.abs(one - other).max())
    assert (gap < 1e-5) == (name == "equivariant_denoiser"), gap
    for changed in (module.apply(variables, x, level, prompt + 1), module.apply(variables, x, level / 2, prompt)):
        assert float(jnp.abs(changed - module.apply(variables, x, level, prompt)).max()) > 1e-4
