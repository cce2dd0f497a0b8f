"""A graph of operations drawn large: nodes on one line, edges as arcs that bear their operation."""

from __future__ import annotations

from collections.abc import Mapping

from cambrian.search_spaces.declarative import svg
from cambrian.search_spaces.declarative.figures import SIGNS
from cambrian.search_spaces.declarative.phrases import leaf_words
from cambrian.search_spaces.declarative.plan import Composite, Node, leaves
from cambrian.search_spaces.declarative.repetition import dominant
from cambrian.search_spaces.declarative.svg import Figure

_MERGES = {"sum": "sum", "mean": "mean", "product": "product", "concat": "concatenation"}
_LANE = 34.0
_RADIUS = 13.0


def panel(node: Composite, letter: str, colours: Mapping[str, str], width: float) -> Figure:
    """One graph; the origin is the panel's upper left corner, `down` its height.

    Arcs that would cross lie in lanes above and below the line of nodes, the widest outermost. Operations
    that pass on zeros are dashed.
    """
    edges = list(node.options["edges"])
    names = _names(node)
    out = tuple(node.options["output"])
    joined = len(out) > 1 or out[0] != max(names)
    last = max(names) + 1 if joined else max(names)
    wires = [(source, target, child) for (source, target), child in zip(edges, node.children, strict=True)]
    lanes = _lanes([(a, b) for a, b, _ in wires] + ([(n, last) for n in out] if joined else []))
    above = max((lane for lane in lanes if lane > 0), default=0)
    below = -min((lane for lane in lanes if lane < 0), default=0)
    merge = _MERGES[node.options["merge"]]
    title = f"{letter}: each node is the {merge} of the edges that end in it"
    axis = 44 + _LANE * above + 8
    height = axis + _LANE * below + 30
    step = (width - 120) / max(1, last)
    places = [60 + step * number for number in range(last + 1)]
    drawn = [
        svg.rect(0, 0, width, height, svg.PANEL, stroke=svg.RULE, radius=8),
        svg.text(14, 20, title, size=11, weight=600),
    ]
    labels = []
    for (source, target, child), lane in zip(wires, lanes, strict=False):
        words, colour, silent = _edge(child, colours)
        a, b = places[source], places[target]
        path, top = _arc(a, b, axis, lane)
        drawn.append(
            svg.line(path, lighter_if(colour, silent), 1.2 if silent else 2.2, "3 4" if silent else "")
        )
        drawn.append(_head(b, axis, lane, svg.RULE if silent else colour))
        labels.append(_pill((a + b) / 2, top, words, colour, silent, b - a - 2 * _RADIUS - 14))
    if joined:
        for number, lane in zip(out, lanes[len(wires) :], strict=True):
            path, _ = _arc(places[number], places[last], axis, lane)
            drawn.append(svg.line(path, svg.FLOW, 1.4))
    drawn += labels
    for number, x in enumerate(places):
        name = names.get(number, SIGNS["concat"] if len(out) > 1 else "out")
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{axis:.1f}" r="{_RADIUS:g}" fill="#ffffff" stroke="{svg.INK}" '
            'stroke-width="1.4"/>'
        )
        fitted = min(11.0, 22 / max(1.0, svg.text_width(name, 1)))
        drawn.append(svg.text(x, axis + fitted * 0.35, name, size=fitted, weight=600, anchor="middle"))
    drawn.append(svg.line(f"M18 {axis:.1f}H{places[0] - _RADIUS:.1f}", svg.PALE))
    drawn.append(svg.line(f"M{places[-1] + _RADIUS:.1f} {axis:.1f}H{width - 18:.1f}", svg.PALE))
    return Figure(width, 0, height, "".join(drawn))


def lighter_if(colour: str, pale: bool) -> str:
    """The colour of a rule instead of `colour` for what computes nothing."""
    return svg.FLOW if pale else colour


def _names(node: Composite) -> dict[int, str]:
    """Names of the nodes by number: an edge's module is called source_target."""
    names = {0: "in"}
    for (source, target), child in zip(node.options["edges"], node.children, strict=True):
        before = "input" if source == 0 else names[source]
        names[target] = child.name.removeprefix(f"{before}_")
    return names


