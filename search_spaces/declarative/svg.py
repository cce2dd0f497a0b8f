"""Pieces of hand-written SVG: text, lines, solids, and figures that are put beside and into one another."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

INK, PALE, RULE, FLOW, PANEL = "#1f2933", "#66737f", "#d9dee3", "#b4bdc6", "#f6f8fa"
TIMES = "\u00d7"

_FAMILIES = {
    "convolution": ("#2f7fc1", "#2aa3a8", "#e0a12b", "#c8553d", "#5b6fd0", "#7fb2dd", "#1d5c8f"),
    "attention": ("#8a5fb5", "#b884d6", "#613c91", "#a8508f", "#6a63c9"),
    "linear": ("#2a9d6f", "#7cb342", "#1f6f5c", "#9ccc8a", "#4d8b3a"),
    "graph": ("#c8553d", "#e08a5b", "#97382c", "#d9784f"),
    "embedding": ("#44557a", "#6f83ad", "#2f3c58"),
    "pooling": ("#5f6b73", "#88949c", "#434d54"),
    "norm": ("#aab4bf", "#c3cad2", "#919ca8"),
    "activation": ("#f0b429", "#d99a1c", "#f5cd6a"),
    "shape": ("#a1927f", "#bdb1a1"),
    "other": ("#8d99ae", "#adb7c6", "#6f7b8f"),
}


class Figure(NamedTuple):
    """A drawing whose origin is where the data enter it; they leave it at `(width, 0)`.

    Attributes:
        up: how far it reaches above the line from the one to the other.
        down: how far below.
        body: SVG elements.
    """

    width: float
    up: float
    down: float
    body: str

    def at(self, x: float, y: float) -> str:
        """The elements with the origin moved to `(x, y)`."""
        return f'<g transform="translate({x:.1f} {y:.1f})">{self.body}</g>' if self.body else ""

    def within(self, room: float) -> Figure:
        """The same, scaled down where it is wider than `room`."""
        if self.width <= room:
            return self
        share = room / self.width
        body = f'<g transform="scale({share:.3f})">{self.body}</g>'
        return Figure(room, self.up * share, self.down * share, body)


def tint(family: str, index: int) -> str:
    """The colour of the `index`-th block of a family."""
    colours = _FAMILIES[family]
    return colours[index % len(colours)]


def lighter(colour: str, share: float) -> str:
    """`colour` mixed with white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def text(
    x: float, y: float, words: str, *, size: float = 11, weight: int = 400, colour: str = INK,
    anchor: str = "start",
) -> str:  # fmt: skip
    """A line of text whose baseline begins, or is centred, at `(x, y)`."""
    style = f'font-weight="{weight}" ' if weight != 400 else ""
    where = f'text-anchor="{anchor}" ' if anchor != "start" else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.3g}" {style}{where}fill="{colour}">'
        f"{escape(words)}</text>"
    )


def text_width(words: str, size: float = 11, weight: int = 400) -> float:
    """How wide a line of text is at most, roughly: fonts differ, so that wide ones are reckoned with."""
    narrow = sum(sign in "iljtfI.,:;'|!()[] /" for sign in words)
    wide = sum(sign in "mwMW@%" for sign in words)
    return size * (0.61 if weight == 400 else 0.69) * (len(words) - 0.42 * narrow + 0.5 * wide)


def wrapped(words: str, width: float, most: int, size: float = 11, weight: int = 400) -> list[str]:
    """`words` in at most `most` lines of `width`, unless a word is wider; dots end what is cut short."""
    lines: list[str] = []
    for word in words.split():
        if lines and text_width(f"{lines[-1]} {word}", size, weight) <= width:
            lines[-1] += f" {word}"
        elif len(lines) == most:
            lines[-1] += " .."
            break
        else:
            lines.append(word)
    return lines


def rect(
    x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "", radius: float = 0,
    dashes: str = "",
) -> str:  # fmt: skip
    """A rectangle."""
    extra = f' stroke="{stroke}"' if stroke else ""
    extra += f' rx="{radius:g}"' if radius else ""
    extra += f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" '
        f'fill="{fill}"{extra}/>'
    )


def line(path: str, colour: str = FLOW, width: float = 1.4, dashes: str = "") -> str:
    """An open path."""
    extra = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-linecap="round" '
        f'stroke-linejoin="round"{extra}/>'
    )


def dot(x: float, y: float, radius: float = 2.2, colour: str = PALE) -> str:
    """A filled circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>'


def sign(x: float, y: float, mark: str) -> str:
    """A merge: a circle with a sign."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6.5" fill="#ffffff" stroke="{PALE}" stroke-width="1.2"/>'
        + text(x, y + 3.6, mark, size=10.5, weight=600, colour=INK, anchor="middle")
    )


def solid(x: float, height: float, width: float, lean: float, colour: str) -> str:
    """A box in perspective, from `x` to `x + width + lean`, centred on the line of flow."""
    top = -(height - lean) / 2
    bottom = top + height
    faces = (
        (f"M{x:.1f} {top:.1f}l{lean:.1f} {-lean:.1f}h{width:.1f}l{-lean:.1f} {lean:.1f}z", 0.55),
        (
            f"M{x + width:.1f} {top:.1f}l{lean:.1f} {-lean:.1f}v{height:.1f}L{x + width:.1f} {bottom:.1f}z",
            0.3,
        ),
        (f"M{x:.1f} {top:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z", 0.0),
    )
    return "".join(
        f'<path d="{path}" fill="{lighter(colour, pale)}" stroke="#ffffff" stroke-width="0.8" '
        'stroke-linejoin="round"/>'
        for path, pale in faces
    )


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A whole SVG on a white card."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#ffffff"/>'
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="10" fill="none" '
        f'stroke="{RULE}"/>{"".join(parts)}</svg>'
    )
