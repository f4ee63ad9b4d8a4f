"""Splits over images that keep pictures that look the same on one side."""

import numpy as np
from PIL import Image
from scipy.spatial import KDTree

_SIDE = 16
_TOLERANCE = 4.0


def thumbnail(image: Image.Image) -> np.ndarray:
    """A 16x16 gray miniature, float32 (256,), by which duplicates are found."""
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def duplicate_groups(thumbnails: np.ndarray) -> np.ndarray:
    """A group number per image; images whose miniatures differ by at most 4 of 255 share one.

    Args:
        thumbnails: float32 (n, 256).

    Returns:
        int (n,): the index of the first image of the group.
    """
    groups = np.arange(len(thumbnails))
    if not len(groups):
        return groups
    # Means of 4x4 blocks differ no more than their pixels do: few are left to be looked at.
    coarse = thumbnails.reshape(-1, 4, 4, 4, 4).mean(axis=(2, 4)).reshape(-1, 16)
    tree = KDTree(coarse)
    for i, one in enumerate(thumbnails):
        if groups[i] == i:
            near = np.array(tree.query_ball_point(coarse[i], _TOLERANCE + 0.01, p=np.inf))
            near = near[near > i]
            difference = np.abs(thumbnails[near] - one).max(axis=1, initial=0)
            groups[near[difference <= _TOLERANCE]] = i
    return groups


def folds(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assign images to folds at random, whole groups together.

    Args:
        groups: int (n,), images of one group share a fold.
        count: number of folds.
        seed: of the random order.

    Returns:
        int (n,), 0..count-1; folds have equally many groups, give or take one.
    """
    unique = np.unique(groups)
    order = np.random.default_rng(seed).permutation(len(unique))
    fold_of_group = np.empty(len(unique), dtype=int)
    fold_of_group[order] = np.arange(len(unique)) % count
    return fold_of_group[np.searchsorted(unique, groups)]
