"""Symmetry breaking in neural-network optimisation, in JAX and Flax."""

__version__ = "0.1.0"
