"""Key streams."""

import subprocess
import sys

import jax
import numpy as np

from sbjax import rng


def test_streams_are_the_same_in_every_process():
    code = (
        "import jax; from sbjax import rng; print(jax.random.key_data(rng.stream(jax.random.key(7), 'data')).tolist())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    here = jax.random.key_data(rng.stream(jax.random.key(7), "data")).tolist()
    assert [eval(run.stdout) for run in runs] == [here, here]


def test_names_replicas_and_steps_give_different_numbers():
    key = jax.random.key(0)
    names = [rng.stream(key, name) for name in ("init", "data", "dropout", "augment")]
    replicas = [rng.step_key(rng.replica_stream(key, "data", r), step) for r in range(3) for step in range(3)]
    draws = [float(jax.random.uniform(k)) for k in [*names, *replicas]]
    assert len(np.unique(draws)) == len(draws)
