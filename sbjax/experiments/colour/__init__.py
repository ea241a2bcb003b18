"""Colourisation: raw against expanded lightness."""
