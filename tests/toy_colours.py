"""Pictures whose shapes say their colours, and their lightness does not: `tests/toy_colours.py:load`."""

import numpy as np

from sbjax.data.colour_space import lab_to_srgb


def pictures(count, *, seed, side=8):
    """Stripes of any lightness: red where they lie, green where they stand; uint8 [count, side, side, 3] and labels."""
    rng = np.random.default_rng(seed)
    stands = rng.integers(2, size=count)
    wave = np.sin(np.pi / 2 * (np.arange(side) + rng.integers(4, size=(count, 1)) + 0.5))
    across = np.broadcast_to(wave[:, None, :], (count, side, side))
    stripes = np.where(stands[:, None, None], across, across.swapaxes(1, 2))
    lightness = 50 + 5 * rng.uniform(-1, 1, (count, 1, 1)) + 10 * stripes
    hue = np.where(stands, -30.0, 30.0)[:, None, None] * np.ones_like(lightness)
    rgb = lab_to_srgb(np.stack([lightness, hue, np.full_like(hue, 10.0)], axis=-1))
    return np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8), stands.astype(np.int32)


def load():
    """As a function for `task.dataset`."""
    return {
        "train": pictures(400, seed=0),
        "validation": pictures(40, seed=1),
        "test": pictures(60, seed=2),
    }
