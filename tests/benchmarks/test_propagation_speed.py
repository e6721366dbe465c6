"""One training step of a propagation layer: our operator against torch CSR and PyG.

Run with ``pytest -m benchmark -s tests/benchmarks/test_propagation_speed.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.nn import LGConv

from mmalign.graph.propagation import SparseOperator, keep_edges, symmetric_normalise

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore:Sparse"),
]

NUM_NODES, NUM_EDGES, DIM = 8_000, 237_000, 64


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    """A square graph whose edges crowd on few nodes, as interactions do."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, NUM_NODES + 1) ** 0.7
    sources = rng.choice(NUM_NODES, NUM_EDGES, p=popularity / popularity.sum())
    targets = rng.integers(0, NUM_NODES, NUM_EDGES)
    ones = np.ones(NUM_EDGES, dtype=np.float32)
    return sp.csr_matrix((ones, (targets, sources)), shape=(NUM_NODES, NUM_NODES))


def milliseconds(step: Callable[[], object], repeats: int = 15) -> float:
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


def forward_and_backward(product: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    x = torch.randn(NUM_NODES, DIM, requires_grad=True)
    upstream = torch.randn(NUM_NODES, DIM)

    def step() -> None:
        x.grad = None
        product(x).backward(upstream)

    return step


def test_a_step_is_faster_than_torch_csr_and_pyg(graph: sp.csr_matrix) -> None:
    normalised = symmetric_normalise(graph)
    operator = SparseOperator(normalised)
    csr = torch.sparse_csr_tensor(
        torch.from_numpy(normalised.indptr),
        torch.from_numpy(normalised.indices),
        torch.from_numpy(normalised.data),
        normalised.shape,
    )
    edges = operator.edge_index(torch.device("cpu"))
    weights = torch.from_numpy(operator.csr.data)
    convolution = LGConv(normalize=False)
    ours = milliseconds(forward_and_backward(lambda x: operator @ x))
    torch_csr = milliseconds(forward_and_backward(lambda x: csr @ x))
    pyg = milliseconds(forward_and_backward(lambda x: convolution(x, edges, weights)))
    print(
        f"\nforward + backward, {operator.csr.nnz} edges, d={DIM}, "
        f"{torch.get_num_threads()} threads:"
        f"\n  SparseOperator {ours:8.2f} ms"
        f"\n  torch CSR      {torch_csr:8.2f} ms  x{torch_csr / ours:.1f}"
        f"\n  PyG LGConv     {pyg:8.2f} ms  x{pyg / ours:.1f}"
    )
    assert ours < torch_csr
    assert ours < pyg


def test_masking_edges_anew_costs_less_than_the_products(graph: sp.csr_matrix) -> None:
    rng = np.random.default_rng(0)
    normalised = SparseOperator(graph).symmetric
    masking = milliseconds(
        lambda: SparseOperator(keep_edges(graph, rng.random(graph.nnz) > 0.2)).symmetric
    )
    product = milliseconds(forward_and_backward(lambda x: normalised @ x))
    print(f"\nmask and normalise {masking:.2f} ms, one forward + backward {product:.2f} ms")
    assert masking < 3 * product
