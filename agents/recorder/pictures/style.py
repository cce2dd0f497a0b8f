"""One look for all pictures: colours that colour-blind readers can tell apart, shapes beside colours, units.

The colours of arms are those of Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cambrian.agents.wording import is_ratio, show_count

INK = "#1d2530"
SOFT = "#66707d"
FAINT = "#d9dee5"
PAPER = "#ffffff"
FRONT = "#1d2530"
FORBIDDEN = "#f4e3dd"
SCORES = "viridis"

_ARM_COLOURS = {
    "random": "#8f98a3",
    "baseline": "#1d2530",
    "mutation": "#0072b2",
    "llm": "#d55e00",
    "crossover": "#009e73",
    "predictor": "#cc79a7",
}
_ARM_MARKERS = {
    "random": "o",
    "baseline": "*",
    "mutation": "s",
    "llm": "D",
    "crossover": "^",
    "predictor": "P",
}
_OTHER_COLOURS = ("#e69f00", "#56b4e9", "#7b4fa3", "#b5a500")
_OTHER_MARKERS = ("v", "h", "X", "p")

_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "path",  # a browser without our font shows the same picture
    "svg.hashsalt": "cambrian",  # equal pictures are equal files
    "path.simplify": True,
}
_lock = threading.Lock()


@contextmanager
def our_style() -> Iterator[None]:
    """Matplotlib's settings are global: within this block they are ours, and no other thread draws."""
    with _lock, matplotlib.rc_context(_RC):
        yield


def arm_colour(arm: str) -> str:
    """The same colour for an arm in every picture and every run."""
    return _ARM_COLOURS.get(arm) or _OTHER_COLOURS[sum(map(ord, arm)) % len(_OTHER_COLOURS)]


def arm_marker(arm: str) -> str:
    """The same shape for an arm in every picture and every run."""
    return _ARM_MARKERS.get(arm) or _OTHER_MARKERS[sum(map(ord, arm)) % len(_OTHER_MARKERS)]


def new_figure(width: float = 9.0, height: float = 5.4) -> tuple[Figure, Axes]:
    """A figure of one plot, in inches."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    return figure, figure.add_subplot()


def title(axes: Axes, text: str, below: str) -> None:
    """A title, and a softer line beneath it."""
    axes.set_title(below, loc="left", fontsize=9, color=SOFT, pad=8)
    axes.annotate(
        text,
        xy=(0, 1),
        xytext=(0, 25),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=13,
        fontweight="bold",
        color=INK,
        annotation_clip=False,
    )


class ScoreScale:
    """How scores are laid along an axis: better is further, and far outliers do not flatten the rest.

    A ratio whose best value is 90 % or more is stretched so that halving the error is the same step
    everywhere: linear, 95 % and 98 % would be nearly one point. Scores far below the others are off it.

    Attributes:
        low: the least score on the scale.
        high: the best score.
        cut: scores worse than `low` exist.
    """

    def __init__(self, scores: Sequence[float], metric: str, maximize: bool) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._percent = is_ratio(metric)
        self._stretch = self._percent and maximize and max(scores) >= 0.9
        errors = [1 - score for score in scores if score < 1]
        self._least_error = max(min(errors, default=0.01) / 2, 1e-5)
        places = sorted(self.place(score) for score in scores)
        floor = _robust_floor(places)
        self.cut = floor is not None
        self._bottom = places[0] if floor is None else floor
        self._top = max(places[-1], self._bottom + 1e-6)
        self.low, self.high = self.score(self._bottom), self.score(self._top)

    def place(self, score: float) -> float:
        """Where a score lies on the axis; more is better."""
        if self._stretch:
            return -math.log10(max(1 - score, self._least_error))
        return self._sign * score

    def score(self, place: float) -> float:
        """The score that lies at `place`."""
        return float(1 - 10**-place) if self._stretch else self._sign * place

    def shows(self, score: float) -> bool:
        """Whether the score is on the scale."""
        return self.place(score) >= self._bottom

    def share(self, score: float) -> float:
        """Where a score lies between the least, 0, and the best, 1."""
        return min(1.0, max(0.0, (self.place(score) - self._bottom) / (self._top - self._bottom)))

    def text(self, score: float) -> str:
        """A tick's label."""
        return f"{100 * score:.4g} %" if self._percent else f"{score:.4g}"

    def ticks(self) -> list[float]:
        """Scores worth a tick, at least a twelfth of the axis apart."""
        span = self._top - self._bottom
        low, high = self._bottom - 0.05 * span, self._top + 0.05 * span
        if self._stretch:
            wanted: list[float] = [score for score in _ROUND if low <= self.place(score) <= high]
            if len(wanted) < 4:
                wanted += list(MaxNLocator(6).tick_values(self.score(low), min(self.score(high), 1.0)))
        else:
            wanted = [self._sign * v for v in MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
        chosen: list[float] = []
        for score in wanted:
            place = self.place(score)
            if low <= place <= high and all(abs(place - self.place(c)) >= span / 12 for c in chosen):
                chosen.append(score)
        return sorted(chosen)

    def dress(self, axes: Axes, label: str) -> None:
        """Make it the vertical axis of `axes`, whose data must then be places."""
        span = self._top - self._bottom
        axes.set_ylim(self._bottom - 0.07 * span, self._top + 0.10 * span)
        ticks = self.ticks()
        axes.set_yticks([self.place(score) for score in ticks], [self.text(score) for score in ticks])
        axes.set_ylabel(label)


# The first ones get their place first.
_ROUND = (0.9, 0.99, 0.5, 0.8, 0.95, 0.98, 0.999, 0.7, 0.995, 0.6, 0.97, 0.96, 0.998, 0.4, 0.85, 0.2, 0.0)


def cost_axis(axes: Axes, values: Sequence[float], title_text: str) -> None:
    """The cost axis: logarithmic when values differ by more than a factor of five."""
    positive = [v for v in values if v > 0]
    if positive and max(positive) > 5 * min(positive):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: show_count(value) if abs(value) >= 1000 else f"{value:.3g}")
    )
    axes.set_xlabel(title_text)