def _edge(child: Node, colours: Mapping[str, str]) -> tuple[str, str, bool]:
    """Words, colour, and whether it passes on nothing."""
    blocks = list(leaves(child))
    if any(leaf.block.name == "Zero" for leaf in blocks):
        return "zero", svg.PALE, True
    blocks = [leaf for leaf in blocks if leaf.block.name != "Identity"]
    most = dominant(child)
    if not blocks or most is None:
        return "skip", svg.PALE, False
    words = [leaf_words(leaf) for leaf in blocks]
    shown = " \u00b7 ".join(words) if len(words) <= 2 else f"{leaf_words(most)} +{len(words) - 1}"
    return shown, colours.get(most.block.name, svg.PALE), False


def _lanes(edges: list[tuple[int, int]]) -> list[int]:
    """For each edge 0 (between neighbours), or its lane: positive above the nodes, negative below."""
    found = [0] * len(edges)
    taken: dict[int, list[tuple[int, int]]] = {}
    for i in sorted(range(len(edges)), key=lambda i: (edges[i][1] - edges[i][0], edges[i])):
        a, b = edges[i]
        straight = b - a == 1 and (a, b) not in taken.get(0, [])
        choices = [0] if straight else [sign * lane for lane in range(1, len(edges) + 1) for sign in (1, -1)]
        for lane in choices:
            others = taken.setdefault(lane, [])
            if all(b <= c or a >= d for c, d in others):
                # an arc must also lie outside the shorter ones that it spans
                inner = [k for k, spans in taken.items() if k * lane > 0 and abs(k) > abs(lane)
                         and any(a <= c and d <= b for c, d in spans)]  # fmt: skip
                if not inner:
                    others.append((a, b))
                    found[i] = lane
                    break
    return found


def _arc(a: float, b: float, axis: float, lane: int) -> tuple[str, float]:
    """The path from node to node, and the height of its middle."""
    if lane == 0:
        return f"M{a + _RADIUS:.1f} {axis:.1f}H{b - _RADIUS - 5:.1f}", axis
    side = -1 if lane > 0 else 1
    y = axis + side * (10 + _LANE * abs(lane))
    start, end = axis + side * _RADIUS * 0.8, axis + side * (_RADIUS * 0.8 + 5)
    inset = 5 + 2.5 * abs(lane)
    rise = f"{a + 8:.1f} {y:.1f} {a + 14 + inset:.1f} {y:.1f} {a + 34 + inset:.1f} {y:.1f}"
    fall = f"{b - 14 - inset:.1f} {y:.1f} {b - 8:.1f} {y:.1f} {b - 5:.1f} {end:.1f}"
    return f"M{a + 5:.1f} {start:.1f}C{rise}H{b - 34 - inset:.1f}C{fall}", y


def _head(x: float, axis: float, lane: int, colour: str) -> str:
    if lane == 0:
        return f'<path d="M{x - _RADIUS - 6:.1f} {axis - 4:.1f}l6 4l-6 4z" fill="{colour}"/>'
    side = -1 if lane > 0 else 1
    tip = axis + side * _RADIUS * 0.95
    return f'<path d="M{x - 5:.1f} {tip:.1f}l-3.5 {side * 7:.1f}h7z" fill="{colour}"/>'


def _pill(x: float, y: float, words: str, colour: str, silent: bool, room: float) -> str:
    size = min(11.0, 11.0 * (room - 12) / max(1.0, svg.text_width(words, 11, 600)))
    size = max(6.5, size)
    width = svg.text_width(words, size, 600) + 14
    fill, ink = ("#ffffff", svg.PALE) if silent else (colour, "#ffffff")
    return svg.rect(
        x - width / 2, y - 9, width, 18, fill, stroke=svg.RULE if silent else "#ffffff", radius=9
    ) + svg.text(x, y + size * 0.35, words, size=size, weight=600, colour=ink, anchor="middle")
