"""The Pareto plot: score against cost, with the front, the limits and what could not win."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.wording import COST_TITLES, one_line, show_cost, show_score


def pareto(scene: Scene) -> Figure:
    """Score over cost of every scored candidate."""
    figure, axes = style.new_figure(9.4, 5.8)
    shown = [c for c in scene.scored if c.cost is not None]
    if not shown:
        style.empty(axes, "no candidate has a score and a cost yet")
        return figure
    scale = style.ScoreScale([c.score or 0.0 for c in shown], scene.run.metric, scene.run.maximize)
    scale.dress(axes, f"{scene.run.metric} (validation)")
    costs = [c.cost or 0.0 for c in shown]
    style.cost_axis(axes, costs, COST_TITLES.get(scene.run.cost, scene.run.cost))
    _cost_limits(axes, scene, costs)
    _points(axes, scene, scale, shown)
    _front(axes, scene, scale)
    _forbidden(axes, scene)
    _names(axes, scene, scale)
    style.legend(figure, _handles(scene, shown))
    style.title(axes, "Score against cost", _subtitle(scene, shown))
    return figure


def _subtitle(scene: Scene, shown: Sequence[Candidate]) -> str:
    limits = ", ".join(str(constraint) for constraint in scene.constraints)
    text = f"{scene.run.run_id}: {len(shown)} evaluated, {len(scene.front)} on the front"
    return f"{text}; limits: {limits}" if limits else text


def _cost_limits(axes: Axes, scene: Scene, costs: Sequence[float]) -> None:
    """Limits of the cost axis; a constraint is in sight unless it is far away."""
    bounds = [c.bound for c in scene.constraints if c.name == scene.run.cost and c.bound < 4 * max(costs)]
    left, right = min([*costs, *bounds]), max([*costs, *bounds])
    if axes.get_xscale() == "log":
        axes.set_xlim(left / 1.25, right * 1.35)
    else:
        pad = max(0.08 * (right - left), 0.02 * right, 1e-9)
        axes.set_xlim(left - pad, right + 1.5 * pad)


def _points(axes: Axes, scene: Scene, scale: style.ScoreScale, shown: Sequence[Candidate]) -> None:
    cut = 0
    size = 52 if len(shown) <= 80 else 30 if len(shown) <= 250 else 20
    for arm in scene.arms:
        colour = style.arm_colour(arm)
        for feasible in (False, True):
            group = [c for c in shown if c.proposal.arm == arm and c.feasible is feasible]
            inside = [c for c in group if scale.shows(c.score or 0.0)]
            axes.scatter(
                [c.cost or 0.0 for c in inside],
                [scale.place(c.score or 0.0) for c in inside],
                s=size * (3.4 if arm == BASELINE_ARM else 1),
                marker=style.arm_marker(arm),
                facecolors=colour if feasible else "none",
                edgecolors=style.PAPER if feasible else colour,
                linewidths=0.7 if feasible else 1.1,
                alpha=0.92,
                zorder=5 if arm == BASELINE_ARM else 3 if arm == CONTROL_ARM else 4,
            )
            outside = [c.cost or 0.0 for c in group if not scale.shows(c.score or 0.0)]
            style.mark_cut(axes, outside, colour)
            cut += len(outside)
    style.say_cut(axes, cut)


def _front(axes: Axes, scene: Scene, scale: style.ScoreScale) -> None:
    """The edge of what is reached: at each cost, the best score that does not cost more."""
    front = scene.front
    if not front:
        return
    limits = [c.bound for c in scene.constraints if c.name == scene.run.cost and c.op == "<="]
    right = min([axes.get_xlim()[1], *limits])
    xs = [front[0].cost or 0.0, *(c.cost or 0.0 for c in front), max(right, front[-1].cost or 0.0)]
    ys = [scale.place(c.score or 0.0) for c in front]
    bottom = axes.get_ylim()[0]
    axes.plot(
        xs,
        [bottom, *ys, ys[-1]],
        drawstyle="steps-post",
        color=style.FRONT,
        linewidth=1.3,
        alpha=0.75,
        zorder=2,
    )


def _forbidden(axes: Axes, scene: Scene) -> None:
    """Shade what a constraint on the cost axis forbids."""
    left, right = axes.get_xlim()
    for constraint in scene.constraints:
        bound = constraint.bound
        if constraint.name != scene.run.cost or not left < bound < right:
            continue
        edges = (bound, right) if constraint.op == "<=" else (left, bound)
        axes.axvspan(*edges, color=style.FORBIDDEN, zorder=0, linewidth=0)
        axes.axvline(bound, color="#b2543a", linewidth=1.0, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            f"limit {show_cost(scene.run.cost, bound)}",
            xy=(bound, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            color="#8f3d26",
            fontsize=8.5,
        )


def _names(axes: Axes, scene: Scene, scale: style.ScoreScale) -> None:
    """Name the champion and the baselines; a label goes to the side where there is room."""
    best = scene.best
    if best is not None and best.cost is not None and best.score is not None:
        place = scale.place(best.score)
        axes.scatter(
            [best.cost], [place], s=190, facecolors="none", edgecolors=style.INK, linewidths=1.5, zorder=6
        )
        score = show_score(scene.run.metric, best.score)
        text = f"{best.id}  {score}, {show_cost(scene.run.cost, best.cost)}"
        _label(axes, best.cost, place, text, weight="bold", lift=14)
    for candidate in scene.scored:
        if candidate.proposal.arm != BASELINE_ARM or candidate is best or candidate.cost is None:
            continue
        if candidate.score is not None and scale.shows(candidate.score):
            text = one_line(scene.baseline_name(candidate), 28)
            _label(axes, candidate.cost, scale.place(candidate.score), text, weight="normal", lift=-12)


def _label(axes: Axes, x: float, y: float, text: str, *, weight: str, lift: float) -> None:
    across = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    to_left = across > 0.6
    axes.annotate(
        text,
        xy=(x, y),
        xytext=(-7 if to_left else 7, lift),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="center",
        fontsize=9,
        fontweight=weight,
        zorder=8,
        bbox={"boxstyle": "round,pad=0.1", "facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.7},
    )


def _handles(scene: Scene, shown: Sequence[Candidate]) -> list[Line2D]:
    handles = style.arm_handles(scene.arms)
    if scene.front:
        handles.append(Line2D([], [], color=style.FRONT, linewidth=1.3, label="Pareto front"))
    if any(not c.feasible for c in shown):
        ring = Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", label="breaks a limit")
        ring.set_markeredgecolor(style.SOFT)
        handles.append(ring)
    return handles
