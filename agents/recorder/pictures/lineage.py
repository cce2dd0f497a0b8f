"""The lineage tree: who descends from whom, generation by generation, and the champion's line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.recorder.wording import is_ratio, show_score

MAX_DRAWN = 400
"""Of more candidates the best and their ancestors are drawn."""


@dataclass(frozen=True)
class Layout:
    """Places of candidates: `x` is the generation, `y` a row; single ones lie in a block under the trees."""

    places: Mapping[str, tuple[float, float]]
    parents: Mapping[str, tuple[str, ...]]
    rows: float
    block_top: float
    generations: int


def lineage(scene: Scene) -> Figure:
    """The family tree of the scored candidates."""
    drawn, left_out = _choose(scene)
    if not drawn:
        figure, axes = style.new_figure(9.4, 4.0)
        style.empty(axes, "no candidate has a score yet")
        return figure
    layout = lay_out(drawn)
    width = min(16.0, max(9.4, 3.0 + 0.62 * layout.generations))
    height = min(15.0, max(4.2, 1.9 + 0.17 * layout.rows if layout.rows < 40 else 4.0 + 0.115 * layout.rows))
    figure, axes = style.new_figure(width, height)
    family = scene.ancestry(scene.best) if scene.best is not None else set()
    size = 62.0 if layout.rows <= 25 else 36.0 if layout.rows <= 60 else 20.0
    _edges(axes, layout, family)
    norm = _nodes(axes, scene, drawn, layout, family, size)
    _labels(axes, scene, drawn, layout, family)
    _dress(figure, axes, scene, layout, norm)
    text = f"{scene.run.run_id}: {len(drawn)} scored candidates"
    text += f" (the best of {len(drawn) + left_out})" if left_out else ""
    style.title(axes, "Lineage", text + "; thick: the champion and its ancestors; dashed: second parent")
    return figure


def _choose(scene: Scene) -> tuple[list[Candidate], int]:
    if len(scene.scored) <= MAX_DRAWN:
        return list(scene.scored), 0
    chosen: set[str] = set()
    by_worth = sorted(scene.scored, key=lambda c: (not c.feasible, -scene.worth(c), c.index))
    parents = {c.id: c.proposal.parents for c in scene.candidates}
    for candidate in by_worth:
        waiting, line = [candidate.id], set()
        while waiting:
            current = waiting.pop()
            if current not in chosen and current not in line:
                line.add(current)
                waiting.extend(parents.get(current, ()))
        if len(chosen) + len(line) > MAX_DRAWN and chosen:
            break
        chosen |= line
    drawn = [c for c in scene.scored if c.id in chosen]
    return drawn, len(scene.scored) - len(drawn)


def lay_out(drawn: Sequence[Candidate]) -> Layout:
    """Tidy trees along the first parent: each leaf has a row of its own, each parent sits amid its children.

    A parent always has an earlier index than its child, so one pass in order of index knows every generation.
    """
    by_id = {c.id: c for c in sorted(drawn, key=lambda c: c.index)}
    parents = {
        cid: tuple(p for p in c.proposal.parents if p in by_id and p != cid) for cid, c in by_id.items()
    }
    generation: dict[str, int] = {}
    children: dict[str, list[str]] = {cid: [] for cid in by_id}
    joined: set[str] = set()
    for cid in by_id:
        generation[cid] = 1 + max((generation.get(p, 0) for p in parents[cid]), default=-1)
        if parents[cid]:
            children[parents[cid][0]].append(cid)
            joined.update((cid, *parents[cid]))
    trees = [cid for cid in by_id if not parents[cid] and cid in joined]
    single = [cid for cid in by_id if cid not in joined]
    places: dict[str, tuple[float, float]] = {}
    row = _place_trees(trees, children, generation, places)
    block_top = row + (1.2 if trees else 0.0)
    generations = 1 + max(generation.values(), default=0)
    across = max(1, min(len(single), math.ceil(math.sqrt(8 * len(single)))))
    reach = max(generations - 1, 4) if trees else max(4, generations)
    for n, cid in enumerate(single):
        step = min(0.5, (reach + 0.3) / across)
        places[cid] = ((n % across) * step, block_top + n // across)
    rows = block_top + math.ceil(len(single) / across) if single else row
    return Layout(places, parents, rows, block_top if single else math.inf, generations)


def _place_trees(
    trees: Sequence[str],
    children: Mapping[str, Sequence[str]],
    generation: Mapping[str, int],
    places: dict[str, tuple[float, float]],
) -> float:
    """Place trees from top to bottom, without recursion, for lines may be long; returns the next row."""
    row = 0.0
    for root in trees:
        stack = [(root, False)]
        while stack:
            cid, ready = stack.pop()
            below = children[cid]
            if ready:
                ys = [places[child][1] for child in below]
                places[cid] = (float(generation[cid]), (ys[0] + ys[-1]) / 2)
            elif below:
                stack.append((cid, True))
                stack.extend((child, False) for child in reversed(below))
            else:
                places[cid] = (float(generation[cid]), row)
                row += 1.0
        row += 0.35
    return row


def _edges(axes: Axes, layout: Layout, family: set[str]) -> None:
    groups: dict[str, list[list[tuple[float, float]]]] = {"first": [], "second": [], "family": []}
    for child, parents in layout.parents.items():
        for n, parent in enumerate(parents):
            kind = "family" if child in family and parent in family else "second" if n else "first"
            groups[kind].append(_curve(layout.places[parent], layout.places[child]))
    for kind, colour, width, dashes, z in (
        ("first", "#aab3be", 0.9, "solid", 1),
        ("second", "#aab3be", 0.8, (0, (3, 2)), 1),
        ("family", style.INK, 2.2, "solid", 2),
    ):
        axes.add_collection(
            LineCollection(
                groups[kind], colors=colour, linewidths=width, linestyles=[dashes], zorder=z, capstyle="round"
            )
        )


def _curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """An S from parent to child that leaves and arrives horizontally."""
    (x0, y0), (x1, y1) = start, end
    points = []
    for n in range(13):
        t = n / 12
        ease = t * t * (3 - 2 * t)
        points.append((x0 + (x1 - x0) * t, y0 + (y1 - y0) * ease))
    return points


def _nodes(
    axes: Axes, scene: Scene, drawn: Sequence[Candidate], layout: Layout, family: set[str], size: float
) -> Normalize:
    worths = [scene.worth(c) for c in drawn]
    floor = style.robust_floor(worths)
    low = min(worths) if floor is None else floor
    high = max(worths)
    norm = Normalize(low, high if high > low else low + 1e-6, clip=True)
    colours = colormaps[style.SCORES]
    for arm in scene.arms:
        for feasible in (True, False):
            group = [c for c in drawn if c.proposal.arm == arm and c.feasible is feasible]
            if not group:
                continue
            shades = [colours(norm(scene.worth(c))) for c in group]
            axes.scatter(
                [layout.places[c.id][0] for c in group],
                [layout.places[c.id][1] for c in group],
                s=[size * (1.9 if arm == "baseline" else 1) * (1.5 if c.id in family else 1) for c in group],
                marker=style.arm_marker(arm),
                facecolors=shades if feasible else style.PAPER,
                edgecolors=[style.INK if c.id in family else style.PAPER for c in group]
                if feasible
                else shades,
                linewidths=[1.4 if c.id in family else 0.5 for c in group] if feasible else 1.2,
                zorder=4,
            )
    return norm


def _labels(axes: Axes, scene: Scene, drawn: Sequence[Candidate], layout: Layout, family: set[str]) -> None:
    """Label the champion's line; in small populations everybody."""
    everybody = layout.rows <= 22
    best = scene.best
    for candidate in drawn:
        if not (everybody or candidate.id in family):
            continue
        x, y = layout.places[candidate.id]
        champion = best is not None and candidate.id == best.id
        bold = candidate.id in family
        text = f"{candidate.id}\n{show_score(scene.run.metric, candidate.score)}" if bold else candidate.id
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(0, 8) if not champion else (9, 0),
            textcoords="offset points",
            ha="center" if not champion else "left",
            va="bottom" if not champion else "center",
            fontsize=9.5 if champion else 7.5 if bold else 6.5,
            fontweight="bold" if champion else "normal",
            color=style.INK if bold else style.SOFT,
            linespacing=1.05,
            zorder=6,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.72},
        )


