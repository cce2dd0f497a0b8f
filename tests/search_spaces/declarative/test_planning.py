"""Plans: what they say of shapes and sizes is what torch makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cambrian.search_spaces import ProposalError, Signature
from cambrian.search_spaces.declarative.export import build, source
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.plan import depth, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.errors import UserError
from tests.search_spaces.declarative.folder import write_layout, write_space

IMAGE = Signature(input_shape=(3, 12, 10), n_outputs=5)
SEQUENCE = Signature(input_shape=(9, 8), n_outputs=5)
VECTOR = Signature(input_shape=(6,), n_outputs=2)

IMAGES = {
    "block": "- ConvBlock: {out: =width, kernel: 3, activation: relu}\n- GlobalPool",
    "residual": """
        - ConvNorm: {out: =width, kernel: 3}
        - residual: [{ConvNorm: {out: =input.channels, kernel: 3}}, {Activation: {name: relu}}]
        - GlobalPool
        """,
    "residual, projected": """
        - residual: [{ConvNorm: {out: 12, kernel: 3, stride: 2}}]
          shortcut: project
        - GlobalPool
        """,
    "residual, where equal": """
        - residual: [{ConvNorm: {out: =width, kernel: 3}}]
          shortcut: where-equal
        - residual: [{ConvNorm: {out: =width, kernel: 3}}]
          shortcut: where-equal
        - GlobalPool
        """,
    "parallel, sum": """
        - parallel: [[{ConvNorm: {out: 4}}], [{ConvNorm: {out: 4, kernel: 3}}, {Activation: {name: relu}}]]
        - GlobalPool
        """,
    "parallel, product": """
        - parallel: [[{ConvNorm: {out: 4}}], [{ConvNorm: {out: 4}}], [{ConvNorm: {out: 4}}]]
          merge: product
        - GlobalPool
        """,
    "parallel, mean": """
        - parallel: [[{ConvNorm: {out: 4}}], [{ConvNorm: {out: 4}}]]
          merge: mean
        - GlobalPool
        """,
    "parallel, concat": """
        - parallel: [[{ConvNorm: {out: =width}}], [{ConvNorm: {out: 4}}], []]
          merge: concat
        - GlobalPool
        """,
    "route, tokens": "- route: tokens\n  body: [{Linear: {out: =width}}]\n- GlobalPool",
    "route, patches": """
        - route: patches
          size: 4
          body: [{Linear: {out: 32}}, {Activation: {name: gelu}}]
        - GlobalPool
        """,
    "repeat": """
        - repeat: width // 4
          index: i
          body: [{ConvNorm: {out: =width + i}}]
        - GlobalPool
        """,
    "named sequence": """
        - sequential: [{ConvNorm: {out: 4}}, {Activation: {name: relu}}]
          name: entry
        - GlobalPool
        """,
    "if and switch": """
        - if: width > 8
          then: [{ConvNorm: {out: 6}}]
          else: [{ConvNorm: {out: 4}}, {ConvNorm: {out: 6}}]
        - switch: width
          cases: {8: [{ConvNorm: {out: 3}}]}
          else: []
        - GlobalPool
        """,
    "graph": """
        - ConvNorm: {out: 4}
        - graph:
            nodes:
              a: {input: {ConvNorm: {out: 4, kernel: 3}}}
              b: {input: Identity, a: {ConvNorm: {out: 4}}}
              c: {a: Identity, b: [{ConvNorm: {out: 4}}, {Activation: {name: relu}}]}
            output: [b, c]
        - GlobalPool
        """,
}

SEQUENCES = {
    "linear": "- Linear: {out: 6}\n- Flatten",
    "transpose": "- route: transpose\n  body: [{Linear: {out: 4}}]\n- Flatten",
    "patches": "- route: patches\n  size: 4\n  body: [{Linear: {out: 12}}]\n- Flatten",
    "residual": "- residual: [{Linear: {out: 7}}]\n  shortcut: project\n- Flatten",
    "concat": "- parallel: [[{Linear: {out: 7}}], [{Linear: {out: 3}}]]\n  merge: concat\n- Flatten",
}

CASES = [(IMAGE, name, body) for name, body in IMAGES.items()]
CASES += [(SEQUENCE, name, body) for name, body in SEQUENCES.items()]


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize(
    ("signature", "name", "body"), CASES, ids=[f"{c[0].input_shape}-{c[1]}" for c in CASES]
)
def test_plan_agrees_with_torch(
    tmp_path: Path, signature: Signature, name: str, body: str, width: int
) -> None:
    definition = load(write_layout(tmp_path, body))
    genotype = {"width": width}
    planned = plan(definition, genotype, signature)
    torch.manual_seed(0)
    network = build(planned).eval()
    inputs = torch.randn(2, *signature.input_shape)
    with FlopCounterMode(display=False) as counter:
        outputs = network(inputs)
    assert outputs.shape == (2, signature.n_outputs)
    assert planned.params == sum(p.numel() for p in network.parameters())
    assert 2 * planned.macs * 2 == counter.get_total_flops()

    scope: dict[str, object] = {"__name__": "exported"}
    exec(source(definition, genotype, signature), scope)  # noqa: S102
    exported = scope["build"]().eval()  # type: ignore[operator]
    assert list(exported.state_dict()) == list(network.state_dict())
    exported.load_state_dict(network.state_dict())
    assert torch.equal(exported(inputs), outputs)


def test_what_the_parts_compute(tmp_path: Path) -> None:
    """Rearranging there and back by hand."""
    body = "- route: transpose\n  body: [{Linear: {out: 4}}]\n- Flatten"
    network = build(plan(load(write_layout(tmp_path / "a", body)), {"width": 8}, SEQUENCE))
    x = torch.randn(2, 9, 8)
    weights = network.state_dict()
    linear = next(name.removesuffix(".weight") for name in weights if name.startswith("route"))
    mixed = torch.einsum("ntc,ut->nuc", x, weights[f"{linear}.weight"]) + weights[f"{linear}.bias"][:, None]
    assert torch.allclose(network[0](x), mixed, atol=1e-6)

    body = "- route: patches\n  size: 4\n  body: [{Identity: {}}]\n- GlobalPool"
    network = build(plan(load(write_layout(tmp_path / "b", body)), {"width": 8}, IMAGE))
    images = torch.randn(2, 3, 12, 10)
    assert torch.equal(network[0](images), images)  # ten columns do not fill three patches


def test_depth_is_the_longest_path(tmp_path: Path) -> None:
    planned = plan(load(write_layout(tmp_path, IMAGES["graph"])), {"width": 8}, IMAGE)
    assert depth(planned) == 1 + 3 + 1
    body = "- parallel: [[{ConvNorm: {out: 4}}], [{ConvNorm: {out: 4}}, {ConvNorm: {out: 4}}]]\n- GlobalPool"
    assert depth(plan(load(write_layout(tmp_path, body)), {"width": 8}, IMAGE)) == 3


NESTED = """
network:
  fields:
    stages: {repeat: stage, min: 1, max: 3}
    tail: {use: stage}
  build:
    - stages
    - tail
    - GlobalPool
    - Linear: {out: =n_outputs}
