"""An expansion of your own: constant channels appended to an image."""

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Channels:
    """[..., H, W, C] -> [..., H, W, C + count], the new channels filled with `value`."""

    count: int = 1
    value: float = 0.5

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"count={self.count} must be >= 1")

    def expand(self, x):
        if x.ndim < 3:
            raise ValueError(f"Channels takes images [..., H, W, C], not shape {x.shape}")
        return jnp.concatenate([x, jnp.full((*x.shape[:-1], self.count), self.value, x.dtype)], -1)

    def contract(self, y):
        return y[..., : -self.count]
