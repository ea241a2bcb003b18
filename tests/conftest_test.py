"""What CI asks of pytest beyond its own options: files in a drawn order, and an end in time."""

import pathlib
import types

import pytest

FILES = [pathlib.PurePath(f"tests/{name}_test.py") for name in "abcdefghij"]


@pytest.fixture
def conftest(request):
    """The plugin that is in use: imported again it would set up jax again."""
    here = pathlib.Path(__file__).with_name("conftest.py")
    plugins = request.config.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if pathlib.Path(getattr(plugin, "__file__", None) or "") == here)


def test_every_file_is_first_for_some_word(conftest):
    """One share of the extended tests a commit: all have their turn."""
    first = [min(FILES, key=lambda path: conftest.drawn(f"commit {i}", path)) for i in range(100)]
    assert set(first) == set(FILES)
    assert first == [min(FILES, key=lambda path: conftest.drawn(f"commit {i}", path)) for i in range(100)]


@pytest.mark.parametrize(("minutes", "skipped"), [(None, False), (1e6, False), (0.0, True)])
def test_what_would_begin_too_late_is_skipped(conftest, minutes, skipped):
    item = types.SimpleNamespace(config=types.SimpleNamespace(getoption={"--minutes": minutes}.get))
    if skipped:
        with pytest.raises(pytest.skip.Exception, match=r"none of --minutes=0 is left"):
            conftest.pytest_runtest_setup(item)
    else:
        conftest.pytest_runtest_setup(item)
