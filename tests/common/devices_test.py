"""Stacked trees on two devices, as on one; and what is computed on the CPU beside an accelerator."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.common import devices


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_there_and_back(count):
    """Two devices share 1 to 4 entries; each sees its own ones only, and the repeated one is dropped."""
    stacked = {"w": np.arange(3.0 * count, dtype=np.float32).reshape(count, 3), "n": np.arange(count)}
    mesh = devices.mesh_for(count)
    assert mesh.shape["replica"] == min(count, 2)
    seen = []

    def fn(factor, tree):
        seen.append(len(tree["n"]))
        return jax.lax.map(lambda one: {"w": factor * one["w"], "n": one["n"]}, tree)

    placed = devices.place(stacked, mesh)
    assert placed["w"].sharding.is_equivalent_to(devices.split(mesh), 2)
    found = devices.collect(jax.jit(devices.per_device(fn, mesh, mapped=1))(jnp.float32(2), placed), count)
    assert set(seen) == {-(-count // 2)}
    np.testing.assert_array_equal(found["w"], 2 * stacked["w"])
    np.testing.assert_array_equal(found["n"], stacked["n"])


def test_loops_end_on_each_device_by_themselves():
    """How many steps each takes is its own affair; the order is that of the entries."""

    def fn(limit, starts):
        def one(start):
            return jax.lax.while_loop(lambda c: c[0] < limit, lambda c: (2 * c[0], c[1] + 1), (start, jnp.int32(0)))

        return jax.lax.map(one, starts)

    mesh = devices.mesh_for(2)
    starts = jnp.array([1, 64, 8, 128])
    ends, steps = jax.jit(devices.per_device(fn, mesh, mapped=1))(jnp.int32(128), devices.place(starts, mesh))
    assert steps.tolist() == [7, 1, 4, 0]
    assert ends.tolist() == [128] * 4


def test_bytes_do_not_depend_on_the_number_of_devices():
    """Each device maps over its own entries with one program."""
    starts = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)

    def fn(rate, stacked):
        slope = jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2))
        return jax.lax.map(lambda x: jax.lax.fori_loop(0, 50, lambda _, x: x - rate * slope(x), x), stacked)

    def run(mesh):
        step = jax.jit(devices.per_device(fn, mesh, mapped=1))
        return devices.collect(step(jnp.float32(0.1), devices.place(starts, mesh)), 4)

    assert run(devices.mesh_for(1)).tobytes() == run(devices.make_mesh(2)).tobytes()


def test_refusals():
    with pytest.raises(ValueError, match="width=2 times sharers=2 devices: this process has 2; ask for fewer"):
        devices.make_mesh(2, 2)
    with pytest.raises(ValueError, match="width=0 and sharers=1 must be >= 1"):
        devices.make_mesh(0)


@pytest.fixture
def without_cpu(monkeypatch):
    """As JAX_PLATFORMS=cuda starts it: asked for the CPU, jax says that there is none."""
    real = jax.local_devices

    def local_devices(*args, backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return real(*args)

    monkeypatch.setattr(jax, "local_devices", local_devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")


def test_double_precision_is_of_the_cpu():
    with devices.double():
        x = jax.numpy.ones(2)
    assert (x.dtype, x.devices()) == (np.float64, {jax.devices("cpu")[0]})
    assert jax.numpy.ones(2).dtype == np.float32
    assert devices.cores(5) == jax.devices("cpu")


def test_without_a_cpu_a_gpu_does_it_and_a_tpu_says_what_to_set(without_cpu, monkeypatch):
    assert devices.cpus() == []
    assert devices.cores(1) == jax.devices()[:1]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with devices.double():
        assert jax.numpy.ones(2).dtype == np.float64
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(ValueError, match=r"JAX_PLATFORMS='tpu' leaves out the CPU.*set JAX_PLATFORMS=tpu,cpu"):
        devices.double().__enter__()


@pytest.mark.usefixtures("without_cpu")
def test_references_of_physics_do_without_a_cpu():
    from sbjax.physics import lattice
    from sbjax.physics.equation import evaluate
    from sbjax.physics.pdes import make_equation

    assert evaluate(make_equation("heat"), [[0.5, 1.0]]) == pytest.approx(0.01929629, rel=1e-6)
    assert lattice.reference("hotqcd_2014", 0.155).anomaly == pytest.approx(2.4482, abs=1e-4)


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, ["float32"] * 3),
        ("gpu", "7.0", ["float32"] * 3),
        ("gpu", "9.0", ["TF32", "TF32", "float32"]),
        ("gpu", "12.1", ["TF32", "TF32", "float32"]),
        ("gpu", "gfx942", ["as the device chooses"] * 2 + ["float32"]),
        ("tpu", None, ["bfloat16", "bfloat16, 3 passes", "bfloat16, 6 passes"]),
    ],
)
def test_what_products_are_rounded_to(platform, capability, expected):
    device = types.SimpleNamespace(platform=platform, **({"compute_capability": capability} if capability else {}))
    assert [devices.products(matmul, device) for matmul in ("default", "high", "highest")] == expected
