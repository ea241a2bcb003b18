"""Metropolis sweeps of Ising lattices: spin updates a second, beside a loop in C.

    python benchmarks/ising.py

64 x 64 at the critical temperature, with and without a field, 1024 lattices on each emulated device. The loop in C is
compiled here by `cc -O3 -march=native` and runs over one lattice after another, one thread a core, with a table of
acceptance probabilities and xorshift32; it is left out where there is no compiler.
"""

import concurrent.futures
import ctypes
import os
import pathlib
import shutil
import subprocess
import tempfile

import jax
import numpy as np
from common import figure, least

from sbjax.physics.ising import metropolis
from sbjax.physics.ising.exact import CRITICAL_TEMPERATURE

SIZE, REPLICAS, SWEEPS = 64, 1024, 50
LOOP = r"""
#include <stdint.h>
void sweeps(int8_t *s, int n, int count, uint32_t seed, const uint32_t *table) {
    for (int t = 0; t < count; t++)
        for (int colour = 0; colour < 2; colour++)
            for (int i = 0; i < n; i++)
                for (int j = (i + colour) % 2; j < n; j += 2) {
                    int sum = s[((i + 1) % n) * n + j] + s[((i + n - 1) % n) * n + j]
                            + s[i * n + (j + 1) % n] + s[i * n + (j + n - 1) % n];
                    seed ^= seed << 13; seed ^= seed >> 17; seed ^= seed << 5;
                    int up = s[i * n + j] > 0;
                    if (seed <= table[up * 5 + (sum + 4) / 2]) s[i * n + j] = -s[i * n + j];
                }
}
"""


def main() -> None:
    devices = os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", devices)
    with tempfile.TemporaryDirectory() as folder:
        loop = compile_loop(pathlib.Path(folder))
        for field in (0.0, 0.45):
            contenders = {"packed": packed(field)}
            if loop is not None:
                contenders["C"] = in_c(loop, field, devices)
            seconds = least(contenders, rounds=5)
            updates = len(jax.devices()) * SIZE**2 * REPLICAS * SWEEPS
            rate = updates / seconds["packed"]
            beside = {}
            if loop is not None:
                c_rate = devices * SIZE**2 * C_LATTICES * SWEEPS / seconds["C"]
                beside = {"C_updates_per_second": c_rate, "over_C": rate / c_rate}
            name = f"time of a spin update on {len(jax.devices())} devices, h = {field:g}"
            figure(name, 1e9 / rate, unit="ns", bar=10, updates_per_second=rate, **beside)


C_LATTICES = 32


def packed(field):
    """Sweeps of lattices on every device at once, a thread a device."""
    homes = [
        jax.device_put(metropolis.make_lattices(jax.random.key(i), SIZE, REPLICAS), device)
        for i, device in enumerate(jax.devices())
    ]
    pool = concurrent.futures.ThreadPoolExecutor(len(homes))

    def one(lattices):
        jax.block_until_ready(metropolis.metropolis(lattices, CRITICAL_TEMPERATURE, field, sweeps=SWEEPS))

    return lambda: list(pool.map(one, homes))


def compile_loop(folder):
    """The loop as a library, or None."""
    if shutil.which("cc") is None:
        return None
    (folder / "loop.c").write_text(LOOP)
    library = folder / "loop.so"
    command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", folder / "loop.c", "-o", library]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library)).sweeps


def in_c(loop, field, threads):
    """`C_LATTICES` lattices a thread; ctypes gives the lock of the interpreter up."""
    table = (
        np.minimum(metropolis.acceptance(CRITICAL_TEMPERATURE, field) * 2.0**32, 2**32 - 1).astype(np.uint32).ravel()
    )
    spins = np.random.default_rng(0).choice([-1, 1], (threads, C_LATTICES, SIZE, SIZE)).astype(np.int8)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    entries = table.ctypes.data_as(ctypes.c_void_p)

    def one(thread):
        for i, lattice in enumerate(spins[thread]):
            loop(lattice.ctypes.data_as(ctypes.c_void_p), SIZE, SWEEPS, ctypes.c_uint32(1 + i), entries)

    return lambda: list(pool.map(one, range(threads)))


if __name__ == "__main__":
    main()
