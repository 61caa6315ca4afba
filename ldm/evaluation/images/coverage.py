"""Precision and recall of drawn pictures (Kynkaanniemi et al. 2019), by the features of any network.

A ball about each picture of a set, which reaches to its k-th nearest neighbour: together they are the set's manifold.
Precision is the share of drawn pictures in the manifold of the true ones: are they good? Recall is the share of true
pictures in the manifold of the drawn ones: is everything drawn?
"""

import torch
from torch import Tensor

NEAREST = 3  # the paper's k
BLOCK = 256  # features whose distances to all others are held at once
ROUNDING = 1e-12  # of double precision, with room


def covered(features: Tensor, by: Tensor, k: int = NEAREST) -> Tensor:
    """Features (N,D), and (M,D) of the set that makes the manifold -> (N,) whether each lies in it.

    f(phi, Phi) = 1 where |phi - phi'| <= |phi' - NN_k(phi', Phi)| for some phi' of Phi (eq. 1). Its mean over drawn
    pictures is precision, over true ones by the drawn recall (eq. 2). ValueError for M of k or fewer.
    """
    if len(by) <= k:
        raise ValueError(f"{len(by)} pictures: a manifold of {k} nearest neighbours expects {k + 1} or more")
    features, by = features.double(), by.double()
    reach = _reach(by, k)
    return torch.cat([(_squares(block, by) <= reach).any(1) for block in features.split(BLOCK)])


def _reach(features: Tensor, k: int) -> Tensor:
    """Features (M,D) -> (M,) the squared distance of each to its k-th nearest; the nearest, number 0, is itself."""
    return torch.cat([_squares(block, features).kthvalue(k + 1).values for block in features.split(BLOCK)])


def _squares(block: Tensor, features: Tensor) -> Tensor:
    """(B,D), (M,D) -> (B,M) squared distances, by products, which are fast; 0 for what these cannot tell apart."""
    lengths = block.square().sum(1, keepdim=True) + features.square().sum(1)
    squares = lengths - 2 * block @ features.T
    return squares.where(squares > ROUNDING * lengths, 0)
