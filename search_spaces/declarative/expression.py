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

MAX_POWER = 64
MAX_BITS = 256
MAX_RANGE = 10_000
MAX_DIVISOR = 1_000_000
MAX_SHIFT = 64
_SHOWN = 120


class ExpressionError(UserError):
    """An expression of a space file is not one, or fails for some genotype."""


def divisor(n: int, most: int) -> int:
    """The largest divisor of `n` that is at most `most`; at least 1."""
    if min(n, most) > MAX_DIVISOR:
        raise ValueError(f"divisor looks up to {MAX_DIVISOR:,}, not {min(n, most):,}")
    return next(k for k in range(max(1, min(n, most)), 0, -1) if n % k == 0)


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent` of sizes that networks have: a tower of powers would never end."""
    if abs(exponent) > MAX_POWER:
        raise ValueError(f"the exponent {_short(exponent)} is above {MAX_POWER}")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise ValueError(f"{_short(base)} ** {exponent} is above 2 ** {MAX_BITS}")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError(f"{base} ** {exponent} is no real number")
    return result


def shifted(number: Any, by: Any) -> Any:
    """`number << by`, as far as `power` goes."""
    if by > MAX_SHIFT:
        raise ValueError(f"a shift by {_short(by)} is above {MAX_SHIFT}")
    return number << by


def repeated(left: Any, right: Any) -> Any:
    """`left * right` where one may be a list or a text."""
    for items, times in ((left, right), (right, left)):
        if (
            isinstance(items, list | tuple | str)
            and isinstance(times, int)
            and len(items) * times > MAX_RANGE
        ):
            raise ValueError(f"more than {MAX_RANGE:,} items")
    return left * right


def bounded_range(*limits: int) -> range:
    """`range` of at most `MAX_RANGE` numbers."""
    found = range(*limits)
    # the length of a huge range does not fit into what len returns
    if found[MAX_RANGE:]:
        raise ValueError(f"a range of more than {MAX_RANGE:,} numbers")
    return found


def _short(number: Any) -> str:
    big = isinstance(number, int) and number.bit_length() > MAX_BITS
    return "a huge number" if big else str(number)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "ceil": math.ceil, "divisor": divisor, "float": float,
    "floor": math.floor, "int": int, "len": len, "log2": math.log2, "max": max, "min": min,
    "range": bounded_range, "round": round, "sqrt": math.sqrt, "str": str, "sum": sum,
}  # fmt: skip

_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "_power": power, "_repeated": repeated, "_shifted": shifted,
}  # fmt: skip
"""What stands for operators whose result may be of any size; names that no expression can use."""

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
        where: its place in the space file, with which failures begin; may be empty.
    """

    __slots__ = ("_call", "names", "text", "where")

    def __init__(self, text: object, where: str = "") -> None:
        self.text, self.where = str(text).strip(), where
        try:
            tree = ast.parse(self.text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExpressionError(
                f"{self.text!r} is not an expression", hint=getattr(error, "msg", str(error))
            ) from None
        ranges = sum(isinstance(node, ast.Name) and node.id == "range" for node in ast.walk(tree.body))
        if ranges > 2:
            raise ExpressionError(f"{self.text!r} counts through {ranges} ranges", hint="at most 2")
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
        self._call = eval(code, {"__builtins__": {}, **FUNCTIONS, **_OPERATORS})  # noqa: S307  only what `_check` lets through

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
            raise self._failure(error, scope) from error

    def _failure(self, error: Exception, scope: Mapping[str, Any]) -> ExpressionError:
        place = f"{self.where}: " if self.where else ""
        said = f"{type(error).__name__} {error}" if isinstance(error, LookupError) else str(error)
        plain = [f"{name} = {scope[name]!r}" for name in self.names if name in scope]
        values = ", ".join(value for value in plain if len(value) <= _SHOWN)
        return ExpressionError(
            f"{place}expression {self.text!r} fails: {said}",
            hint=f"with {values}; an expression must hold for every choice" if values else "",
        )

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
    """Turns `stem.width` into `stem['width']`, as records are dicts, and puts bounds on operators."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name = {ast.Pow: "_power", ast.LShift: "_shifted"}.get(type(node.op))
        if isinstance(node.op, ast.Mult) and not (_is_number(node.left) and _is_number(node.right)):
            name = "_repeated"
        if name is None:
            return node
        call = ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=[node.left, node.right], keywords=[])
        return ast.copy_location(call, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id in _OBJECTS:
            return ast.copy_location(ast.Attribute(value=value, attr=node.attr, ctx=node.ctx), node)
        key = ast.Constant(value=node.attr)
        return ast.copy_location(ast.Subscript(value=value, slice=key, ctx=node.ctx), node)


def _is_number(node: ast.AST) -> bool:
    """Whether it is written neither as a list nor as a text; names pass, so that products stay fast."""
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id not in ("str", "_repeated")
    return not isinstance(node, ast.List | ast.Tuple | ast.ListComp)
