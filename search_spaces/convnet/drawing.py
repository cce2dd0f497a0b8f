"""The picture of one architecture: its maps as solids, group by group, and where its cost lies.

Hand-written SVG, self-contained and 800 units wide. A solid's front is as high as its map and as wide as the
logarithm of its channels.
"""

from __future__ import annotations

import math
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

from cambrian.search_spaces.convnet.program import Layer, compile_program
from cambrian.search_spaces.space import Genotype, Signature

_WIDTH, _MARGIN, _BASE = 800, 24, 214
_TALLEST, _SHORTEST = 116, 9
_COLOURS = {
    "input": "#8d99ae",
    "stem": "#4a5a76",
    "conv": "#2f7fc1",
    "separable": "#2a9d8f",
    "inverted": "#e0a12b",
    "residual": "#c8553d",
    "attention": "#8a5fb5",
    "head": "#5f6b73",
}
_X = "\u00d7"  # the multiplication sign
_INK, _PALE, _RULE = "#1f2933", "#66737f", "#d9dee3"


class _Solid(NamedTuple):
    """One map or vector; `width` is a share of its slot, `halves` marks a map smaller than the one before."""

    height: float
    width: float
    halves: bool


class _Group(NamedTuple):
    """What stands over one label: the input, the stem, one stage or the head."""

    kind: str
    lines: tuple[str, ...]
    solids: tuple[_Solid, ...]
    params: int
    macs: int


def draw(genotype: Genotype, signature: Signature, title: str) -> str:
    """The SVG of a canonical genotype for a task of `signature`.

    Raises:
        ProposalError: the genotype cannot take inputs of that shape.
    """
    layers = compile_program(genotype, signature)
    groups = _groups(genotype, signature, layers)
    params, macs = sum(layer.params for layer in layers), sum(layer.macs for layer in layers)
    name = title.split(" | ")[0]  # its size is that of the reference image, ours follows below
    parts = [
        _text(_MARGIN, 34, name, size=min(15, round(1250 / len(name))), weight=600),
        _text(
            _MARGIN, 54,
            f"{_count(params)} parameters, {_count(macs)} multiply-accumulates for one "
            f"{_size(signature.input_shape)} input, {signature.n_outputs} classes",
            colour=_PALE,
        ),
    ]  # fmt: skip
    left = float(_MARGIN)
    widths = _widths(groups)
    # one slot for all, so that equal channels look equally wide everywhere
    slot = min(42.0, *((width - 8) / len(g.solids) for g, width in zip(groups, widths, strict=True)))
    for group, width in zip(groups, widths, strict=True):
        parts.append(_draw_group(group, left, width, slot))
        left += width
    parts.append(_bar("parameters", [(g.kind, g.params) for g in groups], 340))
    parts.append(_bar("multiply-accumulates", [(g.kind, g.macs) for g in groups], 364))
    height = 392
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" font-family="Helvetica, Arial, sans-serif">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="#ffffff"/>'
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="10" fill="none" '
        f'stroke="{_RULE}"/>'
        f"{''.join(parts)}</svg>"
    )


def _groups(genotype: Genotype, signature: Signature, layers: list[Layer]) -> list[_Group]:
    shape = signature.input_shape
    side = max(shape[1:])
    found = [_Group("input", ("input", _size(shape)), (_solid(shape, shape, side),), 0, 0)]
    before = shape
    for gene, members in groupby(layers, key=lambda layer: layer.gene):
        run = list(members)
        solids = []
        for layer in run:
            if layer.name in ("hidden_act", "dropout"):
                continue
            solids.append(_solid(layer.shape, before, side))
            before = layer.shape
        if gene == "stem":
            kind, lines = "stem", _stem_lines(genotype["stem"])
        elif gene == "head":
            kind, lines = "head", _head_lines(genotype["head"])
        else:
            stage = genotype["stages"][int(gene[len("stages[") : -1])]
            kind, lines = stage["block"], _stage_lines(stage)
        params, macs = sum(layer.params for layer in run), sum(layer.macs for layer in run)
        lines = (*lines, _size(run[-1].shape) if gene != "head" else "", f"{_count(params)} params")
        found.append(_Group(kind, tuple(line for line in lines if line), tuple(solids), params, macs))
    return found


def _solid(shape: tuple[int, ...], before: tuple[int, ...], side: int) -> _Solid:
    """An image becomes a box of its map's height; a vector becomes a thin column of the log of its length."""
    if len(shape) == 1:
        return _Solid(min(_TALLEST, 10 * math.log2(1 + shape[0])), 0.12, False)
    height = _SHORTEST + (_TALLEST - _SHORTEST) * max(shape[1:]) / side
    return _Solid(height, 0.08 + 0.07 * math.log2(1 + shape[0]), shape[1:] != before[1:])


def _stem_lines(stem: dict[str, Any]) -> tuple[str, ...]:
    how = {"none": "", "stride": ", stride 2", "pool": ", pool 2"}[stem["downsample"]]
    return "stem", f"{stem['kernel']}{_X}{stem['kernel']}{how}", stem["activation"]


