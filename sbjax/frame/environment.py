"""Where a run is trained: versions, device, precision, commit."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from sbjax.common import devices
from sbjax.frame.own_parts import code_digests

PACKAGES = ("sbjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ott-jax", "numpy", "scipy")


def environment(
    precision: Mapping[str, Any] | None = None,
    own_code: Iterable[str] = (),
    own_data: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a number may depend on besides the config: versions, device, precision, commit, code and data of the user's
    own by their digests.

    Args:
        precision: the section of that name.
        own_code: import paths, `Plan.own_code`.
        own_data: digests by name.
    """
    own = {"own_code": code_digests(own_code), "own_data": dict(own_data or {})}
    device, precision = jax.devices()[0], precision or {"matmul": "default", "x64": False}
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "precision": dict(precision),
        "products": devices.products(precision.get("matmul", "default"), device),
        "commit": _commit(),
        **{name: digests for name, digests in own.items() if digests},
    }


def _processor():
    """The model of the CPU as Linux names it, else what Python knows."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit():
    """The commit of the source tree, '+' if it was changed, None where the package is not in a git checkout."""
    here = pathlib.Path(__file__).parent

    def git(*words):
        return subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
