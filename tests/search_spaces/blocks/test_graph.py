"""Message passing against the same thing written with dense matrices, and how networks are given a graph."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.search_spaces.blocks.graph import (
    Aggregate,
    EdgeGate,
    FeatureFilter,
    GraphAttention,
    GraphNorm,
    NodeReadout,
    PairNorm,
    Propagate,
    set_context,
)

# a path 0-1-2, a triangle 2-3-4, and node 5 on its own
PAIRS = torch.tensor([[0, 1, 2, 3, 2], [1, 2, 3, 4, 4]])
EDGES = torch.cat([PAIRS, PAIRS.flip(0)], dim=1)
NODES = 6
GRAPH: dict[str, Any] = {"nodes": NODES, "edges": EDGES.shape[1]}


def dense(self_loops: bool = False) -> Tensor:
    """The adjacency matrix: row i has the neighbours of i."""
    matrix = torch.zeros(NODES, NODES)
    matrix[EDGES[1], EDGES[0]] = 1
    return matrix + torch.eye(NODES) if self_loops else matrix


def given(module: nn.Module) -> nn.Module:
    set_context(module, {"edges": EDGES})
    return module.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(NODES, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("kind", ["gcn", "mean", "sum", "max"])
def test_aggregate(kind: str, self_loops: bool, x: Tensor) -> None:
    matrix = dense(self_loops)
    degree = matrix.sum(1, keepdim=True).clamp(min=1)
    if kind == "max":
        hidden = torch.where(matrix.unsqueeze(2) > 0, x, torch.tensor(-torch.inf)).amax(1)
        expected = torch.where(hidden.isinf(), torch.zeros(()), hidden)
    else:
        expected = {"gcn": matrix / (degree * degree.T).sqrt(), "mean": matrix / degree, "sum": matrix}[
            kind
        ] @ x
    found = given(Aggregate(**GRAPH, kind=kind, self_loops=self_loops))(x)
    assert torch.allclose(found, expected, atol=1e-6)
    if not self_loops:
        assert found[5].eq(0).all()


def test_propagation_nears_personalised_pagerank(x: Tensor) -> None:
    matrix = dense(True)
    degree = matrix.sum(1, keepdim=True)
    normal = matrix / (degree * degree.T).sqrt()
    limit = 0.2 * torch.linalg.inv(torch.eye(NODES) - 0.8 * normal) @ x
    far = given(Propagate(**GRAPH, steps=60, teleport=0.2))(x)
    assert torch.allclose(far, limit, atol=1e-4)
    once = given(Propagate(**GRAPH, steps=1, teleport=0.2))(x)
    assert torch.allclose(once, 0.8 * normal @ x + 0.2 * x, atol=1e-6)


@pytest.mark.parametrize("kind", ["gat", "gatv2"])
def test_attention(kind: str, x: Tensor) -> None:
    torch.manual_seed(0)
    block = GraphAttention(4, 6, **GRAPH, heads=2, kind=kind)
    value = block.value(x).reshape(NODES, 2, 3)
    if kind == "gat":
        sent, got = ((value * part).sum(2) for part in block.score)
        scores = functional.leaky_relu(sent.unsqueeze(0) + got.unsqueeze(1), 0.2)
    else:
        assert block.query is not None
        query = block.query(x).reshape(NODES, 2, 3)
        scores = (functional.leaky_relu(value.unsqueeze(0) + query.unsqueeze(1), 0.2) * block.score[0]).sum(3)
    near = dense(True).unsqueeze(2) > 0
    weights = scores.masked_fill(~near, -torch.inf).softmax(1)
    expected = torch.einsum("ijh,jhc->ihc", weights, value).flatten(1)
    assert torch.allclose(given(block)(x), expected, atol=1e-6)


def test_attention_stays_finite_where_scores_are_large(x: Tensor) -> None:
    block = given(GraphAttention(4, 6, **GRAPH, heads=2))
    assert block(1e4 * x).isfinite().all()


def test_edge_gate(x: Tensor) -> None:
    torch.manual_seed(0)
    block = EdgeGate(4, 3, **GRAPH)
    gates = torch.sigmoid(block.source_gate(x).unsqueeze(0) + block.target_gate(x).unsqueeze(1))
    gates = gates * dense().unsqueeze(2)
    expected = block.own(x) + (gates * block.value(x).unsqueeze(0)).sum(1) / (gates.sum(1) + 1e-6)
    assert torch.allclose(given(block)(x), expected, atol=1e-6)


def test_filters_and_norms(x: Tensor) -> None:
    dense_filter, sparse_filter = FeatureFilter(4, kind="dense"), FeatureFilter(4, kind="sparse")
    assert torch.allclose(dense_filter(x), x * torch.sigmoid(dense_filter.gate(x)))
    shares = sparse_filter(x) / x
    assert torch.allclose(shares, shares[:, :1].expand_as(x), atol=1e-5)
    assert PairNorm(2.0)(x).square().sum(1).mean().sqrt().item() == pytest.approx(2.0, abs=1e-3)
    assert torch.allclose(GraphNorm(4)(x), functional.batch_norm(x, None, None, training=True), atol=1e-5)


def network() -> NodeReadout:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Linear(3, 4), Aggregate(**GRAPH, kind="gcn"), Propagate(**GRAPH, steps=2, teleport=0.1)
    )
    return NodeReadout(body, NODES, 3)


CONTEXT = {"features": torch.randn(NODES, 3), "edges": EDGES, "unheard of": torch.zeros(1)}


def test_rows_of_the_nodes_asked_for() -> None:
    net = network()
    set_context(net, CONTEXT)
    ids = torch.tensor([4, 0, 4])
    assert torch.equal(net(ids), net.body(CONTEXT["features"])[ids])
    assert torch.equal(net(ids.unsqueeze(1)), net(ids))


def test_the_graph_is_shared_and_never_saved() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    set_context(net, CONTEXT)
    assert list(before) == list(net.state_dict()) == ["body.0.weight", "body.0.bias"]
    edges = {buffer.data_ptr() for name, buffer in net.named_buffers() if name.endswith("edges")}
    assert len(edges) == 1


def test_another_graph_replaces_the_first() -> None:
    net, fresh = network(), network()
    set_context(net, CONTEXT)
    first = net(torch.arange(NODES))
    other = {"features": CONTEXT["features"], "edges": (EDGES + 1) % NODES}
    set_context(net, other)
    set_context(fresh, other)
    assert torch.equal(net(torch.arange(NODES)), fresh(torch.arange(NODES)))
    assert not torch.equal(net(torch.arange(NODES)), first)


def test_copies_and_moves_keep_the_graph() -> None:
    net = network()
    set_context(net, CONTEXT)
    moved = copy.deepcopy(net).double()
    found = moved(torch.arange(NODES))
    assert torch.allclose(found.float(), net(torch.arange(NODES)), atol=1e-6)


def test_a_graph_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"edges has the shape \(2, 9\), but body.1 was built for \(2, 10\)"):
        set_context(network(), CONTEXT | {"edges": EDGES[:, :9]})
    with pytest.raises(ValueError, match=r"features has the shape \(6, 2\), but the network"):
        set_context(network(), CONTEXT | {"features": torch.zeros(NODES, 2)})


def test_equal_networks_learn_equally() -> None:
    grads = []
    for _ in range(2):
        net = network()
        set_context(net, CONTEXT)
        net(torch.arange(NODES)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert grads[0].numel() == 16 and torch.equal(grads[0], grads[1])
