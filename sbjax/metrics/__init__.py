"""Distances between trained replicas, loss barriers and curvature: pure functions of arrays and pytrees.

`replica`, `matched` (distances), `wasserstein`, `neurons` (optimal transport), `connectivity`, `interpolation`,
`curves` (linear mode connectivity), `hessian`, `curvature`, `spectrum` (second derivatives), `calibration` (scores of
probabilities), `bootstrap` (intervals).
"""
