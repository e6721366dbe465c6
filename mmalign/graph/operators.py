"""Sparse matrices as differentiable operators, and the normalised forms of an adjacency."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmalign.errors import DataError
from mmalign.interfaces import BoolArray, FloatArray

__all__ = [
    "SparseOperator",
    "fold_in_degree",
    "keep_edges",
    "row_normalise",
    "symmetric_normalise",
]


class SparseOperator:
    """A constant sparse matrix that multiplies dense tensors, differentiable in the dense one.

    The gradient of ``A @ x`` is ``A.T @ grad``, which scipy computes on the CPU without building
    a transpose. A step takes about half the time of autograd through a torch CSR tensor on one
    thread, and it does not collapse when threads compete for cores, as torch's sparse kernels
    do; ``tests/benchmarks`` measures both. Elsewhere than on a CPU, torch CSR does the product.
    Products are taken in float32, or in float64 for a float64 operand; the result has the dtype of
    the operand.

    Args:
        csr: The matrix, by convention a row per target and a column per source. Duplicate
            entries are summed, zeros removed; the matrix given is not changed.
        row_degree: Degrees of the rows in the whole graph, for ``symmetric``; None means that
            this matrix is the whole graph.
        column_degree: The same for columns. A block of new users (a fold-in) is normalised with
            the item degrees of the training graph.

    Raises:
        DataError: A NaN or infinite entry; a degree of the wrong shape.

    Example:
        >>> import scipy.sparse as sp
        >>> import torch
        >>> operator = SparseOperator(sp.csr_matrix([[1.0, 2.0], [0.0, 3.0]]))
        >>> x = torch.ones(2, 1, requires_grad=True)
        >>> (operator @ x).sum().backward()
        >>> x.grad.flatten()
        tensor([1., 5.])
    """

    def __init__(
        self,
        csr: sp.csr_matrix,
        *,
        row_degree: FloatArray | None = None,
        column_degree: FloatArray | None = None,
    ) -> None:
        self.csr = _canonical(csr)
        self._degrees = row_degree, column_degree
        self._torch: dict[tuple[torch.device, torch.dtype, bool], Tensor] = {}
        self._edges: dict[torch.device, Tensor] = {}
        for degree, size in zip(self._degrees, self.csr.shape, strict=True):
            if degree is not None and degree.shape != (size,):
                raise DataError("a degree does not fit", got=degree.shape, fix=f"pass {(size,)}")

    @property
    def shape(self) -> tuple[int, int]:
        """Targets and sources."""
        rows, columns = self.csr.shape
        return int(rows), int(columns)

    def __matmul__(self, x: Tensor) -> Tensor:
        """Multiply: ``[T, S] @ [S, D] -> [T, D]``."""
        if x.dim() != 2 or x.shape[0] != self.shape[1]:
            raise DataError(
                f"an operator of shape {self.shape} cannot multiply this",
                got=tuple(x.shape),
                fix=f"pass a matrix with {self.shape[1]} rows",
            )
        result: Tensor = _Product.apply(x, self, False)
        return result

    def __repr__(self) -> str:
        return f"SparseOperator({self.shape[0]}x{self.shape[1]}, {self.csr.nnz} entries)"

    @cached_property
    def T(self) -> SparseOperator:  # noqa: N802
        """The transposed operator: the same edges in the other direction."""
        rows, columns = self._degrees
        return SparseOperator(self.csr.T.tocsr(), row_degree=columns, column_degree=rows)

    @cached_property
    def symmetric(self) -> SparseOperator:
        """The operator normalised by the square roots of both degrees."""
        return SparseOperator(symmetric_normalise(self.csr, *self._degrees))

    @cached_property
    def mean(self) -> SparseOperator:
        """The operator whose rows sum to one: a weighted mean over sources."""
        return SparseOperator(row_normalise(self.csr))

    def edge_index(self, device: torch.device) -> Tensor:
        """List the edges, sorted by target.

        Shapes:
            returns: ``[2, E]`` int64; sources first, then targets, as PyG has them.
        """
        if device not in self._edges:
            entries = self.csr.tocoo()
            edges = np.stack([entries.col, entries.row]).astype(np.int64)
            self._edges[device] = torch.from_numpy(edges).to(device)
        return self._edges[device]

    def _multiply(self, x: Tensor, transposed: bool) -> Tensor:
        operand = x.detach()
        if operand.dtype != torch.float64:
            operand = operand.float()
        multiply = self._multiply_scipy if x.device.type == "cpu" else self._multiply_torch
        return multiply(operand, transposed).to(x.dtype)

    def _multiply_scipy(self, x: Tensor, transposed: bool) -> Tensor:
        matrix = self.csr.T if transposed else self.csr  # .T is a view in CSC form
        return torch.from_numpy(matrix @ x.numpy())

    def _multiply_torch(self, x: Tensor, transposed: bool) -> Tensor:
        key = x.device, x.dtype, transposed
        if key not in self._torch:
            csr = self.csr.T.tocsr() if transposed else self.csr
            self._torch[key] = torch.sparse_csr_tensor(
                torch.from_numpy(csr.indptr),
                torch.from_numpy(csr.indices),
                torch.from_numpy(csr.data),
                csr.shape,
                dtype=x.dtype,
                device=x.device,
                check_invariants=False,  # a canonical scipy matrix has them
            )
        return self._torch[key] @ x


class _Product(torch.autograd.Function):
    """``A @ x`` or ``A.T @ x``; the backward pass is the same function, the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: SparseOperator, transposed: bool) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        return operator._multiply(x, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        operand_gradient: Tensor = _Product.apply(gradient, ctx.operator, not ctx.transposed)
        return operand_gradient, None, None


def fold_in_degree(degree: FloatArray) -> FloatArray:
    """Degrees ``[I]`` to read a history by: an item that nobody touched counts as touched once."""
    return np.where(degree > 0, degree, 1).astype(np.float32)


def symmetric_normalise(
    csr: sp.csr_matrix,
    row_degree: FloatArray | None = None,
    column_degree: FloatArray | None = None,
) -> sp.csr_matrix:
    r"""Divide each weight by the square roots of its row's and its column's degree.

    ``D_r^-1/2 A D_c^-1/2`` (Kipf & Welling, 2017, arXiv:1609.02907), for bipartite graphs as for
    square ones. A node of degree zero keeps no edges.

    Args:
        csr: Weights, not negative.
        row_degree: Degrees to use instead of this matrix's row sums.
        column_degree: Degrees to use instead of this matrix's column sums.

    Shapes:
        csr: ``[T, S]``; row_degree: ``[T]``; column_degree: ``[S]``; returns: ``[T, S]`` float32.

    Raises:
        DataError: A weight or a degree is negative.

    Example:
        >>> import scipy.sparse as sp
        >>> symmetric_normalise(sp.csr_matrix([[1.0, 0.0], [1.0, 2.0]])).toarray().round(2)
        array([[0.71, 0.  ],
               [0.41, 0.82]], dtype=float32)
    """
    weights = _non_negative(csr)
    rows = _inverse(weights.sum(axis=1) if row_degree is None else row_degree, power=0.5)
    columns = _inverse(weights.sum(axis=0) if column_degree is None else column_degree, power=0.5)
    return sp.csr_matrix(sp.diags_array(rows) @ weights @ sp.diags_array(columns), dtype=np.float32)


def row_normalise(csr: sp.csr_matrix) -> sp.csr_matrix:
    """Scale each row to sum one; an empty row stays empty.

    Shapes:
        csr: ``[T, S]``; returns: ``[T, S]`` float32.

    Raises:
        DataError: A weight is negative.

    Example:
        >>> import scipy.sparse as sp
        >>> row_normalise(sp.csr_matrix([[1.0, 3.0], [0.0, 0.0]])).toarray()
        array([[0.25, 0.75],
               [0.  , 0.  ]], dtype=float32)
    """
    weights = _non_negative(csr)
    rows = _inverse(weights.sum(axis=1), power=1.0)
    return sp.csr_matrix(sp.diags_array(rows) @ weights, dtype=np.float32)


def keep_edges(csr: sp.csr_matrix, kept: BoolArray) -> sp.csr_matrix:
    """Leave out the edges that are not kept; the weights of the others stay.

    They are not scaled up: normalising the result does that.

    Shapes:
        kept: one mark per stored entry, in the order of ``csr.data``.

    Example:
        >>> import numpy as np
        >>> import scipy.sparse as sp
        >>> full = sp.csr_matrix([[1.0, 2.0], [0.0, 3.0]])
        >>> keep_edges(full, np.array([False, True, True])).toarray()
        array([[0., 2.],
               [0., 3.]])
    """
    # Kept entries stay in order, so each new row starts after those kept before it.
    starts = np.concatenate([[0], np.cumsum(kept)])[csr.indptr]
    return sp.csr_matrix((csr.data[kept], csr.indices[kept], starts), shape=csr.shape)


def _canonical(csr: sp.csr_matrix) -> sp.csr_matrix:
    matrix = sp.csr_matrix(csr, dtype=np.float32)
    if not np.isfinite(matrix.data).all():
        raise DataError("a sparse matrix holds NaN or infinity", fix="clean the weights")
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def _non_negative(csr: sp.csr_matrix) -> sp.csr_matrix:
    weights = sp.csr_matrix(csr, dtype=np.float64)
    if (weights.data < 0).any():
        raise DataError(
            "only weights that are not negative can be normalised",
            got=float(weights.data.min()),
            fix="drop or shift the negative edges",
        )
    return weights


def _inverse(degree: FloatArray, power: float) -> NDArray[np.float64]:
    """``degree ** -power``, and zero where the degree is zero."""
    flat = np.asarray(degree, dtype=np.float64).reshape(-1)
    if (flat < 0).any():
        raise DataError("a degree is negative", got=float(flat.min()), fix="degrees are >= 0")
    inverse: NDArray[np.float64] = np.where(flat > 0, flat, np.inf) ** -power
    return inverse
