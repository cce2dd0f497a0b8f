"""The progress curve: every evaluation in order, and the best so far of the run and of its control arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import BASELINE_ARM, CONTROL_ARM, Scene
from cambrian.agents.recorder.wording import show_score

_Dashes = Literal["solid"] | tuple[float, Sequence[float]]


def progress(scene: Scene) -> Figure:
    """Score over the number of evaluations."""
    figure, axes = style.new_figure(9.4, 5.2)
    if not scene.scored:
        style.empty(axes, "no candidate has a score yet")
        return figure
    axes.set_xlabel("evaluated candidates, in the order in which they ended")
    axes.set_ylabel(f"{scene.run.metric} (validation)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.score_axis(axes, scene.run.metric)
    axes.set_xlim(0.4, len(scene.scored) + 0.6)
    worths = [scene.worth(c) for c in scene.scored]
    floor = style.robust_floor(worths)
    low = min(worths) if floor is None else floor
    span = max(max(worths) - low, 1e-6)
    bottom, top = low - 0.07 * span, max(worths) + 0.08 * span
    axes.set_ylim((bottom, top) if scene.run.maximize else (-bottom, -top))
    _points(axes, scene, bottom)
    handles = style.arm_handles(scene.arms)
    handles += _lines(axes, scene)
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.06, 1.0), borderaxespad=0.3, handletextpad=0.5
    )
    style.title(axes, "Progress", _subtitle(scene))
    return figure


def _subtitle(scene: Scene) -> str:
    best, control = scene.best, scene.best_of(CONTROL_ARM)
    text = f"{scene.run.run_id}: {len(scene.scored)} evaluated"
    if best is not None:
        text += f"; best {show_score(scene.run.metric, best.score)} ({best.id}, {best.proposal.arm})"
    if control is not None and control is not best:
        text += f"; best of random {show_score(scene.run.metric, control.score)}"
    return text


def _points(axes: Axes, scene: Scene, bottom: float) -> None:
    place = {c.id: n for n, c in enumerate(scene.scored, start=1)}
    size = 40 if len(place) <= 80 else 22 if len(place) <= 250 else 12
    cut = 0
    for arm in scene.arms:
        colour = style.arm_colour(arm)
        for feasible in (False, True):
            group = [c for c in scene.scored if c.proposal.arm == arm and c.feasible is feasible]
            inside = [c for c in group if scene.worth(c) >= bottom]
            axes.scatter(
                [place[c.id] for c in inside],
                [c.score or 0.0 for c in inside],
                s=size * (3.4 if arm == BASELINE_ARM else 1),
                marker=style.arm_marker(arm),
                facecolors=colour if feasible else "none",
                edgecolors=style.PAPER if feasible else colour,
                linewidths=0.6 if feasible else 1.0,
                alpha=0.85,
                zorder=3,
            )
            outside = [c for c in group if scene.worth(c) < bottom]
            cut += len(outside)
            axes.plot(
                [place[c.id] for c in outside],
                [0.012] * len(outside),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker=11,
                markersize=5,
                color=colour,
                clip_on=False,
            )
    if cut:
        axes.text(
            0.995,
            0.03,
            f"▼ {cut} further down",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            color=style.SOFT,
            fontsize=8.5,
        )


def _lines(axes: Axes, scene: Scene) -> list[Line2D]:
    handles = []
    control = [c for c in scene.scored if c.proposal.arm == CONTROL_ARM]
    others = [c for c in scene.scored if c.proposal.arm != CONTROL_ARM]
    ends: list[tuple[float, str, str]] = []
    lines: tuple[tuple[list[Candidate], str, _Dashes, str], ...] = (
        (list(scene.scored), style.INK, "solid", "best so far"),
        (control if others else [], style.arm_colour(CONTROL_ARM), (0, (4, 2)), "best of random so far"),
    )
    for group, colour, dashes, name in lines:
        line = _best_line(axes, scene, group, colour, dashes, name)
        if line is not None:
            handles.append(line[0])
            ends.append((line[1], show_score(scene.run.metric, line[1]), colour))
    _ends(axes, ends)
    return handles


def _best_line(
    axes: Axes,
    scene: Scene,
    group: Sequence[Candidate],
    colour: str,
    dashes: _Dashes,
    name: str,
) -> tuple[Line2D, float] | None:
    steps = scene.best_so_far(group)
    if not steps:
        return None
    xs = [float(n) for n, _ in steps] + [len(scene.scored) + 0.6]
    ys = [c.score or 0.0 for _, c in steps]
    ys.append(ys[-1])
    axes.plot(xs, ys, drawstyle="steps-post", color=colour, linestyle=dashes, linewidth=1.9, zorder=4)
    return Line2D([], [], color=colour, linestyle=dashes, linewidth=1.9, label=name), ys[-1]


def _ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Values at the right end of the lines, moved apart when they would touch."""
    low, high = axes.get_ylim()
    gap = 0.045
    places = sorted(((score - low) / (high - low), text, colour) for score, text, colour in ends)
    previous = float("-inf")
    for place, text, colour in places:
        previous = max(place, previous + gap)
        axes.text(
            1.01,
            previous,
            text,
            transform=axes.transAxes,
            va="center",
            color=colour,
            fontsize=9,
            fontweight="bold",
        )
