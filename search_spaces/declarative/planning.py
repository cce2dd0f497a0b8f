"""From a genotype to its plan: layouts are followed, shapes are typed, what does not fit is told by place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cambrian.search_spaces.declarative.catalogue import Block, Planned, catalogue
from cambrian.search_spaces.declarative.composition import merged, routed, routed_back
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import KIND, NOTHING, Domain, Options, Record, Repeat, Scalar
from cambrian.search_spaces.declarative.layout import (
    BlockPart,
    FieldPart,
    GraphPart,
    OnNodesPart,
    ParallelPart,
    Part,
    RepeatPart,
    ResidualPart,
    RoutePart,
    SequencePart,
    SwitchPart,
    Value,
)
from cambrian.search_spaces.declarative.layouting import MERGES, ROUTES
from cambrian.search_spaces.declarative.needs import needed_names
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, Sink, composite
from cambrian.search_spaces.declarative.shape import Shape, ShapeError, input_of, nodes, vector
from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.space import Genotype, Signature

MAX_BLOCKS = 2_000
"""A network of more blocks than this is refused: its layout repeats or recurses beyond all use."""
_KEPT = 100_000


def plan(definition: Definition, genotype: Genotype, signature: Signature) -> Composite:
    """The plan of a canonical genotype for inputs and outputs of `signature`.

    Raises:
        ProposalError: ill-typed: a block cannot take what arrives, or the outputs are not what is asked for;
            the message names the gene, the block and its place in the layout.
    """
    planner = _Planner(definition, signature)
    given = input_of(signature)
    children, shape = planner.network(genotype, given)
    if shape != vector(signature.n_outputs):
        raise ProposalError(
            f"the network ends in {shape}, not in {vector(signature.n_outputs)}",
            hint="its layout ends with a head such as Linear: {out: =n_outputs}",
        )
    return composite("", "", "sequential", given, shape, children, {})


class _Planner:
    def __init__(self, definition: Definition, signature: Signature) -> None:
        self.definition, self.signature = definition, signature
        self.memo = definition.cached("planned")
        self.needs = definition.cached("needs")
        if len(self.memo) > _KEPT:
            self.memo.clear()
        self.count = 0
        # where the walk is: set on the way down, put back on the way up
        self.gene = ""
        self.prefix = ""

    def network(self, genotype: Genotype, given: Shape) -> tuple[list[Node], Shape]:
        sink = Sink()
        signature = self.signature
        scope: dict[str, Any] = {
            "n_outputs": signature.n_outputs, "vocabulary": signature.vocabulary, "graph": signature.graph,
        }  # fmt: skip
        shape = self.insert(self.definition.grammar.start, genotype, scope, given, sink)
        return sink.nodes, shape

    def insert(self, domain: Domain, value: Any, scope: dict[str, Any], shape: Shape, sink: Sink) -> Shape:
        """Lay what the genotype `value` of `domain` builds."""
        if isinstance(domain, Scalar):
            assert domain.layout is not None, "the compiler has checked it"
            return self.lay(domain.layout, _VALUE, {}, {**scope, "value": value, "given": shape}, shape, sink)
        if isinstance(domain, Options):
            domain = domain.cases[value[KIND]]
        assert isinstance(domain, Record) and domain.layout is not None, "the compiler has checked it"
        return self.lay(domain.layout, domain, value, {**scope, **value, "given": shape}, shape, sink)

    def lay(
        self, part: Part, record: Record, value: Any, scope: dict[str, Any], shape: Shape, sink: Sink
    ) -> Shape:
        """Lay `part` of the layout of `record`, whose genotype is `value`; returns what leaves it."""
        if type(part) is BlockPart:
            return self.block(part, scope, shape, sink)
        if type(part) is SequencePart and not part.name:
            for each in part.parts:
                shape = self.lay(each, record, value, scope, shape, sink)
            return shape
        if type(part) is FieldPart:
            domain = record.by_name[part.field].domain
            return self.field(part.field, domain, value[part.field], scope, shape, sink)
        scope["input"] = shape
        if type(part) is SwitchPart:
            chosen = _case(part, part.on(scope))
            if chosen is None:
                said = f"{part.on.text} is {part.on(scope)!r}, for which the layout has no case"
                raise self.fault(said, part.where)
            return self.lay(chosen, record, value, scope, shape, sink)
        if type(part) is RepeatPart:
            return self.repeat(part, record, value, scope, shape, sink)
        node = self.composed(part, record, value, scope, shape)
        sink.nodes.append(node._replace(name=sink.name(self.prefix + node.name)))
        return node.shape

    def composed(
        self, part: Part, record: Record, value: Any, scope: dict[str, Any], shape: Shape
    ) -> Composite:
        """`compose`, remembered where few names decide what comes out: cells are laid many times over."""
        names = self.needs.get(part, NOTHING)
        if names is NOTHING:
            names = self.needs[part] = needed_names(part, record)
        if names is None:
            return self.compose(part, record, value, scope, shape)
        key = (part, shape, self.gene, *[scope[name] for name in names])
        try:
            known: tuple[Composite, int] | None = self.memo.get(key)
        except TypeError:  # a list or a record of an outer scope
            return self.compose(part, record, value, scope, shape)
        if known is None:
            before = self.count
            node = self.compose(part, record, value, scope, shape)
            self.memo[key] = (node, self.count - before)
            return node
        self.count += known[1]
        return known[0]

    def field(
        self, name: str, domain: Domain, value: Any, scope: dict[str, Any], shape: Shape, sink: Sink
    ) -> Shape:
        gene, prefix = self.gene, self.prefix
        here = f"{gene}.{name}" if gene else name
        if isinstance(domain, Repeat):
            for i, item in enumerate(value):
                self.gene, self.prefix = f"{here}[{i}]", f"{prefix}{name}{i + 1}_"
                shape = self.insert(domain.item, item, scope, shape, sink)
        else:
            self.gene, self.prefix = here, f"{prefix}{name}_"
            shape = self.insert(domain, value, scope, shape, sink)
        self.gene, self.prefix = gene, prefix
        return shape

    def repeat(
        self, part: RepeatPart, record: Record, value: Any, scope: dict[str, Any], shape: Shape, sink: Sink
    ) -> Shape:
        times = part.times(scope)
        if not isinstance(times, int) or times < 0:
            raise self.fault(f"cannot repeat {part.times.text} = {times!r} times", part.where)
        if times > MAX_BLOCKS:
            raise self.fault(f"cannot repeat {times} times: at most {MAX_BLOCKS} blocks", part.where)
        before = scope.get(part.index)
        for i in range(times):
            scope["input"] = shape
            if part.index:
                scope[part.index] = i
            shape = self.lay(part.body, record, value, scope, shape, sink)
        if part.index:
            scope[part.index] = before
        return shape

    def block(self, part: BlockPart, scope: dict[str, Any], shape: Shape, sink: Sink) -> Shape:
        scope["input"] = shape
        block = part.block
        values = [v(scope) if type(v) is Expression else v for _, v in part.arguments]
        key = (part, shape, *values)
        planned: Planned | None = self.memo.get(key)
        if planned is None:
            given = {name: value for (name, _), value in zip(part.arguments, values, strict=True)}
            planned = self.memo[key] = self.planned(block, shape, given, part.where)
        self.add(block, block_name(block), shape, planned, sink, part.where)
        return planned.shape

    def planned(self, block: Block, shape: Shape, given: dict[str, Any], where: str) -> Planned:
        try:
            return block.planned(shape, given)
        except ShapeError as error:
            raise self.fault(str(error), where) from None

    def add(self, block: Block, role: str, given: Shape, planned: Planned, sink: Sink, where: str) -> None:
        self.count += 1
        if self.count > MAX_BLOCKS:
            raise self.fault(f"the network has more than {MAX_BLOCKS} blocks", where)
        args, kwargs, shape, params, macs = planned
        name = sink.name(self.prefix + role)
        sink.nodes.append(Leaf(name, self.gene, block, given, shape, args, kwargs, params, macs))

    def typed(self, where: str, rule: Callable[..., Shape], *arguments: Any) -> Shape:
        try:
            return rule(*arguments)
        except ShapeError as error:
            raise self.fault(str(error), where) from None

    def fault(self, message: str, where: str) -> ProposalError:
        """What is wrong, with its place in the genotype and, `where`, in the layout."""
        return ProposalError(f"{self.gene + ': ' if self.gene else ''}{message} (at {where})")

    # Compositions: each makes one node, whose children are sequences of their own -------------------------

    def compose(
        self, part: Part, record: Record, value: Any, scope: dict[str, Any], shape: Shape
    ) -> Composite:
        """The node of a composition, under the plain name of its kind."""

        def body(part: Part, name: str, given: Shape) -> Node:
            return self.body(part, name, record, value, scope, given)

        if type(part) is SequencePart:
            inner = body(part, part.name, shape)
            assert isinstance(inner, Composite)
            return inner
        if type(part) is ResidualPart:
            return self.residual(part, body(part.body, "body", shape), shape)
        if type(part) is RoutePart:
            how, size = self.choice(part.how, ROUTES, scope, part.where), self.value(part.size, scope)
            inside = self.typed(part.where, routed, how, size, shape)
            inner = body(part.body, "body", inside)
            out = self.typed(part.where, routed_back, how, size, shape, inside, inner.shape)
            return composite("route", self.gene, "route", shape, out, [inner], {"how": how, "size": size})
        if type(part) is OnNodesPart:
            graph = self.signature.graph
            if graph is None or shape.kind != "ids":
                raise self.fault(f"on_nodes needs a task about the nodes of a graph, not {shape}", part.where)
            inner = body(part.body, "body", nodes(graph.nodes, graph.features))
            if inner.shape.kind != "nodes":
                raise self.fault(f"on_nodes: its body ends in {inner.shape}, not in nodes", part.where)
            options = {"nodes": graph.nodes, "features": graph.features}
            out = vector(inner.shape.channels)
            return composite("nodes", self.gene, "on_nodes", shape, out, [inner], options)
        if type(part) is ParallelPart:
            branches = self.branches(part, record, value, scope, shape)
            merge = self.choice(part.merge, MERGES, scope, part.where)
            out = self.typed(part.where, merged, merge, [branch.shape for branch in branches])
            return composite("parallel", self.gene, "parallel", shape, out, branches, {"merge": merge})
        assert type(part) is GraphPart
        return self.graph(part, record, value, scope, shape)

    def body(
        self, part: Part, name: str, record: Record, value: Any, scope: dict[str, Any], given: Shape
    ) -> Composite:
        sink, prefix = Sink(), self.prefix
        self.prefix = ""
        inner = SequencePart(part.parts) if type(part) is SequencePart else part
        shape = self.lay(inner, record, value, scope, given, sink)
        self.prefix = prefix
        return composite(name, self.gene, "sequential", given, shape, sink.nodes, {})

    def branches(
        self, part: ParallelPart, record: Record, value: Any, scope: dict[str, Any], shape: Shape
    ) -> list[Node]:
        found: list[Node] = []
        for branch in part.branches:
            domain = record.by_name[branch.field].domain if type(branch) is FieldPart else None
            if not isinstance(domain, Repeat) or type(branch) is not FieldPart:
                found.append(self.body(branch, f"branch{len(found) + 1}", record, value, scope, shape))
                continue
            gene, prefix = self.gene, self.prefix
            for i, item in enumerate(value[branch.field]):
                self.gene, self.prefix = f"{gene}.{branch.field}[{i}]".lstrip("."), ""
                sink = Sink()
                out = self.insert(domain.item, item, scope, shape, sink)
                name = f"branch{len(found) + 1}"
                found.append(composite(name, self.gene, "sequential", shape, out, sink.nodes, {}))
            self.gene, self.prefix = gene, prefix
        if not found:
            raise self.fault("a parallel part without branches", part.where)
        return found

    def residual(self, part: ResidualPart, inner: Node, shape: Shape) -> Composite:
        out, shortcut = inner.shape, part.shortcut
        children, options = [inner], {"add": True}
        if out != shape and shortcut == "where-equal":
            options["add"] = False
        elif out != shape:
            if shortcut == "identity":
                raise self.fault(
                    f"a residual part turns {shape} into {out}, which cannot be added", part.where
                )
            extra = Sink()
            block, planned = self.projection(part, shape, out)
            prefix, self.prefix = self.prefix, ""
            self.add(block, "shortcut", shape, planned, extra, part.where)
            self.prefix = prefix
            children.append(extra.nodes[0])
        return composite("residual", self.gene, "residual", shape, out, children, options)

    def projection(self, part: ResidualPart, shape: Shape, out: Shape) -> tuple[Block, Planned]:
        if shape.kind == out.kind == "image":
            stride = round(shape.height / out.height) if out.height else 1
            block, given = catalogue()["ConvNorm"], {"out": out.channels, "kernel": 1, "stride": stride}
        else:
            block, given = catalogue()["Linear"], {"out": out.channels}
        planned = self.planned(block, shape, given, part.where) if shape.kind == out.kind else None
        if planned is None or planned.shape != out:
            said = f"a residual part turns {shape} into {out}, which no projection makes equal"
            raise self.fault(said, part.where)
        return block, planned

    def graph(
        self, part: GraphPart, record: Record, value: Any, scope: dict[str, Any], shape: Shape
    ) -> Composite:
        shapes, numbers = {"input": shape}, {"input": 0}
        children: list[Node] = []
        edges: list[tuple[int, int]] = []
        merge = self.choice(part.merge, MERGES, scope, part.where)
        for number, (name, sources) in enumerate(part.nodes, start=1):
            numbers[name] = number
            arriving = []
            for source, edge in sources:
                child = self.body(edge, f"{source}_{name}", record, value, scope, shapes[source])
                children.append(child)
                arriving.append(child.shape)
                edges.append((numbers[source], number))
            shapes[name] = self.typed(part.where, merged, merge, arriving)
        out = self.typed(part.where, merged, "concat", [shapes[name] for name in part.output])
        options = {
            "edges": tuple(edges), "output": tuple(numbers[name] for name in part.output), "merge": merge,
        }  # fmt: skip
        return composite("graph", self.gene, "graph", shape, out, children, options)

    def choice(
        self, value: Expression | str, allowed: tuple[str, ...], scope: dict[str, Any], where: str
    ) -> str:
        found = value(scope) if isinstance(value, Expression) else value
        if found not in allowed:
            raise self.fault(f"{found!r} is not possible here; allowed: {', '.join(allowed)}", where)
        return str(found)

    def value(self, value: Value, scope: dict[str, Any]) -> Any:
        return value(scope) if isinstance(value, Expression) else value


def _case(part: SwitchPart, value: Any) -> Part | None:
    for known, case in part.cases:
        if known == value and isinstance(known, bool) == isinstance(value, bool):
            return case
    return part.otherwise


_VALUE = Record("value")
"""Stands for the record of a value that builds something: it has no fields."""

_NAMES: dict[str, str] = {}


def block_name(block: Block) -> str:
    """What modules of a block are called: `ConvBlock` is `conv`, `GlobalPool` is `global_pool`."""
    name = _NAMES.get(block.name)
    if name is None:
        short = re.sub(r"(?<=.)(Block|Layer)$", "", block.name)
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", short).lower()
        _NAMES[block.name] = name
    return name
