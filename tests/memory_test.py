"""What a published cell of the first figure needs of memory."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CELL = """
import resource
import runpy
import sys

from sbjax.runner import run

config = runpy.run_path("configs/figure1.py")["get_config"]("cifar10,resnet50")
config.replicas, config.train_epochs, config.train_steps, config.reports = 1, 0.0, 3, 1
config.task.update(data_dir=sys.argv[1], cache_dir=sys.argv[1], eval_share=1.0)
config.monitor.kinds = ""
config.arms = {arm: config.arms[arm] for arm in ("raw", "expanded")}
assert config.task.batch_size == 128
assert run.run(config, sys.argv[1] + "/run").status == "done"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.extended
def test_resnet50_trains_in_six_gigabytes(tmp_path, tiny_tfds):
    """Batch 128 in float32, one replica, raw and expanded images, three steps and an evaluation of 500 images."""
    tiny_tfds.write_tiny_tfds(tmp_path, "cifar10", train=500, test=450)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CELL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 6
