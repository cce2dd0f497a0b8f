"""The lineage tree: who descends from whom, generation by generation, and the champion's line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.forest import Layout, lay_out
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.wording import show_score

MAX_DRAWN = 400
"""Of more candidates the best and their ancestors are drawn."""
_FEW = 30
"""Up to so many candidates each one is labelled."""
_STRIP_HEAD_INCH = 0.34

_Places = Mapping[str, tuple[float, float]]


def lineage(scene: Scene) -> Figure:
    """The family tree of the scored candidates."""
    drawn = choose(scene)
    if not drawn:
        figure, axes = style.new_figure(9.4, 4.0)
        style.empty(axes, "no candidate has a score yet")
        return figure
    few = len(drawn) <= _FEW
    rows = lay_out(scene, drawn, gap=2.0).rows
    pitch = 0.30 if few else 0.19 if rows <= 40 else 0.14 if rows <= 90 else 0.11
    layout = lay_out(scene, drawn, gap=1.0 + 0.32 / pitch)
    width = min(17.0, max(9.4 if rows <= 90 else 12.0, 2.2 + 0.42 * layout.generations))
    strip_places, strip_rows = _fill_strip(layout.single, int((width - 2.2) / (0.95 if few else 0.24)))
    below = _STRIP_HEAD_INCH + pitch * strip_rows if layout.single else 0.0
    above = min(14.0, max(1.7, pitch * layout.rows)) if layout.places else 0.0
    figure, axes = style.new_figure(width, 1.7 + above + below)
    scale = style.ScoreScale([c.score or 0.0 for c in drawn], scene.run.metric, scene.run.maximize)
    family = scene.ancestry(scene.best) if scene.best is not None else set()
    size = 62.0 if few else 34.0 if pitch > 0.15 else 20.0
    parts: list[tuple[Axes, _Places]] = [(axes, layout.places or strip_places)]
    if layout.places and layout.single:
        grid = figure.add_gridspec(2, 1, height_ratios=(above, below))
        axes.set_subplotspec(grid[0])
        parts.append((figure.add_subplot(grid[1]), strip_places))
    if layout.places:
        _edges(axes, layout, family)
        _dress_tree(axes, layout)
    if layout.single:
        _dress_strip(parts[-1][0], strip_places, strip_rows)
    for part, places in parts:
        group = [c for c in drawn if c.id in places]
        _nodes(part, scene, scale, group, places, layout.spine, family, size)
        _labels(part, scene, group, places, layout.spine, width, few)
    _keys(figure, [part for part, _ in parts], scene, scale)
    n = f"{len(drawn)} scored candidates"
    if len(drawn) < len(scene.scored):
        n = f"the best {len(drawn)} of {len(scene.scored)} scored candidates and their ancestors"
    kin = "; thick: the champion's line; dark: its other ancestors; dashed: second parent"
    style.title(axes, "Lineage", f"{scene.run.run_id}: {n}" + (kin if layout.spine else ""))
    return figure


def _fill_strip(single: Sequence[str], across: int) -> tuple[_Places, int]:
    """Places of those without kin, line by line, and how many lines that makes."""
    across = max(across, 1)
    return {cid: (float(n % across), float(n // across)) for n, cid in enumerate(single)}, math.ceil(
        len(single) / across
    )


def choose(scene: Scene) -> list[Candidate]:
    """Those to be drawn, by index: all, or the best with their ancestors when there are too many."""
    scored = {c.id: c for c in scene.scored}
    chosen: set[str] = set()
    for candidate in sorted(scene.scored, key=lambda c: (not c.feasible, -scene.worth(c), c.index)):
        line: set[str] = set()
        waiting = [candidate.id]
        while waiting:
            current = waiting.pop()
            if current in scored and current not in chosen and current not in line:
                line.add(current)
                waiting.extend(scored[current].proposal.parents)
        if chosen and len(chosen) + len(line) > MAX_DRAWN:
            break
        chosen |= line
    return sorted((scored[cid] for cid in chosen), key=lambda c: c.index)


def _edges(axes: Axes, layout: Layout, family: set[str]) -> None:
    spine = set(zip(layout.spine, layout.spine[1:], strict=False))
    looks = {
        "first": ("#b4bcc6", 0.9, "solid", 1.0),
        "second": ("#b4bcc6", 0.8, (0, (3, 2)), 1.0),
        "kin": ("#5b6673", 1.1, "solid", 1.5),
        "second kin": ("#5b6673", 1.0, (0, (3, 2)), 1.5),
        "spine": (style.INK, 2.6, "solid", 2.0),
    }
    groups: dict[str, list[list[tuple[float, float]]]] = {kind: [] for kind in looks}
    for child, parents in layout.parents.items():
        for n, parent in enumerate(parents):
            kind = "second" if n else "first"
            if child in family and parent in family:
                kind = "second kin" if n else "kin"
            if (parent, child) in spine:
                kind = "spine"
            groups[kind].append(_curve(layout.places[parent], layout.places[child]))
    for kind, (colour, width, dashes, z) in looks.items():
        axes.add_collection(
            LineCollection(groups[kind], colors=colour, linewidths=width, linestyles=[dashes], zorder=z)
        )


def _curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """From parent to child: away within one generation, then level, so that long edges do not cross rows."""
    (x0, y0), (x1, y1) = start, end
    points = []
    for n in range(11):
        t = n / 10
        points.append((x0 + min(1.0, x1 - x0) * t, y0 + (y1 - y0) * t * t * (3 - 2 * t)))
    return [*points, (x1, y1)]


def _nodes(
    axes: Axes,
    scene: Scene,
    scale: style.ScoreScale,
    drawn: Sequence[Candidate],
    places: _Places,
    spine: Sequence[str],
    family: set[str],
    size: float,
) -> None:
    colours = colormaps[style.SCORES]
    for arm in scene.arms:
        for feasible in (True, False):
            group = [c for c in drawn if c.proposal.arm == arm and c.feasible is feasible]
            if not group:
                continue
            shades = [colours(scale.share(c.score or 0.0)) for c in group]
            rims = [style.INK if c.id in family else style.PAPER for c in group]
            grown = 2.2 if arm == "baseline" else 1.0
            axes.scatter(
                [places[c.id][0] for c in group],
                [places[c.id][1] for c in group],
                s=[size * grown * (1.5 if c.id in spine else 1.0) for c in group],
                marker=style.arm_marker(arm),
                facecolors=shades if feasible else style.PAPER,
                edgecolors=rims if feasible else shades,
                linewidths=[1.1 if c.id in family else 0.5 for c in group] if feasible else 1.2,
                zorder=4,
            )


def _labels(
    axes: Axes,
    scene: Scene,
    drawn: Sequence[Candidate],
    places: _Places,
    spine: Sequence[str],
    width: float,
    few: bool,
) -> None:
    """Label the champion's line as densely as there is room, and in small populations everybody."""
    inches = (width - 1.6) / (max(x for x, _ in places.values()) + 1.6)
    last = float("inf")
    labelled: set[str] = set()
    for cid in reversed([cid for cid in spine if cid in places]):
        x = places[cid][0]
        if (last - x) * inches >= 0.62 or cid == spine[-1]:
            labelled.add(cid)
            last = x
    best = scene.best
    for candidate in drawn:
        champion = best is not None and candidate.id == best.id
        on_line = candidate.id in labelled
        if not (few or on_line or champion):
            continue
        score = show_score(scene.run.metric, candidate.score)
        above = on_line and not champion
        axes.annotate(
            f"{candidate.id}\n{score}" if on_line or champion else candidate.id,
            xy=places[candidate.id],
            xytext=(0, 7) if above else (10 if champion else 7, 0),
            textcoords="offset points",
            ha="center" if above else "left",
            va="bottom" if above else "center",
            fontsize=9.5 if champion else 7.5 if on_line else 7,
            fontweight="bold" if champion else "normal",
            color=style.INK if on_line or champion else style.SOFT,
            linespacing=1.05,
            zorder=3,  # under the nodes: a label hides none
            bbox={"boxstyle": "round,pad=0.05", "facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.8},
        )


def _dress_tree(axes: Axes, layout: Layout) -> None:
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    reach = max(x for x, _ in layout.places.values())
    axes.set_xlim(-0.5, reach + max(0.8, 0.06 * reach))
    axes.set_ylim(layout.rows - 0.3, -1.0)
    axes.set_xlabel("generation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _dress_strip(axes: Axes, places: _Places, rows: int) -> None:
    """Where those without kin stand means nothing: no axis."""
    axes.set_axis_off()
    axes.set_xlim(-0.5, max(x for x, _ in places.values()) + 1.0)
    axes.set_ylim(rows - 0.4, -1.3)
    axes.text(
        *(0.0, 1.0, f"{len(places)} without parents or children"),
        transform=axes.transAxes,
        fontsize=8.5,
        color=style.SOFT,
        va="top",
    )


def _keys(figure: Figure, parts: Sequence[Axes], scene: Scene, scale: style.ScoreScale) -> None:
    """The scale of colours and the arms."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), colormaps[style.SCORES]),
        ax=list(parts),
        shrink=min(1.0, 3.2 / figure.get_figheight()),
        aspect=22,
        pad=0.01,
        anchor=(0.0, 1.0),
    )
    ticks = [score for score in scale.ticks() if scale.shows(score)]
    bar.set_ticks([scale.share(score) for score in ticks], labels=[scale.text(score) for score in ticks])
    bar.outline.set_visible(False)
    bar.set_label(scene.run.metric)
    handles = style.arm_handles(scene.arms)
    for handle in handles:
        handle.set_markerfacecolor(style.SOFT)
    style.legend(figure, handles)
