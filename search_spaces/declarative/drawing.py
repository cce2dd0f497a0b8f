"""The picture of one architecture: what its parts build, drawn to scale, and where its cost lies."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from cambrian.search_spaces.declarative import svg
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.figures import Painter
from cambrian.search_spaces.declarative.grammar import walk
from cambrian.search_spaces.declarative.grouping import Group, groups_of
from cambrian.search_spaces.declarative.labels import summarise
from cambrian.search_spaces.declarative.layout import BlockPart, parts_of
from cambrian.search_spaces.declarative.phrases import count, inputs, size
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.repetition import dominant, graph_key
from cambrian.search_spaces.declarative.shape import Shape
from cambrian.search_spaces.declarative.svg import Figure
from cambrian.search_spaces.declarative.wiring import panel
from cambrian.search_spaces.space import Genotype, Signature

WIDTH, _MARGIN = 800, 24
_ROOM = WIDTH - 2 * _MARGIN
_MOST_PANELS = 6
_SMALL = 125.0
_SLOTS = (42.0, 36.0, 31.0, 27.0, 23.0, 20.0)
"""Widths of a block's place, tried in this order."""


def draw(definition: Definition, genotype: Genotype, signature: Signature) -> str:
    """A self-contained SVG, 800 units wide, of a canonical genotype for a task of `signature`.

    Each group stands for one part of the genotype. A map's solid is as high as the map and as wide as the
    logarithm of its channels; tokens and nodes are striped sheets, vectors columns. Graphs of operations are
    drawn once, large, below. The bars tell each group's share of the cost.

    Raises:
        ProposalError: the genotype cannot take inputs of that shape.
    """
    network = plan(definition, genotype, signature)
    colours = _colours(definition, network)
    graphs = _graphs(network)
    letters = {each: letter for each, (_, letter) in graphs.items()}
    groups = groups_of(definition, genotype, network, letters)
    painter = _painter(network, colours, letters)
    title = summarise(definition, genotype)
    sizes = re.sub(r"(?<=\d)x(?=\d)", svg.TIMES, inputs(signature))
    parts = [
        _headline(title),
        svg.text(
            _MARGIN, 54,
            f"{count(network.params)} parameters, {count(network.macs)} multiply-accumulates for "
            f"{sizes}",
            colour=svg.PALE,
        ),
    ]  # fmt: skip
    y = 74.0
    for row in _rows(groups, painter, colours):
        parts.append(row.at(0, y))
        y += row.down + 12
    for node, letter in list(graphs.values())[:_MOST_PANELS]:
        figure = panel(node, letter, colours, _ROOM)
        parts.append(figure.at(_MARGIN, y))
        y += figure.down + 12
    y += 4
    for name, shares in (
        ("parameters", [group.params for group in groups]),
        ("multiply-accumulates", [group.macs for group in groups]),
    ):
        parts.append(_bar(name, shares, [_colour(group, colours) for group in groups], y))
        y += 22
    legend = _legend(network, colours)
    parts.append(legend.at(0, y + 6))
    return svg.document(WIDTH, math.ceil(y + 6 + legend.down + 10), title, parts)


