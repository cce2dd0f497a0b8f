"""Static checks and identity of networks whose inputs are no images: ids, sequences, vectors, nodes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import Genotype, ProposalError, Signature
from cambrian.search_spaces.blocks.graph import NodeReadout
from cambrian.search_spaces.space import GraphShape

Make = Callable[[Signature], nn.Module]

TEXT = Signature(input_shape=(9,), n_outputs=5, vocabulary=11)
ROWS = Signature(input_shape=(6, 4), n_outputs=3)
NODES = Signature(input_shape=(), n_outputs=7, graph=GraphShape(nodes=2000, features=30, edges=9000))


class Made:
    """A declarative space of one hand-written module, which is told the signature."""

    name = "made"
    version = "1"
    kind = "declarative"

    def __init__(self, make: Make) -> None:
        self.make = make

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        return self.make(signature)


class Tagger(nn.Module):
    """Embedding, a mixture of positions, a classifier."""

    def __init__(self, signature: Signature, width: int = 8, skip: bool = False) -> None:
        super().__init__()
        assert signature.vocabulary is not None
        self.embed = nn.Embedding(signature.vocabulary, width)
        self.mix = nn.Linear(signature.input_shape[0], signature.input_shape[0])
        self.head = nn.Linear(width, signature.n_outputs)
        self.skip = skip

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.embed(ids)
        mixed = self.mix(tokens.transpose(1, 2)).transpose(1, 2).relu()
        return self.head((tokens + mixed if self.skip else mixed).mean(1))


class Neighbours(nn.Module):
    """The sum, the mean or the maximum of the neighbours' features, then a linear map."""

    edges: Tensor

    def __init__(self, shape: GraphShape, how: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.how = how
        self.map = nn.Linear(inputs, outputs)
        self.register_buffer("edges", torch.zeros(2, shape.edges, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x)
        source, target = self.edges
        index = target.unsqueeze(1).expand(-1, x.shape[1])
        reduced = {"sum": "sum", "mean": "mean", "max": "amax"}[self.how]
        return x.scatter_reduce(0, index, x[source], reduced)


def gnn(how: str, width: int = 16, dropout: float = 0.5) -> Make:
    def make(signature: Signature) -> nn.Module:
        shape = signature.graph
        assert shape is not None
        body = nn.Sequential(
            Neighbours(shape, how, shape.features, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            Neighbours(shape, how, width, signature.n_outputs),
        )
        return NodeReadout(body, shape.nodes, shape.features)

    return make


def of(make: Make, signature: Signature) -> str:
    return identity(Made(make), {}, signature)


class TestIds:
    def test_facts_are_exact(self) -> None:
        facts = check(Made(Tagger), {}, TEXT, 16)
        assert facts.parameters == 11 * 8 + (9 * 9 + 9) + (8 * 5 + 5)
        assert facts.flops == 2 * (8 * 9 * 9 + 8 * 5)
        assert facts.depth == 3

    def test_identity_is_functional_and_tells_functions_apart(self) -> None:
        plain, again = of(Tagger, TEXT), of(lambda s: Tagger(s, skip=False), TEXT)
        other = of(lambda s: Tagger(s, skip=True), TEXT)
        assert plain == again != other
        assert plain.startswith("f2:") and other.startswith("f2:")

    def test_another_vocabulary_is_another_identity(self) -> None:
        class Blind(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Embedding(50, 5)

            def forward(self, ids: Tensor) -> Tensor:
                return self.embed(ids).sum(1)

        signatures = [TEXT.model_copy(update={"vocabulary": size}) for size in (11, 12)]
        assert len({of(lambda _s: Blind(), signature) for signature in signatures}) == 2

    def test_ids_that_nothing_embeds_are_refused(self) -> None:
        with pytest.raises(
            ProposalError, match=r"expected inputs of torch.float32, got torch.int64"
        ) as caught:
            check(Made(lambda s: nn.Linear(*s.input_shape, s.n_outputs)), {}, TEXT, 4)
        assert "ids (batch, length)" in caught.value.hint


class TestSequencesAndVectors:
    def test_a_sequence(self) -> None:
        def make(signature: Signature) -> nn.Module:
            length, channels = signature.input_shape
            return nn.Sequential(nn.LayerNorm(channels), nn.Flatten(), nn.Linear(length * channels, 3))

        assert check(Made(make), {}, ROWS, 4).flops == 2 * 24 * 3
        assert of(make, ROWS).startswith("f2:")

    @pytest.mark.parametrize(
        ("shape", "words"),
        [((4,), "(batch, channels)"), ((6, 4), "(batch, length, channels)"), ((1, 6, 4), "height, width)")],
    )
    def test_hints_name_the_dimensions(self, shape: tuple[int, ...], words: str) -> None:
        with pytest.raises(ProposalError) as caught:
            check(Made(lambda _s: nn.Linear(5, 3)), {}, Signature(input_shape=shape, n_outputs=3), 4)
        assert words in caught.value.hint


class TestNodes:
    def test_operations_are_those_of_one_pass_over_the_graph(self) -> None:
        for batch in (1, 140):
            facts = check(Made(gnn("sum")), {}, NODES, batch)
            assert facts.flops == 2 * 2000 * (30 * 16 + 16 * 7)
            assert facts.parameters == 30 * 16 + 16 + 16 * 7 + 7

    def test_a_wrong_layer_is_named(self) -> None:
        def make(signature: Signature) -> nn.Module:
            assert signature.graph is not None
            return NodeReadout(nn.Linear(29, 7), signature.graph.nodes, signature.graph.features)

        with pytest.raises(ProposalError, match=r"body, Linear.* shape \(2000, 30\)") as caught:
            check(Made(make), {}, NODES, 4)
        assert "nodes" in caught.value.hint

    def test_aggregations_and_dropout_rates_are_told_apart(self) -> None:
        found = [of(make, NODES) for make in (gnn("sum"), gnn("mean"), gnn("max"), gnn("sum", dropout=0.4))]
        assert len(set(found)) == 4
        assert all(text.startswith("f2:") for text in found)
        assert of(gnn("sum"), NODES) == found[0]

    def test_a_network_that_looks_at_no_neighbour_is_told_apart(self) -> None:
        def alone(signature: Signature) -> nn.Module:
            shape = signature.graph
            assert shape is not None
            body = nn.Sequential(
                nn.Linear(30, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, signature.n_outputs)
            )
            return NodeReadout(body, shape.nodes, shape.features)

        assert of(alone, NODES) not in {of(gnn(how), NODES) for how in ("sum", "mean", "max")}

    def test_parameters_of_single_nodes_are_hashed_by_genotype(self) -> None:
        class Table(nn.Module):
            def __init__(self, signature: Signature) -> None:
                super().__init__()
                assert signature.graph is not None
                self.rows = nn.Embedding(signature.graph.nodes, signature.n_outputs)

            def forward(self, ids: Tensor) -> Tensor:
                return self.rows(ids)

        assert of(Table, NODES).startswith("g2:")
