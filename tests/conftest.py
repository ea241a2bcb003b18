"""Two emulated CPU devices, so that every sharded path is exercised on any machine."""

import collections
import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import resource
import sys
import time

# Programs that tests compile are kept from one run to the next, and shared by workers and the processes they start.
# Set before jax is imported, and apart for each version of it and of Python.
_VERSIONS = f"{sys.implementation.cache_tag}-jaxlib-{importlib.metadata.version('jaxlib')}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".xla_cache" / _VERSIONS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ["COLUMNS"] = "120"  # tables are as wide as the terminal, and tests are not to depend on theirs
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of a test's time is compilation, and a quarter of that the costly passes of LLVM. With 0 they run, as for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Read by glibc when a worker starts: with an arena a thread, what XLA's threads free is not given back.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
_BEGAN = time.monotonic()

# What users may forbid: arrays of two dtypes, or of two ranks, in one operation. As jax has them, and as tests do.
_PROMOTION = {"jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}
_FORBIDDEN = {"jax_numpy_dtype_promotion": "strict", "jax_numpy_rank_promotion": "raise"}
_ROOMS = (
    "asymmetry",
    "bayes",
    "data",
    "expansion",
    "landscape",
    "metanets",
    "metrics",
    "models",
    "physics",
    "symmetry",
)
_FILES = ("properties_test.py", "rng_test.py", "trees_test.py")


def pytest_addoption(parser):
    parser.addoption("--check-types", action="store_true", help="check shapes and types of arguments at run time")
    parser.addoption("--draw", metavar="WORD", help="files in an order drawn from this word, a commit say")
    parser.addoption("--minutes", type=float, help="skip what would begin later; with --draw every file has its turn")


def pytest_configure(config):
    """The hook has to be there before the package is imported."""
    if config.getoption("--check-types"):
        import jaxtyping

        sys.modules["sbjax_type_checker"] = load_helper("type_checker")
        jaxtyping.install_import_hook("sbjax", "sbjax_type_checker.check")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of cases marked `sampled(n)` only n run by default, drawn from those that are not `extended` anyway.

    Files with slow tests go first, so that none is left for one worker at the end. With `--check-types`, arguments that
    are wrong on purpose would not reach our own messages.
    """
    if config.getoption("--check-types"):
        skip = pytest.mark.skip(reason="the checker of types would refuse the arguments first")
        for item in items:
            if item.get_closest_marker("wrong_types"):
                item.add_marker(skip)
    cases = collections.defaultdict(list)
    for item in items:
        if (marker := item.get_closest_marker("sampled")) and not item.get_closest_marker("extended"):
            cases[(item.path, item.function.__qualname__)].append((item, marker.args[0]))
    for found in cases.values():
        # Evenly over the list, so that every parameter of a product has its turn.
        kept = {round(i * (len(found) - 1) / max(found[0][1] - 1, 1)) for i in range(found[0][1])}
        for number, (item, _) in enumerate(found):
            if number not in kept:
                item.add_marker("extended")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if word := config.getoption("--draw"):
        items.sort(key=lambda item: drawn(word, item.path.relative_to(config.rootpath)))


def drawn(word, path):
    """A place in an order of files that differs from word to word."""
    return hashlib.sha256(f"{word} {path.as_posix()}".encode()).digest()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Tests for which `--minutes` leaves no time are skipped, and counted as skipped."""
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - _BEGAN >= 60 * minutes:
        pytest.skip(f"none of --minutes={minutes:g} is left")


def pytest_collection_finish():
    """What is imported and collected stays: the collector of garbage need not look through it after every few calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def _little_memory():
    """Compiled programs of a finished file are let go of: they pile up to gigabytes."""
    yield
    _let_go()


@pytest.fixture(autouse=True, scope="module")
def _no_promotion(request):
    """Users may forbid implicit promotion: the rooms of pure functions do without it.

    For whole files, since both settings are part of what a compiled function is found by, so that what tests and
    fixtures of a file share is compiled once.
    """
    forbidden = request.path.relative_to(pathlib.Path(__file__).parent).parts[0] in (*_ROOMS, *_FILES)
    forbidden = forbidden and request.config.getoption("markexpr", "").strip() != "extended"
    with _promotion(_FORBIDDEN if forbidden and not request.node.get_closest_marker("promotes") else _PROMOTION):
        yield


@pytest.fixture(autouse=True)
def _promotes(request, _no_promotion):
    """Of what a library promotes, or a test on purpose: tests, parameters and files marked `promotes(reason)`; and of
    the `extended` ones, which run as JAX has it, so that either setting is tested."""
    marker = request.node.get_closest_marker("promotes")
    if not marker and not request.node.get_closest_marker("extended"):
        yield
        return
    if marker and not (len(marker.args) == 1 and isinstance(marker.args[0], str)):
        raise pytest.UsageError(f"{request.node.nodeid}: promotes needs its reason, promotes('what promotes, and why')")
    with _promotion(_PROMOTION):
        yield


@contextlib.contextmanager
def _promotion(settings):
    """Settings for all threads, unlike the contexts of jax."""
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish():
    """Within a file too, once its tests have added enough; functions of its fixtures are compiled again."""
    if _resident() > max(_LARGE, _kept[0] + _STEP):
        _let_go()


_LARGE, _STEP = 900 * 2**20, 150 * 2**20  # bytes
_kept = [0]  # what was left when programs were let go of last


def _let_go():
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library: it gives back what it gives back
        ctypes.CDLL(None).malloc_trim(0)
    _kept[0] = _resident()


def _resident():
    """Bytes of this process in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


@pytest.fixture(autouse=True)
def _messages_reach_pytest(monkeypatch):
    """Commands that ran in this process keep messages to the terminal, and tests may ask for fewer."""
    logger = logging.getLogger("sbjax")
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    yield
    logger.setLevel(level)


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


@pytest.fixture(scope="session")
def planted():
    """Writers of runs with planted effects."""
    return load_helper("planted")


@pytest.fixture
def write_run(tmp_path):
    """`planted.write_run` below `tmp_path`."""
    return functools.partial(load_helper("planted").write_run, tmp_path)


@pytest.fixture
def write_member(tmp_path):
    """`planted.write_member` below `tmp_path`."""
    return functools.partial(load_helper("planted").write_member, tmp_path)


def pytest_sessionfinish(session):
    """A worker says in its log how much memory it needed."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        (pathlib.Path(session.config.cache.mkdir("memory")) / worker).write_text(f"{peak:.2f} GiB\n")
