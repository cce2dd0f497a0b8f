"""The expressions of space files: a small part of Python, compiled once and called often.

A space file is written by the user, like a run file, so expressions need not withstand an attacker; they are
kept to a small part of the language so that they stay readable, have no effects and fail in words.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names


class ExpressionError(UserError):
    """An expression of a space file is not one, or fails for some genotype."""


def divisor(n: int, most: int) -> int:
    """The largest divisor of `n` that is at most `most`; at least 1."""
    return next(k for k in range(max(1, min(n, most)), 0, -1) if n % k == 0)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "ceil": math.ceil, "divisor": divisor, "float": float,
    "floor": math.floor, "int": int, "len": len, "log2": math.log2, "max": max, "min": min, "range": range,
    "round": round, "sqrt": math.sqrt, "str": str, "sum": sum,
}  # fmt: skip

_OBJECTS = frozenset({"input", "given", "graph"})
"""Names whose attributes are Python's own; those of all others are keys of a record."""

_ALLOWED = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.Constant, ast.Name, ast.Load,
    ast.Attribute, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.ListComp, ast.GeneratorExp,
    ast.comprehension, ast.Store, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


class Expression:
    """A compiled expression.

    Attributes:
        text: as it was written.
        names: the names that it needs from its scope.
    """

    __slots__ = ("_call", "names", "text")

    def __init__(self, text: object) -> None:
        self.text = str(text).strip()
        try:
            tree = ast.parse(self.text, mode="eval")
        except (SyntaxError, ValueError) as error:
            raise ExpressionError(
                f"{self.text!r} is not an expression", hint=getattr(error, "msg", str(error))
            ) from None
        bound: set[str] = set()
        used: dict[str, None] = {}
        for node in ast.walk(tree.body):
            self._check(node)
            if isinstance(node, ast.Name):
                (bound.add(node.id) if isinstance(node.ctx, ast.Store) else used.setdefault(node.id))
        self.names = tuple(name for name in used if name not in bound and name not in FUNCTIONS)
        # parameters rather than globals: comprehensions see them, and a call costs next to nothing
        lambda_ = ast.Lambda(
            args=ast.arguments(
                posonlyargs=[], args=[ast.arg(arg=n) for n in self.names], kwonlyargs=[], kw_defaults=[],
                defaults=[],
            ),
            body=_Keys().visit(tree.body),
        )  # fmt: skip
        code = compile(ast.fix_missing_locations(ast.Expression(lambda_)), f"<{self.text}>", "eval")
        self._call = eval(code, {"__builtins__": {}, **FUNCTIONS})  # noqa: S307  only what `_check` lets through

    def _check(self, node: ast.AST) -> None:
        plain = isinstance(node, _ALLOWED)
        if isinstance(node, ast.Name | ast.Attribute):
            plain = not (node.id if isinstance(node, ast.Name) else node.attr).startswith("_")
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
            if not plain:
                raise ExpressionError(
                    f"{self.text!r} calls {ast.unparse(node.func)}, which is no function here",
                    hint=near_names(ast.unparse(node.func), list(FUNCTIONS)),
                )
        if not plain:
            raise ExpressionError(
                f"{self.text!r}: {type(node).__name__} is not allowed in an expression",
                hint="LANGUAGE.md lists what is",
            )

    def __call__(self, scope: Mapping[str, Any]) -> Any:
        """The value in `scope`.

        Raises:
            ExpressionError: a name is missing, or the values do not go together.
        """
        try:
            return self._call(*[scope[name] for name in self.names])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ExpressionError(f"expression {self.text!r} fails: {error}") from error

    def check_names(self, known: Iterable[str]) -> None:
        """Refuse names that no scope will have.

        Raises:
            ExpressionError: the first unknown name, with the near ones.
        """
        known = set(known)
        for name in self.names:
            if name not in known:
                raise ExpressionError(
                    f"{self.text!r} uses {name!r}, which is not in scope there",
                    hint=near_names(name, sorted(known)),
                )

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class _Keys(ast.NodeTransformer):
    """Turns `stem.width` into `stem['width']`: records are dicts."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id in _OBJECTS:
            return ast.copy_location(ast.Attribute(value=value, attr=node.attr, ctx=node.ctx), node)
        key = ast.Constant(value=node.attr)
        return ast.copy_location(ast.Subscript(value=value, slice=key, ctx=node.ctx), node)
