"""A minimal space of code: a genotype is the source of one `nn.Module`, from a small family of templates.

Tests install it as a plugin: a folder with this file and the metadata of `install`. Its networks may be built
in a sandbox only, where nothing of `cambrian.agents` is ever imported; anywhere else `build` refuses.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Literal

FLAT = """
import torch
from torch import nn


class Network(nn.Module):
    width = {width}
    depth = {depth}
    activation = '{activation}'

    def __init__(self, input_shape, n_outputs):
        super().__init__()
        sizes = [int(torch.tensor(input_shape).prod()), *[self.width] * self.depth]
        self.layers = nn.ModuleList((nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])))
        self.head = nn.Linear(sizes[-1], n_outputs)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = getattr(nn.functional, self.activation)(layer(x))
        return self.head(x)
"""
CONVOLUTIONS = """
import torch
from torch import nn


class Network(nn.Module):
    width = {width}
    depth = {depth}
    activation = '{activation}'

    def __init__(self, input_shape, n_outputs):
        super().__init__()
        sizes = [input_shape[0], *[self.width] * self.depth]
        self.layers = nn.ModuleList((nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, sizes[1:])))
        self.head = nn.Linear(sizes[-1], n_outputs)

    def forward(self, x):
        for layer in self.layers:
            x = getattr(nn.functional, self.activation)(layer(x))
        return self.head(x.mean((2, 3)))
"""
TEMPLATES = (FLAT, CONVOLUTIONS)
GENES: dict[str, tuple[Any, ...]] = {
    "width": (8, 16, 32),
    "depth": (1, 2, 3),
    "activation": ("relu", "gelu", "silu"),
}
METADATA = "Metadata-Version: 2.1\nName: cambrian-coded\nVersion: 1.0\n"
ENTRY_POINTS = "[cambrian.spaces]\ncoded = code_space:CodeSpace\n"


def install(folder: Path, sources: Mapping[str, str] | None = None) -> Path:
    """Lay `folder` out like an installed package that registers the space `coded`.

    Args:
        folder: to be made.
        sources: further baselines by name.
    """
    about = folder / "cambrian_coded-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "code_space.py").write_text(Path(__file__).read_text("utf-8"))
    (folder / "sources.json").write_text(json.dumps(dict(sources or {})))
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


class CodeSpace:
    """Genotype: `{"source": text}`; see `cambrian.search_spaces.Space`."""

    name = "coded"
    version = "1"
    title = "Small modules, as source"
    kind: Literal["declarative", "code"] = "code"

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"source": {"type": "string"}},
            "required": ["source"],
            "additionalProperties": False,
        }

    def validate(self, data: object) -> dict[str, Any]:
        from cambrian.search_spaces import ProposalError

        if not isinstance(data, Mapping) or set(data) != {"source"} or not isinstance(data["source"], str):
            raise ProposalError("a genotype is an object with the text `source`")
        try:
            tree = ast.parse(data["source"])
        except SyntaxError as error:
            raise ProposalError(f"source: line {error.lineno}: {error.msg}") from error
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] != "torch" for name in names):
                raise ProposalError(f"source: imports {names[0]}; only torch is allowed")
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        if classes != ["Network"]:
            raise ProposalError(f"source: defines the classes {classes}, expected exactly Network")
        return {"source": ast.unparse(tree) + "\n"}

    def sample(self, rng: random.Random) -> dict[str, Any]:
        genes = {name: rng.choice(values) for name, values in GENES.items()}
        return self.validate({"source": rng.choice(TEMPLATES).format(**genes)})

    def mutate(self, genotype: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
        name = rng.choice(sorted(GENES))
        before = _gene(genotype, name)
        after = rng.choice([value for value in GENES[name] if repr(value) != before])
        return _with(genotype, name, repr(after)), f"{name} {before} to {after!r}"

    def crossover(
        self, first: dict[str, Any], second: dict[str, Any], rng: random.Random
    ) -> tuple[dict[str, Any], str]:
        name = rng.choice(sorted(GENES))
        return _with(first, name, _gene(second, name)), f"{name} of the second"

    def build(self, genotype: dict[str, Any], signature: Any) -> Any:
        if "cambrian.agents" in sys.modules:
            raise AssertionError("source of a candidate was about to be run outside a sandbox")
        scope: dict[str, Any] = {"__name__": "candidate"}
        exec(compile(genotype["source"], "<candidate>", "exec"), scope)  # noqa: S102
        return scope["Network"](signature.input_shape, signature.n_outputs)

    def recipe(self, genotype: dict[str, Any]) -> Mapping[str, Any]:
        return {}

    def features(self, genotype: dict[str, Any]) -> dict[str, float]:
        lines = genotype["source"].splitlines()
        return {"lines": float(len(lines)), "width": float(_gene(genotype, "width"))}

    def describe(self) -> str:
        return "One torch module, written as source: a class Network(input_shape, n_outputs)."

    def summarise(self, genotype: dict[str, Any]) -> str:
        kind = "convolutions" if "Conv2d" in genotype["source"] else "linear maps"
        return f"{_gene(genotype, 'depth')} {kind} of {_gene(genotype, 'width')}"

    def draw(self, genotype: dict[str, Any], signature: Any) -> str:
        lines = genotype["source"].splitlines()
        height = 20 * len(lines) + 20
        text = "".join(
            f'<text x="10" y="{20 * (i + 1)}" font-family="monospace">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        size = f'viewBox="0 0 800 {height}" width="800" height="{height}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{text}</svg>'

    def source(self, genotype: dict[str, Any], signature: Any) -> str:
        arguments = f"{tuple(signature.input_shape)!r}, {signature.n_outputs}"
        return f"{genotype['source']}\n\ndef build():\n    return Network({arguments})\n"

    def baselines(self) -> Mapping[str, dict[str, Any]]:
        sources = {"perceptron": FLAT.format(width=16, depth=1, activation="relu")}
        sources |= json.loads(Path(__file__).with_name("sources.json").read_text())
        return {name: self.validate({"source": source}) for name, source in sources.items()}


def _gene(genotype: dict[str, Any], name: str) -> str:
    found = re.search(rf"(?m)^    {name} = (.+)$", genotype["source"])
    assert found is not None
    return found[1]


def _with(genotype: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    return {"source": re.sub(rf"(?m)^    {name} = .+$", f"    {name} = {value}", genotype["source"])}
