import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_tfds():
    """The module `tests/tiny_tfds.py`."""
    path = Path(__file__).parents[1] / "tiny_tfds.py"
    spec = importlib.util.spec_from_file_location("tiny_tfds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
