"""Two emulated CPU devices, so that every sharded path is exercised on any machine."""

import functools
import importlib.util
import pathlib

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "standard")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that none of them is left for one worker at the end.

    (Compiling less by jax's compilation cache hangs: reading from it waits for threads that wait, with two devices.)
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


def load_helper(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toys():
    """Small tasks."""
    return load_helper("toys")


@pytest.fixture(scope="session")
def tiny_tfds():
    """Writer of small TFDS folders."""
    return load_helper("tiny_tfds")


@pytest.fixture
def write_run(tmp_path):
    """`planted.write_run` below `tmp_path`."""
    return functools.partial(load_helper("planted").write_run, tmp_path)


@pytest.fixture
def write_member(tmp_path):
    """`planted.write_member` below `tmp_path`."""
    return functools.partial(load_helper("planted").write_member, tmp_path)
