"""What must hold of the libraries below us, and of what importing us costs."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize(("dtype", "rows"), [("float32", 32_769), ("float64", 16_385), ("float32", 100_000)])
def test_jit_agrees_with_eager_on_vmapped_products(dtype, rows):
    """jax 0.10.2 returns other numbers under jit at the first two sizes (jax-ml/jax#39103): the shape of a residual."""
    with jax.enable_x64(True):
        x = jnp.zeros((rows, 3), dtype).at[:, 0].set(jnp.arange(rows, dtype=dtype))
        matrix = jnp.eye(3, dtype=dtype)
        norms = jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))
        exact = np.arange(rows, dtype=np.float64) ** 2
        np.testing.assert_allclose(jax.jit(norms)(x), exact, rtol=4 * np.finfo(dtype).eps)


def test_import_is_light():
    """Under a second on top of jax, and nothing of TensorFlow, plotting, checkpointing or transport."""
    code = """
import json, sys, time
import jax
began = time.perf_counter()
import sbjax
names = ('tensorflow', 'tensorflow_datasets', 'matplotlib', 'ott', 'orbax', 'tensorboardX')
heavy = [name for name in names if name in sys.modules]
print(json.dumps([time.perf_counter() - began, heavy]))
"""
    times = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        seconds, heavy = json.loads(run.stdout)
        assert heavy == []
        times.append(seconds)
    assert min(times) < 1.0
