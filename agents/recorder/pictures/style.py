"""One look for all pictures: colours that colour-blind readers can tell apart, shapes beside colours, units.

The colours of arms are those of Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

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

from cambrian.agents.recorder.wording import is_ratio, show_count

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


def score_axis(axes: Axes, metric: str, *, horizontal: bool = False) -> None:
    """Ticks of the score as people write it."""
    axis = axes.xaxis if horizontal else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    if is_ratio(metric):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


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


def robust_floor(worths: Sequence[float]) -> float | None:
    """Where to cut an axis of scores, so that a few that learned nothing do not flatten all the others.

    None when nothing needs to be cut. The cut lies a little below the lower quarter's reach (three
    interquartile ranges), as in a box plot, but further out.
    """
    ordered = sorted(worths)
    if len(ordered) < 8:
        return None
    q1, q3 = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    floor = q1 - 1.5 * max(q3 - q1, 1e-9)
    return floor if ordered[0] < floor - 0.15 * (ordered[-1] - floor) else None


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
        figure.savefig(path, dpi=144, metadata=metadata)
        paths.append(path)
    return paths


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of the plot why there is nothing to see."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=SOFT, fontsize=12)
