"""The Pareto plot: score against cost, with the front, the limits and what could not win."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import BASELINE_ARM, Scene
from cambrian.agents.recorder.wording import COST_TITLES, one_line, show_cost, show_score


def pareto(scene: Scene) -> Figure:
    """Score over cost of every scored candidate."""
    figure, axes = style.new_figure(9.4, 5.8)
    shown = [c for c in scene.scored if c.cost is not None]
    if not shown:
        style.empty(axes, "no candidate has a score and a cost yet")
        return figure
    costs = [c.cost for c in shown if c.cost is not None]
    style.cost_axis(axes, costs, COST_TITLES.get(scene.run.cost, scene.run.cost))
    style.score_axis(axes, scene.run.metric)
    axes.set_ylabel(f"{scene.run.metric} (validation)")
    _limits(axes, scene, shown)
    _points(axes, scene, shown)
    _front(axes, scene)
    _forbidden(axes, scene)
    _names(axes, scene)
    _legend(axes, scene, shown)
    style.title(axes, "Score against cost", _subtitle(scene, shown))
    return figure


def _subtitle(scene: Scene, shown: Sequence[Candidate]) -> str:
    limits = ", ".join(str(c) for c in scene.constraints)
    front = len(scene.front)
    return (
        f"{scene.run.run_id}: {len(shown)} evaluated, {front} on the front"
        + (f"; limits: {limits}" if limits else "")
        + "; up and to the left is better" * scene.run.maximize
    )


def _limits(axes: Axes, scene: Scene, shown: Sequence[Candidate]) -> None:
    """Limits of both axes, set by hand: what lies far below is drawn at the lower edge."""
    worths = [scene.worth(c) for c in shown]
    floor = style.robust_floor(worths)
    low = min(worths) if floor is None else floor
    span = max(max(worths) - low, 1e-6)
    bottom, top = low - 0.07 * span, max(worths) + 0.10 * span
    sign = 1 if scene.run.maximize else -1
    axes.set_ylim(sign * bottom, sign * top)
    if not scene.run.maximize:
        axes.invert_yaxis()
        axes.set_ylim(-bottom, -top)
    costs = [c.cost for c in shown if c.cost is not None]
    bounds = [c.bound for c in scene.constraints if c.name == scene.run.cost and c.bound < 4 * max(costs)]
    left, right = min(costs), max([*costs, *bounds])
    if axes.get_xscale() == "log":
        axes.set_xlim(left / 1.25, right * 1.35)
    else:
        pad = max(0.08 * (right - left), 0.02 * right, 1e-9)
        axes.set_xlim(left - pad, right + 1.5 * pad)


def _points(axes: Axes, scene: Scene, shown: Sequence[Candidate]) -> None:
    bottom = min(axes.get_ylim()) if scene.run.maximize else max(axes.get_ylim())
    cut = 0
    size = 52 if len(shown) <= 80 else 30 if len(shown) <= 250 else 18
    for arm in scene.arms:
        for feasible in (False, True):
            group = [c for c in shown if c.proposal.arm == arm and c.feasible is feasible]
            inside = [c for c in group if c.score is not None and _visible(scene, c.score, bottom)]
            colour = style.arm_colour(arm)
            axes.scatter(
                [c.cost or 0.0 for c in inside],
                [c.score or 0.0 for c in inside],
                s=size * (3.4 if arm == BASELINE_ARM else 1),
                marker=style.arm_marker(arm),
                facecolors=colour if feasible else "none",
                edgecolors=style.PAPER if feasible else colour,
                linewidths=0.7 if feasible else 1.1,
                alpha=0.92,
                zorder=4 if arm != "random" else 3,
            )
            outside = [c for c in group if c not in inside]
            cut += len(outside)
            axes.plot(
                [c.cost or 0.0 for c in outside],
                [0.012] * len(outside),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker=11,  # caret down, its base on the point
                markersize=6,
                color=colour,
                clip_on=False,
                zorder=5,
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


def _visible(scene: Scene, score: float, bottom: float) -> bool:
    return score >= bottom if scene.run.maximize else score <= bottom


def _front(axes: Axes, scene: Scene) -> None:
    front = scene.front
    if not front:
        return
    right = axes.get_xlim()[1]
    bottom = axes.get_ylim()[0]
    xs = [front[0].cost or 0.0, *(c.cost or 0.0 for c in front), right]
    ys = [bottom, *(c.score or 0.0 for c in front), front[-1].score or 0.0]
    axes.plot(xs, ys, drawstyle="steps-post", color=style.FRONT, linewidth=1.3, alpha=0.75, zorder=2)


def _forbidden(axes: Axes, scene: Scene) -> None:
    """Shade what a constraint on the cost axis forbids."""
    left, right = axes.get_xlim()
    for constraint in scene.constraints:
        if constraint.name != scene.run.cost:
            continue
        bound = constraint.bound
        if not left < bound < right:
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


def _names(axes: Axes, scene: Scene) -> None:
    """Name the champion and the baselines; each label goes to the side where there is room."""
    best = scene.best
    if best is not None and best.cost is not None and best.score is not None:
        axes.scatter(
            [best.cost],
            [best.score],
            s=190,
            facecolors="none",
            edgecolors=style.INK,
            linewidths=1.5,
            zorder=6,
        )
        score = show_score(scene.run.metric, best.score)
        label = f"{best.id}  {score}, {show_cost(scene.run.cost, best.cost)}"
        _label(axes, best.cost, best.score, label, weight="bold", lift=13)
    for candidate in scene.scored:
        if candidate.proposal.arm != BASELINE_ARM or candidate is best:
            continue
        if candidate.cost is None or candidate.score is None:
            continue
        low, high = sorted(axes.get_ylim())
        if low <= candidate.score <= high:
            name = one_line(scene.baseline_name(candidate), 28)
            _label(axes, candidate.cost, candidate.score, name, weight="normal", lift=-15)


def _label(axes: Axes, x: float, y: float, text: str, *, weight: str, lift: float) -> None:
    across = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    right_side = across > 0.6
    axes.annotate(
        text,
        xy=(x, y),
        xytext=(8 if not right_side else -8, lift),
        textcoords="offset points",
        ha="right" if right_side else "left",
        va="center",
        fontsize=9,
        fontweight=weight,
        zorder=8,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.75},
    )


def _legend(axes: Axes, scene: Scene, shown: Sequence[Candidate]) -> None:
    handles = style.arm_handles(scene.arms)
    if scene.front:
        handles.append(Line2D([], [], color=style.FRONT, linewidth=1.3, label="Pareto front"))
    if any(not c.feasible for c in shown):
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                markerfacecolor="none",
                markeredgecolor=style.SOFT,
                label="breaks a limit",
            )
        )
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.3, handletextpad=0.5
    )
