"""A layer program as a module, and the same program as a Python file that needs torch only."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cambrian.search_spaces.convnet.program import Layer
from cambrian.search_spaces.space import Signature

if TYPE_CHECKING:
    from torch import nn

_BLOCKS = Path(__file__).resolve().parent.parent / "blocks"


def build(layers: list[Layer]) -> nn.Sequential:
    """Instantiate `layers` in order."""
    from torch import nn

    from cambrian.search_spaces import blocks

    network = nn.Sequential()
    for layer in layers:
        owner = nn if layer.block.startswith("nn.") else blocks
        network.add_module(
            layer.name, getattr(owner, layer.block.removeprefix("nn."))(*layer.args, **layer.kwargs)
        )
    return network


def source(layers: list[Layer], signature: Signature, title: str) -> str:
    """The Python file that `Space.source` promises."""
    definitions = _definitions()
    needed: set[str] = set()
    todo = [layer.block for layer in layers if not layer.block.startswith("nn.")]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo.extend(definitions[name].uses)
    texts = [definition.text for name, definition in definitions.items() if name in needed]
    imports = "import torch\nfrom torch import Tensor, nn\n"
    if any("functional." in text for text in texts):
        imports += "from torch.nn import functional\n"
    if not any("torch." in text for text in texts):
        imports = imports.removeprefix("import torch\n")
    shape = " x ".join(str(side) for side in signature.input_shape)
    params = sum(layer.params for layer in layers)
    macs = sum(layer.macs for layer in layers)
    header = (
        f'"""{title}\n\n'
        f"Input: (n, {', '.join(map(str, signature.input_shape))}), that is {shape}; "
        f"output: (n, {signature.n_outputs}).\n"
        f"{params:,} parameters, {macs:,} multiply-accumulates a sample.\n"
        f'Written by Cambrian; needs PyTorch and nothing else.\n"""\n\n'
    )
    lines = "".join(
        f'    network.add_module("{layer.name}", {_call(layer)})  # {_size(layer)}\n' for layer in layers
    )
    function = (
        "def build() -> nn.Module:\n"
        '    """The network with fresh weights; a trained state dict has the same keys."""\n'
        f"    network = nn.Sequential()\n{lines}    return network\n"
    )
    return header + imports + "\n\n" + "\n\n\n".join([*texts, function])


def _call(layer: Layer) -> str:
    shown = [repr(arg) for arg in layer.args]
    shown += [f"{key}={value!r}".replace("'", '"') for key, value in layer.kwargs.items()]
    return f"{layer.block}({', '.join(shown)})".replace("'", '"')


def _size(layer: Layer) -> str:
    return "x".join(str(side) for side in layer.shape)


class _Definition(NamedTuple):
    text: str
    uses: tuple[str, ...]


@functools.cache
def _definitions() -> dict[str, _Definition]:
    """Every class and function of `blocks` with its text and the others it uses, in an order that runs.

    Read from the files rather than by `inspect`, so that exporting does not import torch.
    """
    nodes: dict[str, tuple[str, ast.stmt]] = {}
    for name in ("convolution", "attention", "pooling"):
        text = (_BLOCKS / f"{name}.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                nodes[node.name] = (ast.get_source_segment(text, node) or "", node)
    found = {}
    for name, (segment, tree) in nodes.items():
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found[name] = _Definition(segment, tuple(sorted((used & set(nodes)) - {name})))
    return found
