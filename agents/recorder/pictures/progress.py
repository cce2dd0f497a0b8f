"""The progress curve: every evaluation in order, and the best so far of the run and of its control arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.wording import show_score

_Dashes = Literal["solid"] | tuple[float, Sequence[float]]


def progress(scene: Scene) -> Figure:
    """Score over the number of evaluations."""
    figure, axes = style.new_figure(9.4, 5.2)
    if not scene.scored:
        style.empty(axes, "no candidate has a score yet")
        return figure
    scale = style.ScoreScale([c.score or 0.0 for c in scene.scored], scene.run.metric, scene.run.maximize)
    scale.dress(axes, f"{scene.run.metric} (validation)")
    axes.set_xlabel("evaluated candidates, in the order in which they ended")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.4, len(scene.scored) + 0.6)
    _points(axes, scene, scale)
    style.legend(figure, style.arm_handles(scene.arms) + _lines(axes, scene, scale))
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


def _points(axes: Axes, scene: Scene, scale: style.ScoreScale) -> None:
    place = {c.id: n for n, c in enumerate(scene.scored, start=1)}
    size = 40 if len(place) <= 80 else 22 if len(place) <= 250 else 13
    cut = 0
    for arm in scene.arms:
        colour = style.arm_colour(arm)
        for feasible in (False, True):
            group = [c for c in scene.scored if c.proposal.arm == arm and c.feasible is feasible]
            inside = [c for c in group if scale.shows(c.score or 0.0)]
            axes.scatter(
                [place[c.id] for c in inside],
                [scale.place(c.score or 0.0) for c in inside],
                s=size * (3.4 if arm == BASELINE_ARM else 1),
                marker=style.arm_marker(arm),
                facecolors=colour if feasible else "none",
                edgecolors=style.PAPER if feasible else colour,
                linewidths=0.6 if feasible else 1.0,
                alpha=0.85,
                zorder=3,
            )
            outside = [place[c.id] for c in group if not scale.shows(c.score or 0.0)]
            style.mark_cut(axes, outside, colour)
            cut += len(outside)
    style.say_cut(axes, cut)


def _lines(axes: Axes, scene: Scene, scale: style.ScoreScale) -> list[Line2D]:
    control = [c for c in scene.scored if c.proposal.arm == CONTROL_ARM]
    if len(control) == len(scene.scored):
        control = []  # nothing else was evaluated: the two lines would be one
    lines: tuple[tuple[Sequence[Candidate], str, _Dashes, str], ...] = (
        (control, style.arm_colour(CONTROL_ARM), (0, (4, 2)), "best of random so far"),
        (scene.scored, style.INK, "solid", "best so far"),
    )
    handles = []
    ends: list[tuple[float, str, str]] = []
    for group, colour, dashes, name in lines:
        steps = scene.best_so_far(group)
        if not steps:
            continue
        last = steps[-1][1].score or 0.0
        xs = [float(n) for n, _ in steps] + [len(scene.scored) + 0.6]
        ys = [scale.place(c.score or 0.0) for _, c in steps]
        axes.plot(
            xs,
            [*ys, ys[-1]],
            drawstyle="steps-post",
            color=colour,
            linestyle=dashes,
            linewidth=1.9,
            zorder=4,
        )
        handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=1.9, label=name))
        ends.append((ys[-1], show_score(scene.run.metric, last), colour))
    style.line_ends(axes, ends)
    return handles[::-1]