def _stage_lines(stage: dict[str, Any]) -> tuple[str, ...]:
    times = f" {_X}{stage['depth']}" if stage["depth"] > 1 else ""
    expand = f"expand {stage['expansion']}" if stage["block"] in ("inverted", "attention") else ""
    kernel = "" if stage["block"] == "attention" else f"{stage['kernel']}{_X}{stage['kernel']}"
    gate = f"SE {stage['se']:g}" if stage["se"] else ""
    shape = ", ".join(word for word in (kernel, expand) if word)
    return stage["block"] + times, shape, gate, stage["activation"]


def _head_lines(head: dict[str, Any]) -> tuple[str, ...]:
    return (
        "head",
        head["pool"] + (f", dense {head['hidden']}" if head["hidden"] else ""),
        f"dropout {head['dropout']:g}" if head["dropout"] else "",
    )


def _widths(groups: list[_Group]) -> list[float]:
    """Room for each group: enough for its label, the rest shared by what stands in it."""
    need = [max(6.8 * max(map(len, group.lines)) + 8, 22.0 * len(group.solids)) for group in groups]
    spare = _WIDTH - 2 * _MARGIN - sum(need)
    if spare < 0:
        return [width * (1 + spare / sum(need)) for width in need]
    return [width + spare / len(groups) for width in need]


def _draw_group(group: _Group, left: float, width: float, slot: float) -> str:
    centre = left + width / 2
    start = centre - slot * len(group.solids) / 2
    parts = [
        _box(solid, start + slot * (i + 0.5), slot, _COLOURS[group.kind])
        for i, solid in enumerate(group.solids)
    ]
    parts.append(
        f'<path d="M{left + 5:.1f} {_BASE + 14}h{width - 10:.1f}" stroke="{_COLOURS[group.kind]}" '
        'stroke-width="2.5" stroke-linecap="round"/>'
    )
    size = min(11.0, (width - 2) / (0.62 * max(map(len, group.lines))))
    for index, line in enumerate(group.lines):
        weight, colour = (600, _INK) if index == 0 else (400, _PALE)
        parts.append(
            _text(
                centre,
                _BASE + 32 + 15 * index,
                line,
                size=size,
                weight=weight,
                colour=colour,
                anchor="middle",
            )
        )
    return "".join(parts)


def _box(solid: _Solid, x: float, slot: float, colour: str) -> str:
    """A solid standing around the middle line at `x`; a small triangle marks one that halves the map."""
    width = solid.width * slot
    lean = min(slot - width - 2, 4 + solid.height * 0.06)
    middle = _BASE - _TALLEST / 2 - 4
    left, top = x - (width + lean) / 2, middle - (solid.height - lean) / 2
    bottom, right = top + solid.height, left + width
    faces = (
        (f"M{left:.1f} {top:.1f}l{lean:.1f} {-lean:.1f}h{width:.1f}l{-lean:.1f} {lean:.1f}z", 0.45),
        (f"M{right:.1f} {top:.1f}l{lean:.1f} {-lean:.1f}v{solid.height:.1f}l{-lean:.1f} {lean:.1f}z", 0.7),
        (f"M{left:.1f} {top:.1f}h{width:.1f}v{solid.height:.1f}h{-width:.1f}z", 1.0),
    )
    drawn = "".join(
        f'<path d="{path}" fill="{colour}" fill-opacity="{alpha}" stroke="#ffffff" stroke-width="0.8" '
        'stroke-linejoin="round"/>'
        for path, alpha in faces
    )
    if solid.halves:
        drawn += f'<path d="M{left + width / 2 - 4:.1f} {bottom + 4:.1f}h8l-4 6z" fill="{_INK}"/>'
    return drawn


def _bar(name: str, shares: list[tuple[str, int]], y: int) -> str:
    """A stacked bar of what each group costs; shares above 7 % are written into it."""
    start, room = _MARGIN + 128, _WIDTH - 2 * _MARGIN - 128
    total = sum(share for _, share in shares) or 1
    parts = [_text(_MARGIN, y + 11, name, colour=_PALE)]
    left = float(start)
    for kind, share in shares:
        width = room * share / total
        if width < 0.5:
            continue
        parts.append(
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="15" fill="{_COLOURS[kind]}" '
            'stroke="#ffffff"/>'
        )
        if share > 0.07 * total:
            label = f"{100 * share / total:.0f}%"
            parts.append(_text(left + width / 2, y + 11, label, size=10, colour="#ffffff", anchor="middle"))
        left += width
    return "".join(parts)


def _text(
    x: float, y: float, words: str, *, size: float = 11, weight: int = 400, colour: str = _INK,
    anchor: str = "start",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.3g}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _size(shape: tuple[int, ...]) -> str:
    return _X.join(str(side) for side in shape)


def _count(number: int) -> str:
    """`940`, `12.3k`, `1.25M`."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)
