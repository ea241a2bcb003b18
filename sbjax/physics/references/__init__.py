"""Numerical reference solutions in float64."""
