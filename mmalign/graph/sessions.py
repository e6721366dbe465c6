"""Items that a user took in one session: how often, and how shortly after each other."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError

__all__ = ["session_gram"]

_FORGOTTEN = 10.0
"""A pause of so many time constants ends a session: what is left across it is below 5e-5."""


def session_gram(times: sp.csr_matrix, seconds: float) -> NDArray[np.float64]:
    """Sum ``exp(-|t_i - t_j| / seconds)`` over the users who took both items.

    One visit is about one thing: neighbours within it are more alike than any two items of a long
    history, which is what windows over sequences live by (Barkan and Koenigstein 2016, "Item2Vec",
    arXiv 1603.04259). The exponential is a positive definite kernel of time, so that adding the
    matrix to ``X'X`` adds users who took the same items in parts, and EASE stays a regression.

    Args:
        times: When each user took each item, in seconds; zero is a time as others are.
        seconds: Time constant of the kernel.

    Shapes:
        times: ``[U, I]`` sparse; returns ``[I, I]``, symmetric, with the number of times of an
        item on its diagonal.

    Raises:
        ConfigError: ``seconds`` is not positive.

    Example:
        >>> taken = sp.csr_matrix(np.array([[100.0, 100.0, 1e6]]))
        >>> session_gram(taken, seconds=120)
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])
    """
    if not seconds > 0:
        raise ConfigError("seconds of a session must be positive", got=seconds, fix="pass 120")
    gram = np.zeros((times.shape[1], times.shape[1]))
    for user in range(times.shape[0]):
        row = slice(times.indptr[user], times.indptr[user + 1])
        order = np.argsort(times.data[row], kind="stable")
        items, moments = times.indices[row][order], times.data[row][order]
        pauses = np.flatnonzero(np.diff(moments) > _FORGOTTEN * seconds) + 1
        for part in np.split(np.arange(len(items)), pauses):
            apart = np.abs(moments[part, None] - moments[part])
            gram[np.ix_(items[part], items[part])] += np.exp(-apart / seconds)
    return gram
