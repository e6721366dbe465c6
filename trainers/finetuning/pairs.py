"""Which items stand together in a batch."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mmalign.data.stream import ItemStream
from mmalign.errors import DataError
from mmalign.interfaces import BoolArray, FloatArray, IntArray

__all__ = ["CoInteractions", "ItemPairs", "StreamedPairs"]

BLOCK_SIZE = 1024


class ItemPairs:
    """Two views of one item: every item once, in an order of its own per epoch.

    Args:
        rows: Items that have both views, ``[N]``.
        seed: Of the orders.

    Raises:
        DataError: Fewer than two items: there would be nothing to contrast.

    Example:
        >>> ItemPairs(np.array([3, 5]), seed=0).draw(epoch=0, count=2).tolist()
        [[3, 3], [5, 5]]
    """

    def __init__(self, rows: IntArray, seed: int) -> None:
        _check_count(len(rows))
        self.size = len(rows)
        self._rows, self._seed = rows, seed

    def draw(self, epoch: int, count: int) -> IntArray:
        """``[count, 2]``, each row twice; a longer epoch goes through all items again."""
        rng = np.random.default_rng([self._seed, epoch])
        orders = [rng.permutation(self._rows) for _ in range(-(-count // self.size))]
        drawn = np.concatenate(orders)[:count]
        return np.stack([drawn, drawn], axis=1).astype(np.int64)


class StreamedPairs:
    """Stands for the pairs of a stream, which come as they are read.

    Args:
        stream: Of items.

    Raises:
        DataError: Fewer than two items are trained on.
    """

    def __init__(self, stream: ItemStream) -> None:
        _check_count(stream.num_train)
        self.size = stream.num_train

    def draw(self, epoch: int, count: int) -> IntArray:
        """Nothing is drawn: a stream has no rows to choose from."""
        raise NotImplementedError


class CoInteractions:
    """Items that the same users take, the more often than their popularity says the likelier.

    A user with n items says ``1 / n`` of each pair, so that heavy users do not speak for all. The
    likeness of items is ``c_ij / n_j^a``, their common users over the popularity of the second;
    each item keeps the most alike ones. Pairs are drawn as ``P(i) ~ n_i^(1-a)`` and ``P(j | i)`` by
    likeness: with a = 0 popular items come as often as they are taken, with a = 1 all come alike.
    Cold items are in no pair, since nobody took them.

    Args:
        matrix: Train interactions.
        popularity: a, in [0, 1].
        neighbours: Partners an item keeps.
        seed: Of the draws.

    Shapes:
        matrix: ``[U, I]``.

    Raises:
        DataError: No two items share a user.
    """

    def __init__(
        self, matrix: sp.csr_matrix, *, popularity: float, neighbours: int, seed: int
    ) -> None:
        ones = np.ones(matrix.nnz, np.float32)
        taken = sp.csr_matrix((ones, matrix.indices, matrix.indptr), matrix.shape)
        degree = np.maximum(taken.getnnz(axis=0), 1).astype(np.float64)
        self.partners = _likeness(taken, degree**popularity, neighbours).astype(np.float64)
        if not self.partners.nnz:
            raise DataError(
                "no two items are taken by the same user, so behaviour says nothing of them",
                got=f"{matrix.nnz} train interactions",
                fix="leave the objectives behaviour and graph out",
            )
        first = np.where(self.partners.getnnz(axis=1) > 0, degree ** (1 - popularity), 0.0)
        self._first = first / first.sum()
        total = np.asarray(self.partners.sum(axis=1)).ravel()
        share = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
        self._second = sp.csr_matrix(sp.diags_array(share) @ self.partners)
        self.size = int((first > 0).sum())
        self._seed = seed

    def draw(self, epoch: int, count: int) -> IntArray:
        """``[count, 2]`` rows of different items, by the seed and the epoch alone."""
        rng = np.random.default_rng([self._seed, epoch])
        first = rng.choice(len(self._first), size=count, p=self._first)
        # Rows of cumulative probabilities lie one after the other, row i from i to i + 1.
        rows = np.repeat(np.arange(self._second.shape[0]), np.diff(self._second.indptr))
        sums = np.cumsum(self._second.data)
        starts = np.concatenate([[0.0], sums])[self._second.indptr[:-1]]
        ends = np.minimum(sums - starts[rows], 1.0) + rows
        found = np.searchsorted(ends, first + rng.random(count), side="right")
        found = np.clip(found, self._second.indptr[first], self._second.indptr[first + 1] - 1)
        return np.stack([first, self._second.indices[found]], axis=1).astype(np.int64)

    def log_q(self) -> FloatArray:
        """``[I]``, log probability of each item to be the second of a pair; -inf where never."""
        q = np.asarray(self._first @ self._second).ravel()
        with np.errstate(divide="ignore"):
            log_q: FloatArray = np.log(q).astype(np.float32)
        return log_q

    def known(self, left: IntArray, right: IntArray) -> BoolArray:
        """Say which items are partners, in either direction, ``[N, M]``."""
        either: BoolArray = (self.partners[left][:, right] > 0).toarray()
        either |= (self.partners[right][:, left] > 0).toarray().T
        return either


def _check_count(count: int) -> None:
    if count < 2:
        raise DataError(
            "contrast needs two items that have both sides of a pair",
            got=count,
            fix="check the columns of data.text and data.image, and the split",
        )


def _likeness(taken: sp.csr_matrix, divisor: FloatArray, neighbours: int) -> sp.csr_matrix:
    """``[I, I]``: common users by ``divisor`` of the column; the largest of each row."""
    users = np.maximum(taken.getnnz(axis=1), 1)
    by_item = sp.csr_matrix(taken.T)
    weighted = sp.diags_array(1 / users) @ taken @ sp.diags_array(1 / divisor)
    weighted = sp.csr_matrix(weighted, dtype=np.float32)
    blocks = []
    for start in range(0, by_item.shape[0], BLOCK_SIZE):
        common = sp.coo_matrix(by_item[start : start + BLOCK_SIZE] @ weighted)
        blocks.append(_largest(common, start, neighbours))
    return sp.csr_matrix(sp.vstack(blocks))


def _largest(block: sp.coo_matrix, start: int, k: int) -> sp.csr_matrix:
    """Keep the k largest entries of each row but its own item; of equal ones, the lower column."""
    other = block.row + start != block.col
    rows, columns, values = block.row[other], block.col[other], block.data[other]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < k
    return sp.csr_matrix((values[kept], (rows[kept], columns[kept])), shape=block.shape)
