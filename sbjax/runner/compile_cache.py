"""JAX's compilation cache on disk for commands, so that a second start of a run compiles nothing.

A cached program is the same machine code: numbers stay equal to the last byte (`tests/runner/compile_cache_test.py`).
JAX writes an entry in place; one that was cut by a kill fails its checksum when read and is compiled again.
"""

import os
import pathlib
import time
from collections.abc import MutableMapping

KEEP_DAYS = 60


def enable(environment: MutableMapping[str, str] | None = None) -> pathlib.Path | None:
    """Set the variables that JAX reads when it is imported, where the user has not; returns the folder in use.

    `JAX_ENABLE_COMPILATION_CACHE=0` leaves the cache off, `JAX_COMPILATION_CACHE_DIR` moves it; by default it is in
    `$XDG_CACHE_HOME/sbjax/xla`. Entries that were not written within `KEEP_DAYS` days are deleted.
    """
    environment = os.environ if environment is None else environment
    if environment.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in ("0", "false", "no", "off"):
        return None
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", ""), ".cache")
        if not os.path.isabs(base):  # no home, or one that no program reads so: never a folder where we are
            return None
        folder = pathlib.Path(base) / "sbjax" / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _delete_old(folder)
        except OSError:
            return None  # a home that cannot be written to is no reason not to train
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # By default JAX keeps only what took a second to compile; a small network has dozens of smaller programs.
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio"))):
        # XLA:CPU calls its own tuning flags a missing feature of the processor, a screenful for each entry it reads
        # (jax-ml/jax#38445).
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pathlib.Path(environment["JAX_COMPILATION_CACHE_DIR"])


def _delete_old(folder: pathlib.Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86_400
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
