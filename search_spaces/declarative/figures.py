"""Plans as figures: blocks as solids drawn to scale, compositions as lines, signs and frames around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cambrian.search_spaces.declarative import svg
from cambrian.search_spaces.declarative.phrases import wrapper_words
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, leaves
from cambrian.search_spaces.declarative.repetition import dominant, graph_key, runs
from cambrian.search_spaces.declarative.shape import Shape
from cambrian.search_spaces.declarative.svg import Figure

SIGNS = {"sum": "+", "product": svg.TIMES, "mean": "\u00f8", "concat": "\u2016"}
_SLIM = {"norm", "activation", "shape"}
_GAP = 9.0
_SHORTEST = 9.0


@dataclass(frozen=True)
class Painter:
    """How large things are drawn, and in which colours; one for a picture.

    Attributes:
        colours: of blocks by name.
        letters: by `graph_key`, of graphs that are drawn large elsewhere.
        side: of the largest map, which is drawn `tallest` high.
        length: of the longest sequence.
        slot: width of a block's place.
        captions: write the channels under vectors.
    """

    colours: Mapping[str, str]
    letters: Mapping[object, str]
    side: int
    length: int
    slot: float = 42.0
    tallest: float = 116.0
    captions: bool = False

    # Blocks ----------------------------------------------------------------------------------------------

    def leaf(self, leaf: Leaf) -> Figure:
        """One block, drawn as what leaves it."""
        colour = self.colours.get(leaf.block.name, svg.PALE)
        if leaf.block.name == "Identity":
            return Figure(self.slot * 0.35, 3, 3, svg.line(f"M0 0h{self.slot * 0.35:.1f}"))
        if leaf.block.name == "Zero":
            width = self.slot * 0.5
            return Figure(
                width, 7, 7, svg.rect(2, -6, width - 4, 12, "#ffffff", stroke=svg.PALE, dashes="2 2")
            )
        same = leaf.given == leaf.shape
        if same and (leaf.block.family in _SLIM or leaf.block.name in ("Dropout", "Scale")):
            return self.slim(leaf.shape, colour)
        return self.shape(leaf.shape, colour, leaf.given)

    def slim(self, shape: Shape, colour: str) -> Figure:
        """A block that only rescales what passes: a thin bar."""
        height = 0.8 * self.height(shape)
        width = max(5.0, 0.16 * self.slot)
        bar = svg.rect((width - 3.4) / 2, -height / 2, 3.4, height, colour, radius=1.7)
        return Figure(width, height / 2, height / 2, bar)

    def shape(self, shape: Shape, colour: str, given: Shape | None = None) -> Figure:
        """What leaves a block: a solid for maps, striped for tokens and nodes, a column for a vector."""
        height = self.height(shape)
        if shape.kind == "image":
            return self.map(shape, colour, height, given)
        if shape.kind == "ids":
            bar = svg.rect(0, -height / 2, 9, height, colour, radius=2) + _stripes(9, height, shape.length)
            return Figure(9 + 0.2 * self.slot, height / 2, height / 2, bar)
        wide = max(6.0, (0.1 + 0.075 * math.log2(1 + shape.channels)) * self.slot)
        if shape.kind == "vector":
            wide = max(5.0, min(12.0, 0.26 * self.slot))
        place = max(wide + 3, self.slot * 0.62)
        left = (place - wide) / 2
        body = svg.rect(left, -height / 2, wide, height, colour, radius=2)
        down = height / 2
        if shape.kind != "vector":
            stripes = _stripes(wide, height, shape.length)
            body += f'<g transform="translate({left:.1f} 0)">{stripes}</g>'
            if given is not None and given.kind == shape.kind and shape.length < given.length:
                body += _smaller(left + wide / 2, down + 4)
        elif self.captions:
            body += svg.text(
                place / 2, down + 12, str(shape.channels), size=9, colour=svg.PALE, anchor="middle"
            )
            down += 14
        return Figure(place, height / 2, down, body)

    def map(self, shape: Shape, colour: str, height: float, given: Shape | None) -> Figure:
        """A box in perspective; a triangle marks a map smaller than the one before."""
        width = (0.08 + 0.07 * math.log2(1 + shape.channels)) * self.slot
        lean = max(1.5, min(self.slot - width - 2, 4 + height * 0.06))
        left = max(0.0, (self.slot - width - lean) / 2)
        body = svg.solid(left, height, width, lean, colour)
        if given is not None and given.kind == "image" and shape.dims[1:] != given.dims[1:]:
            body += _smaller(left + width / 2, (height + lean) / 2 + 4)
        return Figure(max(self.slot, width + lean), (height + lean) / 2, (height + lean) / 2 + 10, body)

    def height(self, shape: Shape) -> float:
        """Of a drawn shape."""
        room = self.tallest - _SHORTEST
        if shape.kind == "image":
            return _SHORTEST + room * max(shape.dims[1:]) / self.side
        if shape.kind == "vector":
            return min(self.tallest, (10 if self.tallest > 60 else 6) * math.log2(1 + shape.channels))
        return _SHORTEST + 0.75 * room * math.sqrt(shape.length / self.length)

    # Compositions ----------------------------------------------------------------------------------------

    def node(self, node: Node, limit: float) -> Figure:
        """Any node, wrapped into several lines where it would be wider than `limit`."""
        if isinstance(node, Leaf):
            return self.leaf(node)
        if node.kind == "sequential":
            return self.sequence(node.children, limit)
        if node.kind == "residual":
            return self.residual(node, limit)
        if node.kind == "parallel":
            return self.parallel(node, limit)
        if node.kind == "graph":
            return self.graph(node)
        return self.frame(self.node(node.children[0], limit - 20), wrapper_words(node))

    def sequence(self, nodes: Sequence[Node], limit: float) -> Figure:
        """One after the other; repetitions once, with their number below."""
        if not nodes:
            return Figure(16, 3, 3, svg.line("M0 0h16"))
        items: list[Figure] = []
        spaced: list[bool] = []
        for run in runs(nodes):
            part = nodes[run.start : run.start + run.period]
            figures = [self.node(each, limit) for each in part]
            apart = [isinstance(each, Composite) for each in part]
            if run.times > 1:
                items.append(_times(_beside(figures, apart), run.times))
                spaced.append(True)
            else:
                items += figures
                spaced += apart
        whole = _beside(items, spaced)
        return whole if whole.width <= limit or len(items) == 1 else _lines(items, spaced, limit)

    def residual(self, node: Composite, limit: float) -> Figure:
        """X + f(x): an arc over the body."""
        body = self.node(node.children[0], limit - 30)
        if not node.options.get("add", True):
            return body
        top = body.up + 8
        width = body.width + 30
        drawn = [
            svg.line(f"M0 0H{width:.1f}"),
            svg.line(f"M6 0V{-top + 5:.1f}q0 -5 5 -5H{width - 15:.1f}q5 0 5 5V-7"),
            svg.dot(6, 0),
            body.at(12, 0),
            svg.sign(width - 10, 0, "+"),
        ]
        up = top
        if len(node.children) > 1:
            shortcut = next(leaves(node.children[1]))
            colour = self.colours.get(shortcut.block.name, svg.PALE)
            drawn.append(svg.rect(width / 2 - 9, -top - 3.5, 14, 7, colour, stroke="#ffffff", radius=2))
            up += 4
        return Figure(width, max(up, 7), max(body.down, 7), "".join(drawn))

    def parallel(self, node: Composite, limit: float) -> Figure:
        """Branches below one another between a fork and a sign."""
        n = len(node.children)
        inner = self.smaller({1: 1.0, 2: 0.72, 3: 0.6}.get(n, 0.5))
        branches = [inner.node(child, limit - 52) for child in node.children]
        widest = max(branch.width for branch in branches)
        total = sum(b.up + b.down for b in branches) + 6 * (n - 1)
        y, drawn = -total / 2, []
        for branch in branches:
            y += branch.up
            end = 22 + branch.width
            drawn.append(svg.line(f"M4 0C14 0 10 {y:.1f} 22 {y:.1f}"))
            drawn.append(svg.line(f"M{end:.1f} {y:.1f}H{22 + widest:.1f}C{34 + widest:.1f} {y:.1f} "
                                  f"{30 + widest:.1f} 0 {40 + widest:.1f} 0"))  # fmt: skip
            drawn.append(branch.at(22, y))
            y += branch.down + 6
        drawn += [
            svg.line("M0 0H4"),
            svg.dot(4, 0),
            svg.sign(22 + widest + 20, 0, SIGNS[node.options["merge"]]),
        ]
        return Figure(widest + 52, total / 2, total / 2, "".join(drawn))

    def graph(self, node: Composite) -> Figure:
        """A cell that is drawn large elsewhere: a solid with its letter."""
        costly = dominant(node)
        colour = self.colours.get(costly.block.name, svg.PALE) if costly is not None else svg.PALE
        wide = replace(self, slot=max(30.0, self.slot * 1.15))
        figure = wide.shape(node.shape, colour, node.given)
        letter = self.letters.get(graph_key(node), "")
        x = figure.width / 2 - (3 if node.shape.kind == "image" else 0)
        badge = (
            f'<circle cx="{x:.1f}" cy="0" r="8" fill="#ffffff" stroke="{colour}" stroke-width="1.5"/>'
            + svg.text(x, 3.8, letter, size=10.5, weight=600, anchor="middle")
        )
        return figure._replace(body=figure.body + badge)

    def frame(self, inner: Figure, words: str) -> Figure:
        """A dashed frame with a caption."""
        width = max(inner.width + 16, svg.text_width(words, 9) + 14)
        up, down = inner.up + 18, inner.down + 7
        drawn = [
            svg.rect(2, -up, width - 4, up + down, svg.PANEL, stroke=svg.FLOW, radius=6, dashes="4 3"),
            svg.text(8, -up + 11, words, size=9, colour=svg.PALE),
            svg.line(f"M0 0H{width:.1f}") if inner.width else "",
            inner.at((width - inner.width) / 2, 0),
        ]
        return Figure(width, up, down, "".join(drawn))

    def smaller(self, share: float) -> Painter:
        """For the branches of a parallel part."""
        return replace(
            self, slot=max(15.0, self.slot * max(share, 0.8)), tallest=max(24.0, self.tallest * share)
        )


def _beside(items: Sequence[Figure], spaced: Sequence[bool]) -> Figure:
    """Figures on one line, with the flow drawn behind and between them."""
    x, drawn = 0.0, []
    for i, (figure, apart) in enumerate(zip(items, spaced, strict=True)):
        gap = _GAP if i and (apart or spaced[i - 1]) else 0.0
        drawn.append(svg.line(f"M{x:.1f} 0h{gap + (0 if apart else figure.width):.1f}"))
        x += gap
        drawn.append(figure.at(x, 0))
        x += figure.width
    return Figure(x, max(f.up for f in items), max(f.down for f in items), "".join(drawn))


def _times(inner: Figure, times: int) -> Figure:
    y = inner.down + 5
    bracket = svg.line(f"M2 {y:.1f}v4H{inner.width - 2:.1f}v-4", svg.PALE, 1)
    words = svg.text(inner.width / 2, y + 16, f"{svg.TIMES}{times}", size=11, weight=600, anchor="middle")
    return Figure(inner.width, inner.up, inner.down + 24, inner.body + bracket + words)


def _lines(items: Sequence[Figure], spaced: Sequence[bool], limit: float) -> Figure:
    """Figures on several lines in a frame, read like text; the flow runs from each line's end to the next."""
    room = limit - 34
    rows: list[tuple[list[Figure], list[bool]]] = [([], [])]
    for figure, apart in zip(items, spaced, strict=True):
        used = sum(f.width + _GAP for f in rows[-1][0])
        if rows[-1][0] and used + figure.width > room:
            rows.append(([], []))
        rows[-1][0].append(figure)
        rows[-1][1].append(apart)
    made = [_beside(*row) for row in rows]
    widest = max(row.width for row in made)
    total = sum(row.up + row.down for row in made) + 14 * (len(made) - 1) + 16
    width, y, drawn = widest + 34, -total / 2 + 8, []
    drawn.append(svg.rect(2, -total / 2, width - 4, total, "#ffffff", stroke=svg.RULE, radius=6))
    before = 0.0
    for i, row in enumerate(made):
        axis = y + row.up
        if i:
            end, middle = 17 + made[i - 1].width, y - 7
            path = f"M{end:.1f} {before:.1f}H{width - 9:.1f}V{middle:.1f}H9V{axis:.1f}H17"
            drawn.append(svg.line(path))
        drawn.append(row.at(17, axis))
        before, y = axis, axis + row.down + 14
    first, last = -total / 2 + 8 + made[0].up, before
    drawn.append(svg.line(f"M0 0H5V{first:.1f}H17"))
    drawn.append(svg.line(f"M{17 + made[-1].width:.1f} {last:.1f}H{width - 5:.1f}V0H{width:.1f}"))
    return Figure(width, total / 2, total / 2, "".join(drawn))


def _stripes(width: float, height: float, count: int) -> str:
    """White lines that part a sheet into up to 8 rows."""
    n = min(count, max(1, int(height / 4)), 8)
    path = "".join(f"M0 {height * (i / n - 0.5):.1f}h{width:.1f}" for i in range(1, n))
    return svg.line(path, "#ffffff", 1) if path else ""


def _smaller(x: float, y: float) -> str:
    return f'<path d="M{x - 4:.1f} {y:.1f}h8l-4 6z" fill="{svg.INK}"/>'
