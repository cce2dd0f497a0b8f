"""A plan as a module, and the same plan as a Python file that needs torch only."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.words import summarise
from cambrian.search_spaces.space import Genotype, Signature

if TYPE_CHECKING:
    from torch import nn

_BLOCKS = Path(__file__).resolve().parent.parent / "blocks"
_COMPOSE = "cambrian.search_spaces.blocks.compose"
_MAKERS = {
    "residual": (_COMPOSE, "Residual"),
    "parallel": (_COMPOSE, "Parallel"),
    "route": (_COMPOSE, "Route"),
    "graph": (_COMPOSE, "Graph"),
    "on_nodes": ("cambrian.search_spaces.blocks.graph", "NodeReadout"),
}
"""The class that does each kind of composition; a sequence is torch's own."""


def build(node: Node) -> nn.Module:
    """Instantiate a plan."""
    from torch import nn

    if isinstance(node, Leaf):
        made: nn.Module = _class(node.block.module, node.block.name)(*node.args, **node.kwargs)
        return made
    if node.kind == "sequential":
        network = nn.Sequential()
        for child in node.children:
            network.add_module(child.name, build(child))
        return network
    made = _class(*_MAKERS[node.kind])(*(build(child) for child in node.children), **_keywords(node))
    return made


def _class(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _keywords(node: Composite) -> dict[str, Any]:
    """Keyword arguments of the module that puts a composition together."""
    options = node.options
    if node.kind == "graph":
        return {"ends": options["edges"], "output": options["output"], "merge": options["merge"]}
    if node.kind == "residual":
        return {} if options["add"] else {"add": False}
    if node.kind == "route":
        return {"how": options["how"], **({"size": options["size"]} if options["size"] else {})}
    return dict(options)


def source(definition: Definition, genotype: Genotype, signature: Signature) -> str:
    """The Python file that `Space.source` promises."""
    network = plan(definition, genotype, signature)
    definitions = _definitions(tuple(sorted(_own_files(network))))
    needed: set[str] = set()
    todo = sorted(_class_names(network)) + (["set_context"] if signature.graph is not None else [])
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo.extend(definitions[name].uses)
    texts = [each.text for name, each in definitions.items() if name in needed]
    lines = "".join(
        f'    network.add_module("{child.name}", {_written(child, 4)})  # {child.shape}\n'
        for child in network.children
    )
    function = (
        "def build() -> nn.Module:\n"
        '    """The network with fresh weights; a trained state dict has the same keys."""\n'
        f"    network = nn.Sequential()\n{lines}    return network\n"
    )
    header = _header(summarise(definition, genotype), network, signature)
    return header + _imports([*texts, function]) + "\n\n" + "\n\n\n".join([*texts, function])


def _header(title: str, network: Composite, signature: Signature) -> str:
    shape = ", ".join(map(str, ("n", *signature.input_shape)))
    kind = "float32" if signature.n_ids is None else f"ids below {signature.n_ids}, int64"
    graph = (
        "Call set_context(network, {'features': ..., 'edges': ...}) before use: it holds its graph.\n"
        if signature.graph is not None
        else ""
    )
    return (
        f'"""{title}\n\n'
        f"Input: ({shape}{',' if not signature.input_shape else ''}), {kind}; "
        f"output: (n, {signature.n_outputs}).\n"
        f"{network.params:,} parameters, {network.macs:,} multiply-accumulates a sample.\n{graph}"
        f'Written by Cambrian; needs PyTorch and nothing else.\n"""\n\n'
    )


def _imports(texts: list[str]) -> str:
    """What the definitions use, standard library first."""
    used = {node.id for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    abc = [name for name in ("Callable", "Iterator", "Mapping", "Sequence") if name in used]
    lines = ["import math"] if "math" in used else []
    lines += [f"from collections.abc import {', '.join(abc)}"] if abc else []
    lines += [""] if lines else []
    lines += ["import torch"] if "torch" in used else []
    lines += [f"from torch import {'Tensor, ' if 'Tensor' in used else ''}nn"]
    lines += ["from torch.nn import functional"] if "functional" in used else []
    return "\n".join(lines) + "\n"


def _written(node: Node, indent: int) -> str:
    """The call that makes `node`, over several lines where one would be too long."""
    if isinstance(node, Leaf):
        own = node.block.module != "torch.nn"
        name, parts = node.block.name if own else f"nn.{node.block.name}", [repr(arg) for arg in node.args]
        parts += [f"{key}={value!r}" for key, value in node.kwargs.items()]
    elif node.kind == "sequential":
        # names matter: they are the keys of the state dict
        name = "named_sequence"
        parts = [f'("{child.name}", {_written(child, indent + 4)})' for child in node.children]
    else:
        name, parts = _MAKERS[node.kind][1], [_written(child, indent + 4) for child in node.children]
        parts += [f"{key}={value!r}" for key, value in _keywords(node).items()]
    line = f"{name}({', '.join(parts)})".replace("'", '"')
    if len(line) + indent <= 100 and "\n" not in line:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{part},\n" for part in parts).replace("'", '"')
    return f"{name}(\n{inner}{' ' * indent})"


def _class_names(node: Node) -> set[str]:
    if isinstance(node, Leaf):
        return set() if node.block.module == "torch.nn" else {node.block.name}
    found = {_MAKERS[node.kind][1]} if node.kind in _MAKERS else set()
    for child in node.children:
        if isinstance(child, Composite) and child.kind == "sequential":
            found.add("named_sequence")
        found |= _class_names(child)
    return found


def _own_files(network: Composite) -> set[str]:
    """Files of blocks that are not shipped."""
    modules = {leaf.block.module for leaf in leaves(network)}
    return {
        str(sys.modules[module].__file__)
        for module in modules
        if module != "torch.nn" and not module.startswith("cambrian.")
    }


class _Definition(NamedTuple):
    text: str
    uses: tuple[str, ...]


@functools.cache
def _definitions(own_files: tuple[str, ...]) -> dict[str, _Definition]:
    """Every class and function of our blocks and of `own_files`, with its text and the others it uses.

    Read from the files rather than by `inspect`, so that exporting does not import torch. Functions come
    first and bases before what derives from them, so that the order runs.
    """
    nodes: dict[str, tuple[str, ast.stmt]] = {}
    for path in [*sorted(_BLOCKS.glob("*.py")), *map(Path, own_files)]:
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                nodes[node.name] = (_segment(text, node), node)
    found = {}
    for name, (segment, tree) in nodes.items():
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found[name] = _Definition(segment, tuple(sorted((used & set(nodes)) - {name})))
    order: dict[str, None] = {}

    def place(name: str) -> None:
        tree = nodes[name][1]
        if isinstance(tree, ast.ClassDef):
            for base in tree.bases:
                if isinstance(base, ast.Name) and base.id in nodes and base.id != name:
                    place(base.id)
        order.setdefault(name)

    for name in nodes:
        place(name)
    return {name: found[name] for name in order}


def _segment(text: str, node: ast.ClassDef | ast.FunctionDef) -> str:
    """The text of a definition, its decorators included."""
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
