"""What is no weight among the arrays of a parameter file, told by names as libraries give them and by values."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sbjax import trees

_STATISTICS, _MASK, _COPY = "running statistics", "a constant mask", "an averaged copy"
# Names of arrays, the last part of a flat name in lower case.
_LAST = {
    _STATISTICS: "running_mean running_var running_std num_batches_tracked moving_mean moving_variance moving_var "
    "w_avg",
    "constant frequencies": "inv_freq freqs_cis cos_cached sin_cached sigmas log_sigmas",
    "constant positions": "relative_coords_table alibi alibi_slopes slopes",
    "a constant filter": "resample_filter mel_fb mel_filters",
    "constant noise": "noise_const",
    "constant weights of a loss": "empty_weight",
    "a count of operations": "total_ops total_params",
    _MASK: "masked_bias causal_mask attn_mask attention_mask tril",
    "constant anchors": "anchors anchor_grid cell_anchors base_anchors",
    _COPY: "embed_avg cluster_size ema_w",
    "constants of quantisation": "absmax nested_absmax quant_map nested_quant_map scb weight_scale weight_scale_inv "
    "input_scale",
    "constants of the data": "pixel_mean pixel_std",
    "vectors of a power iteration": "_u _v",
    "the schedule of a diffusion": "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod "
    "sqrt_one_minus_alphas_cumprod log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod "
    "posterior_variance posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2",
}
_SETTINGS = {"lr", "learning_rate", "weight_decay", "momentum", "epoch", "loss", "best_loss", "accuracy", "step"}
# Names of groups, any part.
_ANY = {
    _STATISTICS: r"batch_stats",
    _COPY: r"ema|ema_.*|.*_ema|shadow|shadow_.*|swa_model|averaged_.*|target_params",
    "the state of an optimiser": r"opt|opt_state|optimizer|optimizer_state|optim|exp_avg|exp_avg_sq",
}


def find_buffers(tree: PyTree) -> dict[str, str]:
    """Flat names of what is no weight in a tree, with what it is. Empty where that would be all of the floats.

    Known by name: running statistics of PyTorch, Keras and Flax ('mean' and 'var' beside 'scale' or 'bias'), averaged
    copies ('ema', 'shadow'), states of optimisers, frequencies, anchors, schedules of diffusions ('alphas_cumprod'),
    constants of quantisation; by value: masks that are constant below and above the diagonal, as the `attn.bias` of
    GPT-2, and tables of positions made of sines and cosines. Integers and booleans are none either.

    Names in a dict of PyTorch may be cut at dots or '/'.

    >>> find_buffers({'fc.weight': np.ones(2), 'bn.running_mean': np.ones(2)})
    {'bn.running_mean': 'running statistics'}
    >>> find_buffers({'bn': {'weight': np.ones(2), 'running_mean': np.ones(2)}})
    {'bn/running_mean': 'running statistics'}
    """
    leaves = trees.flatten(tree)
    found = {name: why for name, leaf in leaves.items() if (why := _buffer(name, leaf, leaves))}
    floats = {name for name, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    return {} if floats <= found.keys() else found


def integers(tree: PyTree) -> dict[str, str]:
    """Leaves that are no floats, which no distance counts."""
    return {
        name: f"no floats ({leaf.dtype})"
        for name, leaf in trees.flatten(tree).items()
        if trees.numeric(leaf.dtype) or leaf.dtype.kind in "mM"
    }


def without(tree: PyTree, names: set[str], prefix: str = "") -> PyTree:
    """A tree of dicts and lists without some leaves, by flat name. Dicts that end empty go with them.

    >>> without({'a': {'b': 1, 'c': 2}, 'd': {'e': 3}}, {'a/b', 'd/e'})
    {'a': {'c': 2}}
    """
    if isinstance(tree, dict):
        kept = {key: without(node, names, f"{prefix}{key}/") for key, node in tree.items()}
        return {
            key: node for key, node in kept.items() if node is not None and not (isinstance(node, dict) and not node)
        }
    if isinstance(tree, list | tuple):
        return [without(node, names, f"{prefix}{i}/") for i, node in enumerate(tree)]
    return None if prefix[:-1] in names else tree


def _buffer(name: str, leaf: Any, leaves: dict[str, Any]) -> str | None:
    parts = name.lower().replace(".", "/").split("/")
    for why, names in _LAST.items():
        if parts[-1] in names.split():
            return why
    for why, pattern in _ANY.items():
        if any(re.fullmatch(pattern, part) for part in parts):
            return why
    beside = lambda *others: [o for o in others if name.rpartition("/")[0] + "/" * ("/" in name) + o in leaves]  # noqa: E731
    if parts[-1] in ("mean", "var") and len(beside("mean", "var")) == 2 and beside("scale", "bias"):
        return _STATISTICS
    if parts[-1] in ("weight_u", "weight_v") and beside("weight_orig"):
        return "vectors of a power iteration"
    if leaf.size == 1 and parts[-1] in _SETTINGS:
        return "a setting"
    return _MASK if _is_mask(leaf) else "constant positions" if _is_sines(leaf) else None


def _is_sines(leaf: Any) -> bool:
    """Whether its last axis, of a table of positions, is pairs of sine and cosine: side by side, or in halves of the
    whole or of each half."""
    size = leaf.shape[-1] if len(leaf.shape) > 1 else 0
    if size < 4 or size % 2 or leaf.shape[-2] < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return False
    ways = [(-1, size // 2, 2), (-1, 2, size // 2), (-1, 2, 2, size // 4)]
    for shape, axis in zip(ways if size % 4 == 0 else ways[:2], (-1, -2, -2)):
        parts = [np.asarray(part).astype(np.float64).reshape(shape) for part in (leaf[..., 1, :], leaf)]
        if all(np.abs(np.sum(part**2, axis) - 1).max() < 1e-2 for part in parts):  # of a few entries first
            return True
    return False


def _is_mask(leaf: Any) -> bool:
    """Whether it is 1 and 0, or 0 and minus infinity, on the two sides of the diagonal of the last two axes."""
    shape = leaf.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return False
    below = np.tri(shape[-1], dtype=bool)
    corner = [np.asarray(leaf)[(0,) * (len(shape) - 2) + place].astype(np.float64) for place in ((1, 0), (0, 1))]
    if tuple(corner) not in ((1, 0), (0, 1)) and not (corner[0] == 0 and corner[1] <= -1e4):
        return False
    return bool((np.asarray(leaf).astype(np.float64) == np.where(below, *corner)).all())
