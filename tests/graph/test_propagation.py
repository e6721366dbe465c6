from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, LGConv, SAGEConv

from mmalign.errors import ConfigError, DataError
from mmalign.graph.propagation import (
    GAT,
    GCN,
    LAYERS,
    SAGE,
    LightGCN,
    PropagationLayer,
    SparseOperator,
    make_layer,
)

DIM = 5
SEEDS = range(5)


def random_graph(seed: int, weighted: bool = True) -> sp.csr_matrix:
    """Ten users, eight items; user 2 and item 3 have no edges, others by chance."""
    rng = np.random.default_rng(seed)
    weights = (rng.random((10, 8)) < 0.3) * (rng.random((10, 8)) + 0.5 if weighted else 1.0)
    weights[2], weights[:, 3] = 0.0, 0.0
    return sp.csr_matrix(weights, dtype=np.float32)


def random_nodes(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(10, DIM, generator=generator, requires_grad=True)
    return users, torch.randn(8, DIM, generator=generator, requires_grad=True)


def assert_equal_in_value_and_gradient(
    ours: Tensor, theirs: Tensor, inputs: Sequence[tuple[Tensor, Tensor]]
) -> None:
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(9))
    got = torch.autograd.grad(ours, [mine for mine, _ in inputs], upstream)
    wanted = torch.autograd.grad(theirs, [other for _, other in inputs], upstream)
    for mine, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def homogeneous(matrix: sp.csr_matrix) -> tuple[Tensor, Tensor]:
    """The bipartite graph as one graph of users, then items, with edges both ways."""
    whole = sp.block_array([[None, matrix], [matrix.T, None]]).tocoo()
    index = torch.from_numpy(np.stack([whole.col, whole.row]).astype(np.int64))
    return index, torch.from_numpy(whole.data.astype(np.float32))


def both_ways(
    layer: PropagationLayer, matrix: sp.csr_matrix, users: Tensor, items: Tensor
) -> Tensor:
    to_users = SparseOperator(matrix)
    return torch.cat([layer(items, users, to_users), layer(users, items, to_users.T)])


@pytest.mark.parametrize("seed", SEEDS)
def test_lightgcn_equals_pyg(seed: int) -> None:
    matrix = random_graph(seed)
    users, items = random_nodes(seed)
    theirs = LGConv()(torch.cat([users, items]), *homogeneous(matrix))
    ours = both_ways(LightGCN(DIM), matrix, users, items)
    assert_equal_in_value_and_gradient(ours, theirs, [(users, users), (items, items)])


@pytest.mark.parametrize("seed", SEEDS)
def test_gcn_equals_pyg(seed: int) -> None:
    matrix = random_graph(seed)
    users, items = random_nodes(seed)
    oracle, layer = GCNConv(DIM, DIM, add_self_loops=False), GCN(DIM)
    nn.init.normal_(oracle.bias)
    pairs = [(layer.linear.weight, oracle.lin.weight), (layer.bias, oracle.bias)]
    copy_parameters(pairs)
    theirs = oracle(torch.cat([users, items]), *homogeneous(matrix))
    ours = both_ways(layer, matrix, users, items)
    assert_equal_in_value_and_gradient(ours, theirs, [(users, users), (items, items), *pairs])


@pytest.mark.parametrize("seed", SEEDS)
def test_sage_equals_pyg(seed: int) -> None:
    matrix = random_graph(seed, weighted=False)  # PyG's mean knows no weights
    users, items = random_nodes(seed)
    oracle, layer = SAGEConv((DIM, DIM), DIM), SAGE(DIM)
    pairs = [
        (layer.neighbours.weight, oracle.lin_l.weight),
        (layer.neighbours.bias, oracle.lin_l.bias),
        (layer.itself.weight, oracle.lin_r.weight),
    ]
    copy_parameters(pairs)
    operator = SparseOperator(matrix)
    theirs = oracle((items, users), operator.edge_index(items.device), size=(8, 10))
    ours = layer(items, users, operator)
    assert_equal_in_value_and_gradient(ours, theirs, [(users, users), (items, items), *pairs])


