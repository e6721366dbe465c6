"""Propagation layers: LightGCN, GCN, GAT and SAGE behind one interface.

A layer is given the **raw** weighted adjacency as a ``SparseOperator`` and takes from it the form
its paper asks for. Each form is computed once per operator, so keep the operator for as long as
the graph stays the same.

========  ==================================  ==========  ==================================
layer     what target t becomes               parameters  reads of the adjacency
========  ==================================  ==========  ==================================
LightGCN  sum of w_ts x_s / sqrt(d_t d_s)     none        weights, normalised symmetrically
GCN       the same of W x_s, plus bias        one matrix  weights, normalised symmetrically
SAGE      W_1 mean of x_s, plus W_2 x_t       two         weights, normalised by row
GAT       attention-weighted sum of W_1 x_s   two         pattern only
========  ==================================  ==========  ==================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.graph.operators import (
    SparseOperator,
    keep_edges,
    row_normalise,
    symmetric_normalise,
)

__all__ = [
    "GAT",
    "GCN",
    "LAYERS",
    "SAGE",
    "LightGCN",
    "PropagationLayer",
    "SparseOperator",
    "keep_edges",
    "make_layer",
    "row_normalise",
    "symmetric_normalise",
]


class PropagationLayer(nn.Module, ABC):
    """Carries vectors of source nodes along weighted edges to target nodes.

    Activation, dropout and residual are up to the model around the layer. Sources and targets may
    be the same nodes (item neighbours) or not (users and items). Self-loops are never added: a
    bipartite graph has none.

    Args:
        dim: Length of the vectors, in and out.

    Raises:
        ConfigError: ``dim`` is below 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError("dim must be at least 1", got=dim, fix="pass the embedding size")
        self.dim = dim

    def forward(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """Compute new vectors for the target nodes.

        Args:
            x_source: Vectors that are sent.
            x_target: Present vectors of the receivers; LightGCN and GCN do not read their values.
            adjacency: Raw edge weights; row t lists whom target t hears.

        Shapes:
            x_source: ``[S, D]``; x_target: ``[T, D]``; adjacency: ``[T, S]``.
            returns: ``[T, D]``.

        Raises:
            DataError: The shapes do not fit together.
        """
        targets, sources = adjacency.shape
        expected = (sources, self.dim), (targets, self.dim)
        got = tuple(x_source.shape), tuple(x_target.shape)
        if got != expected:
            raise DataError(
                "source and target vectors do not fit the adjacency",
                got=got,
                fix=f"expected {expected}",
            )
        return self.propagate(x_source, x_target, adjacency)

    @abstractmethod
    def propagate(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """What a layer defines; arguments as for ``forward``, which has checked them."""

    def extra_repr(self) -> str:
        """Show the size when the layer is printed."""
        return str(self.dim)


class LightGCN(PropagationLayer):
    """Neighbours summed under symmetric normalisation, and nothing else.

    ``x_t = sum_s w_ts / sqrt(d_t d_s) x_s`` (He et al., 2020, arXiv:2002.02126). No parameters.

    Example:
        >>> import scipy.sparse as sp
        >>> adjacency = SparseOperator(sp.csr_matrix([[1.0, 1.0], [0.0, 0.0]]))
        >>> LightGCN(1)(torch.ones(2, 1), torch.zeros(2, 1), adjacency).flatten()
        tensor([1.4142, 0.0000])
    """

    def propagate(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """Sum the neighbours."""
        return adjacency.symmetric @ x_source


class GCN(PropagationLayer):
    """Neighbours transformed, then summed under symmetric normalisation.

    ``x_t = sum_s w_ts / sqrt(d_t d_s) W x_s + b`` (Kipf & Welling, 2017, arXiv:1609.02907). The
    paper's self-loop belongs to graphs of one node type and is left out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.xavier_uniform_(self.linear.weight)

    def propagate(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """Transform and sum the neighbours."""
        transformed: Tensor = self.linear(x_source)
        return adjacency.symmetric @ transformed + self.bias


class SAGE(PropagationLayer):
    """The mean of the neighbours and the node itself, each transformed.

    ``x_t = W_1 (sum_s w_ts x_s / sum_s w_ts) + W_2 x_t + b`` (Hamilton et al., 2017,
    arXiv:1706.02216); with unit weights the mean of the paper.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.neighbours = nn.Linear(dim, dim)
        self.itself = nn.Linear(dim, dim, bias=False)

    def propagate(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """Average the neighbours and add the target's own vector."""
        mean: Tensor = self.neighbours(adjacency.mean @ x_source)
        own: Tensor = self.itself(x_target)
        return mean + own


class GAT(PropagationLayer):
    """Neighbours weighed by attention, one head.

    ``x_t = sum_s a_ts W_1 x_s + b``, where ``a_ts`` is the softmax over t's neighbours of
    ``leaky_relu(u . W_1 x_s + v . W_2 x_t)`` (Velickovic et al., 2018, arXiv:1710.10903). Edge
    weights are not read, only which edges there are. A target without neighbours gets ``b``.
    """

    negative_slope = 0.2

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.source = nn.Linear(dim, dim, bias=False)
        self.target = nn.Linear(dim, dim, bias=False)
        self.attend_source = nn.Linear(dim, 1, bias=False)
        self.attend_target = nn.Linear(dim, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))
        for linear in (self.source, self.target, self.attend_source, self.attend_target):
            nn.init.xavier_uniform_(linear.weight)

    def propagate(self, x_source: Tensor, x_target: Tensor, adjacency: SparseOperator) -> Tensor:
        """Attend to the neighbours."""
        source, target = adjacency.edge_index(x_source.device)
        sent: Tensor = self.source(x_source)
        score = self.attend_source(sent)[source] + self.attend_target(self.target(x_target))[target]
        score = F.leaky_relu(score.squeeze(1), self.negative_slope)
        attention = _softmax_by(target, score, len(x_target))
        received = sent.new_zeros(len(x_target), self.dim)
        return received.index_add(0, target, attention[:, None] * sent[source]) + self.bias


LAYERS: dict[str, type[PropagationLayer]] = {
    "lightgcn": LightGCN,
    "gcn": GCN,
    "gat": GAT,
    "sage": SAGE,
}
"""Names as they stand in a config."""


def make_layer(name: str, dim: int) -> PropagationLayer:
    """Build a layer by its name in the config.

    Args:
        name: ``lightgcn``, ``gcn``, ``gat`` or ``sage``.
        dim: Length of the vectors, in and out.

    Raises:
        ConfigError: An unknown name, or ``dim`` below 1.

    Example:
        >>> make_layer("lightgcn", 64)
        LightGCN(64)
        >>> make_layer("light_gcn", 64)
        Traceback (most recent call last):
        ...
        mmalign.errors.ConfigError: unknown layer 'light_gcn': did you mean 'lightgcn'? ...
    """
    if name not in LAYERS:
        raise ConfigError(f"unknown layer {name!r}", fix=nearest(name, LAYERS))
    return LAYERS[name](dim)


def _softmax_by(group: Tensor, score: Tensor, num_groups: int) -> Tensor:
    """Softmax of ``score [E]`` within each group, ``group [E]`` giving the group of each entry."""
    peak = score.new_zeros(num_groups)
    peak = peak.scatter_reduce(0, group, score.detach(), "amax", include_self=False)
    weight = (score - peak[group]).exp()
    return weight / score.new_zeros(num_groups).index_add(0, group, weight)[group]
