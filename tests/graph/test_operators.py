from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmalign.errors import DataError
from mmalign.graph.operators import (
    SparseOperator,
    keep_edges,
    row_normalise,
    symmetric_normalise,
)


def random_csr(rows: int, columns: int, density: float = 0.4, seed: int = 0) -> sp.csr_matrix:
    """Positive weights; small sizes leave some rows and columns empty."""
    rng = np.random.default_rng(seed)
    weights = rng.random((rows, columns)) * (rng.random((rows, columns)) < density)
    return sp.csr_matrix(weights, dtype=np.float32)


def random_tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    dim=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_product_and_gradient_equal_the_dense_ones(
    rows: int, columns: int, dim: int, seed: int
) -> None:
    csr = random_csr(rows, columns, seed=seed)
    x = random_tensor(columns, dim, seed=seed).requires_grad_()
    upstream = random_tensor(rows, dim, seed=seed + 1)
    dense = torch.from_numpy(csr.toarray())
    expected, product = dense @ x, SparseOperator(csr) @ x
    torch.testing.assert_close(product, expected)
    (wanted,) = torch.autograd.grad(expected, x, upstream)
    (got,) = torch.autograd.grad(product, x, upstream)
    torch.testing.assert_close(got, wanted)


def test_first_and_second_derivatives_agree_with_finite_differences() -> None:
    operator = SparseOperator(random_csr(5, 4))
    x = random_tensor(4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: operator @ x, x)
    assert torch.autograd.gradgradcheck(lambda x: (operator @ x) ** 3, x)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_torch_path_equals_the_scipy_path(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    operator = SparseOperator(random_csr(8, 6))
    x = random_tensor(6, 3, dtype=dtype).requires_grad_()
    expected = operator @ x
    (wanted,) = torch.autograd.grad((expected**2).sum(), x)
    monkeypatch.setattr(SparseOperator, "_multiply_scipy", SparseOperator._multiply_torch)
    for _ in range(2):  # the second time from the cached tensors
        product = operator @ x
        torch.testing.assert_close(product, expected)
        torch.testing.assert_close(torch.autograd.grad((product**2).sum(), x)[0], wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_product_and_gradient() -> None:
    operator = SparseOperator(random_csr(8, 6))
    x = random_tensor(6, 3).requires_grad_()
    y = x.detach().cuda().requires_grad_()
    torch.testing.assert_close((operator @ y).cpu(), operator @ x)
    (wanted,) = torch.autograd.grad((operator @ x).square().sum(), x)
    (got,) = torch.autograd.grad((operator @ y).square().sum(), y)
    torch.testing.assert_close(got.cpu(), wanted)


def test_half_precision_is_summed_in_float32() -> None:
    operator = SparseOperator(sp.csr_matrix(np.ones((1, 4096), dtype=np.float32)))
    x = torch.ones(4096, 1, dtype=torch.bfloat16, requires_grad=True)
    product = operator @ x
    product.sum().backward()
    assert product.dtype == torch.bfloat16
    assert product.item() == 4096  # summed in bfloat16 it would stop at 256
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_views_with_any_strides_multiply_alike() -> None:
    operator = SparseOperator(random_csr(5, 4))
    x = random_tensor(3, 8).T[::2]
    torch.testing.assert_close(operator @ x, operator @ x.contiguous())
    ones = torch.ones(1, 1).expand(4, 3).requires_grad_()
    (operator @ ones).sum().backward()  # the gradient that arrives is an expanded scalar


def test_the_product_does_not_share_memory_with_the_operand() -> None:
    operator = SparseOperator(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    x = torch.ones(3, 2)
    (operator @ x).zero_()
    assert x.sum() == 6


def test_transposed_forms() -> None:
    operator = SparseOperator(random_csr(5, 4))
    np.testing.assert_array_equal(operator.T.csr.toarray(), operator.csr.toarray().T)
    np.testing.assert_allclose(
        operator.T.symmetric.csr.toarray(), operator.symmetric.csr.toarray().T, rtol=1e-6
    )
    assert operator.T.shape == (4, 5)


def test_each_form_is_computed_once() -> None:
    operator = SparseOperator(random_csr(5, 4))
    device = torch.device("cpu")
    assert operator.symmetric is operator.symmetric
    assert operator.mean is operator.mean
    assert operator.T is operator.T
    assert operator.edge_index(device) is operator.edge_index(device)


def test_operators_are_freed_without_the_garbage_collector() -> None:
    # A trainer that masks edges makes new operators at each step: a cycle would pile them up.
    gc.disable()
    try:
        operator = SparseOperator(random_csr(5, 4))
        x = random_tensor(4, 2).requires_grad_()
        ((operator.symmetric @ x).sum() + (operator.T.mean @ (operator.mean @ x)).sum()).backward()
        alive = weakref.ref(operator)
        del operator
        assert alive() is None
    finally:
        gc.enable()


def test_edge_index_lists_sources_then_targets() -> None:
    operator = SparseOperator(sp.csr_matrix(np.array([[0, 1, 2], [0, 0, 0], [3, 0, 0]])))
    assert operator.edge_index(torch.device("cpu")).tolist() == [[1, 2, 0], [0, 0, 2]]


def test_a_stored_zero_is_no_edge() -> None:
    csr = sp.csr_matrix(([0.0, 2.0], ([0, 1], [0, 1])), shape=(2, 2))
    assert csr.has_canonical_format
    assert SparseOperator(csr).csr.nnz == 1
    assert csr.nnz == 2


def test_zeros_and_duplicates_are_mended_on_a_copy() -> None:
    given_ = sp.csr_matrix(([0.0, 1.0, 1.5], [0, 1, 1], [0, 3]), shape=(1, 2))
    operator = SparseOperator(given_)
    assert operator.csr.nnz == 1
    assert operator.csr[0, 1] == 2.5
    assert given_.nnz == 3


def test_symmetric_normalisation_by_hand() -> None:
    weights = np.array([[2.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    expected = np.zeros((3, 3))
    expected[0, 0] = 2 / np.sqrt(4 * 2)
    expected[0, 2] = 2 / np.sqrt(4 * 9)
    expected[2, 2] = 7 / np.sqrt(7 * 9)
    got = symmetric_normalise(sp.csr_matrix(weights))
    np.testing.assert_allclose(got.toarray(), expected, rtol=1e-6)
    assert got.dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99))
def test_normalised_forms_stay_bounded(rows: int, columns: int, seed: int) -> None:
    csr = random_csr(rows, columns, seed=seed)
    assert np.linalg.norm(symmetric_normalise(csr).toarray(), ord=2) <= 1 + 1e-5
    sums = row_normalise(csr).toarray().sum(axis=1)
    np.testing.assert_allclose(sums, np.asarray(csr.sum(axis=1)).ravel() > 0, atol=1e-5)


def test_a_fold_in_uses_the_degrees_of_the_whole_graph() -> None:
    csr = random_csr(9, 7, density=0.6)
    whole = SparseOperator(csr)
    degree = np.asarray(csr.sum(axis=0)).ravel()
    block = SparseOperator(csr[3:6], column_degree=degree)
    np.testing.assert_allclose(
        block.symmetric.csr.toarray(), whole.symmetric.csr[3:6].toarray(), rtol=1e-5
    )
    np.testing.assert_allclose(
        block.T.symmetric.csr.toarray(), whole.T.symmetric.csr[:, 3:6].toarray(), rtol=1e-5
    )


def test_an_item_without_degree_in_the_whole_graph_sends_nothing() -> None:
    history = sp.csr_matrix(np.array([[1.0, 1.0]]))  # the second item is cold
    degree = np.array([4.0, 0.0], dtype=np.float32)
    normalised = symmetric_normalise(history, column_degree=degree)
    np.testing.assert_allclose(normalised.toarray(), [[1 / np.sqrt(2 * 4), 0]], rtol=1e-6)


@given(st.integers(0, 20), st.floats(0, 1))
def test_kept_edges_stay_where_they_are(seed: int, share: float) -> None:
    csr = random_csr(12, 7)
    before = csr.toarray()
    marks = np.random.default_rng(seed).random(csr.nnz) < share
    expected = np.zeros_like(before)
    entries = csr.tocoo()
    expected[entries.row[marks], entries.col[marks]] = entries.data[marks]
    np.testing.assert_array_equal(keep_edges(csr, marks).toarray(), expected)
    np.testing.assert_array_equal(csr.toarray(), before)


def test_wrong_input_is_refused_in_one_line() -> None:
    csr = random_csr(5, 4)
    with pytest.raises(DataError, match="pass a matrix with 4 rows"):
        SparseOperator(csr) @ torch.ones(5, 2)
    with pytest.raises(DataError, match="cannot multiply"):
        SparseOperator(csr) @ torch.ones(4)
    with pytest.raises(DataError, match="NaN or infinity"):
        SparseOperator(sp.csr_matrix([[np.nan]]))
    with pytest.raises(DataError, match="a degree does not fit"):
        SparseOperator(csr, column_degree=np.ones(5, dtype=np.float32))
    for normalise in (symmetric_normalise, row_normalise):
        with pytest.raises(DataError, match="not negative"):
            normalise(sp.csr_matrix([[-1.0, 2.0]]))
    with pytest.raises(DataError, match="a degree is negative"):
        symmetric_normalise(csr, row_degree=-np.ones(5, dtype=np.float32))