stage:
  fields: {width: [4, 8], depth: [1, 2]}
  build:
    - repeat: depth
      body: [{ConvNorm: {out: =width, kernel: 3}}]
"""


def test_names_and_genes_tell_where_blocks_come_from(tmp_path: Path) -> None:
    definition = load(write_space(tmp_path, NESTED))
    genotype = {
        "stages": [{"width": 4, "depth": 2}, {"width": 8, "depth": 1}],
        "tail": {"width": 8, "depth": 2},
    }
    found = [(leaf.name, leaf.gene) for leaf in leaves(plan(definition, genotype, IMAGE))]
    assert found == [
        ("stages1_conv_norm", "stages[0]"), ("stages1_conv_norm2", "stages[0]"),
        ("stages2_conv_norm", "stages[1]"), ("tail_conv_norm", "tail"), ("tail_conv_norm2", "tail"),
        ("global_pool", ""), ("linear", ""),
    ]  # fmt: skip


ILL_TYPED = {
    "another kind": ("- Linear: {out: 4}\n- ConvNorm: {out: 4}", VECTOR, "takes image, not vector 4"),
    "unequal residual": ("- residual: [{ConvNorm: {out: 4}}]\n- GlobalPool", IMAGE, "3x12x10 into image 4"),
    "unequal branches": (
        "- parallel: [[{ConvNorm: {out: 4}}], [{ConvNorm: {out: 5}}]]\n- GlobalPool", IMAGE, "have no sum",
    ),
    "no way back": ("- route: tokens\n  body: [Flatten]\n- GlobalPool", IMAGE, "no way back"),
    "no pixels left": (
        "- repeat: width\n  body: [{ConvNorm: {out: 4, kernel: 3, stride: 2}}]\n- GlobalPool",
        IMAGE, "cannot be halved",
    ),
    "wrong rank": ("- GlobalPool", Signature(input_shape=(2, 3, 4, 5), n_outputs=2), "neither vectors"),
    "no vector at the end": ("- ConvNorm: {out: 4}", IMAGE, "Linear takes"),
    "no graph": ("- on_nodes: [{Linear: {out: 3}}]", IMAGE, "nodes of a graph"),
    "not repeatable": ("- repeat: width - 20\n  body: []\n- GlobalPool", IMAGE, "cannot repeat"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILL_TYPED)
def test_ill_typed_designs_are_refused_in_words(tmp_path: Path, name: str) -> None:
    body, signature, words = ILL_TYPED[name]
    definition = load(write_layout(tmp_path, body))
    with pytest.raises(ProposalError) as caught:
        plan(definition, {"width": 8}, signature)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_place_of_an_ill_typed_block_is_told(tmp_path: Path) -> None:
    rules = NESTED.replace("kernel: 3}}", "kernel: 3, stride: 2}}")
    definition = load(write_space(tmp_path, rules))
    genotype = {"stages": [{"width": 4, "depth": 2}] * 2, "tail": {"width": 4, "depth": 2}}
    with pytest.raises(ProposalError, match=r"^tail: ConvNorm|^tail: the map"):
        plan(definition, genotype, IMAGE)


PLACES = {
    "a block": (
        "- ConvNorm: {out: 4}\n- sequential: [Flatten, {ConvNorm: {out: 4}}]",
        "build[1].sequential[1]",
    ),
    "a residual part": ("- residual: [{ConvNorm: {out: 4}}]\n- GlobalPool", "build[0]"),
    "a route": ("- GlobalPool\n- {route: tokens, body: []}", "build[1]"),
    "a merge": ("- parallel: [[], [GlobalPool]]\n- GlobalPool", "build[0]"),
    "a merge of a graph": ("- graph: {nodes: {a: {input: GlobalPool}, b: {a: [], input: []}}}", "build[0]"),
    "a switch": ("- {switch: width, cases: {3: []}}\n- GlobalPool", "build[0]"),
    "a repetition": ("- Identity\n- {repeat: width - 20, body: []}\n- GlobalPool", "build[1]"),
    "in branches": (
        "- parallel: [[], [Identity, {Linear: {out: 0}}]]\n- GlobalPool",
        "build[0].parallel[1][1]",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_in_the_layout_is_told(tmp_path: Path, name: str) -> None:
    body, place = PLACES[name]
    with pytest.raises(ProposalError) as caught:
        plan(load(write_layout(tmp_path, body)), {"width": 8}, IMAGE)
    assert caught.value.message.endswith(f" (at rules.network.{place})"), caught.value.message


FAILING = {
    "an argument": ("- Linear: {out: =width // (width - 8)}", "build[0].out"),
    "a repetition": ("- {repeat: width // (width - 8), body: []}\n- GlobalPool", "build[0].repeat"),
    "a condition": ("- Identity\n- {if: 1 / (width - 8) > 0, then: []}\n- GlobalPool", "build[1].if"),
    "a merge": ("- {parallel: [[], []], merge: =1 / (width - 8)}\n- GlobalPool", "build[0].parallel.merge"),
}


@pytest.mark.parametrize("name", FAILING)
def test_the_place_of_an_expression_that_fails_is_told(tmp_path: Path, name: str) -> None:
    body, place = FAILING[name]
    with pytest.raises(UserError) as caught:
        plan(load(write_layout(tmp_path, body)), {"width": 8}, IMAGE)
    assert caught.value.message.startswith(f"rules.network.{place}: expression ")
    assert "by zero" in caught.value.message and "width = 8" in caught.value.hint


def test_networks_beyond_all_use_are_refused(tmp_path: Path) -> None:
    conv = "{ConvNorm: {out: 4}}"
    body = f"- repeat: 200 * width\n  body: [{conv}, {conv}]\n- GlobalPool"
    with pytest.raises(ProposalError, match="more than 2000 blocks"):
        plan(load(write_layout(tmp_path / "blocks", body)), {"width": 8}, IMAGE)
    body = "- repeat: width ** 10\n  body: []\n- GlobalPool"
    with pytest.raises(ProposalError, match="cannot repeat 1073741824 times"):
        plan(load(write_layout(tmp_path / "none", body)), {"width": 8}, IMAGE)


def test_given_is_what_arrived_at_the_record(tmp_path: Path) -> None:
    """Whatever lies between, a layout finds back to the width that it began with."""
    bottleneck = """
        - Linear: {out: =given.channels // 2}
        - route: transpose
          body: [{Linear: {out: =given.length + 1}}]
        - Linear: {out: =given.channels}
        - SequencePool
        """
    planned = plan(load(write_layout(tmp_path, bottleneck)), {"width": 8}, SEQUENCE)
    shapes = [str(leaf.shape) for leaf in leaves(planned)]
    assert shapes[:3] == ["sequence 9x4", "sequence 4x10", "sequence 10x8"]
