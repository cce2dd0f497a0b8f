"""Blocks of a space's own `blocks.py`: each module class is a block, measured on the meta device.

Imported only where such a file exists, because it imports torch.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cambrian.search_spaces.declarative.catalogue import REQUIRED, Argument, Block, Planned, catalogue
from cambrian.search_spaces.declarative.shape import AXES, Kind, Shape, ShapeError
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.flop_counting import flop_counter

_GIVEN = ("input_shape", "in_channels")
"""Constructor parameters that the planner fills in."""
_TYPES: Mapping[str, type[int] | type[float] | type[str] | type[bool]] = {
    "int": int, "float": float, "str": str, "bool": bool,
}  # fmt: skip

_IMPORTS = frozenset({
    "import math", "import torch", "from torch import Tensor", "from torch import nn",
    "import torch.nn", "import torch.nn as nn", "from torch.nn import functional",
    *(f"from collections.abc import {name}" for name in ("Callable", "Iterator", "Mapping", "Sequence")),
})  # fmt: skip
"""What exported networks can import; definitions are copied there one by one, without their file's head."""
_ROOTS = frozenset({"torch", "math", "collections"})


def blocks_of(path: Path) -> dict[str, Block]:
    """The blocks that a Python file defines, by name.

    Raises:
        UserError: the file cannot be imported or imports what exported networks cannot, a class takes the
            name of a shipped block, or a parameter has no plain type.
    """
    module = _imported(path)
    found = {}
    for name, cls in vars(module).items():
        if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__ == module.__name__:
            if name.startswith("_"):
                continue
            if name in catalogue():
                raise UserError(f"{path.name}: a shipped block is called {name} too", hint="rename the class")
            found[name] = _block(cls, path)
    return found


def _imported(path: Path) -> ModuleType:
    """The module of `path`, imported once for each content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}") from error
    digest = hashlib.blake2b(content, digest_size=6).hexdigest()
    name = f"cambrian_blocks_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    _check_imports(content, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(
            f"{path.name} cannot be imported: {type(error).__name__}: {error}",
            hint="it may import torch and nothing of its own",
        ) from error
    return module


def _check_imports(content: bytes, path: Path) -> None:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return  # importing tells it better
    head = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else None
        if module == "__future__":
            continue
        for alias in node.names:
            spelled = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
            if module is not None:
                assert isinstance(node, ast.ImportFrom)
                spelled = f"from {'.' * node.level}{module} {spelled}"
            root = (module if module is not None else alias.name).partition(".")[0]
            if root not in _ROOTS:
                hint = (
                    "blocks may import torch, math and collections.abc, so that exported networks stand alone"
                )
            elif id(node) in head and spelled not in _IMPORTS:
                hint = (
                    "exported networks have `import torch`, `from torch import Tensor, nn`, "
                    "`from torch.nn import functional`, `import math`; "
                    "import others inside the method that uses them"
                )
            else:
                continue
            raise UserError(f"{path.name}, line {node.lineno}: `{spelled}` is not possible", hint=hint)


def _block(cls: type[nn.Module], path: Path) -> Block:
    arguments = {}
    parameters = list(inspect.signature(cls).parameters.values())
    for parameter in parameters:
        if parameter.name in _GIVEN:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UserError(
                f"{path.name}: {cls.__name__}: *args and **kwargs have no names", hint="name them"
            )
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        annotation = getattr(parameter.annotation, "__name__", parameter.annotation)
        kind = _TYPES.get(str(annotation)) or (type(default) if default is not REQUIRED else None)
        if kind not in _TYPES.values():
            raise UserError(
                f"{path.name}: {cls.__name__}.{parameter.name} has no plain type",
                hint="annotate it with int, float, str or bool",
            )
        arguments[parameter.name] = Argument(kind=kind, about="", default=default)  # type: ignore[arg-type]
    wanted = tuple(p.name for p in parameters if p.name in _GIVEN)

    @functools.lru_cache(maxsize=4096)
    def measured(shape: Shape, given: tuple[tuple[str, Any], ...]) -> Planned:
        kwargs = dict(given)
        for name in wanted:
            kwargs[name] = shape.dims if name == "input_shape" else shape.channels
        return _measure(cls, shape, kwargs)

    def plan(shape: Shape, given: Mapping[str, Any]) -> Planned:
        return measured(shape, tuple(given.items()))

    about = (inspect.getdoc(cls) or "").partition("\n")[0]
    takes: tuple[Kind, ...] = ("image", "sequence", "vector", "nodes", "ids")
    return Block(cls.__name__, cls.__module__, "other", takes, about, plan, arguments)


def _measure(cls: type[nn.Module], shape: Shape, kwargs: dict[str, Any]) -> Planned:
    """Build a block on the meta device and pass two samples through it."""
    batch = () if shape.kind == "nodes" else (2,)
    dtype = torch.int64 if shape.kind == "ids" else torch.float32
    try:
        with torch.device("meta"), torch.no_grad(), flop_counter() as counter:
            module = cls(**kwargs)
            out = module(torch.empty((*batch, *shape.dims), dtype=dtype))
    except Exception as error:
        cause = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise ShapeError(f"{cls.__name__} cannot take {shape}: {cause}") from error
    if not isinstance(out, Tensor):
        raise ShapeError(f"{cls.__name__} returns a {type(out).__name__}, not a tensor")
    dims = tuple(out.shape[len(batch) :])
    kinds: dict[int, Kind] = {1: "vector", 2: "sequence", 3: "image"}
    kind = shape.kind if shape.kind != "ids" and len(dims) == len(AXES[shape.kind]) else kinds.get(len(dims))
    if kind is None or (batch and out.shape[0] != 2):
        raise ShapeError(
            f"{cls.__name__} turns {shape} into a tensor {tuple(out.shape)}, which is no shape here"
        )
    params = sum(p.numel() for p in module.parameters())
    macs = counter.get_total_flops() // 2 // (2 if batch else 1)
    return Planned((), kwargs, Shape(kind, dims), params, macs)
