"""Two emulated CPU devices, so that every sharded path is exercised on any machine."""

import importlib.util
import pathlib

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "standard")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def toys():
    """The module of small tasks."""
    spec = importlib.util.spec_from_file_location("toys", pathlib.Path(__file__).parent / "toys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
