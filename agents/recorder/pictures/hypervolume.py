"""The hypervolume curve: how much the front dominates of what lies above the reference point."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cambrian.agents.evaluator.hypervolume import Hypervolume
from cambrian.agents.population.model import CONTROL_ARM
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.wording import show_cost, show_score


def hypervolume(scene: Scene) -> Figure:
    """Hypervolume of score and cost over the number of evaluations, of the run and of its control arm."""
    figure, axes = style.new_figure(9.4, 4.2)
    found = scene.hypervolume
    if found is None:
        style.empty(axes, "no feasible candidate has a score and a cost yet")
        return figure
    control = scene.hypervolume_of(CONTROL_ARM)
    scale = found.share / found.value if found.share is not None and found.value else None
    end = len(scene.evaluations) + 0.6
    handles = []
    ends = []
    colour = style.arm_colour(CONTROL_ARM)
    for line, ink, dashes, name in (
        (control, colour, (0, (4, 2)), "random alone"),
        (found, style.INK, "solid", "the whole run"),
    ):
        if line is None:
            continue
        xs, ys = _steps(line, end, scale)
        (drawn,) = axes.plot(
            xs, ys, drawstyle="steps-post", color=ink, linestyle=dashes, linewidth=1.9, label=name
        )
        handles.append(drawn)
        ends.append((ys[-1], f"{100 * ys[-1]:.1f} %" if scale is not None else f"{ys[-1]:.4g}", ink))
    if scale is not None:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.set_ylabel("hypervolume" + (" (share of the box)" if scale is not None else ""))
    axes.set_xlabel("evaluations, in the order in which they ended")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.4, end)
    axes.set_ylim(0, max((y for y, _, _ in ends), default=0.0) * 1.12 or 1.0)
    style.line_ends(axes, ends)
    style.legend(figure, handles[::-1])
    style.title(axes, "Hypervolume", _subtitle(scene, found))
    return figure


def _steps(line: Hypervolume, end: float, scale: float | None) -> tuple[list[float], list[float]]:
    factor = scale or 1.0
    xs = [0.4, *(float(step) for step, _ in line.curve), end]
    ys = [0.0, *(factor * value for _, value in line.curve), factor * line.value]
    return xs, ys


def _subtitle(scene: Scene, found: Hypervolume) -> str:
    at = found.reference
    corner = f"{show_score(scene.run.metric, at.score)}, {show_cost(scene.run.cost, at.cost)}"
    return f"{scene.run.run_id}: above {corner}: {at.reason}"
