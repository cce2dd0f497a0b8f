"""Blocks of a space's own: what a user writes into `blocks.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cambrian.search_spaces import ProposalError, Signature
from cambrian.search_spaces.declarative.export import build, source
from cambrian.search_spaces.declarative.loading import SpaceFileError, load
from cambrian.search_spaces.declarative.planning import plan
from tests.search_spaces.declarative.folder import write_layout

SHUFFLE = '''
import torch
from torch import Tensor, nn


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of groups."""
    return torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class GroupShuffle(nn.Module):
    """Grouped convolution, then a shuffle of the channels."""

    def __init__(self, in_channels: int, out: int, groups: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out, 3, padding=1, groups=groups)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(self.conv(x), self.groups)
'''
SIGNATURE = Signature(input_shape=(4, 6, 6), n_outputs=3)


def make(tmp_path: Path, blocks: str, body: str = "- GroupShuffle: {out: =width}\n- GlobalPool") -> Path:
    folder = write_layout(tmp_path, body, reference="{input_shape: [4, 6, 6], n_outputs: 3}")
    (folder / "blocks.py").write_text(blocks, encoding="utf-8")
    return folder


def test_a_block_of_ones_own(tmp_path: Path) -> None:
    definition = load(make(tmp_path, SHUFFLE))
    planned = plan(definition, {"width": 8}, SIGNATURE)
    network = build(planned).eval()
    conv = 8 * 4 // 2 * 9
    assert planned.params == conv + 8 + 8 * 3 + 3 == sum(p.numel() for p in network.parameters())
    assert planned.macs == conv * 36 + 8 * 3
    inputs = torch.randn(2, 4, 6, 6)
    scope: dict[str, object] = {}
    text = source(definition, {"width": 8}, SIGNATURE)
    exec(text, scope)  # noqa: S102
    exported = scope["build"]().eval()  # type: ignore[operator]
    exported.load_state_dict(network.state_dict())
    assert torch.equal(exported(inputs), network(inputs))
    assert "cambrian" not in text.replace("Cambrian", "")


def test_what_it_cannot_take_is_the_proposals_fault(tmp_path: Path) -> None:
    definition = load(make(tmp_path, SHUFFLE, "- GroupShuffle: {out: =width, groups: 3}\n- GlobalPool"))
    with pytest.raises(ProposalError, match="GroupShuffle cannot take image 4x6x6"):
        plan(definition, {"width": 8}, SIGNATURE)


WRONG = {
    "syntax": (SHUFFLE + "\nclass", "blocks.py cannot be imported: SyntaxError"),
    "import": (
        SHUFFLE.replace("import torch\n", "import numpy as np\nimport torch\n", 1),
        "line 2: `import numpy as np`",
    ),
    "import from": ("from typing import Any\n" + SHUFFLE, "line 1: `from typing import Any`"),
    "relative import": ("from . import other\n" + SHUFFLE, "line 1: `from . import other`"),
    "inner import": (SHUFFLE.replace("super()", "import os; super()"), "`import os` is not possible"),
    "renamed import": ("import torch.nn.functional as F\n" + SHUFFLE, "from torch.nn import functional"),
    "crash": ("1 / 0\n" + SHUFFLE, "ZeroDivisionError: division by zero"),
    "name": (SHUFFLE.replace("GroupShuffle", "ConvBlock"), "a shipped block is called ConvBlock"),
    "no type": (SHUFFLE.replace("groups: int = 2", "groups=None"), "GroupShuffle.groups has no plain type"),
    "star": (SHUFFLE.replace("scale: float = 1.0", "**rest: int"), "have no names"),
}


def test_imports_that_exported_networks_can_have(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nimport math\nfrom collections.abc import Sequence\n"
    inner = (
        "from torch.nn import functional as f\n        x = f.silu(x) * math.sqrt(2)\n        return shuffled"
    )
    definition = load(make(tmp_path, head + SHUFFLE.replace("return shuffled", inner)))
    scope: dict[str, object] = {}
    exec(source(definition, {"width": 8}, SIGNATURE), scope)  # noqa: S102
    assert scope["build"]()(torch.randn(2, 4, 6, 6)).shape == (2, 3)  # type: ignore[operator]


def test_what_crashes_inside_is_named(tmp_path: Path) -> None:
    definition = load(
        make(tmp_path, SHUFFLE.replace("return shuffled", "raise KeyError('gate')\n        return shuffled"))
    )
    said = r"GroupShuffle cannot take image 4x6x6: KeyError: 'gate' \(at rules\.network\.build\[0\]\)"
    with pytest.raises(ProposalError, match=said):
        plan(definition, {"width": 8}, SIGNATURE)


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told(tmp_path: Path, name: str) -> None:
    blocks, words = WRONG[name]
    with pytest.raises(SpaceFileError) as caught:
        load(make(tmp_path, blocks))
    assert words in str(caught.value) and "space.yaml" in caught.value.message