def _dress(figure: Figure, axes: Axes, scene: Scene, layout: Layout, norm: Normalize) -> None:
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    reach = max(x for x, _ in layout.places.values())
    axes.set_xlim(-0.6, reach + 1.0)
    axes.set_ylim(layout.rows - 0.2, -1.6)
    axes.set_xticks(range(layout.generations))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("generation")
    if math.isfinite(layout.block_top):
        n = sum(1 for cid, (_, y) in layout.places.items() if y >= layout.block_top)
        axes.text(
            -0.55,
            layout.block_top - 0.75,
            f"{n} without kin",
            fontsize=8.5,
            color=style.SOFT,
            va="center",
        )
    sign = 1 if scene.run.maximize else -1
    percent = is_ratio(scene.run.metric)
    bar = figure.colorbar(
        ScalarMappable(norm, colormaps[style.SCORES]),
        ax=axes,
        shrink=min(1.0, 4.0 / figure.get_figheight()),
        aspect=26,
        pad=0.01,
        anchor=(0.0, 0.0),
        format=FuncFormatter(lambda v, _: f"{100 * sign * v:.4g} %" if percent else f"{sign * v:.4g}"),
    )
    bar.outline.set_visible(False)
    bar.set_label(scene.run.metric)
    for handle in (handles := style.arm_handles(scene.arms)):
        handle.set_markerfacecolor(style.SOFT)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)
