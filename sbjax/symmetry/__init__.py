"""Symmetries of networks: permutations of hidden units."""
