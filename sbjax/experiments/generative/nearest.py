"""How far networks are from the nearest of others, with hidden units matched."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from sbjax.metanets import Layout


def nearest(
    layout: Layout, nets: Float[np.ndarray, "n size"], others: Float[np.ndarray, "m size"]
) -> Float[np.ndarray, " n"]:
    """Root mean squared distance of each network to the nearest other one, over all orders of its hidden units.

    Exact, by an assignment for each pair that could be the nearest: pairs are tried by a bound from below, in which
    several units may go to one.

    Args:
        layout: of the networks, with one permutation, that of one hidden layer.
        nets, others: vectors of parameters.

    Raises:
        ValueError: more than one permutation.
    """
    if len(layout.sizes) != 1 or any(len(block.groups) > 1 for block in layout.blocks):
        raise ValueError(f"the distance is for networks with one hidden layer, and these have {len(layout.sizes)}")
    units = np.concatenate([block.index for block in layout.blocks if block.groups], axis=-1)
    fixed = np.concatenate([block.index.ravel() for block in layout.blocks if not block.groups] or [np.zeros(0, int)])
    nets, others = np.asarray(nets, np.float64), np.asarray(others, np.float64)
    theirs, squares = others[:, units], (others[:, units] ** 2).sum(-1)
    found = []
    for net in nets:
        mine = net[units]
        rest = ((others[:, fixed] - net[fixed]) ** 2).sum(-1)
        costs = (mine**2).sum(-1)[None, :, None] + squares[:, None] - 2 * np.einsum("if,mjf->mij", mine, theirs)
        bound = rest + np.maximum(costs.min(2).sum(1), costs.min(1).sum(1))
        best = np.inf
        for row in np.argsort(bound):
            if bound[row] >= best:
                break
            best = min(best, rest[row] + costs[row][linear_sum_assignment(costs[row])].sum())
        found.append(np.sqrt(max(best, 0.0) / len(net)))
    return np.array(found)
