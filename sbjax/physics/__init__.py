"""Differential equations, the QCD equation of state and the Ising model, independent of any network.

`sbjax.physics.pdes.make_equation` returns a differential equation by name: residual, conditions and a reference
solution with a certified error, all as pure functions of one point.
"""
