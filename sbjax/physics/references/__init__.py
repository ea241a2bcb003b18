"""Reference solutions that are more than a formula, in float64."""
