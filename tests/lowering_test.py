"""Every program lowers for GPUs and TPUs, on a machine that has neither. What is compiled of it is another matter."""

import contextlib
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive, jaxprs_in_params
from jax.interpreters import mlir

PLATFORMS = ("cuda", "tpu")
spec = importlib.util.spec_from_file_location("programs", pathlib.Path(__file__).parent / "programs.py")
programs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(programs)


@pytest.fixture(scope="module", autouse=True)
def accelerator():
    """Branches for accelerators are taken; what was traced before, in those for CPUs, is let go of."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        stack.callback(jax.clear_caches)
        jax.clear_caches()
        patch.setattr(jax, "default_backend", lambda: "gpu")
        yield


class Lowering:
    """Lowers what it is called with for all platforms, and remembers the primitives in it."""

    def __init__(self, name):
        self.name, self.primitives, self.texts = name, set(), []

    def __call__(self, fn, *args):
        traced = (fn if hasattr(fn, "trace") else jax.jit(fn)).trace(*args)
        self._note(traced.jaxpr.jaxpr)
        for platform in PLATFORMS:
            try:
                lowered = traced.lower(lowering_platforms=(platform,))
            except Exception as error:
                raise AssertionError(f"{self.name} does not lower for {platform}: {error}") from error
            self.texts.append(lowered.as_text())

    def _note(self, jaxpr):
        for equation in jaxpr.eqns:
            self.primitives.add(equation.primitive.name)
            for inner in jaxprs_in_params(equation.params):
                self._note(inner)


def lower_all(name, program):
    lower = Lowering(name)
    program(lower)
    assert lower.texts
    # Of the CPU alone, or through the host: slow on an accelerator, or not there at all.
    assert not lower.primitives & {
        "sbjax_conv2d",
        "sbjax_depthwise",
        "pure_callback",
        "io_callback",
        "debug_callback",
    }, name
    return lower


@pytest.mark.parametrize("name", programs.CORE)
def test_lowers(name):
    lower_all(name, programs.CORE[name])


@pytest.mark.extended
@pytest.mark.parametrize("name", programs.OTHERS)
def test_lowers_too(name):
    lower_all(name, programs.OTHERS[name])


def test_the_branches_of_soap_are_in_its_program():
    """Eigenvectors of the first step and QR factors of every tenth stand in a `cond` on the step counter."""
    lower = lower_all("SOAP", programs.optimizers(["soap"]))
    assert lower.primitives >= {"eigh", "cond"}
    assert lower.primitives & {"geqrf", "qr", "householder_product"}
    gpu, tpu = lower.texts
    assert "cusolver" in gpu
    assert "custom_call" in tpu


def test_a_primitive_of_the_cpu_alone_is_found():
    """The test can fail, and says which program: also where the primitive stands in a loop within it."""
    planted = Primitive("planted")
    planted.def_abstract_eval(lambda x: x)
    mlir.register_lowering(planted, lambda context, x: [x], platform="cpu")

    def program(lower):
        lower(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: planted.bind(x), x), jnp.ones(2))

    with pytest.raises(AssertionError, match=r"^my program does not lower for cuda: .*planted"):
        lower_all("my program", program)
    jax.jit(planted.bind).trace(jnp.ones(2)).lower(lowering_platforms=("cpu",))


def test_a_branch_of_the_cpu_is_found():
    """Without replacing the backend, a convolution would lower by the rule of its CPU primitive for other platforms."""

    def program(lower):
        from sbjax.models.convolution import conv2d

        lower(lambda x, w: conv2d(x, w, implementation="cpu"), jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))

    with pytest.raises(AssertionError, match="my program"):
        lower_all("my program", program)