def sheet(titles_and_svgs: Sequence[tuple[str, str]], columns: int = 2) -> str:
    """One SVG with many drawings under their titles, in the order given.

    A row is as high as its tallest drawing. A title that ends in the drawing's own one stands in its place.

    Args:
        titles_and_svgs: drawings as `draw` makes them.
        columns: drawings beside one another, each 800 units wide before the sheet is scaled.
    """
    gap, heading = 24, 34
    sizes = [re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', each) for _, each in titles_and_svgs]
    parts: list[str] = []
    y = float(gap)
    for start in range(0, len(titles_and_svgs), columns):
        tallest = 0.0
        for column, (title, drawing) in enumerate(titles_and_svgs[start : start + columns]):
            found = sizes[start + column]
            if found is None:
                raise ValueError(f"{title}: not a drawing with a view box")
            width, height = float(found[1]), float(found[2])
            scaled = height * WIDTH / width
            x = gap + column * (WIDTH + gap)
            drawing, retitled = _retitled(drawing, title)
            above = 0 if retitled else heading
            if not retitled:
                fitted = min(18.0, 18.0 * WIDTH / max(1.0, svg.text_width(title, 18, 600)))
                parts.append(svg.text(x, y + 20, title, size=fitted, weight=600))
            opening = f'<svg x="{x}" y="{y + above:.1f}" width="{WIDTH}" height="{scaled:.1f}" '
            inner = re.sub(r'^<svg ([^>]*?)viewBox="([^"]*)" width="[^"]*" height="[^"]*"',
                           rf'{opening}\1viewBox="\2"', drawing)  # fmt: skip
            parts.append(inner)
            tallest = max(tallest, above + scaled)
        y += tallest + gap
    width = gap + columns * (WIDTH + gap)
    return svg.document(width, math.ceil(y), f"{len(titles_and_svgs)} drawings", parts)


def _retitled(drawing: str, title: str) -> tuple[str, bool]:
    """`drawing` with `title` in place of its own one, and whether that could be done."""
    own = re.search(r"<title>(.*?)</title>", drawing)
    bold = r'<text x="[^"]*" y="[^"]*" font-size="[^"]*" font-weight="600" [^>]*>(.*?)</text>'
    shown = re.search(bold, drawing)
    if own is None or shown is None or own[1] != shown[1] or not escape(title).endswith(own[1]):
        return drawing, False
    return drawing[: shown.start()] + _headline(title) + drawing[shown.end() :], True


def _headline(title: str) -> str:
    """The title of a drawing, in its upper left corner."""
    fitted = min(15.0, 15.0 * _ROOM / max(1.0, svg.text_width(title, 15, 600)))
    return svg.text(_MARGIN, 34, title, size=fitted, weight=600)


def _graphs(network: Node) -> dict[object, tuple[Composite, str]]:
    """The different graphs with the letters that they go by."""
    found: dict[object, Composite] = {}
    todo: list[Node] = [network]
    while todo:
        node = todo.pop(0)
        if isinstance(node, Composite):
            if node.kind == "graph":
                found.setdefault(graph_key(node), node)
            else:
                todo = [*node.children, *todo]
    return {each: (node, chr(ord("A") + i % 26)) for i, (each, node) in enumerate(found.items())}


def _colours(definition: Definition, network: Composite) -> dict[str, str]:
    """A colour for each block that the space's layouts name, the same in all of its drawings."""
    cache = definition.cached("colours")
    if not cache:
        names: dict[str, None] = {}
        for domain in walk(definition.grammar.start):
            for part in parts_of(getattr(domain, "layout", None)):
                if isinstance(part, BlockPart):
                    names.setdefault(part.block.name)
        seen: dict[str, int] = {}
        for name, block in definition.blocks.items():
            if name in names:
                cache[name] = svg.tint(block.family, seen.setdefault(block.family, 0))
                seen[block.family] += 1
    colours: dict[str, str] = dict(cache)
    for leaf in leaves(network):
        colours.setdefault(leaf.block.name, svg.tint(leaf.block.family, 0))
    return colours


def _painter(network: Composite, colours: dict[str, str], letters: dict[object, str]) -> Painter:
    shapes = [network.given, *_shapes(network)]
    side = max((max(s.dims[1:]) for s in shapes if s.kind == "image"), default=1)
    length = max((s.length for s in shapes if s.kind != "image"), default=1)
    captions = all(shape.kind in ("vector", "ids") for shape in shapes)
    return Painter(colours, letters, side, length, captions=captions)


def _shapes(node: Node) -> list[Shape]:
    if isinstance(node, Leaf):
        return [node.shape]
    return [node.given, node.shape, *(shape for child in node.children for shape in _shapes(child))]


def _colour(group: Group, colours: dict[str, str]) -> str:
    if not group.nodes:
        return svg.tint("other", 0)
    found = [leaf for leaf in map(dominant, group.nodes) if leaf is not None]
    best = max(found, key=lambda leaf: (leaf.params, leaf.macs), default=None)
    return colours[best.block.name] if best is not None else svg.PALE


# Where it is drawn ----------------------------------------------------------------------------------------


def _rows(groups: list[Group], painter: Painter, colours: dict[str, str]) -> list[Figure]:
    """Groups on as few lines as the smallest solids allow."""
    for slot, room in (*((slot, 104.0) for slot in _SLOTS), (27.0, 76.0), (20.0, 76.0)):
        fitted = replace(painter, slot=slot)
        figures = [_figure(group, fitted, math.inf) for group in groups]
        widths = [_width(group, figure, room) for group, figure in zip(groups, figures, strict=True)]
        if sum(widths) <= _ROOM:
            return [_row(groups, figures, widths, colours)]
    slot = 30.0
    total = sum(widths) * slot / 20
    tallest = 92.0 if total < 3 * _ROOM else 72.0
    fitted = replace(painter, slot=slot, tallest=tallest)
    figures = [_figure(group, fitted, _ROOM - _SMALL) for group in groups]
    widths = [_width(group, figure) for group, figure in zip(groups, figures, strict=True)]
    goal = sum(widths) / math.ceil(sum(widths) / _ROOM)
    rows: list[list[int]] = [[]]
    used = 0.0
    for i, width in enumerate(widths):
        # small ones stay beside what came before them as long as there is room
        if rows[-1] and (used + width > _ROOM or (width > _SMALL and used + width / 2 > goal)):
            rows.append([])
            used = 0.0
        rows[-1].append(i)
        used += width
    return [
        _row([groups[i] for i in row], [figures[i] for i in row], [widths[i] for i in row], colours)
        for row in rows
    ]


def _figure(group: Group, painter: Painter, limit: float) -> Figure:
    if not group.nodes:
        return painter.shape(group.shape, svg.tint("other", 0))
    return painter.sequence(group.nodes, limit)


def _width(group: Group, figure: Figure, room: float = 104.0) -> float:
    """What a group needs at least; `room` is enough for its words, which can be wrapped."""
    words = max([group.heading, *group.lines, size(group.shape)], key=len)
    return max(figure.width + 12, min(room, svg.text_width(words, 11, 600) + 10), 58.0)


def _row(groups: list[Group], figures: list[Figure], widths: list[float], colours: dict[str, str]) -> Figure:
    """One line of groups; the origin is its upper left corner, `down` its height."""
    spare = max(0.0, _ROOM - sum(widths))
    each = min(spare / len(groups), 70.0)
    left = float(_MARGIN) + (spare - each * len(groups)) / 2
    figures = [figure.within(_ROOM - 10) for figure in figures]
    inside = [group.within for group in groups]
    axis = max(figure.up for figure in figures) + (24 if any(inside) else 6)
    base = axis + max(figure.down for figure in figures) + 8
    drawn: list[str] = []
    places: list[tuple[float, float]] = []
    lowest, end = base, -1.0
    for group, figure, needed in zip(groups, figures, widths, strict=True):
        width = min(needed, _ROOM) + each
        start = left + (width - figure.width) / 2
        if end >= 0:
            drawn.append(svg.line(f"M{end:.1f} {axis:.1f}H{start:.1f}"))
        end = start + figure.width
        drawn.append(figure.at(start, axis))
        colour = _colour(group, colours)
        drawn.append(svg.line(f"M{left + 5:.1f} {base:.1f}h{width - 10:.1f}", colour, 2.5))
        y = base + 18
        for words, weight in _label(group, width - 8):
            ink = svg.INK if weight == 600 else svg.PALE
            shown = min(11.0, 11 * (width - 4) / svg.text_width(words, 11, weight))
            drawn.append(svg.text(left + width / 2, y, words, size=shown, weight=weight, colour=ink,
                                  anchor="middle"))  # fmt: skip
            y += 14
        lowest = max(lowest, y)
        places.append((left, left + width))
        left += width
    frames = []
    for within in dict.fromkeys(filter(None, inside)):
        first, last = places[inside.index(within)], places[len(inside) - 1 - inside[::-1].index(within)]
        x, width = first[0] + 2, last[1] - first[0] - 4
        frames.append(svg.rect(x, 0, width, base - 4, svg.PANEL, stroke=svg.FLOW, radius=8, dashes="4 3"))
        frames.append(svg.text(x + 8, 13, within, size=10, colour=svg.PALE))
    return Figure(WIDTH, 0, lowest, "".join(frames + drawn))


def _label(group: Group, width: float) -> list[tuple[str, int]]:
    times = f" {svg.TIMES}{group.times}" if group.times > 1 else ""
    lines = [(words, 600) for words in svg.wrapped(group.heading + times, width, 3, 11, 600)]
    lines += [(words, 400) for each in group.lines for words in svg.wrapped(each, width, 3)]
    lines += [(words, 400) for words in svg.wrapped(size(group.shape), width, 2)]
    if group.nodes:
        lines.append((f"{count(group.params)} params", 400))
    return lines


def _bar(name: str, shares: list[int], colours: list[str], y: float) -> str:
    """A stacked bar of what each group costs; shares above 6 % are written into it."""
    start, room = _MARGIN + 128, _ROOM - 128
    total = sum(shares) or 1
    parts = [svg.text(_MARGIN, y + 11, name, colour=svg.PALE)]
    left = float(start)
    for colour, share in zip(colours, shares, strict=True):
        width = room * share / total
        if width < 0.5:
            continue
        parts.append(svg.rect(left, y, width, 15, colour, stroke="#ffffff"))
        if share > 0.06 * total:
            words = f"{100 * share / total:.0f}%"
            parts.append(
                svg.text(left + width / 2, y + 11, words, size=10, colour="#ffffff", anchor="middle")
            )
        left += width
    return "".join(parts)


def _legend(network: Composite, colours: dict[str, str]) -> Figure:
    """The blocks that occur and their colours."""
    x, y, drawn = float(_MARGIN), 12.0, []
    for name in dict.fromkeys(leaf.block.name for leaf in leaves(network)):
        if name in ("Identity", "Zero"):
            continue
        width = svg.text_width(name, 10) + 30
        if x + width > WIDTH - _MARGIN:
            x, y = float(_MARGIN), y + 16
        drawn += [
            svg.rect(x, y - 8, 9, 9, colours[name], radius=2),
            svg.text(x + 13, y, name, size=10, colour=svg.PALE),
        ]
        x += width
    return Figure(WIDTH, 0, y + 2, "".join(drawn))
