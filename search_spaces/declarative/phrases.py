"""Shapes, counts, values, conditions and blocks in a few words, for texts and drawings."""

from __future__ import annotations

import ast
from itertools import pairwise
from typing import Any

from cambrian.search_spaces.declarative import svg
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Field, Repeat, Scalar
from cambrian.search_spaces.declarative.plan import Composite, Leaf
from cambrian.search_spaces.declarative.planning import block_name
from cambrian.search_spaces.declarative.shape import Shape, input_of
from cambrian.search_spaces.space import Signature

_LISTED = 24
"""Tables up to this long are written out."""


def inputs(signature: Signature) -> str:
    """What a network is given and asked for: `a 3x32x32 image and 10 outputs`."""
    outputs = f"{signature.n_outputs} output{'s' if signature.n_outputs != 1 else ''}"
    if signature.graph is not None:
        graph = signature.graph
        return f"a graph of {graph.nodes} nodes with {graph.features} features and {outputs}"
    given = input_of(signature)
    sides = "x".join(map(str, given.dims))
    said = {
        "image": f"a {sides} image",
        "sequence": f"a sequence of {given.length} x {given.dims[-1]} numbers",
        "ids": f"{given.length} ids of a vocabulary of {signature.vocabulary}",
        "vector": f"a vector of {sides}",
    }[given.kind]
    return f"{said} and {outputs}"


def values(domain: Scalar) -> str:
    """The values of a choice: a range where they are evenly spaced integers, else all of them."""
    found = domain.values
    if found == (False, True):
        return "true or false"
    whole = all(type(v) is int for v in found)
    if whole and len(found) > 3:
        steps = {int(b) - int(a) for a, b in pairwise(found)}
        if len(steps) == 1:
            step = steps.pop()
            return f"{found[0]} to {found[-1]}" + (f" in steps of {step}" if step != 1 else "")
    texts = [scalar(v) for v in found]
    if len(texts) > _LISTED:
        texts = [*texts[: _LISTED // 2], "...", *texts[-3:]]
    return ", ".join(texts)


def span(domain: Repeat) -> str:
    """How many items a list has."""
    return str(domain.most) if domain.least == domain.most else f"{domain.least} to {domain.most}"


def relevance(each: Field) -> str:
    """When a field means nothing, in words."""
    assert each.when is not None
    if each.name in each.when.names:
        return f"becomes {scalar(each.otherwise)} unless {condition(each.when)}"
    opposite = _opposite(ast.parse(each.when.text, mode="eval").body)
    if opposite is not None and (said := spoken(opposite)):
        return f"ignored when {said}"
    return f"ignored unless {condition(each.when)}"


_OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.NotEq: ast.Eq, ast.NotIn: ast.In}


def _opposite(node: ast.expr) -> ast.expr | None:
    """The opposite of a negation, which reads better."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPPOSITES:
        return ast.Compare(node.left, [_OPPOSITES[type(node.ops[0])]()], node.comparators)
    return None


def condition(expression: Expression) -> str:
    """An expression in words where it is a plain one, else as it is written."""
    return spoken(ast.parse(expression.text, mode="eval").body) or expression.text


def spoken(node: ast.expr) -> str:
    """A plain condition in words; empty where it is not plain."""
    if isinstance(node, ast.BoolOp):
        inner = [spoken(each) for each in node.values]
        word = " and " if isinstance(node.op, ast.And) else " or "
        return word.join(inner) if all(inner) else ""
    if isinstance(node, ast.Name | ast.Attribute):
        return ast.unparse(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner_text = spoken(node.operand)
        return f"not {inner_text}" if isinstance(node.operand, ast.Name | ast.Attribute) else ""
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        return ""
    left, operator, right = node.left, node.ops[0], node.comparators[0]
    if not isinstance(left, ast.Name | ast.Attribute):
        return ""
    if isinstance(right, ast.List | ast.Tuple) and all(isinstance(e, ast.Constant) for e in right.elts):
        listed = " or ".join(scalar(e.value) for e in right.elts if isinstance(e, ast.Constant))
        word = {ast.In: "is", ast.NotIn: "is not"}.get(type(operator), "")
        return f"{ast.unparse(left)} {word} {listed}" if word else ""
    if isinstance(right, ast.Constant):
        word = {
            ast.Eq: "is", ast.NotEq: "is not", ast.Gt: "is above", ast.Lt: "is below",
            ast.GtE: "is at least", ast.LtE: "is at most",
        }.get(type(operator), "")  # fmt: skip
        return f"{ast.unparse(left)} {word} {scalar(right.value)}" if word else ""
    return ""


def scalar(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(number: float) -> str:
    """`940`, `12.3k`, `1.25M`."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(round(number))


def leaf_words(leaf: Leaf) -> str:
    """A block in a few words, such as `cell conv 3x3`, `linear 128` or `gelu`."""
    if leaf.block.name in ("Activation", "Positions", "Pool", "GlobalPool", "SequencePool", "Aggregate"):
        detail = [str(v) for v in (*leaf.args, *leaf.kwargs.values()) if isinstance(v, str)]
        name = block_name(leaf.block).replace("_", " ")
        return detail[0] if detail and name == "activation" else " ".join([name, *detail[:1]])
    words = [block_name(leaf.block).replace("_", " ")]
    for key, value in leaf.kwargs.items():
        if key.startswith("kernel") and isinstance(value, int):
            words.append(f"{value}{svg.TIMES}{value}" if leaf.given.kind == "image" else f"k{value}")
        elif key in ("heads", "window", "dilation") and isinstance(value, int) and value > 1:
            words.append(f"{value} {key}" if key == "heads" else f"{key} {value}")
    if leaf.block.family in ("linear", "embedding", "graph") and leaf.shape != leaf.given:
        words.append(str(leaf.shape.channels))
    return " ".join(words)


def size(shape: Shape) -> str:
    """A shape in a label: `64x8x8`, `49 x 64` tokens, `128`."""
    if shape.kind == "ids":
        return "1 id" if shape.length == 1 else f"{shape.length} ids"
    dims = svg.TIMES.join(map(str, shape.dims))
    return {"sequence": f"{dims} tokens", "nodes": f"{dims} nodes"}.get(shape.kind, dims)


def wrapper_words(node: Composite) -> str:
    """What a route, or a part on all nodes of a graph, does to what is in it."""
    if node.kind == "on_nodes":
        return f"on all {node.options['nodes']:,} nodes"
    how = node.options["how"]
    if how == "patches":
        return f"patches of {node.options['size']}"
    return "pixels as tokens" if how == "tokens" else "channels and positions exchanged"