def _robust_floor(places: Sequence[float]) -> float | None:
    """Where to cut sorted places, None when nothing lies far below: Tukey's fence, as in a box plot."""
    if len(places) < 8:
        return None
    q1, q3 = places[len(places) // 4], places[(3 * len(places)) // 4]
    floor = q1 - 1.5 * max(q3 - q1, 1e-9)
    return floor if places[0] < floor - 0.15 * (places[-1] - floor) else None


def mark_cut(axes: Axes, xs: Sequence[float], colour: str) -> None:
    """Carets at the lower edge for points that lie below it."""
    if not xs:
        return  # the layout would make room for an empty line
    axes.plot(
        xs,
        [0.012] * len(xs),
        transform=axes.get_xaxis_transform(),
        linestyle="none",
        marker=11,  # a caret that points down, its tip on the place
        markersize=6,
        color=colour,
        clip_on=False,
        zorder=5,
    )


def say_cut(axes: Axes, n: int) -> None:
    """Say how many points lie below the lower edge."""
    if n:
        text = f"▼ {n} further down"
        axes.text(
            *(0.995, 0.03, text),
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            color=SOFT,
            fontsize=8.5,
        )


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend in one row beneath the plot."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=min(len(handles), 8),
        handletextpad=0.4,
        columnspacing=1.4,
        fontsize=9,
    )


def line_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Values at the right end of the lines, moved apart where they would touch."""
    low, high = axes.get_ylim()
    previous = float("-inf")
    for share, text, colour in sorted(((y - low) / (high - low), text, colour) for y, text, colour in ends):
        previous = max(share, previous + 0.045)
        axes.text(
            *(1.01, previous, text),
            transform=axes.transAxes,
            va="center",
            color=colour,
            fontsize=9,
            fontweight="bold",
        )


def arm_handles(arms: Sequence[str], size: float = 6.5) -> list[Line2D]:
    """Legend entries of arms."""
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=arm_marker(arm),
            markersize=size * (1.6 if arm == "baseline" else 1),
            markerfacecolor=arm_colour(arm),
            markeredgecolor=PAPER,
            label=f"{arm} (control)" if arm == "random" else arm,
        )
        for arm in arms
    ]


def save(figure: Figure, stem: Path, *, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `stem.png` (144 dpi) and `stem.svg`; returns the paths."""
    paths = []
    for kind in kinds:
        path = stem.with_suffix(f".{kind}")
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(path, dpi=144, metadata=metadata, bbox_inches="tight", pad_inches=0.15)
        paths.append(path)
    return paths


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of the plot why there is nothing to see."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=SOFT, fontsize=12)