def test_sage_takes_the_weighted_mean() -> None:
    layer = SAGE(DIM)
    users, items = random_nodes(0)
    matrix = random_graph(0)
    for u in range(10):
        row = torch.from_numpy(matrix[[u]].toarray()[0])
        mean = sum(row[i] * items[i] for i in range(8)) / row.sum().clamp_min(1e-9)
        expected = layer.neighbours(mean) + layer.itself(users[u])
        torch.testing.assert_close(layer(items, users, SparseOperator(matrix))[u], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_gat_equals_pyg(seed: int) -> None:
    matrix = random_graph(seed)
    users, items = random_nodes(seed)
    oracle, layer = GATConv((DIM, DIM), DIM, add_self_loops=False), GAT(DIM)
    nn.init.normal_(oracle.bias)
    with torch.no_grad():
        layer.attend_source.weight.copy_(oracle.att_src[0])
        layer.attend_target.weight.copy_(oracle.att_dst[0])
    pairs = [
        (layer.source.weight, oracle.lin_src.weight),
        (layer.target.weight, oracle.lin_dst.weight),
        (layer.bias, oracle.bias),
    ]
    copy_parameters(pairs)
    operator = SparseOperator(matrix)
    theirs = oracle((items, users), operator.edge_index(items.device), size=(8, 10))
    ours = layer(items, users, operator)
    assert_equal_in_value_and_gradient(ours, theirs, [(users, users), (items, items), *pairs])
    for mine, other in (
        (layer.attend_source.weight, oracle.att_src),
        (layer.attend_target.weight, oracle.att_dst),
    ):
        (got,) = torch.autograd.grad((layer(items, users, operator) ** 2).sum(), mine)
        again = oracle((items, users), operator.edge_index(items.device), size=(8, 10))
        (wanted,) = torch.autograd.grad((again**2).sum(), other)
        torch.testing.assert_close(got, wanted[0], rtol=1e-4, atol=1e-5)


def test_gat_survives_attention_scores_that_overflow_exp() -> None:
    layer = GAT(DIM)
    with torch.no_grad():
        layer.attend_source.weight.mul_(1e4)
    users, items = random_nodes(0)
    out = layer(items, users, SparseOperator(random_graph(0)))
    out.sum().backward()
    assert out.isfinite().all()
    assert items.grad is not None
    assert items.grad.isfinite().all()


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_right_gradients_in_double_precision(name: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(name, DIM).double()
    operator = SparseOperator(random_graph(1))
    users, items = (x.detach().double().requires_grad_() for x in random_nodes(1))
    assert torch.autograd.gradcheck(lambda i, u: layer(i, u, operator), (items, users))


@pytest.mark.parametrize("name", LAYERS)
def test_a_graph_without_edges_gives_finite_vectors_and_gradients(name: str) -> None:
    layer = make_layer(name, DIM)
    users, items = random_nodes(0)
    out = layer(items, users, SparseOperator(sp.csr_matrix((10, 8))))
    assert out.shape == (10, DIM)
    assert out.isfinite().all()
    if out.requires_grad:
        out.sum().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_a_target_hears_its_neighbours_and_nobody_else(name: str) -> None:
    layer = make_layer(name, DIM)
    users, items = random_nodes(0)
    matrix = random_graph(0)
    operator = SparseOperator(matrix)
    before = layer(items, users, operator)
    changed = items.detach().clone()
    changed[1] += 1.0
    moved = (layer(changed, users, operator) - before).abs().sum(dim=1) > 1e-6
    assert moved.tolist() == (matrix[:, [1]].toarray()[:, 0] > 0).tolist()


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_survive_saving(name: str) -> None:
    one, two = make_layer(name, DIM), make_layer(name, DIM)
    two.load_state_dict(one.state_dict())
    users, items = random_nodes(0)
    operator = SparseOperator(random_graph(0))
    assert torch.equal(one(items, users, operator), two(items, users, operator))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "cut", [lambda u, i: (u, i[1:]), lambda u, i: (u[1:], i), lambda u, i: (u[:, 1:], i)]
)
def test_shapes_that_do_not_fit_are_refused(
    name: str, cut: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    users, items = cut(*random_nodes(0))
    with pytest.raises(DataError, match=r"expected \(\(8, 5\), \(10, 5\)\)"):
        make_layer(name, DIM)(items, users, SparseOperator(random_graph(0)))


def test_wrong_names_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sage'"):
        make_layer("sagee", 4)
    with pytest.raises(ConfigError, match="dim must be at least 1"):
        make_layer("gcn", 0)


def copy_parameters(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other)
