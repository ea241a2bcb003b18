"""Differential equations without networks: residuals, conditions, derivatives and certified reference solutions.

`sbjax.physics.pdes.make_equation` gives an equation by name; everything in it is a pure function of one point.
"""
